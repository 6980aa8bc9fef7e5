"""Chest radiographs: PNG, JPEG or DICOM as one gray image in [0, 1], dense tissue white, row 0 at the head."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import ReadError, declared_bytes, reading, require_file

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom.dataset import FileDataset

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_NOT_RADIOGRAPH = ("CT", "MR", "PT", "NM", "US", "SR", "SEG", "RTSTRUCT", "RTDOSE", "PR", "KO", "DOC")
_CONTAINER_BITS = (8, 10, 12, 14, 16)


class Radiograph(NamedTuple):
    """A radiograph.

    array: (H, W) float32 in [0, 1], row 0 = top of the image, 1 = dense. bits: depth of the stored values.
    notes: what was fixed or is odd. spacing: (2,) mm between rows and columns at the detector, None where not stated.
    """

    array: NDArray[np.float32]
    bits: int
    notes: tuple[str, ...]
    spacing: NDArray[np.float64] | None


class XrayHeader(NamedTuple):
    """What `read_xray` will return, without the pixels. shape: (H, W)."""

    shape: tuple[int, int]
    bits: int
    notes: tuple[str, ...]
    spacing: NDArray[np.float64] | None


def read_xray(path: str | Path) -> Radiograph:
    """The radiograph in `path`: PNG (8 or 16 bit, palette, RGB, alpha), JPEG (EXIF orientation) or DICOM.

    DICOM: stored bits alone, modality LUT or rescale, VOI LUT or window, MONOCHROME1 inverted.

    Raises:
        ReadError: unreadable, damaged, truncated, constant, or no radiograph.
    """
    path = require_file(path)
    with reading(path, "radiograph"):
        radiograph = _read_picture(path) if _picture_kind(path) else _read_dicom(path)
        low, high = float(radiograph.array.min()), float(radiograph.array.max())
        if not high > low:
            raise ReadError(path, f"every pixel is {low:g}: no picture", "export the image again")
        return radiograph


def xray_header(path: str | Path) -> XrayHeader:
    """Size and depth of `path`, without decoding it; a file cut short is found all the same.

    Raises:
        ReadError: as `read_xray`, as far as headers tell.
    """
    path = require_file(path)
    with reading(path, "radiograph"):
        kind = _picture_kind(path)
        if kind:
            (_check_png if kind == "PNG" else _check_jpeg)(path, deep=False)
            with _open_picture(path) as image:
                _check_picture(image, path)
                turned = _orientation(image) >= 5
                width, height = (image.height, image.width) if turned else image.size
                return XrayHeader((height, width), 16 if image.mode.startswith("I") else 8, (), None)
        from medssml.readers.dicom import frame_shape, read_header

        dataset, _ = read_header(path)
        _check_radiograph(dataset, path)
        _, rows, columns, _ = frame_shape(dataset)
        bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
        return XrayHeader((rows, columns), bits, (), _spacing(dataset, path))


def _picture_kind(path: Path) -> str:
    """ "PNG", "JPEG", or "" for DICOM.

    Raises:
        ReadError: none of the three.
    """
    with path.open("rb") as file:
        head = file.read(132)
    if head.startswith(_PNG):
        return "PNG"
    if head.startswith(_JPEG):
        return "JPEG"
    if head[128:] == b"DICM":
        return ""
    raise ReadError(path, "is not PNG, JPEG or DICOM (wrong first bytes)", "convert it to PNG or name the DICOM file")


# Pictures


def _open_picture(path: Path) -> Image:
    from PIL import Image

    return Image.open(path, formats=("PNG", "JPEG"))


def _read_picture(path: Path) -> Radiograph:
    from PIL import ImageOps

    notes: list[str] = []
    (_check_png if _picture_kind(path) == "PNG" else _check_jpeg)(path, deep=True)
    with _open_picture(path) as image:
        _check_picture(image, path)
        if _orientation(image) > 1:
            notes.append(f"turned upright (EXIF orientation {_orientation(image)})")
        upright = ImageOps.exif_transpose(image)
        values, bits = _gray(upright, notes)
    scaled = values.astype(np.float32) / np.float32((1 << bits) - 1)
    return Radiograph(scaled, bits, tuple(notes), None)


def _orientation(image: Image) -> int:
    return int(image.getexif().get(0x0112) or 1)


def _check_picture(image: Image, path: Path) -> None:
    declared_bytes(path, (image.height, image.width), 4)
    if getattr(image, "n_frames", 1) > 1:
        raise ReadError(path, f"holds {getattr(image, 'n_frames')} pictures", "keep one picture a file")


def _gray(image: Image, notes: list[str]) -> tuple[NDArray[Any], int]:
    """(H, W) gray values of a picture in any mode, and their depth in bits."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)
        bits = _used_bits(int(values.max()))
        if bits < 16:
            notes.append(f"only {bits} of 16 bits are used: scaled by {(1 << bits) - 1}")
        return values, bits
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), 8
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        notes.append("alpha channel dropped")
    colour = np.asarray(image.convert("RGB"))
    name = {"P": "palette", "PA": "palette", "LA": "gray with alpha"}.get(image.mode, image.mode)
    spread = int((colour.max(axis=2) - colour.min(axis=2)).max())
    if spread <= 8:
        notes.append(f"{name} picture read as gray")
        return colour[:, :, 1], 8
    notes.append(f"coloured {name} picture (channels differ by up to {spread}) read by its luminance")
    return np.asarray(image.convert("RGB").convert("L")), 8


