"""From the stored values of a DICOM image to gray in [0, 1]: DICOM PS3.3 C.7.6.3, C.11.1, C.11.2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom import number
from medssml.readers.errors import Flag, ReadError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


def window(stored: NDArray[Any], dataset: FileDataset, path: Path) -> NDArray[np.float32]:
    """(H, W) values in [0, 1]: modality LUT or rescale, then VOI LUT or window, else the range of the declared bits."""
    values, low, high = _modality(stored, dataset, path)
    voi = dataset.get("VOILUTSequence")
    if voi:
        table, first, depth = _table(voi[0], path)
        index = np.clip(np.rint(values).astype(np.int64) - first, 0, table.size - 1)
        return table[index].astype(np.float32) / np.float32((1 << depth) - 1)
    width = number(dataset, "WindowWidth", 0.0)
    if width > 0 and dataset.get("WindowCenter") not in (None, ""):
        centre, shape = number(dataset, "WindowCenter", 0.0), str(dataset.get("VOILUTFunction") or "LINEAR")
        return _apply_window(values, centre, width, shape)
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)


def _modality(stored: NDArray[Any], dataset: FileDataset, path: Path) -> tuple[NDArray[np.float32], float, float]:
    """(H, W) output of the modality LUT or rescale, and the least and greatest value that it can have."""
    lut = dataset.get("ModalityLUTSequence")
    if lut:
        table, first, depth = _table(lut[0], path)
        index = np.clip(stored.astype(np.int64) - first, 0, table.size - 1)
        return table[index].astype(np.float32), 0.0, float((1 << depth) - 1)
    slope, intercept = number(dataset, "RescaleSlope", 1.0), number(dataset, "RescaleIntercept", 0.0)
    if slope == 0:
        raise ReadError(path, "has RescaleSlope 0", "export the image again")
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    low = -(1 << (bits - 1)) if stored.dtype.kind == "i" else 0
    ends = sorted((low * slope + intercept, (low + (1 << bits) - 1) * slope + intercept))
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), ends[0], ends[1]


def _apply_window(values: NDArray[np.float32], centre: float, width: float, shape: str) -> NDArray[np.float32]:
    """DICOM PS3.3 C.11.2.1.2: LINEAR, LINEAR_EXACT or SIGMOID, scaled to [0, 1]."""
    if shape == "SIGMOID":
        exponent = np.clip(-4 * (values - np.float32(centre)) / np.float32(width), -80, 80)
        return (1 / (1 + np.exp(exponent))).astype(np.float32)
    if shape == "LINEAR_EXACT":
        return np.clip((values - np.float32(centre)) / np.float32(width) + np.float32(0.5), 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(np.float32)
    return np.clip((values - np.float32(centre - 0.5)) / np.float32(width - 1) + np.float32(0.5), 0, 1)


def _table(item: Any, path: Path) -> tuple[NDArray[np.int64], int, int]:
    """Entries of a LUT, the stored value of its first entry, its depth in bits."""
    count, first, depth = (int(value) for value in item.LUTDescriptor)
    count = count or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        entries = np.frombuffer(data, np.uint8 if len(data) == count else np.dtype("<u2")).astype(np.int64)
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if entries.size != count or not 8 <= depth <= 16:
        raise ReadError(path, f"has a LUT of {entries.size} entries, declared {count}", "export the image again")
    return entries, first, depth


def palette(stored: NDArray[Any], dataset: FileDataset) -> NDArray[np.float32]:
    """(H, W, 3) in [0, 1]."""
    from pydicom.pixels import apply_color_lut

    colour = apply_color_lut(stored, dataset)
    depth = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    return (colour.astype(np.float32) / np.float32((1 << depth) - 1)).astype(np.float32)


def colour_gray(
    colour: NDArray[np.float32], notes: list[str], name: str, *, brightness: bool = False
) -> NDArray[np.float32]:
    """(H, W) gray of an (H, W, 3) picture: its first channel where that is the brightness (YBR), else by ITU-R 601."""
    spread = float((colour.max(axis=2) - colour.min(axis=2)).max())
    read = f"{name} picture read by its luminance"
    notes.append(read if spread == 0 else Flag(f"{read}: channels differ by up to {spread:.0%}", "reread"))
    if brightness:
        return np.ascontiguousarray(colour[:, :, 0])
    return np.clip(colour @ np.array([0.299, 0.587, 0.114], np.float32), 0, 1)
