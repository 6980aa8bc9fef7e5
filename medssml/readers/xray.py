"""Chest radiographs: PNG, JPEG or DICOM as one gray image in [0, 1], dense tissue white, row 0 at the head."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom_file import is_dicom
from medssml.readers.errors import Flag, Note, ReadError, declared_bytes, reading, require_file

if TYPE_CHECKING:
    from PIL.Image import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: The middle 98 % of a radiograph's values span more than this.
_LEAST_RANGE = 0.1
_SAMPLED = 200_000
_CONTAINER_BITS = (8, 10, 12, 14, 16)


class Radiograph(NamedTuple):
    """A radiograph.

    array: (H, W) float32 in [0, 1], row 0 = top of the image, 1 = dense. bits: depth of the stored values.
    notes: what was fixed or is odd. spacing: (2,) mm between rows and columns at the detector, None where not stated.
    view: "PA", "AP", "LATERAL", "OBLIQUE", or "" where the file does not say.
    """

    array: NDArray[np.float32]
    bits: int
    notes: tuple[str, ...]
    spacing: NDArray[np.float64] | None
    view: str = ""


class XrayHeader(NamedTuple):
    """What `read_xray` will return, without the pixels. shape: (H, W)."""

    shape: tuple[int, int]
    bits: int
    notes: tuple[str, ...]
    spacing: NDArray[np.float64] | None
    view: str = ""


def read_xray(path: str | Path) -> Radiograph:
    """The radiograph in `path`: PNG (8 or 16 bit, palette, RGB, alpha), JPEG (EXIF orientation) or DICOM.

    DICOM: stored bits alone, modality LUT or rescale, VOI LUT or window, MONOCHROME1 inverted.

    Raises:
        ReadError: unreadable, damaged, truncated, without a picture in it, or no radiograph.
    """
    path = require_file(path)
    with reading(path, "radiograph"):
        if _picture_kind(path):
            radiograph = _read_picture(path)
        else:
            from medssml.readers.xray_dicom import dicom_radiograph

            radiograph = dicom_radiograph(path)
        return radiograph._replace(notes=_check_content(radiograph.array, path, radiograph.notes))


def radiograph_of(gray: NDArray[Any], path: Path) -> Radiograph:
    """An image (H, W) in memory: whole numbers of 8 to 16 bits as stored, or 0 to 1; `path` names it in messages.

    Raises:
        ReadError: no picture in it.
    """
    bits = _used_bits(int(gray.max())) if gray.dtype.kind in "iu" else 16
    scaled = gray.astype(np.float32) / np.float32((1 << bits) - 1 if gray.dtype.kind in "iu" else 1)
    return Radiograph(scaled, bits, _check_content(scaled, path, ()), None)


def xray_header(path: str | Path) -> XrayHeader:
    """Size and depth of `path`, without decoding it; a file cut short is found all the same.

    Raises:
        ReadError: as `read_xray`, as far as headers tell.
    """
    path = require_file(path)
    with reading(path, "radiograph"):
        kind = _picture_kind(path)
        if kind:
            _check_file(path, kind, deep=False)
            with _open_picture(path) as image:
                _check_picture(image, path)
                notes: list[str] = []
                turned = _orientation(image, notes) >= 5
                width, height = (image.height, image.width) if turned else image.size
                return XrayHeader((height, width), 16 if image.mode.startswith("I") else 8, tuple(notes), None)
        from medssml.readers.xray_dicom import dicom_header

        return dicom_header(path)


def _check_content(array: NDArray[np.float32], path: Path, notes: tuple[str, ...]) -> tuple[str, ...]:
    """`notes`, and whether the picture in `array` (H, W) uses little of the range.

    Raises:
        ReadError: a constant, or two values alone.
    """
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        reason = "its values overflow once they are scaled: the slope or the window is damaged"
        raise ReadError(path, reason, "export the image again", code="damaged")
    if not high > low:
        raise ReadError(path, f"every pixel is {low:g}: no picture", "export the image again", code="content")
    if np.count_nonzero(array == low) + np.count_nonzero(array == high) == array.size:
        reason = f"holds two values alone ({low:g} and {high:g}): a mask or a drawing, no radiograph"
        raise ReadError(path, reason, "name the radiograph in gray values", code="content")
    step = max(1, array.size // _SAMPLED)
    least, greatest = np.percentile(array.ravel()[::step], [1, 99])
    if greatest - least >= _LEAST_RANGE:
        return notes
    reason = f"98% of its pixels lie between {least:.2g} and {greatest:.2g} of 0 to 1: hardly any contrast"
    return (*notes, Flag(reason))


def _picture_kind(path: Path) -> str:
    """ "PNG", "JPEG", or "" for DICOM.

    Raises:
        ReadError: none of the three.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_PNG):
        return "PNG"
    if head.startswith(_JPEG):
        return "JPEG"
    if is_dicom(path):
        return ""
    raise ReadError(
        path, "is not PNG, JPEG or DICOM (wrong first bytes)", "convert it to PNG or name the DICOM file", code="format"
    )


# Pictures


def _open_picture(path: Path) -> Image:
    from PIL import Image

    return Image.open(path, formats=("PNG", "JPEG"))


def _read_picture(path: Path) -> Radiograph:
    notes: list[str] = []
    kind = _picture_kind(path)
    _check_file(path, kind, deep=True)
    if kind == "PNG" and _png_depth(path) == (16, True):
        notes.append(Flag("16-bit colour or alpha is read with 8 bits a channel", "cut"))
    with _open_picture(path) as image:
        _check_picture(image, path)
        values, bits = _gray(_upright(image, _orientation(image, notes), notes), notes)
    scaled = values.astype(np.float32) / np.float32((1 << bits) - 1)
    return Radiograph(scaled, bits, tuple(notes), None)