def _used_bits(high: int) -> int:
    return next(bits for bits in _CONTAINER_BITS if high < 1 << bits)


def _check_png(path: Path, *, deep: bool) -> None:
    """Walk the chunks to the end; with `deep`, compare each CRC, which Pillow does not do for the pixels."""
    size = path.stat().st_size
    with path.open("rb") as file:
        position = file.seek(len(_PNG))
        while position + 12 <= size:
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if position + 12 + length > size:
                break
            if deep:
                crc = zlib.crc32(file.read(length), zlib.crc32(kind))
                if crc != int.from_bytes(file.read(4), "big"):
                    raise ReadError(path, f"PNG chunk at byte {position:,} is damaged (CRC)", "copy the file again")
            if kind == b"IEND":
                return
            position = file.seek(position + 12 + length)
    raise ReadError(path, f"PNG is truncated at {size:,} bytes (no IEND)", "copy the file again")


def _check_jpeg(path: Path, *, deep: bool) -> None:
    """A JPEG ends in FF D9; where it does not, decoding tells whether data follow the mark or it was cut."""
    if deep:
        return
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), io.SEEK_END)
        if b"\xff\xd9" in file.read():
            return
    with _open_picture(path) as image:
        _check_picture(image, path)
        image.load()


# DICOM


def _check_radiograph(dataset: FileDataset, path: Path) -> None:
    from medssml.readers.dicom import frame_shape

    modality = str(dataset.get("Modality") or "")
    if modality in _NOT_RADIOGRAPH:
        raise ReadError(path, f"has modality {modality}, not a radiograph", "name the CR, DX or RG file")
    frames, _, _, samples = frame_shape(dataset)
    if frames != 1:
        raise ReadError(path, f"has {frames} frames, a radiograph has 1", "keep one frame")
    if samples not in (1, 3):
        raise ReadError(path, f"has {samples} samples per pixel, expected 1 or 3", "export gray values")


def _read_dicom(path: Path) -> Radiograph:
    from medssml.readers.dicom import read_header, stored_values

    header, _ = read_header(path)
    _check_radiograph(header, path)
    dataset, frames = stored_values(path)
    notes: list[str] = []
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        array = _luminance(_palette(frames[0], dataset), notes, "palette")
    elif frames.ndim == 4:
        array = _luminance(frames[0].astype(np.float32) / np.float32((1 << bits) - 1), notes, photometric)
    else:
        array = _window(frames[0], dataset, path, notes)
        if photometric == "MONOCHROME1":
            array = np.float32(1) - array
            notes.append("MONOCHROME1 inverted")
        elif dataset.get("PresentationLUTShape") == "INVERSE":
            notes.append("PresentationLUTShape INVERSE contradicts MONOCHROME2; not inverted")
    if dataset.get("BurnedInAnnotation") == "YES":
        notes.append("burned-in annotation")
    return Radiograph(np.ascontiguousarray(array, np.float32), bits, tuple(notes), _spacing(dataset, path))


def _window(stored: NDArray[Any], dataset: FileDataset, path: Path, notes: list[str]) -> NDArray[np.float32]:
    """(H, W) values in [0, 1]: modality LUT or rescale, then VOI LUT or window, else the range of the declared bits."""
    values, low, high = _modality(stored, dataset, path)
    voi = dataset.get("VOILUTSequence")
    if voi:
        notes.append("VOI LUT applied")
        table, first, depth = _table(voi[0], path)
        index = np.clip(np.rint(values).astype(np.int64) - first, 0, table.size - 1)
        return table[index].astype(np.float32) / np.float32((1 << depth) - 1)
    from medssml.readers.dicom import number

    width = number(dataset, "WindowWidth", 0.0)
    if width > 0 and dataset.get("WindowCenter") not in (None, ""):
        centre, shape = number(dataset, "WindowCenter", 0.0), str(dataset.get("VOILUTFunction") or "LINEAR")
        notes.append(f"window {centre:g}/{width:g}")
        return _apply_window(values, centre, width, shape)
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)


def _modality(stored: NDArray[Any], dataset: FileDataset, path: Path) -> tuple[NDArray[np.float32], float, float]:
    """(H, W) output of the modality LUT or rescale, and the least and greatest value that it can have."""
    from medssml.readers.dicom import number

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
    if first > 32767 and int(item.get("PixelRepresentation", 0) or 0):
        first -= 65536
    return entries, first, depth


def _palette(stored: NDArray[Any], dataset: FileDataset) -> NDArray[np.float32]:
    """(H, W, 3) in [0, 1]."""
    from pydicom.pixels import apply_color_lut

    colour = apply_color_lut(stored, dataset)
    depth = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    return (colour.astype(np.float32) / np.float32((1 << depth) - 1)).astype(np.float32)


def _luminance(colour: NDArray[np.float32], notes: list[str], name: str) -> NDArray[np.float32]:
    """(H, W) gray of an (H, W, 3) picture by ITU-R 601 weights."""
    notes.append(f"{name} picture read by its luminance")
    return np.clip(colour @ np.array([0.299, 0.587, 0.114], np.float32), 0, 1)


def _spacing(dataset: FileDataset, path: Path) -> NDArray[np.float64] | None:
    from medssml.readers.dicom import numbers

    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        found = numbers(dataset, tag, 2, path)
        if found is not None and found.min() > 0:
            return found
    return None


