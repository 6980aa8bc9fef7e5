"""A folder of CT slices, or one multi-frame file, as one stack: sorted along the normal, its geometry verified."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom import foreign_bits, frame_shape, is_dicom, number, numbers, read_header, stored_values
from medssml.readers.errors import Flag, Note, ReadError, declared_bytes
from medssml.readers.geometry import MAX_SHEAR_DEG, Affine, to_hounsfield

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

MAX_FILES = 20_000
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_FRAMES_TAG = "SharedFunctionalGroupsSequence"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_STEP_TOLERANCE = 0.05
_STEP_FLOOR_MM = 0.02
_MAX_HU = 31_743  # of 16-bit scanners; a padding value above it would be the brightest thing in the volume
_SCOUT_SLICES = 3
_EXPORT = "export the series again, complete and alone in its folder"


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
    padding: int | None = None


class Stack(NamedTuple):
    """Slices in order along the normal. shape (X, Y, Z) = (columns, rows, slices); affine (4, 4) voxel -> RAS mm."""

    path: Path
    slices: tuple[Slice, ...]
    shape: tuple[int, int, int]
    affine: Affine
    notes: tuple[str, ...]


class _Header(NamedTuple):
    path: Path
    dataset: FileDataset
    patient: str


def series_stack(path: Path, series: str | None = None) -> Stack:
    """The slices under `path`, a folder or one file, from their headers alone.

    Args:
        path: what holds one series, besides localizers.
        series: SeriesInstanceUID; of several series, this one alone.

    Raises:
        ReadError: no CT slice, none of `series`, several series or patients, a gap, a duplicated position, varying
            spacing, gantry tilt, slices of several sizes, a truncated slice.
    """
    notes: list[str] = []
    headers = _ct_headers(path, notes)
    headers = _without_scouts(headers, notes) if series is None else _of_series(headers, series, path)
    _check_one_series(headers, path)
    _note_values(headers, notes)
    slices = [frame for header in headers for frame in _frames(header)]
    slices = _without_copies(slices, notes)
    normal = _check_planes(slices, path)
    order = sorted(slices, key=lambda item: float(item.position @ normal))
    step = _step(order, normal, path, notes)
    _, rows, columns, _ = frame_shape(headers[0].dataset)
    shape = (columns, rows, len(order))
    declared_bytes(path, shape, 2)
    return Stack(path, tuple(order), shape, _affine(order, step), tuple(notes))


def stack_voxels(stack: Stack) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(X, Y, Z) values of `stack` in HU, int16 where exact, in the axes of `stack.affine`; and what the pixels showed."""
    columns, rows, count = stack.shape
    out: NDArray[Any] = np.empty((count, rows, columns), np.int16)
    loaded: tuple[Path, NDArray[Any]] | None = None
    padded = 0
    for index, item in enumerate(stack.slices):
        if loaded is None or loaded[0] != item.path:
            loaded = (item.path, stored_values(item.path)[1])
        stored = loaded[1][item.frame]
        values = to_hounsfield(stored, item.slope, item.intercept)
        if item.padding is not None and item.padding * item.slope + item.intercept > _MAX_HU:
            outside = stored == item.padding
            padded += int(outside.sum())
            values = to_hounsfield(np.where(outside, -1000, values), 1.0, 0.0)
        if values.dtype != out.dtype and out.dtype == np.int16:
            out = out.astype(np.float32)
        out[index] = values
    notes = [f"{padded:,} voxels of padding set to air"] if padded else []
    notes += filter(None, [foreign_bits(stack.slices[count // 2].path)])
    return out.transpose(2, 1, 0), tuple(notes)


def _files(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    count = 0
    for parent, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            file = Path(parent, name)
            if name.startswith("."):
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(root):
                raise ReadError(
                    file, "is a link that leaves its folder", "copy the file into the folder", code="outside"
                )
            count += 1
            if count > MAX_FILES:
                raise ReadError(
                    folder, f"holds more than {MAX_FILES:,} files", "name the folder of one series", code="too_large"
                )
            yield file


def _ct_headers(path: Path, notes: list[str]) -> list[_Header]:
    """The headers of the CT slices; what is none is left out and counted in `notes`."""
    headers: list[_Header] = []
    left_out: Counter[str] = Counter()
    for file in _files(path) if path.is_dir() else [path]:
        looks_dicom = file.suffix.lower() in _DICOM_SUFFIXES or file == path
        if not looks_dicom and (file.stat().st_size == 0 or not is_dicom(file)):
            left_out["not DICOM"] += 1
            continue
        if file.name.upper() == "DICOMDIR":
            left_out["DICOMDIR"] += 1
            continue
        dataset, patient = read_header(file, patient=True, skip=_no_slice)
        reason = _no_slice(dataset)
        if reason:
            left_out[reason] += 1
        else:
            headers.append(_Header(file, dataset, patient))
    notes += [Note(f"{count} file{'s' * (count > 1)} left out: {reason}") for reason, count in left_out.items()]
    if not headers:
        found = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no file"
        raise ReadError(path, f"holds no CT slice ({found})", "name a folder with one CT series", code="mixed")
    return headers


def _of_series(headers: list[_Header], series: str, path: Path) -> list[_Header]:
    mine = [header for header in headers if str(header.dataset.get("SeriesInstanceUID", "")) == series]
    if not mine:
        others = len({str(header.dataset.get("SeriesInstanceUID", "")) for header in headers})
        reason = f"holds no slice of the series that the table names ({others} other CT series)"
        raise ReadError(path, reason, "correct the SeriesInstanceUID, or the folder", code="mixed")
    return mine


def _no_slice(dataset: FileDataset) -> str:
    if str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        return "secondary capture"
    modality = str(dataset.get("Modality") or "")
    if modality not in ("CT", ""):  # a file without any is damaged, and refused
        return f"modality {modality[:16]}"
    if "LOCALIZER" in [str(part).upper() for part in np.atleast_1d(dataset.get("ImageType") or [])]:
        return "localizer"
    return ""


def _without_scouts(headers: list[_Header], notes: list[str]) -> list[_Header]:
    """Without series of a few images in another plane than the largest: localizers that do not say so."""
    groups: dict[str, list[_Header]] = {}
    for header in headers:
        groups.setdefault(str(header.dataset.get("SeriesInstanceUID", "")), []).append(header)
    largest = max(groups.values(), key=len)
    plane = _normal(largest[0])
    kept = list(largest)
    for group in groups.values():
        normal = _normal(group[0])
        if group is largest:
            continue
        other_plane = plane is not None and normal is not None and abs(float(plane @ normal)) < 0.9
        if other_plane and len(group) <= _SCOUT_SLICES < len(largest):
            reason = f"{len(group)} file{'s' * (len(group) > 1)} left out: localizer (another plane)"
            notes.append(Flag(reason, "left_out"))
        else:
            kept += group
    return kept


def _normal(header: _Header) -> NDArray[np.float64] | None:
    """(3,) of a file's plane, None where it does not state one."""
    try:
        orientation = numbers(header.dataset, "ImageOrientationPatient", 6, header.path)
    except (ReadError, ValueError):
        return None
    return None if orientation is None else np.cross(orientation[:3], orientation[3:])


def _note_values(headers: list[_Header], notes: list[str]) -> None:
    """What the tags say about the values: compressed with loss, or no rescale stated."""
    lossy = sum(str(header.dataset.get("LossyImageCompression") or "") == "01" for header in headers)
    if lossy:
        notes.append(Flag(f"{lossy} of {len(headers)} files were compressed with loss"))
    burned = sum(header.dataset.get("BurnedInAnnotation") == "YES" for header in headers)
    if burned:
        notes.append(Flag(f"burned-in annotation in {burned} of {len(headers)} files"))
    blank = sum("RescaleIntercept" not in h.dataset and not h.dataset.get(_FRAMES_TAG) for h in headers)
    if blank:
        notes.append(Flag(f"{blank} of {len(headers)} files state no rescale: stored values taken as HU", "assumed"))


def _check_one_series(headers: list[_Header], path: Path) -> None:
    if len({header.patient for header in headers}) > 1:
        patients = len({header.patient for header in headers})
        raise ReadError(
            path, f"holds slices of {patients} patients", "separate the patients, one folder each", code="mixed"
        )
    series = Counter(str(header.dataset.get("SeriesInstanceUID", "")) for header in headers)
    if len(series) > 1:
        counts = " + ".join(str(count) for count in sorted(series.values(), reverse=True))
        reason = f"holds {len(series)} CT series ({counts} files)"
        fix = "name the folder of one series, or its SeriesInstanceUID in a column such as ct_series"
        raise ReadError(path, reason, fix, code="mixed")
    sizes = Counter(frame_shape(header.dataset)[1:] for header in headers)
    if len(sizes) > 1:
        found = ", ".join(f"{count} of {rows} x {columns}" for (rows, columns, _), count in sizes.most_common(3))
        raise ReadError(path, f"holds slices of {len(sizes)} sizes ({found})", _EXPORT, code="mixed")
    samples = next(iter(sizes))[2]
    if samples != 1:
        raise ReadError(path, f"has {samples} samples per pixel, a CT slice has 1", _EXPORT)


def _frames(header: _Header) -> Iterator[Slice]:
    count = frame_shape(header.dataset)[0]
    for index in range(count):
        yield _slice(header, index, count)


def _slice(header: _Header, index: int, count: int) -> Slice:
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
        raise ReadError(path, f"has no {' and no '.join(names)}", _EXPORT, code="geometry")
    if count > 1 and own is None:
        raise ReadError(path, f"has {count} frames and no position for frame {index + 1}", _EXPORT, code="geometry")
    transform = group("PixelValueTransformationSequence")
    slope = number(transform, "RescaleSlope", 1.0)
    if slope == 0:
        raise ReadError(path, "has RescaleSlope 0", _EXPORT)
    thickness = number(measures, "SpacingBetweenSlices", 0.0) or number(measures, "SliceThickness", 0.0)
    instance = f"{dataset.get('SOPInstanceUID', path)}#{index}"
    intercept = number(transform, "RescaleIntercept", 0.0)
    if not int(dataset.get("PixelRepresentation") or 0) and intercept >= 0 < slope:
        stated = "no RescaleIntercept" if "RescaleIntercept" not in transform else f"RescaleIntercept {intercept:g}"
        reason = f"stores unsigned values with {stated}: no value can be below 0 HU"
        raise ReadError(path, reason, "export the series with its rescale (water is 0 HU, air -1000)", code="units")
    return Slice(path, index, instance, position, orientation, spacing, thickness, slope, intercept, _padding(dataset))


def _padding(dataset: FileDataset) -> int | None:
    """The stored value outside the field of view, in the sign of the pixels."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    if int(dataset.get("PixelRepresentation") or 0):
        return value - 65536 if value > 32767 else value
    return value & 0xFFFF


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _without_copies(slices: list[Slice], notes: list[str]) -> list[Slice]:
    """Without files that are there twice: the same instance, at the same position, with the same pixels."""
    unique: dict[tuple[str, bytes], Slice] = {}
    rest: list[Slice] = []
    for item in slices:
        first = unique.setdefault((item.instance, item.position.tobytes()), item)
        if first is not item and not _same_pixels(first, item):
            rest.append(item)
    copies = len(slices) - len(unique) - len(rest)
    if copies:
        notes.append(f"{copies} copies of slices left out (same SOP instance)")
    return [*unique.values(), *rest]


def _same_pixels(first: Slice, second: Slice) -> bool:
    values = [stored_values(item.path)[1][item.frame] for item in (first, second)]
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
            path, f"pixel spacing varies from {low:.4g} to {high:.4g} mm within the series", _EXPORT, code="geometry"
        )
    if spacings.min() <= 0:
        raise ReadError(path, f"has pixel spacing {spacings.min():g} mm", _EXPORT, code="geometry")
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 0.01:
        raise ReadError(
            path, f"row and column directions are not unit and square ({normal.round(3)})", _EXPORT, code="geometry"
        )
    return normal / np.linalg.norm(normal)


def _step(order: list[Slice], normal: NDArray[np.float64], path: Path, notes: list[str]) -> NDArray[np.float64]:
    """(3,) LPS mm from a slice to the next, which must be the same all the way and along the normal."""
    if len(order) == 1:
        thickness = order[0].thickness
        if thickness <= 0:
            raise ReadError(path, "is one slice without a thickness", _EXPORT, code="geometry")
        notes.append(Flag(f"one slice; its thickness of {thickness:g} mm is taken as the step", "assumed"))
        return normal * thickness
    positions = np.stack([item.position for item in order])
    depths = positions @ normal
    steps = np.diff(depths)
    _check_steps(steps, depths, path)
    line = (positions[-1] - positions[0]) / (len(order) - 1)
    tilt = float(np.degrees(np.arccos(np.clip(line @ normal / np.linalg.norm(line), -1, 1))))
    if tilt > MAX_SHEAR_DEG:
        reason = f"gantry tilt of {tilt:.1f} degrees between the slices' normal and their direction"
        raise ReadError(path, reason, "resample the series to straight axes (dcm2niix does it)", code="geometry")
    stray = np.linalg.norm(positions - (positions[0] + np.arange(len(order))[:, None] * line), axis=1)
    if stray.max() > max(0.5 * float(order[0].spacing.min()), float(np.median(steps)) * 0.5):
        worst = int(stray.argmax())
        raise ReadError(
            path, f"slice {worst + 1} lies {stray[worst]:.1f} mm off the line of the others", _EXPORT, code="geometry"
        )
    return line


def _check_steps(steps: NDArray[np.float64], depths: NDArray[np.float64], path: Path) -> None:
    usual = float(np.median(steps))
    if (same := np.flatnonzero(steps < max(1e-3, 0.01 * usual))).size:
        at = int(same[0])
        reason = f"position {depths[at]:.1f} mm appears twice (slices {at + 1} and {at + 2} of {len(depths)})"
        raise ReadError(path, reason, "remove the copy, or separate the two series", code="geometry")
    off = np.abs(steps - usual)
    if off.max() <= max(_STEP_TOLERANCE * usual, _STEP_FLOOR_MM):
        return
    worst = int(off.argmax())
    if steps[worst] > 1.5 * usual:
        more = int((steps > 1.5 * usual).sum()) - 1
        others = f", and {more} more" if more else ""
        reason = f"gap {steps[worst]:.1f} mm after slice {worst + 1}, step {usual:.1f} mm{others}"
        raise ReadError(path, reason, "add the missing slices, or resample from the complete series", code="geometry")
    reason = f"spacing between slices varies from {steps.min():.2f} to {steps.max():.2f} mm"
    raise ReadError(path, reason, "resample the series to one spacing", code="geometry")


def _affine(order: list[Slice], step: NDArray[np.float64]) -> Affine:
    """(4, 4) from (column, row, slice) index to RAS mm."""
    first = order[0]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return np.asarray(_LPS_TO_RAS @ affine, np.float64)
