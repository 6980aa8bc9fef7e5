"""A folder of CT slices, or one multi-frame file, as one stack: sorted along the normal, its geometry verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom import Pixels, frame_shape, stored_values, words
from medssml.readers.dicom_numbers import number, number_if_any, numbers, whole
from medssml.readers.errors import Flag, ReadError, declared_bytes
from medssml.readers.geometry import HIGHEST_HU, MAX_SHEAR_DEG, Affine, to_hounsfield
from medssml.readers.series_agreement import Rescale, check_values
from medssml.readers.series_files import EXPORT, Header, slice_headers
from medssml.readers.slice_positions import check_repeats, check_steps
from medssml.readers.stored_bits import Spare, judge_spare, named

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Slice(NamedTuple):
    """One frame of one file. position (3,) LPS mm; orientation (6,); spacing (2,) mm between rows, columns."""

    path: Path
    frame: int
    instance: str
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    thickness: float
    slope: float
    intercept: float
    rescale: Rescale
    padding: int | None = None


class Stack(NamedTuple):
    """Slices in order along the normal. shape (X, Y, Z) = (columns, rows, slices); affine (4, 4) voxel -> RAS mm."""

    path: Path
    slices: tuple[Slice, ...]
    shape: tuple[int, int, int]
    affine: Affine
    notes: tuple[str, ...]


def series_stack(path: Path, series: str | None = None) -> Stack:
    """The slices under `path`, a folder or one file, from their headers alone.

    Args:
        path: what holds one series, besides localizers.
        series: SeriesInstanceUID; of several series, this one alone.

    Raises:
        ReadError: no CT slice, none of `series`, several series or patients, a gap, a duplicated position, varying
            spacing, gantry tilt, slices of several sizes, a truncated slice, values that are no HU by their tags or whose
            rescale contradicts that of the others.
    """
    notes: list[str] = []
    headers = slice_headers(path, series, notes)
    slices = [frame for header in headers for frame in _frames(header)]
    notes += check_values(headers, [item.rescale for item in slices], path)
    slices = _without_copies(slices, notes)
    normal = _check_planes(slices, path)
    order = sorted(slices, key=lambda item: float(item.position @ normal))
    step = _step(order, normal, path, notes)
    _, rows, columns, _ = frame_shape(headers[0].dataset, headers[0].path)
    shape = (columns, rows, len(order))
    declared_bytes(path, shape, 2)
    return Stack(path, tuple(order), shape, _affine(order, step), tuple(notes))


def stack_voxels(stack: Stack) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(X, Y, Z) values of `stack` in HU, int16 where exact, in the axes of `stack.affine`; and what the pixels showed."""
    columns, rows, count = stack.shape
    out: NDArray[Any] = np.empty((count, rows, columns), np.int16)
    loaded: tuple[Path, Pixels] | None = None
    padded = 0
    spare: list[Spare | None] = []
    for index, item in enumerate(stack.slices):
        if loaded is None or loaded[0] != item.path:
            loaded = (item.path, stored_values(item.path))
            spare.append(loaded[1].spare)
        stored, outside = loaded[1].values[item.frame], _outside(item, loaded[1])
        values = to_hounsfield(stored, item.slope, item.intercept)
        if outside is not None:
            padded += int(outside.sum())
            values = to_hounsfield(np.where(outside, -1000, values), 1.0, 0.0)
        if values.dtype != out.dtype and out.dtype == np.int16:
            out = out.astype(np.float32)
        out[index] = values
    notes = [f"{padded:,} voxels of padding set to air"] if padded else []
    notes += filter(None, [judge_spare(spare, len(spare), stack.path)])
    return out.transpose(2, 1, 0), tuple(notes)


def _outside(item: Slice, pixels: Pixels) -> NDArray[np.bool_] | None:
    """(H, W) where a slice holds padding that would be the brightest thing in it, or that its own bits cannot hold."""
    if pixels.outside is not None:
        return pixels.outside[item.frame]
    if item.padding is None or item.padding * item.slope + item.intercept <= HIGHEST_HU:
        return None
    return np.asarray(pixels.values[item.frame] == item.padding)


def _frames(header: Header) -> Iterator[Slice]:
    count = frame_shape(header.dataset, header.path)[0]
    for index in range(count):
        yield _slice(header, index, count)


def _slice(header: Header, index: int, count: int) -> Slice:
    dataset, path = header.dataset, header.path
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    own = per_frame[index] if per_frame is not None and index < len(per_frame) else None

    def group(name: str) -> Any:
        """The dataset that holds the tags of functional group `name`: the frame's, the shared one, or the file."""
        for level in (own, shared):
            found = _first(level.get(name)) if level is not None else None
            if found is not None:
                return found
        return dataset

    position = numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3, path)
    orientation = numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6, path)
    measures = group("PixelMeasuresSequence")
    spacing = numbers(measures, "PixelSpacing", 2, path)
    if position is None or orientation is None or spacing is None:
        missing = "ImagePositionPatient ImageOrientationPatient PixelSpacing".split()
        names = [name for name, found in zip(missing, (position, orientation, spacing), strict=True) if found is None]
        raise ReadError(path, f"has no {' and no '.join(names)}", EXPORT, code="geometry")
    if count > 1 and own is None:
        raise ReadError(path, f"has {count} frames and no position for frame {index + 1}", EXPORT, code="geometry")
    rescale = _rescale(group("PixelValueTransformationSequence"), path)
    slope, intercept = (1.0 if rescale.slope is None else rescale.slope), rescale.intercept or 0.0
    if slope == 0:
        raise ReadError(path, "has RescaleSlope 0", EXPORT)
    thickness = number_if_any(measures, "SpacingBetweenSlices", 0) or number_if_any(measures, "SliceThickness", 0)
    instance = f"{dataset.get('SOPInstanceUID', path)}#{index}"
    padding = _padding(dataset, path)
    return Slice(path, index, instance, position, orientation, spacing, thickness, slope, intercept, rescale, padding)


