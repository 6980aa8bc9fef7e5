"""Chest radiographs: PNG, JPEG or DICOM as one gray image in [0, 1], dense tissue white, row 0 at the head."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, Note, ReadError, declared_bytes, reading, require_file

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom.dataset import FileDataset

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_NOT_RADIOGRAPH = ("CT", "MR", "PT", "NM", "US", "SR", "SEG", "RTSTRUCT", "RTDOSE", "PR", "KO", "DOC")
_VIEWS = (
    ("OBLIQUE", ("RAO", "LAO", "RPO", "LPO", "RLO", "LLO"), "oblique"),
    ("PA", ("PA",), "posteroanterior"),
    ("AP", ("AP",), "anteroposterior"),
    ("LATERAL", ("LATERAL", "LL", "RL", "LLAT", "RLAT", "LAT"), "lateral"),
)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
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
        ReadError: unreadable, damaged, truncated, constant, or no radiograph.
    """
    path = require_file(path)
    with reading(path, "radiograph"):
        radiograph = _read_picture(path) if _picture_kind(path) else _read_dicom(path)
        low, high = float(radiograph.array.min()), float(radiograph.array.max())
        if not high > low:
            raise ReadError(path, f"every pixel is {low:g}: no picture", "export the image again", code="content")
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
        notes = _burned_in(dataset) + _turned(dataset)
        return XrayHeader((rows, columns), bits, notes, _spacing(dataset, path), view_of(dataset))


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
    raise ReadError(
        path, "is not PNG, JPEG or DICOM (wrong first bytes)", "convert it to PNG or name the DICOM file", code="format"
    )


# Pictures


def _open_picture(path: Path) -> Image:
    from PIL import Image

    return Image.open(path, formats=("PNG", "JPEG"))


def _read_picture(path: Path) -> Radiograph:
    from PIL import ImageOps

    notes: list[str] = []
    kind = _picture_kind(path)
    (_check_png if kind == "PNG" else _check_jpeg)(path, deep=True)
    if kind == "PNG" and _png_depth(path) == (16, True):
        notes.append(Flag("16-bit colour or alpha is read with 8 bits a channel", "cut"))
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


# DICOM


def _check_radiograph(dataset: FileDataset, path: Path) -> None:
    from medssml.readers.dicom import frame_shape

    modality = str(dataset.get("Modality") or "")
    if modality in _NOT_RADIOGRAPH:
        raise ReadError(
            path, f"has modality {modality}, not a radiograph", "name the CR, DX or RG file", code="content"
        )
    frames, _, _, samples = frame_shape(dataset)
    if frames != 1:
        raise ReadError(path, f"has {frames} frames, a radiograph has 1", "keep one frame", code="mixed")
    if str(dataset.get("PhotometricInterpretation") or "") == "YBR_FULL_422" and (
        not dataset.file_meta.TransferSyntaxUID.is_compressed
    ):
        raise ReadError(path, "is subsampled colour without compression", "export gray values", code="format")
    if samples not in (1, 3):
        raise ReadError(path, f"has {samples} samples per pixel, expected 1 or 3", "export gray values")


def _read_dicom(path: Path) -> Radiograph:
    from medssml.readers.dicom import foreign_bits, read_header, stored_values
    from medssml.readers.grayscale import colour_gray, palette, window

    header, _ = read_header(path)
    _check_radiograph(header, path)
    dataset, frames = stored_values(path)
    notes: list[str] = []
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    photometric = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        array = colour_gray(palette(frames[0], dataset), notes, "palette")
    elif frames.ndim == 4:
        native = not dataset.file_meta.TransferSyntaxUID.is_compressed
        brightness = native and photometric.startswith(
            "YBR"
        )  # the codecs turn it into RGB, uncompressed it is as stored
        scaled = frames[0].astype(np.float32) / np.float32((1 << bits) - 1)
        array = colour_gray(scaled, notes, photometric, brightness=brightness)
    else:
        array = window(frames[0], dataset, path)
        if photometric == "MONOCHROME1":
            array = np.float32(1) - array
            notes.append("MONOCHROME1 inverted")
        elif dataset.get("PresentationLUTShape") == "INVERSE":
            notes.append(Flag("PresentationLUTShape INVERSE contradicts MONOCHROME2; not inverted"))
    notes += [*_burned_in(dataset), *filter(None, [foreign_bits(path)]), *_turned(dataset)]
    pixels = np.ascontiguousarray(array, np.float32)
    return Radiograph(pixels, bits, tuple(notes), _spacing(dataset, path), view_of(dataset))


def view_of(dataset: FileDataset) -> str:
    """ "PA", "AP", "LATERAL" or "OBLIQUE" by ViewPosition, else by the meaning of the view code; "" where neither says."""
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    codes = dataset.get("ViewCodeSequence")
    meaning = str(codes[0].get("CodeMeaning") or "").lower().replace("-", "") if codes else ""
    for view, positions, word in _VIEWS:
        if position in positions or (not position and word in meaning):
            return view
    return ""


def _burned_in(dataset: FileDataset) -> tuple[str, ...]:
    """Flags letters in the pixels, where the file says so; most files do not say, and then nobody knows."""
    return (Flag("burned-in annotation"),) if dataset.get("BurnedInAnnotation") == "YES" else ()


def _turned(dataset: FileDataset) -> tuple[str, ...]:
    """Flags an image that its tags say is upside down or mirrored: row 0 is the head, column 0 the patient's right."""
    directions = [str(part).upper() for part in np.atleast_1d(dataset.get("PatientOrientation") or [])]
    if len(directions) != 2 or view_of(dataset) not in ("PA", "AP"):
        return ()
    odd = [("mirrored", directions[0].startswith("R")), ("upside down", directions[1].startswith("H"))]
    shown = "\\".join(directions)
    return tuple(Flag(f"PatientOrientation {shown} says that it is {what}; left as it is") for what, yes in odd if yes)


def _spacing(dataset: FileDataset, path: Path) -> NDArray[np.float64] | None:
    from medssml.readers.dicom import numbers

    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        found = numbers(dataset, tag, 2, path)
        if found is not None and found.min() > 0:
            return found
    return None
