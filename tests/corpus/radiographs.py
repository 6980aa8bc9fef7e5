"""Radiographs: PNG, JPEG and DICOM files, one fault each, and controls."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.corpus.case import Case, cut, equals, flip, patch, put
from tests.readers.test_read_xray import dicom, expected, picture

GRAY = np.kron(picture().astype(np.uint8), np.ones((8, 8), np.uint8))
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(
    width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"", interlaced: int = 0
) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return PNG_MAGIC + head + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90 << 20)))
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
INTERLACED = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in ADAM7 for row in GRAY[y::dy, x::dx])
ROWS = b"".join(b"\0" + row.tobytes() for row in GRAY)


def png(folder: Path, name: str = "a.png", **options: object) -> Path:
    Image.fromarray(GRAY).save(folder / name, **options)
    return folder / name


def jpeg(folder: Path, **options: object) -> Path:
    Image.fromarray(GRAY).save(folder / "a.jpg", quality=95, **options)
    return folder / "a.jpg"


def tags(stored: np.ndarray | None = None, bits: int = 12, **values: object) -> Callable[[Path], Path]:
    return lambda folder: dicom(folder / "a.dcm", picture(bits) if stored is None else stored, bits, **values)


def _animated(folder: Path) -> Path:
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    frames[0].save(folder / "a.png", save_all=True, append_images=frames[1:])
    return folder / "a.png"


def _format(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.fromarray(GRAY).save(folder / "a.png", kind)
        return folder / "a.png"

    return make


def _lut(entries: int, declared: int, depth: int = 16) -> Sequence:
    table = Dataset()
    table.LUTDescriptor = [declared, 0, depth]
    table.add_new("LUTData", "OW", np.arange(entries, dtype=np.uint16).tobytes())
    return Sequence([table])


REFUSED: list[tuple[str, Callable[[Path], Path], str]] = [
    ("missing", lambda f: f / "none.png", "no such file"),
    ("empty", lambda f: put(f / "a.png", b""), "is empty"),
    ("folder", lambda f: f, "is a folder"),
    ("text", lambda f: put(f / "a.png", "a picture " * 50), "not PNG, JPEG or DICOM"),
    ("html", lambda f: put(f / "a.jpg", "<html>403 Forbidden</html>"), "not PNG, JPEG or DICOM"),
    *[(kind, _format(kind), "not PNG, JPEG or DICOM") for kind in ("GIF", "BMP", "TIFF", "WEBP")],
    ("nifti", lambda f: put(f / "a.png", b"\x5c\x01\0\0" + bytes(400)), "not PNG"),
    ("svg", lambda f: put(f / "a.png", "<svg onload='x'/>"), "not PNG"),
    *[(f"png cut at {s}", lambda f, s=s: cut(png(f), s), "truncated") for s in (8, 20, 40, 0.5, -1, -13)],
    *[(f"jpeg cut at {s}", lambda f, s=s: cut(jpeg(f), s), "decoded|truncated") for s in (3, 40, 0.3, 0.7)],
    *[(f"png bit at {s}", lambda f, s=s: flip(png(f), s), "damaged|truncated|decoded") for s in (0.2, 0.4, 0.6, 0.8)],
    ("png header crc", lambda f: patch(png(f), (18, b"\0\0\2")), "damaged"),
    ("png two pictures", _animated, "holds 2 pictures"),
    ("png 40 GB", lambda f: put(f / "a.png", png_of(100_000, 100_000, 8, 0, b"\0" * 999)), "declares|cannot be decoded"),
    ("png zero width", lambda f: put(f / "a.png", png_of(0, 8, 8, 0, b"\0")), "declares|decoded"),
    ("png depth 5", lambda f: put(f / "a.png", png_of(8, 8, 5, 0, b"\0" * 72)), "decoded|not"),
    ("png short rows", lambda f: put(f / "a.png", png_of(64, 64, 8, 0, b"\0" * 65)), "truncated|decoded"),
    ("png bomb in text", lambda f: put(f / "a.png", png_of(8, 8, 8, 0, b"\0" * 72, BOMB)), "decoded|every pixel"),
    ("png half its rows", lambda f: put(f / "a.png", png_of(72, 48, 8, 0, ROWS[: 73 * 24])), "1,752 bytes of its pixels"),
    ("png interlaced cut", lambda f: put(f / "a.png", png_of(72, 48, 8, 0, INTERLACED[:-1], interlaced=1)), "1 bytes of its"),
    ("constant", lambda f: put(f / "a.png", png_of(8, 8, 8, 0, b"\0" * 72)), "every pixel is 0"),
    ("constant jpeg", lambda f: put(f / "a.jpg", _jpeg_bytes(np.full((32, 32), 99, np.uint8))), "every pixel is"),
    ("CT", tags(Modality="CT"), "modality CT"),
    ("report", tags(Modality="SR"), "modality SR"),
    ("ultrasound", tags(Modality="US"), "modality US"),
    ("mammogram", tags(Modality="MG"), "modality MG"),
    ("raw", tags(PresentationIntentType="FOR PROCESSING"), "is a raw image"),
    ("window beside the values", tags(WindowCenter=-900, WindowWidth=100), "lies outside its values"),
    ("depth too low", tags(bits=10, stored=picture(12)), "states 10 bits a value"),
    ("png of one bit", lambda f: put(f / "a.png", png_of(72, 48, 1, 0, (b"\0" + b"\x0f" * 9) * 48)), "1 bit a pixel"),
    ("two frames", tags(NumberOfFrames=2, PixelData=b"\0" * 216), "has 2 frames"),
    ("8 GB", tags(Rows=65_000, Columns=65_000), "limit 2 GiB"),
    ("dicom cut", lambda f: cut(tags()(f), -30), "is truncated"),
    ("dicom header cut", lambda f: cut(tags()(f), 200), "decoded|truncated|transfer syntax"),
    ("dicom constant", tags(np.zeros((6, 9), np.uint16)), "every pixel is 0"),
    ("slope 0", tags(RescaleSlope=0), "RescaleSlope 0"),
    ("bits", tags(BitsStored=17), "contradicts itself"),
    ("high bit", tags(HighBit=3), "contradicts itself"),
    ("64 bits", tags(BitsAllocated=64), "64 bits allocated"),
    ("two samples", tags(SamplesPerPixel=2, PixelData=b"\0" * 216), "2 samples per pixel"),
    ("subsampled", tags(np.zeros((6, 9, 3), np.uint8), 8, PhotometricInterpretation="YBR_FULL_422"), "subsampled"),
    ("short LUT", tags(VOILUTSequence=_lut(100, 4096)), "LUT of 100 entries, declared 4096"),
    ("short modality LUT", tags(ModalityLUTSequence=_lut(7, 4096)), "LUT of 7 entries"),
    ("LUT depth", tags(VOILUTSequence=_lut(4096, 4096, 99)), "LUT"),
    ("palette without colours", tags(picture().astype(np.uint8), 8, PhotometricInterpretation="PALETTE COLOR"), "decoded"),
]  # fmt: skip


def _jpeg_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG")
    return stream.getvalue()


def _mode(mode: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.fromarray(GRAY).convert(mode).save(folder / "a.png")
        return folder / "a.png"

    return make


def _deep(bits: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        Image.fromarray(picture(bits)).save(folder / "a.png")
        return folder / "a.png"

    return make


def _turned_jpeg(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(GRAY[::-1, ::-1]).save(folder / "a.jpg", quality=95, exif=exif)
    return folder / "a.jpg"


def _palette(folder: Path) -> Path:
    names = ("Red", "Green", "Blue")
    table = np.arange(255, -1, -1, dtype=np.uint8).tobytes()
    values: dict[str, object] = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8] for name in names}
    values |= {f"{name}PaletteColorLookupTableData": table for name in names}
    stored = 255 - picture().astype(np.uint8)
    return dicom(folder / "a.dcm", stored, 8, PhotometricInterpretation="PALETTE COLOR", **values)


def _colour_picture(folder: Path) -> Path:
    colour = np.stack([GRAY, GRAY // 2, GRAY // 3], -1)
    Image.fromarray(colour).save(folder / "a.png")
    return folder / "a.png"


same = equals(GRAY / 255, atol=0.02)
small, deep = equals(expected(), atol=1e-3), equals(expected(12), atol=1e-3)
RGB = np.repeat(picture().astype(np.uint8)[..., None], 3, axis=2)
PUT_RIGHT: list[tuple[str, str, Callable[[Path], Path], str, Callable | None]] = [
    *[(f"png {mode}", "fixed", _mode(mode), "as gray|alpha", same) for mode in ("RGB", "RGBA", "P", "LA")],
    ("png 10 of 16 bits", "flagged", _deep(10), "only 10 of 16", equals(expected(10), atol=1e-3)),
    ("png 12 of 16 bits", "flagged", _deep(12), "only 12 of 16", deep),
    ("jpeg upside down", "fixed", _turned_jpeg, "turned upright", same),
    ("jpeg colour", "fixed", lambda f: put(f / "a.jpg", _jpeg_bytes(np.repeat(GRAY[..., None], 3, 2))), "as gray", same),
    ("monochrome1", "fixed", tags(4095 - picture(12), PhotometricInterpretation="MONOCHROME1"), "inverted", deep),
    ("rgb dicom", "fixed", tags(RGB, 8), "luminance", small),
    ("palette dicom", "fixed", _palette, "palette", small),
    ("overlay unsaid", "flagged", tags(picture(12) | np.uint16(0x4000)), "bits above the 12", deep),
    ("spacing", "flagged", tags(PixelSpacing=[0.1, 0.1, 0.1]), "holds 3 values, expected 2", deep),
    ("knee", "flagged", tags(BodyPartExamined="KNEE"), "shows KNEE", deep),
    ("no modality", "flagged", tags(Modality=""), "no Modality", deep),
    ("table of another depth", "flagged", tags(VOILUTSequence=_lut(4096, 4096, 16)), "its depth states 16 bits", deep),
    ("burned in", "flagged", tags(BurnedInAnnotation="YES"), "burned-in", deep),
    ("inverse", "flagged", tags(PresentationLUTShape="INVERSE"), "INVERSE contradicts", deep),
    ("mirrored", "flagged", tags(ViewPosition="PA", PatientOrientation=["R", "F"]), "mirrored", deep),
    ("coloured", "flagged", _colour_picture, "channels differ by up to", None),
]  # fmt: skip
CONTROLS: list[tuple[str, Callable[[Path], Path], Callable]] = [
    ("png", png, same),
    ("jpeg", jpeg, same),
    ("png 16 bit", _deep(16), equals(expected(16), atol=1e-3)),
    ("jpeg followed by data", lambda f: put(jpeg(f), (f / "a.jpg").read_bytes() + b"trailer"), same),
    ("png by its specification", lambda f: put(f / "a.png", png_of(72, 48, 8, 0, ROWS)), same),
    ("png interlaced", lambda f: put(f / "a.png", png_of(72, 48, 8, 0, INTERLACED, interlaced=1)), same),
    ("png without suffix", lambda f: png(f, "a b.PNG"), same),
    ("dicom 12 bit", tags(), deep),
    ("dicom 8 bit", tags(picture().astype(np.uint8), 8), small),
    ("dicom window", tags(WindowCenter=2048, WindowWidth=4096), equals(expected(12), atol=2e-3)),
    ("dicom rescaled", tags(RescaleSlope=2, RescaleIntercept=-100), deep),
    ("dicom identity LUT", tags(VOILUTSequence=_lut(4096, 4096, 12)), deep),
]


def cases() -> list[Case]:
    found = [Case("xray", name, "refused", make, says) for name, make, says in REFUSED]
    found += [Case("xray", name, verdict, make, says, oracle) for name, verdict, make, says, oracle in PUT_RIGHT]
    return found + [Case("xray", name, "accepted", make, "", oracle) for name, make, oracle in CONTROLS]
