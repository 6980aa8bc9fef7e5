"""Grids, and the soft solids that anatomy is painted with.

A solid is a field of signed distances in mm (negative inside) that `paint` turns into partial volume: a voxel half
covered takes half of the solid's HU. Small solids are painted inside their bounding box only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Point = tuple[float, float, float]

EXTENT = (384.0, 288.0, 320.0)  # mm: right-left, front-back, head-feet


@dataclass(frozen=True)
class Grid:
    """Voxel centres of a box of `EXTENT` mm around the origin, in RAS: +x right, +y front, +z head.

    Args:
        spacing: mm per voxel along x, y, z.
    """

    spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)
    axes: tuple[Field, Field, Field] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        axes = []
        for axis, (extent, step) in enumerate(zip(EXTENT, self.spacing, strict=True)):
            count = int(extent // step)
            centres = (np.arange(count, dtype=np.float32) - (count - 1) / 2) * step
            shape = [1, 1, 1]
            shape[axis] = count
            axes.append(centres.reshape(shape).astype(np.float32))
        object.__setattr__(self, "axes", tuple(axes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        return (self.axes[0].size, self.axes[1].size, self.axes[2].size)

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) voxel index -> mm in RAS."""
        matrix = np.diag([*self.spacing, 1.0])
        matrix[:3, 3] = [axis.ravel()[0] for axis in self.axes]
        return matrix

    def parts(self, count: int) -> Grid:
        """The grid that splits each voxel into `count` parts along every axis. Raises ValueError where they do not fill it."""
        fine = Grid((self.spacing[0] / count, self.spacing[1] / count, self.spacing[2] / count))
        if fine.shape != tuple(n * count for n in self.shape):
            raise ValueError(f"voxels of {self.spacing} mm do not fill {EXTENT} mm, so they have no {count} parts each")
        return fine

    def box(self, low: Point, high: Point) -> tuple[tuple[slice, slice, slice], tuple[Field, Field, Field]]:
        """Slices and axes of the part of the grid between two corners, in mm."""
        slices, axes = [], []
        for axis, (centres, a, b) in enumerate(zip(self.axes, low, high, strict=True)):
            start, stop = np.searchsorted(centres.ravel(), [a, b])
            slices.append(slice(int(start), int(stop)))
            index = [slice(None)] * 3
            index[axis] = slices[axis]
            axes.append(centres[tuple(index)])
        return (slices[0], slices[1], slices[2]), (axes[0], axes[1], axes[2])


def cover(distance: Field, softness: float = 4.0) -> Field:
    """Share of each voxel inside a solid, from its signed distance (mm); `softness` is the width of the edge (mm)."""
    share = distance * np.float32(-1 / softness)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def paint(volume: Field, share: Field, value: float | Field) -> None:
    """Replace `share` of each voxel of `volume` (HU) by `value` (HU), in place."""
    volume += share * (value - volume)


def mean_of_parts(volume: Field, count: int) -> Field:
    """Means of blocks of `count` voxels along every axis of (X, Y, Z)."""
    if count == 1:
        return volume
    x, y, z = (n // count for n in volume.shape)
    return volume.reshape(x, count, y, count, z, count).mean((1, 3, 5), dtype=np.float32)


def ellipsoid(axes: tuple[Field, Field, Field], centre: Point, radii: Point, tilt: float = 0.0) -> Field:
    """Approximate signed distance (mm) of an ellipsoid, rotated by `tilt` (radians) in the frontal plane."""
    x, y, z = axes[0] - centre[0], axes[1] - centre[1], axes[2] - centre[2]
    if tilt:
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        x, z = cos * x + sin * z, cos * z - sin * x
    inner = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2) + np.float32(1e-6)
    slope = np.sqrt((x / radii[0] ** 2) ** 2 + (y / radii[1] ** 2) ** 2 + (z / radii[2] ** 2) ** 2) + np.float32(1e-6)
    return (inner * (inner - 1) / slope).astype(np.float32)


def paint_ellipsoid(volume: Field, grid: Grid, centre: Point, radii: Point, value: float, tilt: float = 0.0) -> None:
    """Paint an ellipsoid of `value` HU."""
    reach = [r + 6 for r in (radii if not tilt else (max(radii),) * 3)]
    low = (centre[0] - reach[0], centre[1] - reach[1], centre[2] - reach[2])
    high = (centre[0] + reach[0], centre[1] + reach[1], centre[2] + reach[2])
    part, axes = grid.box(low, high)
    paint(volume[part], cover(ellipsoid(axes, centre, radii, tilt)), value)


def paint_tube(volume: Field, grid: Grid, path: list[Point], radii: list[float], value: float, grow: float = 0) -> None:
    """Paint a tube of `value` HU along a path of points (mm) whose radius (mm) changes linearly between them."""
    for start, stop, first, last in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
        a, b = np.array(start, np.float32), np.array(stop, np.float32)
        reach = max(first, last) + grow + 5
        low, high = np.minimum(a, b) - reach, np.maximum(a, b) + reach
        part, axes = grid.box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        along = b - a
        offset = [axis - origin for axis, origin in zip(axes, a, strict=True)]
        share = sum(o * step for o, step in zip(offset, along, strict=True)) / np.float32(along @ along)
        share = np.clip(share, 0, 1)
        gap = np.sqrt(sum((o - share * step) ** 2 for o, step in zip(offset, along, strict=True)))
        paint(volume[part], cover(gap - (first + (last - first) * share) - np.float32(grow)), value)


def splat(grid: Grid, points: NDArray[np.float64], volumes: NDArray[np.float64]) -> Field:
    """Share of each voxel that many small bits of matter fill: points (k, 3) mm, volumes (k,) mm^3, trilinear."""
    shape = grid.shape
    origin = np.array([axis.ravel()[0] for axis in grid.axes])
    position = (points - origin) / np.array(grid.spacing)
    inside = ((position >= 0) & (position < np.array(shape) - 1)).all(1)
    position, mass = position[inside], volumes[inside] / float(np.prod(grid.spacing))
    base = position.astype(np.int64)
    above = (position - base).T
    below = 1 - above
    first, steps = np.ravel_multi_index(tuple(base.T), shape), (shape[1] * shape[2], shape[2], 1)
    total = np.zeros(int(np.prod(shape)))
    for corner in range(8):
        bits = (corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        x, y, z = (above[axis] if bit else below[axis] for axis, bit in enumerate(bits))
        index = first + sum(bit * step for bit, step in zip(bits, steps, strict=True))
        total += np.bincount(index, x * y * z * mass, len(total))
    return np.clip(total, 0, 1).reshape(shape).astype(np.float32)
