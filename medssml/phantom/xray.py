"""The radiograph as physics: Beer-Lambert line integrals through a CT volume, from front to back.

The detector sees I = I_0 exp(-integral of mu dl), with mu from HU and quantum noise in I; the film shows -log(I / I_0)
within a fixed window, so that bone and fluid are white. Rays are parallel (a tube at a distance, no magnification).
Row 0 is the head side; the patient's right is on the left of the image, as a radiologist views it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from medssml.phantom.shapes import Field

MU_WATER = 0.0195  # per mm, effective, about 65 keV
BONE_GAIN = 1.9  # bone attenuates more at this energy than its HU (measured at about 75 keV) says


@dataclass(frozen=True)
class Exposure:
    """How a film is taken.

    Args:
        photons: per pixel at the bare detector; fewer is noisier.
        blur: focal spot and detector, mm.
        window: line integrals shown as black and as white.
        gamma: of the display curve.
    """

    photons: float = 2.0e5
    blur: float = 0.8
    window: tuple[float, float] = (0.8, 4.9)
    gamma: float = 1.0


def attenuation(hu: Field) -> Field:
    """Linear attenuation coefficient per mm, of HU (any shape)."""
    soft = np.maximum(hu, -1000) / 1000 + 1
    return (MU_WATER * (soft + (BONE_GAIN - 1) * np.maximum(hu - 100, 0) / 1000)).astype(np.float32)


def line_integrals(hu: Field, depth: float) -> Field:
    """Integral of mu dl along the front-back axis of a RAS volume.

    Args:
        hu: (X, Y, Z). depth: mm per voxel along Y.

    Returns:
        (Z, X) image without unit: row 0 the head side, column 0 the patient's right.
    """
    return np.ascontiguousarray(attenuation(hu).sum(1)[::-1, ::-1].T * np.float32(depth))


def radiograph(
    hu: Field, spacing: tuple[float, float, float], pixel: float, exposure: Exposure, rng: np.random.Generator
) -> Field:
    """The film of a volume.

    Args:
        hu: (X, Y, Z) in RAS; its spacing in mm; X and Z equal.
        pixel: mm per pixel of the film.
        exposure: how it is taken.
        rng: of the quantum noise.

    Returns:
        (H, W) float32 in [0, 1], 1 is white (dense).
    """
    path = zoom(line_integrals(hu, spacing[1]), spacing[0] / pixel, order=3, mode="nearest", grid_mode=True)
    path = gaussian_filter(path, exposure.blur / pixel)
    counts = rng.poisson(exposure.photons * np.exp(-np.maximum(path, 0)))
    film = -np.log(np.maximum(counts, 1) / exposure.photons)
    low, high = exposure.window
    return (np.clip((film - low) / (high - low), 0, 1) ** exposure.gamma).astype(np.float32)
