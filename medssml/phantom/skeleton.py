"""The bones of the chest: ribs and scapulae as curved plates around the lungs, spine, sternum, clavicles, shoulders."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medssml.phantom.shapes import Field, Grid, Point, cover, paint, paint_ellipsoid, paint_tube


class Cage(NamedTuple):
    """The chest cavity that the bones surround.

    Args:
        grid: voxels.
        width, depth, height: size relative to an average man's.
        half_width, half_depth: (1, 1, Z) mm, half axes of the cavity.
        wall: (X, Y, Z) mm, signed distance to the cavity's surface, negative inside.
    """

    grid: Grid
    width: float
    depth: float
    height: float
    half_width: Field
    half_depth: Field
    wall: Field


def paint_skeleton(volume: Field, cage: Cage, rib_phase: float) -> None:
    """Paint ribs, sternum, spine, clavicles, scapulae and humeral heads; `rib_phase` (mm) shifts the ribs."""
    _paint_shell(volume, cage, rib_phase)
    _paint_spine(volume, cage)
    grid = cage.grid
    front = float(80 * cage.depth)
    part, (x, y, z) = grid.box((-40, 30, -75), (40, 130, 100))
    ahead = cage.half_depth[:, :, part[2]] + 5
    half = np.interp(z.ravel(), [-60, -30, 50, 62, 85], [12, 15, 16, 27, 30]).reshape(1, 1, -1)
    plate = np.maximum(np.maximum(np.abs(x) - half, np.abs(y - ahead) - 4.5), np.maximum(z - 86, -62 - z))
    paint(volume[part], cover(plate.astype(np.float32)), 230)
    for side in (1.0, -1.0):
        wide = side * cage.width
        clavicle: list[Point] = [
            (20 * wide, front - 26, 88), (52 * wide, front - 24, 94), (88 * wide, front - 44, 103),
            (122 * wide, front - 66, 110), (152 * wide, front - 80, 110),
        ]  # fmt: skip
        paint_tube(volume, grid, clavicle, [7.5, 6, 5.5, 5.5, 6], 700)
        paint_ellipsoid(volume, grid, (170 * wide, -10, 84), (23, 23, 25), 380)


def _paint_shell(volume: Field, cage: Cage, rib_phase: float) -> None:
    """Ribs and scapulae: curved plates in the shell around the chest cavity."""
    x_all, y_all, z_all = cage.grid.axes
    near = np.flatnonzero((cage.wall > -3) & (cage.wall < 30) & (np.abs(z_all) < 150))
    i, j, k = np.unravel_index(near, cage.grid.shape)
    x, y, z = x_all.ravel()[i], y_all.ravel()[j], z_all.ravel()[k] / cage.height
    width, depth = cage.half_width.ravel()[k], cage.half_depth.ravel()[k]
    out = cage.wall.ravel()[near]
    angle = np.arctan2(np.abs(x) / width, -y / depth) / np.float32(np.pi)  # 0 at the spine, 1 at the sternum
    fall = np.interp(angle, [0, 0.12, 0.5, 0.78, 0.9, 1], [0, -4, 46, 82, 80, 62]).astype(np.float32)
    slope = np.interp(angle, [0, 0.2, 0.5, 0.8, 1], [1, 0.92, 0.82, 0.85, 0.8])
    step = 24.5
    order = (108 + rib_phase - z - fall) / step
    number = np.clip(np.round(order), 0, 11)
    edge = np.abs(order - number) * step * slope - 5.2
    reach = np.where(number > 9, 0.42, np.where(number > 6, 0.86, 1.0))
    plate = np.maximum(np.maximum(edge, np.abs(out - 5) - 4.2), (angle - reach) * 200)
    bone = np.interp(angle, [0, 0.5, 0.74, 0.8, 1], [700, 640, 500, 140, 110])
    flat = volume.reshape(-1)
    flat[near] += cover(plate.astype(np.float32), 3.0) * (bone - flat[near])

    blade = np.maximum(np.abs(angle - 0.3 - (z - 40) * 0.0006) - 0.1 - (z + 20) * 0.0005, np.abs(z - 38) / 500 - 0.11)
    scapula = np.maximum(blade * 300, np.abs(out - 22) - 2.2)
    flat[near] += cover(scapula.astype(np.float32), 3.0) * (340 - flat[near])


def _paint_spine(volume: Field, cage: Cage) -> None:
    """Vertebral bodies with discs between them, the canal, transverse and spinous processes."""
    part, (x, y, z) = cage.grid.box((-44, -135, -165), (44, -30, 165))
    centre = (-64 + 7 * np.cos(z / 75)) * cage.depth
    order = (z / cage.height + 6) / 24.5
    within = (np.abs(order - np.round(order)) * 24.5).astype(np.float32)
    ring = (np.sqrt((x / 18) ** 2 + ((y - centre) / 15.5) ** 2) - 1) * 16
    body = np.where(within < 9.5, 150 + 9 * within, 70).astype(np.float32)
    paint(volume[part], cover(ring), body)
    canal = (np.sqrt((x / 10) ** 2 + ((y - centre + 24) / 8.5) ** 2) * 9 - 9).astype(np.float32)
    arch = (np.abs(canal - 4.0) - 3.5).astype(np.float32)
    paint(volume[part], cover(arch) * cover(within - 8.5), 330)
    paint(volume[part], cover(canal), 25)
    behind = y - centre
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(behind + 44) - 13), within - 7)
    across = np.maximum(np.maximum(np.abs(behind + 21) - 5, within - 4.5), np.abs(x) - 33)
    paint(volume[part], cover(np.minimum(spinous, np.maximum(across, 12 - np.abs(x))).astype(np.float32)), 300)