def _rescale(transform: Any, path: Path) -> Rescale:
    """What the dataset or functional group `transform` says of the values."""
    slope, intercept = (number(transform, f"Rescale{name}", np.nan, path) for name in ("Slope", "Intercept"))
    kind = words(transform, "RescaleType")
    return Rescale(path, None if np.isnan(slope) else slope, None if np.isnan(intercept) else intercept, kind)


def _padding(dataset: FileDataset, path: Path) -> int | None:
    """The stored value outside the field of view, in the sign of the pixels."""
    value = number_if_any(dataset, "PixelPaddingValue", np.nan)
    if not np.isfinite(value):
        return None
    if whole(dataset, "PixelRepresentation", 0, path):
        return int(value) - 65536 if value > 32767 else int(value)
    return int(value) & 0xFFFF


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _without_copies(slices: list[Slice], notes: list[str]) -> list[Slice]:
    """Without files that are there twice: at the same position, with the same pixels and rescale, whatever their UIDs."""
    places: dict[bytes, list[Slice]] = {}
    for item in slices:
        places.setdefault(item.position.tobytes() + item.orientation.tobytes(), []).append(item)
    kept: list[Slice] = []
    same, renamed = 0, []
    for group in places.values():
        first, *others = group
        kept.append(first)
        for other in others:
            if first.path == other.path or not _same_values(first, other):
                return slices  # several phases: none of them is a copy, and to compare all would take long
            same += other.instance == first.instance
            renamed += [other.path] if other.instance != first.instance else []
    if same:
        notes.append(f"{same} copies of slices left out (same SOP instance)")
    if renamed:
        what = f"{len(renamed)} of {len(slices)} slices left out ({named(renamed)})"
        notes.append(Flag(f"{what}: position and pixels are those of another, under another SOP instance", "left_out"))
    return kept


def _same_values(first: Slice, second: Slice) -> bool:
    if (first.slope, first.intercept) != (second.slope, second.intercept):
        return False
    values = [stored_values(item.path).values[item.frame] for item in (first, second)]
    return bool(np.array_equal(*values))


def _check_planes(slices: list[Slice], path: Path) -> NDArray[np.float64]:
    """(3,) unit normal that all slices share."""
    orientations = np.stack([item.orientation for item in slices])
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        other = int((np.abs(orientations - orientations[0]).max(axis=1) > 1e-3).sum())
        reason = f"holds slices of several orientations ({len(slices) - other} and {other})"
        raise ReadError(path, reason, "separate the localizers and reformats from the series", code="mixed")
    spacings = np.stack([item.spacing for item in slices])
    if np.abs(spacings / spacings[0] - 1).max() > 1e-3:
        low, high = spacings.min(), spacings.max()
        raise ReadError(
            path, f"pixel spacing varies from {low:.4g} to {high:.4g} mm within the series", EXPORT, code="geometry"
        )
    if spacings.min() <= 0:
        raise ReadError(path, f"has pixel spacing {spacings.min():g} mm", EXPORT, code="geometry")
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 0.01:
        raise ReadError(
            path, f"row and column directions are not unit and square ({normal.round(3)})", EXPORT, code="geometry"
        )
    return normal / np.linalg.norm(normal)


def _step(order: list[Slice], normal: NDArray[np.float64], path: Path, notes: list[str]) -> NDArray[np.float64]:
    """(3,) LPS mm from a slice to the next, which must be the same all the way and along the normal."""
    if len(order) == 1:
        thickness = order[0].thickness
        if thickness <= 0:
            raise ReadError(path, "is one slice without a thickness", EXPORT, code="geometry")
        notes.append(Flag(f"one slice; its thickness of {thickness:g} mm is taken as the step", "assumed"))
        return normal * thickness
    positions = np.stack([item.position for item in order])
    depths = positions @ normal
    check_repeats(depths, [item.path.name for item in order], path)
    even = check_steps(depths, positions, normal, order[0].thickness, path, notes)
    line = (positions[-1] - positions[0]) / (len(order) - 1)
    tilt = float(np.degrees(np.arccos(np.clip(line @ normal / np.linalg.norm(line), -1, 1))))
    if tilt > MAX_SHEAR_DEG:
        reason = f"gantry tilt of {tilt:.1f} degrees between the slices' normal and their direction"
        raise ReadError(path, reason, "resample the series to straight axes (dcm2niix does it)", code="geometry")
    stray = np.linalg.norm(positions - (positions[0] + np.arange(len(order))[:, None] * line), axis=1)
    if stray.max() > max(0.5 * float(order[0].spacing.min()), float(np.median(np.diff(depths))) * 0.5):
        worst = int(stray.argmax())
        raise ReadError(
            path, f"slice {worst + 1} lies {stray[worst]:.1f} mm off the line of the others", EXPORT, code="geometry"
        )
    return line if even is None else line * (even / float(line @ normal))


def _affine(order: list[Slice], step: NDArray[np.float64]) -> Affine:
    """(4, 4) from (column, row, slice) index to RAS mm."""
    first = order[0]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return np.asarray(_LPS_TO_RAS @ affine, np.float64)
