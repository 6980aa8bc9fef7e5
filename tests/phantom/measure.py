"""What a ruler finds in the phantom's files: measurements that know nothing of how they were drawn."""

from __future__ import annotations

from pathlib import Path

import edfio
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, label
from scipy.signal import butter, sosfiltfilt

Array = NDArray[np.float64]


class Volume:
    """A CT in HU with its millimetres."""

    def __init__(self, path: Path) -> None:
        image = nib.load(path)
        self.hu = np.asarray(image.dataobj, dtype=np.float32)
        zooms = np.array(image.header.get_zooms())
        self.smooth = gaussian_filter(self.hu, 2.8 / zooms)
        axes = [np.arange(n) * s + o for n, s, o in zip(self.hu.shape, zooms, image.affine[:3, 3], strict=True)]
        self.x, self.y, self.z = np.meshgrid(*axes, indexing="ij", sparse=True)

    def fluid(self) -> float:
        """Voxels that have the density of water behind the lungs."""
        place = (self.y < 0) & (np.abs(self.x) > 30) & (np.abs(self.x) < 115) & (self.z > -95) & (self.z < 60)
        return float((place & (self.smooth > -12) & (self.smooth < 30)).sum())

    def heart_width(self) -> float:
        """Widest run of soft tissue across the middle of the chest, in mm, over the slices above the diaphragm."""
        rows = (np.abs(self.y.ravel() - 15) < 30).nonzero()[0]
        slices = (np.abs(self.z.ravel() + 30) < 22).nonzero()[0]
        dense = (self.smooth[:, rows][:, :, slices] > -250).astype(float).mean((1, 2))
        central = np.abs(self.x.ravel()) < 105
        return float(dense[central].sum())

    def nodule(self, centre: tuple[float, float, float]) -> float:
        """Soft tissue (voxels) that hangs together around a place in the lung."""
        gap = np.sqrt((self.x - centre[0]) ** 2 + (self.y - centre[1]) ** 2 + (self.z - centre[2]) ** 2)
        soft = np.clip((self.hu + 600) / 640, 0, 1) * (gap < 28)
        return float(soft.sum())


class Film:
    """A radiograph in [0, 1] with pixels of `pixel` mm, centre of the picture = centre of the chest."""

    def __init__(self, path: Path, pixel: float) -> None:
        pixels = np.asarray(Image.open(path))
        self.film = pixels.astype(np.float64) / np.iinfo(pixels.dtype).max
        rows, columns = self.film.shape
        self.z = ((rows - 1) / 2 - np.arange(rows))[:, None] * pixel
        self.x = ((columns - 1) / 2 - np.arange(columns))[None] * pixel  # the patient's right is on the left

    def mean(self, x: tuple[float, float], z: tuple[float, float]) -> float:
        """Mean brightness of a box in mm, of both sides."""
        side = (np.abs(self.x) >= x[0]) & (np.abs(self.x) < x[1])
        return float(self.film[(self.z >= z[0]) & (self.z < z[1]) & side].mean())

    def fluid(self) -> float:
        """Height in mm of the white at the outer lower edge of the lungs."""
        place = (
            (self.z > -125) & (self.z < -10) & (((self.x > 55) & (self.x < 108)) | ((self.x < -88) & (self.x > -108)))
        )
        air, dense = self.mean((62, 105), (15, 50)), self.mean((40, 90), (-150, -130))
        return float((place & (self.film > (air + dense) / 2)).sum())

    def heart_width(self) -> float:
        """Width in mm of the white shadow in the middle, just above the diaphragm."""
        band = self.film[((self.z > -38) & (self.z < -12)).ravel()].mean(0)
        x = self.x.ravel()
        lung = np.quantile(band[np.abs(x) < 105], 0.1)
        spine = np.median(band[np.abs(x) < 15])
        dark = (band - lung) / (spine - lung) < 0.33
        return float(x[dark & (x > 0) & (x < 105)].min(initial=105) - x[dark & (x < 0) & (x > -105)].max(initial=-105))

    def nodule(self, centre: tuple[float, float, float]) -> float:
        """Brightness of a disc around a place beside that of the ring around it."""
        gap = np.sqrt((self.x - centre[0]) ** 2 + (self.z - centre[2]) ** 2)
        return float(self.film[gap < 10].mean() - self.film[(gap > 34) & (gap < 42)].mean())


def spike_energy(path: Path) -> float:
    """Log mean square of the fronto-central mean between 2 and 20 Hz, without the second with the largest blink."""
    edf = edfio.read_edf(path)
    signals = {signal.label: signal for signal in edf.signals}
    course = np.mean([signals[f"EEG {name}-Ref"].data for name in ("Fz", "F3", "F4", "Cz", "C3", "C4")], axis=0)
    filtered = sosfiltfilt(
        butter(3, (2, 20), "bandpass", fs=signals["EEG Fz-Ref"].sampling_frequency, output="sos"), course
    )
    return float(np.log(np.mean(filtered**2)))


def components(mask: NDArray[np.bool_], least: int) -> int:
    """Connected parts of a mask that have at least so many voxels."""
    parts, count = label(mask)
    return int((np.bincount(parts.ravel())[1:] >= least).sum()) if count else 0
