"""CT: a volume in HU at a fixed spacing in mm. Size survives: a volume is cropped or padded, never stretched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssml.readers.ct import read_ct
from medssml.readers.nifti import Given
from medssml.transforms.base import NOTES, Prepared, Source, Transform, at_least, notes_array

#: HU where nothing was measured; below it nothing is stored.
OUTSIDE = -1024


class CTTransform(Transform):
    """A centred crop of fixed physical size in RAS+ axes, windowed to [0, 1].

    Args:
        spacing: mm between voxels along X, Y, Z.
        size: voxels along X, Y, Z: the crop measures `spacing * size` mm.
        window: HU that become 0 and 1.
        margin: voxels stored on every side for random shifts.
        flip_axes: axes that training may mirror: 0 left-right, 1 front-back, 2 head-feet. None for a chest, whose heart
            is on the left; all for a nodule, which knows no sides.
        rotate90: training may turn by quarter turns about Z. As `flip_axes`: for nodules.
        noise: most HU of added Gaussian noise in training.
        jitter: most HU that training shifts all values by, and the same share of the window in contrast.
    """

    libraries = ("numpy", "nibabel", "pydicom")
    revision = 2

    def __init__(
        self,
        spacing: Sequence[float] = (2.0, 2.0, 2.0),
        size: Sequence[int] = (128, 128, 128),
        window: Sequence[float] = (-1000.0, 400.0),
        margin: int = 4,
        flip_axes: Sequence[int] = (),
        rotate90: bool = False,
        noise: float = 20.0,
        jitter: float = 20.0,
    ) -> None:
        self.spacing = tuple(float(mm) for mm in spacing)
        self.size = tuple(int(n) for n in size)
        self.low, self.high = (float(hu) for hu in window)
        self.margin, self.rotate90, self.noise, self.jitter = int(margin), rotate90, noise, jitter
        self.flip_axes = tuple(int(axis) for axis in flip_axes)
        _check(self)

    def settings(self) -> dict[str, Any]:
        return {"spacing": self.spacing, "size": self.size, "margin": self.margin}

    def prepare(self, source: Source, given: Given | None = None) -> Prepared:
        """{"hu": (X, Y, Z) int16 HU with `margin` on every side, "notes"}; -1024 outside the scan.

        Args:
            source: a file, or a folder with one DICOM series.
            given: what the table says where the header of the file is blank.

        Raises:
            ReadError: the volume cannot be used.
        """
        volume = read_ct(source, given)
        shape = tuple(n + 2 * self.margin for n in self.size)
        array, affine, centre = crop_to_field(volume.array, volume.affine, self.spacing, shape)
        array, affine = thin(array, affine, self.spacing)
        hu, inside = resample(array, affine, centre, self.spacing, shape)
        notes = list(volume.notes)
        if inside < 0.999:
            notes.append(f"the scan fills {inside:.0%} of the crop; the rest is air at {OUTSIDE} HU")
        return {"hu": hu, NOTES: notes_array(notes)}

    def __call__(self, prepared: Prepared, rng: np.random.Generator | None = None) -> Tensor:
        """(1, X, Y, Z) float32 in [0, 1]; 0 below the window and outside the scan."""
        stored = prepared["hu"]
        shift = [0, 0, 0] if rng is None or self.margin == 0 else rng.integers(-self.margin, self.margin + 1, 3)
        start = [self.margin + int(step) for step in shift]
        crop = stored[tuple(slice(a, a + n) for a, n in zip(start, self.size, strict=True))]
        if rng is not None:
            crop = self._turn(crop, rng)
        scaled = (crop.astype(np.float32) - self.low) / (self.high - self.low)
        if rng is not None:
            scaled = self._disturb(scaled, crop == OUTSIDE, rng)
        return torch.from_numpy(np.ascontiguousarray(np.clip(scaled, 0.0, 1.0, dtype=np.float32)))[None]

    def _turn(self, crop: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
        if self.rotate90:
            crop = np.rot90(crop, k=int(rng.integers(4)), axes=(0, 1))
        chosen = tuple(axis for axis in self.flip_axes if rng.random() < 0.5)
        return np.flip(crop, chosen) if chosen else crop

    def _disturb(
        self, scaled: NDArray[np.float32], outside: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Noise and a small change of brightness and contrast; what lies outside the scan stays 0. HU are absolute,
        so the changes are those between scanners and no more."""
        width = self.high - self.low
        gain, shift = 1 + rng.uniform(-1, 1) * self.jitter / width, rng.uniform(-1, 1) * self.jitter / width
        sigma = rng.uniform(0, 1) * self.noise / width
        noise = rng.standard_normal(scaled.shape, dtype=np.float32) * np.float32(sigma)
        return np.where(outside, np.float32(0), scaled * np.float32(gain) + np.float32(shift) + noise)


def _check(transform: CTTransform) -> None:
    if len(transform.spacing) != 3 or len(transform.size) != 3:
        raise ValueError(f"spacing {transform.spacing} and size {transform.size} need three numbers each: X, Y, Z")
    for name, values in (("spacing", transform.spacing), ("size", transform.size)):
        for value in values:
            at_least(name, value, 1 if name == "size" else 0.01)
    at_least("margin", transform.margin, 0)
    if not OUTSIDE <= transform.low < transform.high:
        raise ValueError(f"window is ({transform.low}, {transform.high}) HU, expected {OUTSIDE} <= low < high")
    if any(axis not in (0, 1, 2) for axis in transform.flip_axes):
        raise ValueError(
            f"flip_axes is {transform.flip_axes}, expected some of 0 (left-right), 1 (front-back), 2 (head-feet)"
        )
    if transform.rotate90 and transform.size[0] != transform.size[1]:
        raise ValueError(f"rotate90 needs a crop as wide as deep, size is {transform.size}")


Affine = NDArray[np.float64]


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
