"""CT of low dose, and of a patient who moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.obstacles.base import Damage
from medssml.transforms.base import Preparation, Prepared
from medssml.transforms.ct import OUTSIDE

#: HU of the noise of a scan at full dose, in a voxel of the grid that is read.
FULL_DOSE_HU = 12.0
#: Dose at severity 1, as a share of the full one.
LEAST_DOSE = 0.01
#: mm that the chest travels at severity 1, and the positions at which a turn of the tube sees it.
MOST_MM, POSITIONS = 30.0, 7


def dose_noise_hu(severity: float) -> float:
    """HU of the noise that is added: the counts fall to 0.01 ** severity, and the variance is as 1 / counts."""
    return float(FULL_DOSE_HU * np.sqrt(LEAST_DOSE**-severity - 1))


class CTDose(Damage):
    """A scan of less dose: white noise of variance 12 HU squared times (1 / dose - 1), the dose 0.01 ** severity.

    Half the logarithmic way, at severity 0.5, a tenth of the dose gives 36 HU. What the scan does not cover stays as it is.
    """

    name, modality, entry = "ct_dose", "ct", "hu"
    says = "the CT has a low dose"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        hu = prepared["hu"]
        noise = draws.standard_normal(hu.shape, dtype=np.float32) * np.float32(dose_noise_hu(self.severity))
        return {"hu": np.where(hu > OUTSIDE, _in_range(hu + noise), hu)}


class CTMotion(Damage):
    """A patient who breathes: the mean of the volume at positions along a sine, up to 15 mm to either side at severity 1.

    The chest moves from feet to head, and by a third of that to the front; the phase is drawn.
    """

    name, modality, entry = "ct_motion", "ct", "hu"
    says = "the patient moves during the CT"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        hu = prepared["hu"].astype(np.float32)
        spacing = getattr(preparation, "spacing", (2.0, 2.0, 2.0))
        turns = 2 * np.pi * (np.arange(POSITIONS) / POSITIONS + draws.random())
        total = np.zeros_like(hu)
        for travel in self.severity * MOST_MM / 2 * np.sin(turns):
            total += _moved(_moved(hu, travel / spacing[2], 2), travel / 3 / spacing[1], 1)
        return {"hu": _in_range(total / POSITIONS)}


def _moved(volume: NDArray[np.float32], voxels: float, axis: int) -> NDArray[np.float32]:
    """The volume moved along an axis, between voxels by linear interpolation; its outer slices go on."""
    count = volume.shape[axis]
    at = np.clip(np.arange(count) - voxels, 0, count - 1)
    low = np.minimum(at.astype(int), max(count - 2, 0))
    shape = [1, 1, 1]
    shape[axis] = count
    share = (at - low).astype(np.float32).reshape(shape)
    high = np.minimum(low + 1, count - 1)
    return volume.take(low, axis) * (1 - share) + volume.take(high, axis) * share  # type: ignore[no-any-return]


def _in_range(hu: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Whole HU that an int16 holds. Values below air stay: a floor would lift the mean of the lungs."""
    return np.clip(np.rint(hu), -32768, 32767).astype(np.int16)
