"""CT: a volume in HU at a fixed spacing in mm. Size survives: a volume is cropped or padded, never stretched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.arrays import held_ct
from medssml.readers.ct import Volume, read_ct
from medssml.readers.held import Held
from medssml.readers.nifti import Given
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, at_least, notes_array

#: HU where nothing was measured; nothing in a scan is below it.
OUTSIDE = -1024


Affine = NDArray[np.float64]


class Field(NamedTuple):
    """hu: (X, Y, Z) int16. affine: (4, 4) voxel -> RAS mm. notes: what was fixed or is odd."""

    hu: NDArray[np.int16]
    affine: Affine
    notes: tuple[str, ...]


class CTField(Preparation):
    """A centred field of fixed physical size in RAS+ axes, read in one step: inflate, crop, one separable resampling.

    Args:
        spacing: mm between voxels along X, Y, Z.
        size: voxels along X, Y, Z: the field measures `spacing * size` mm.
        outside: HU of what the scan does not cover, or holds nothing of: -1024 or below.
        reader: what reads the file, in place of `medssml.readers.ct.read_ct`. Its name is part of `settings`.
    """

    libraries = ("numpy", "nibabel", "pydicom")
    revision = 2

    def __init__(
        self,
        spacing: Sequence[float],
        size: Sequence[int],
        outside: int = OUTSIDE,
        reader: Callable[[Source], Volume] | None = None,
        reader_name: str | None = None,
    ) -> None:
        self.spacing, self.size = tuple(float(mm) for mm in spacing), tuple(int(n) for n in size)
        self.outside, self.reader, self.reader_name = int(outside), reader, reader_name
        if len(self.spacing) != 3 or len(self.size) != 3:
            raise ValueError(f"spacing {self.spacing} and size {self.size} need three numbers each: X, Y, Z")
        for name, values in (("spacing", self.spacing), ("size", self.size)):
            for value in values:
                at_least(name, value, 1 if name == "size" else 0.01)
        if not np.iinfo(np.int16).min <= self.outside <= OUTSIDE:
            raise ValueError(f"outside is {self.outside} HU, expected {np.iinfo(np.int16).min} to {OUTSIDE}")

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"spacing": self.spacing, "size": self.size, "outside": self.outside}
        return settings if self.reader_name is None else {**settings, "reader": self.reader_name}

    def prepare(self, source: Source, given: Given | None = None) -> Prepared:
        """{"hu": (X, Y, Z) int16 HU, "notes"}.

        Args:
            source: a file, or a folder with one DICOM series.
            given: what the table says where the header of the file is blank.

        Raises:
            ReadError: the volume cannot be used.
        """
        field = self.field(source, given)
        return {"hu": field.hu, NOTES: notes_array(field.notes)}

    def held(self, name: str, value: Any) -> Source:
        return Held(held_ct(name, value))

    def field(self, source: Source, given: Given | None = None) -> Field:
        """The same with its geometry."""
        if isinstance(source, Held):
            volume: Volume = source.value
        else:
            volume = read_ct(source, given) if self.reader is None else self.reader(source)
        array, affine, centre = crop_to_field(volume.array, volume.affine, self.spacing, self.size)
        array, affine = thin(array, affine, self.spacing)
        hu, inside = resample(array, affine, centre, self.spacing, self.size)
        if self.outside != OUTSIDE:
            hu[hu == OUTSIDE] = self.outside
        notes = list(volume.notes)
        if inside < 0.999:
            notes.append(f"the scan fills {inside:.0%} of the field; the rest is air at {self.outside} HU")
        return Field(hu, grid_affine(affine, centre, self.spacing, self.size), tuple(notes))


def grid_affine(affine: Affine, centre: NDArray[np.float64], spacing: Sequence[float], shape: Sequence[int]) -> Affine:
    """(4, 4) voxel -> RAS mm of a grid of `shape` voxels of `spacing` mm about `centre`, along the axes of `affine`."""
    grid = np.eye(4)
    grid[:3, :3] = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) * np.array(spacing)
    grid[:3, 3] = centre - grid[:3, :3] @ ((np.array(shape) - 1) / 2)
    return grid


def crop_to_field(
    array: NDArray[Any], affine: Affine, spacing: Sequence[float], shape: Sequence[int]
) -> tuple[NDArray[Any], Affine, NDArray[np.float64]]:
    """The part of a volume that a centred field of `spacing * shape` mm can see: a chest is not resampled for a nodule.

    Returns:
        the part, its affine, and the centre (3,) mm of the whole volume.
    """
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    middle = (np.array(array.shape) - 1) / 2
    reach = np.array(spacing) * np.array(shape) / 2 / zooms + 2 + np.array(spacing) / zooms
    first = np.maximum(np.floor(middle - reach), 0).astype(int)
    last = np.minimum(np.ceil(middle + reach) + 1, array.shape).astype(int)
    part = array[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return part, _moved(affine, first), affine[:3, :3] @ middle + affine[:3, 3]


def thin(array: NDArray[Any], affine: Affine, spacing: Sequence[float]) -> tuple[NDArray[Any], Affine]:
    """Means of whole blocks of voxels where the target is at least twice as coarse: without it, resampling would read
    one voxel in several and throw the others, and their share in the noise, away."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    blocks = np.maximum(np.floor(np.array(spacing) / zooms + 1e-6).astype(int), 1)
    blocks = np.minimum(blocks, array.shape)
    if bool((blocks == 1).all()):
        return array, affine
    kept = [n // b * b for n, b in zip(array.shape, blocks, strict=True)]
    parts = array[tuple(slice(n) for n in kept)]
    for axis, block in enumerate(blocks):
        if block > 1:
            split = (*parts.shape[:axis], parts.shape[axis] // block, block, *parts.shape[axis + 1 :])
            parts = parts.reshape(split).mean(axis=axis + 1, dtype=np.float32)
    coarse = affine @ np.diag([*blocks, 1.0])
    coarse[:3, 3] = affine[:3, :3] @ ((blocks - 1) / 2) + affine[:3, 3]
    return parts, coarse


def resample(
    array: NDArray[Any], affine: Affine, centre: NDArray[np.float64], spacing: Sequence[float], shape: Sequence[int]
) -> tuple[NDArray[np.int16], float]:
    """One linear resampling to a grid of `shape` voxels of `spacing` mm about `centre`, along the volume's own axes.

    The grid is parallel to the volume, so that linear interpolation falls apart into one matrix per axis.

    Returns:
        (X, Y, Z) int16 HU, -1024 outside; and the share of the grid that lies inside the volume.
    """
    where = _places(affine, centre, spacing, shape)
    inside = [_inside(n, places) for n, places in zip(array.shape, where, strict=True)]
    hu = np.full(shape, OUTSIDE, np.int16)
    if all(part.stop > part.start for part in inside):
        weights = [_weights(n, p[part]) for n, p, part in zip(array.shape, where, inside, strict=True)]
        values = _interpolated(array, weights)
        np.clip(np.rint(values, out=values), OUTSIDE, np.iinfo(np.int16).max, out=values)
        hu[tuple(inside)] = values
    share = [(part.stop - part.start) / n for part, n in zip(inside, shape, strict=True)]
    return hu, float(np.prod(share))


def _places(
    affine: Affine, centre: NDArray[np.float64], spacing: Sequence[float], shape: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Per axis, where the grid's points lie, in voxels of the volume."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    middle = np.linalg.solve(affine[:3, :3], centre - affine[:3, 3])
    axes = zip(middle, spacing, zooms, shape, strict=True)
    return [at + (np.arange(n) - (n - 1) / 2) * mm / zoom for at, mm, zoom, n in axes]


def _inside(n: int, places: NDArray[np.float64]) -> slice:
    """Which places lie in a volume of `n` voxels, the edges of the outer voxels included."""
    first, end = np.searchsorted(places, [-0.5 - 1e-6, n - 0.5 + 1e-6])
    return slice(int(first), int(end))


def _weights(n: int, places: NDArray[np.float64]) -> NDArray[np.float32]:
    """(m, n) matrix that interpolates n voxels at m places; beyond the outer voxels' centres their value holds."""
    held = np.clip(places, 0, n - 1)
    low = np.minimum(held.astype(int), max(n - 2, 0))
    share = held - low
    matrix = np.zeros((len(places), n), np.float32)
    rows = np.arange(len(places))
    matrix[rows, low] = 1 - share
    matrix[rows, np.minimum(low + 1, n - 1)] += share
    return matrix


def _interpolated(array: NDArray[Any], weights: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(X, Y, Z) values of `array` at the places of `weights`, one matrix per axis."""
    # Axes from the slowest to the fastest in memory: one copy, and no strided product. Each product puts its axis last,
    # so that the three together turn a volume as NIfTI stores it, X fastest, into (X, Y, Z).
    order = sorted(range(3), key=lambda axis: -abs(array.strides[axis]))
    slow, middle, fast = (weights[axis] for axis in order)
    values = np.ascontiguousarray(array.transpose(order), dtype=np.float32)
    values = np.matmul((values @ fast.T).swapaxes(1, 2), middle.T)
    values = values.reshape(len(values), -1).T @ slow.T
    return values.reshape(len(fast), len(middle), len(slow)).transpose(np.argsort(order[::-1]))


def _moved(affine: Affine, first: NDArray[np.int64]) -> Affine:
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ first + affine[:3, 3]
    return moved