def _orientation(image: Image, notes: list[str]) -> int:
    """1 to 8 by EXIF; 1 where there is none, and, flagged, where there is none that can be read."""
    try:
        stated: Any = image.getexif().get(0x0112) or 1
    except Exception:  # Pillow raises whatever a broken byte makes it raise, and the picture does not need it
        stated = None
    if stated not in range(1, 9):
        notes.append(Flag("its EXIF orientation cannot be read: taken as upright", "assumed"))
        return 1
    return int(stated)


def _upright(image: Image, orientation: int, notes: list[str]) -> Image:
    from PIL.Image import Transpose

    if orientation == 1:
        return image
    notes.append(f"turned upright (EXIF orientation {orientation})")
    turns = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
    return image.transpose(Transpose[turns[orientation - 2]])


def _check_picture(image: Image, path: Path) -> None:
    declared_bytes(path, (image.height, image.width), 4)
    pictures = getattr(image, "n_frames", 1)
    if pictures > 1:
        raise ReadError(path, f"holds {pictures} pictures", "keep one picture a file", code="mixed")


def _gray(image: Image, notes: list[str]) -> tuple[NDArray[Any], int]:
    """(H, W) gray values of a picture in any mode, and their depth in bits."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)
        bits = _used_bits(int(values.max()))
        if bits < 16:
            reason = f"only {bits} of 16 bits are used (up to {int(values.max())}): scaled by {(1 << bits) - 1} and not 65535"
            notes.append(Flag(reason, "rescaled"))
        return values, bits
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), 8
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        notes.append(
            "alpha channel dropped" if _opaque(image) else Flag("alpha channel that varies dropped", "left_out")
        )
    colour = np.asarray(image.convert("RGB"))
    name = {"P": "palette", "PA": "palette", "LA": "gray with alpha"}.get(image.mode, image.mode)
    spread = int((colour.max(axis=2) - colour.min(axis=2)).max())
    if spread <= 8:
        same = f"{name} picture read as gray"
        notes.append(same if spread == 0 else Note(f"{same}: channels differ by up to {spread} of 255"))
        return colour[:, :, 1], 8
    notes.append(Flag(f"coloured {name} picture (channels differ by up to {spread}) read by its luminance", "reread"))
    return np.asarray(image.convert("RGB").convert("L")), 8


def _opaque(image: Image) -> bool:
    """Whether every pixel has the same transparency, so that nothing was cut out of the picture."""
    low, high = image.convert("RGBA").getchannel("A").getextrema()
    return bool(low == high)


def _png_depth(path: Path) -> tuple[int, bool]:
    """Bits per channel, and whether there are several channels."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[24], header[25] in (2, 4, 6)


def _used_bits(high: int) -> int:
    return next(bits for bits in _CONTAINER_BITS if high < 1 << bits)


def _check_file(path: Path, kind: str, *, deep: bool) -> None:
    """The file of a picture is whole and, where it is a PNG, of more than one bit a pixel."""
    if kind == "JPEG":
        _check_jpeg(path, deep=deep)
        return
    _check_png(path, deep=deep)
    if _png_depth(path)[0] == 1:
        reason = "is a PNG of 1 bit a pixel: black and white, so a mask or a drawing"
        raise ReadError(path, reason, "name the radiograph in gray values, 8 bits or more", code="content")


def _check_png(path: Path, *, deep: bool) -> None:
    """Walk the chunks to the end; with `deep`, compare each CRC and count the pixel bytes: Pillow does neither."""
    size = path.stat().st_size
    pixels, decoder = -1, zlib.decompressobj()
    with path.open("rb") as file:
        position = file.seek(len(_PNG))
        while position + 12 <= size:
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if position + 12 + length > size:
                break
            if deep:
                data = file.read(length)
                if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(file.read(4), "big"):
                    reason = f"PNG chunk at byte {position:,} is damaged (CRC)"
                    raise ReadError(path, reason, "copy the file again", code="damaged")
                if kind == b"IHDR":
                    pixels = _png_bytes(data, path)
                elif kind == b"IDAT" and pixels > 0:
                    pixels -= _inflated(decoder, data, pixels, path)
            if kind == b"IEND":
                if pixels > 0:
                    reason = f"PNG is truncated: {pixels:,} bytes of its pixels are missing"
                    raise ReadError(path, reason, "export the image again", code="truncated")
                return
            position = file.seek(position + 12 + length)
    raise ReadError(path, f"PNG is truncated at {size:,} bytes (no IEND)", "copy the file again", code="truncated")


def _png_bytes(header: bytes, path: Path) -> int:
    """Bytes of the filtered rows that an IHDR chunk declares, of all seven passes where it is interlaced."""
    if len(header) != 13:
        return -1
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    declared_bytes(path, (height, width), 4)
    depth, samples = header[8], {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(header[9], 1)
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-max(0, width - left) // across), -(-max(0, height - top) // down)
        total += rows * (1 + -(-columns * samples * depth // 8)) if columns else 0
    return total


def _inflated(decoder: Any, data: bytes, limit: int, path: Path) -> int:
    """How many bytes `data` adds to the stream, counted up to `limit`."""
    count = 0
    try:
        while data and count < limit and not decoder.eof:
            count += len(decoder.decompress(data, 1 << 20))
            data = decoder.unconsumed_tail
    except zlib.error as error:
        raise ReadError(path, f"PNG is damaged ({error})", "copy the file again", code="damaged") from error
    return count


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
