"""Radiographs that are underexposed, and that scattered radiation veils.

Gray is the logarithm of what reaches the detector: g in [0, 1], white where nothing comes through, is a transmission of
exp(-5 g). Photons are counted, and scatter adds, where transmission is; the picture is its logarithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medssml.obstacles.base import Damage
from medssml.transforms.base import Preparation, Prepared

#: Of the logarithm of transmission from black to white: 1 photon in 150 comes through what is white.
DEPTH = 5.0
#: Photons of a pixel in air at severity 0, above which no noise shows, and at severity 1.
MOST_PHOTONS, LEAST_PHOTONS = 1e6, 100.0
#: Scattered photons per direct one at severity 1, as in a chest without a grid, and the share of the side that they spread.
MOST_SCATTER, SPREAD = 3.0, 0.25

Gray = NDArray[np.floating[Any]]


def transmission(gray: Gray) -> Gray:
    """exp(-5 g): the share of photons that comes through."""
    return np.exp(-DEPTH * gray)


def exposure_noise(severity: float) -> float:
    """Standard deviation of the gray that is added where all photons come through."""
    photons = MOST_PHOTONS * (LEAST_PHOTONS / MOST_PHOTONS) ** severity
    return float(np.sqrt(1 / photons - 1 / MOST_PHOTONS) / DEPTH)


class XrayExposure(Damage):
    """Too few photons: g has the variance 1 / photons / 25, the photons of a pixel those of air times the transmission; in
    air 10**6 at severity 0, whose noise the picture has already, and 100 at severity 1, in even steps of the logarithm."""

    name, modality, entry = "xray_exposure", "xray", "gray"
    says = "the radiograph is underexposed"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        gray = _gray(prepared)
        spread = np.float32(exposure_noise(self.severity)) / np.sqrt(transmission(gray))
        return {"gray": _stored(gray + draws.standard_normal(gray.shape, dtype=np.float32) * spread)}


class XrayScatter(Damage):
    """A veil: scattered photons, 3 per direct one at severity 1, spread smoothly and lower every contrast."""

    name, modality, entry = "xray_scatter", "xray", "gray"
    says = "scatter veils the radiograph"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        direct = transmission(_gray(prepared))
        from monai.transforms import GaussianSmooth

        smooth = GaussianSmooth(sigma=SPREAD * max(direct.shape))
        # Beyond its border the picture goes on as within: the filter's zeros would be lead.
        shown = torch.from_numpy(np.stack([direct, np.ones_like(direct)]))
        veil, whole = np.asarray(smooth(shown))
        veil /= whole
        ratio = MOST_SCATTER * self.severity
        return {"gray": _stored(-np.log((direct + ratio * veil) / (1 + ratio)) / DEPTH)}


def _gray(prepared: Prepared) -> Gray:
    return prepared["gray"].astype(np.float32) / np.float32(65535)


def _stored(gray: Gray) -> NDArray[np.uint16]:
    return np.rint(np.clip(gray, 0, 1) * 65535).astype(np.uint16)
