"""The pulmonary vessel tree: each lung branches from its hilum towards the pleura, thinner at each generation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

GENERATIONS = ((6, 3.6), (3, 2.5), (3, 1.6), (2, 1.05))
"""Children per branch and radius in mm, from the hilum outwards."""


def vessel_tree(
    rng: np.random.Generator, hilum: Points, centre: Points, radii: Points, step: float = 1.5
) -> tuple[Points, Points]:
    """Bits of vessel of one lung.

    Args:
        rng: the patient's own.
        hilum: (3,) mm, where the tree starts.
        centre: (3,) mm, and radii: (3,) mm, an ellipsoid that stands for the lung: branches grow towards its surface.
        step: mm between bits.

    Returns:
        points (k, 3) in mm and the volume (k,) in mm^3 of each bit.
    """
    starts = hilum[None]
    headings = np.zeros((1, 3))
    points, volumes = [], []
    for level, (children, radius) in enumerate(GENERATIONS):
        starts = np.repeat(starts, children, axis=0)
        headings = np.repeat(headings, children, axis=0)
        ends, bends = _grow(rng, starts, headings, centre, radii, level)
        bits = max(2, int(np.linalg.norm(ends - starts, axis=1).mean() / step))
        t = np.linspace(0, 1, bits)[None, :, None]
        path = (1 - t) ** 2 * starts[:, None] + 2 * t * (1 - t) * bends[:, None] + t**2 * ends[:, None]
        thick = radius * (1 - 0.3 * t[..., 0]) * rng.uniform(0.85, 1.15, (len(starts), 1))
        length = np.linalg.norm(np.diff(path, axis=1), axis=2).mean(1, keepdims=True)
        path = path + rng.standard_normal(path.shape) * (0.35 * thick[..., None])
        points.append(path.reshape(-1, 3))
        volumes.append((np.pi * thick**2 * length).ravel())
        headings = ends - bends
        headings /= np.linalg.norm(headings, axis=1, keepdims=True) + 1e-9
        starts = ends
    return np.concatenate(points), np.concatenate(volumes)


def _grow(
    rng: np.random.Generator, starts: Points, headings: Points, centre: Points, radii: Points, level: int
) -> tuple[Points, Points]:
    """Ends (k, 3) and bends (k, 3) of new branches: part of the way to a point near the lung's surface."""
    towards = rng.standard_normal(starts.shape)
    if level:
        outward = (starts - centre) / radii
        outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
        towards = 0.75 * towards / np.linalg.norm(towards, axis=1, keepdims=True) + 0.35 * outward + 0.55 * headings
    towards /= np.linalg.norm(towards, axis=1, keepdims=True) + 1e-9
    surface = centre + towards * radii * rng.uniform(0.75, 0.97, (len(starts), 1))
    ends = starts + (0.42, 0.45, 0.5, 0.6)[level] * (surface - starts)
    length = np.linalg.norm(ends - starts, axis=1, keepdims=True)
    bends = 0.5 * (starts + ends) + 0.12 * length * rng.standard_normal(starts.shape)
    if level:
        bends = bends + 0.2 * length * headings
    return ends, bends
