"""From the stored values of a DICOM image to gray in [0, 1]: DICOM PS3.3 C.7.6.3, C.11.1, C.11.2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom import bit_range, words
from medssml.readers.dicom_numbers import every_number, number
from medssml.readers.errors import Flag, ReadError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

#: Share of pixels beyond a window or table from which the picture is worth a look.
_CLIPPED = 0.5
#: Depths of a table: one that reaches another than it states was filled by another rule.
_DEPTHS = (8, 10, 12, 14, 16)
_SHAPES = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_REEXPORT = "export the image again"


class _Table(NamedTuple):
    """A LUT. entries (N,); first: the value that the first entry maps; depth: bits of the entries."""

    entries: NDArray[np.int64]
    first: int
    depth: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        index = np.clip(values - self.first, 0, self.entries.size - 1)
        return self.entries[index].astype(np.float32)


def window(stored: NDArray[Any], dataset: FileDataset, path: Path, notes: list[str]) -> NDArray[np.float32]:
    """(H, W) values in [0, 1]: modality LUT or rescale, then VOI LUT or window, else the range of the declared bits.

    Where a window or table leaves most of the values out, `notes` says so.

    Raises:
        ReadError: a window or table that lies beside the values, or a table of another size than it declares.
    """
    values, low, high = _modality(stored, dataset, path, notes)
    voi = dataset.get("VOILUTSequence")
    if voi:
        whole_values = np.rint(values).astype(np.int64)
        table = _table(voi[0], dataset, whole_values, path, notes)
        name = f"VOI LUT ({table.first} to {table.first + table.entries.size - 1})"
        _check_covered(whole_values, (table.first, table.first + table.entries.size - 1), name, path, notes)
        return table(whole_values) / np.float32((1 << table.depth) - 1)
    chosen = _chosen_window(values, dataset, path, notes)
    if chosen is not None:
        return _apply_window(values, *chosen)
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)


def _modality(
    stored: NDArray[Any], dataset: FileDataset, path: Path, notes: list[str]
) -> tuple[NDArray[np.float32], float, float]:
    """(H, W) output of the modality LUT or rescale, and the least and greatest value that it can have."""
    lut = dataset.get("ModalityLUTSequence")
    if lut:
        whole_values = stored.astype(np.int64)
        table = _table(lut[0], dataset, whole_values, path, notes)
        name = f"modality LUT ({table.first} to {table.first + table.entries.size - 1})"
        _check_covered(whole_values, (table.first, table.first + table.entries.size - 1), name, path, notes)
        return table(whole_values), 0.0, float((1 << table.depth) - 1)
    slope, intercept = number(dataset, "RescaleSlope", 1.0, path), number(dataset, "RescaleIntercept", 0.0, path)
    if slope == 0:
        raise ReadError(path, "has RescaleSlope 0", _REEXPORT)
    bits, _ = bit_range(dataset, stored.dtype.itemsize * 8, path)
    low = -(1 << (bits - 1)) if stored.dtype.kind == "i" else 0
    ends = sorted((low * slope + intercept, (low + (1 << bits) - 1) * slope + intercept))
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), ends[0], ends[1]


def _chosen_window(
    values: NDArray[np.float32], dataset: FileDataset, path: Path, notes: list[str]
) -> tuple[float, float, str] | None:
    """Centre, width and shape of the first window that is not beside the values; None where the file has none."""
    centres, widths = every_number(dataset, "WindowCenter", path), every_number(dataset, "WindowWidth", path)
    shape = "".join(words(dataset, "VOILUTFunction")[:1]) or "LINEAR"
    if shape not in _SHAPES:
        notes.append(Flag(f"VOILUTFunction {shape[:16]} is none: the window is taken as LINEAR", "assumed"))
    pairs = [(centre, width) for centre, width in zip(centres, widths, strict=False) if width > 0]
    if not pairs:
        if widths:
            notes.append(
                Flag(f"WindowWidth {widths[0]:g} is no width: the range of the declared bits is taken", "assumed")
            )
        return None
    least, greatest = float(values.min()), float(values.max())
    for index, (centre, width) in enumerate(pairs):
        start, end = _ends(centre, width, shape)
        if least == greatest or (start < greatest and end > least):
            name = f"window (centre {centre:g}, width {width:g})"
            if index:
                first = "centre {:g}, width {:g}".format(*pairs[0])
                notes.append(Flag(f"the first window ({first}) lies beside the values: {name} is taken", "reread"))
            _check_covered(values, (start, end), name, path, notes)
            return centre, width, shape
    centre, width = pairs[0]
    reason = f"its window (centre {centre:g}, width {width:g}) lies outside its values ({least:g} to {greatest:g})"
    raise ReadError(path, reason, "export it with another window, or with none", code="content")


def _ends(centre: float, width: float, shape: str) -> tuple[float, float]:
    """The values that become 0 and 1, by DICOM PS3.3 C.11.2.1.2; about those, where the shape is a sigmoid."""
    if shape in ("LINEAR_EXACT", "SIGMOID"):
        return centre - width / 2, centre + width / 2
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def _check_covered(values: NDArray[Any], ends: tuple[float, float], name: str, path: Path, notes: list[str]) -> None:
    """Flags a window or table that most of the values lie beyond.

    Raises:
        ReadError: values that are not all the same lie beyond it on one side, all of them.
    """
    below, above = (float(np.count_nonzero(side)) / values.size for side in (values < ends[0], values > ends[1]))
    least, greatest = float(values.min()), float(values.max())
    if 1.0 in (below, above) and greatest > least:
        reason = f"its {name} lies outside its values ({least:g} to {greatest:g})"
        raise ReadError(path, reason, "export it with another, or with none", code="content")
    if below + above > _CLIPPED and greatest > least:
        sides = [
            f"{share:.0%} of the pixels lie {side}" for share, side in ((below, "below"), (above, "above")) if share
        ]
        notes.append(Flag(f"{' and '.join(sides)} its {name}, and become one gray", "cut"))


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


def _table(item: Any, dataset: FileDataset, values: NDArray[np.int64], path: Path, notes: list[str]) -> _Table:
    """A LUT for `values`, in the sign of its first value and the depth of its entries that fit them."""
    described = every_number(item, "LUTDescriptor", path)
    if len(described) != 3:
        raise ReadError(path, f"LUTDescriptor holds {len(described)} values, expected 3", _REEXPORT)
    count, first, depth = (int(value) for value in described)
    count = count & 0xFFFF or 65536
    entries = _entries(item, dataset, count)
    if entries.size != count or not 8 <= depth <= 16:
        raise ReadError(path, f"has a LUT of {entries.size} entries, declared {count} of {depth} bits", _REEXPORT)
    depth = _used_depth(int(entries.max()), depth, depth - 1, notes)
    return _Table(entries, _first_mapped(first, count, values), depth)


def _used_depth(greatest: int, depth: int, least: int, notes: list[str]) -> int:
    """The stated `depth` of a table, or what its `greatest` entry needs, where that is more, or fewer than `least` bits."""
    used = next(bits for bits in _DEPTHS if greatest < 1 << bits)
    if not greatest >> depth and used >= least:
        return depth
    told = f"entries of a LUT reach {greatest}, its depth states {depth} bits: scaled by {used} bits"
    notes.append(Flag(told, "rescaled"))
    return used


def _entries(item: Any, dataset: FileDataset, count: int) -> NDArray[np.int64]:
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    wide = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
    if wide.size == count or len(data) not in (count, count + 1):
        return wide.astype(np.int64)
    if order == "<":
        return np.frombuffer(data, np.uint8)[:count].astype(np.int64)
    # entries of 8 bits, two in a word: the first is its low byte in either byte order
    return wide.astype("<u2").view(np.uint8)[:count].astype(np.int64)


def _first_mapped(first: int, count: int, values: NDArray[np.int64]) -> int:
    """The first value that a table maps, which is signed where its values can be (PS3.3 C.11.2.1.1): 16 bits do not tell,
    and where the representation is implicit, readers guess. Of the two, the one whose table covers more of the values."""
    other = first - 65536 if first > 32767 else first + 65536 if first < 0 else first
    covered = [int(np.count_nonzero((values >= one) & (values < one + count))) for one in (first, other)]
    return other if covered[1] > covered[0] else first


def palette(stored: NDArray[Any], dataset: FileDataset, notes: list[str]) -> NDArray[np.float32]:
    """(H, W, 3) in [0, 1]; entries that do not fit their depth are scaled by their own, and `notes` says so."""
    from pydicom.pixels import apply_color_lut

    colour = apply_color_lut(stored, dataset)
    depth = _used_depth(int(colour.max()), int(dataset.RedPaletteColorLookupTableDescriptor[2]), 0, notes)
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
