"""CT: NIfTI files and DICOM series, one fault each, and controls."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.corpus.case import Case, cut, equals, flip, patch, put
from tests.readers.test_read_ct import SERIES_FAULTS, SHAPE, nifti, phantom, ras_affine, series, slice_dataset

PHANTOM = phantom()


def header(*changes: tuple[int, bytes], suffix: str = ".nii") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = patch(nifti(folder / "a.nii"), *changes)
        return put(folder / "a.nii.gz", gzip.compress(path.read_bytes())) if suffix == ".nii.gz" else path

    return make


def values(change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image = nib.Nifti1Image(change(phantom()), ras_affine() if affine is None else affine)
        nib.save(image, folder / "a.nii.gz")
        return folder / "a.nii.gz"

    return make


def packed(damage: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: damage(nifti(folder / "a.nii.gz"))


def _srow(*rows: tuple[float, ...]) -> tuple[int, bytes]:
    return 280, struct.pack("<12f", *[value for row in rows for value in row])


def _mirrored(folder: Path) -> Path:
    image = nib.Nifti1Image(phantom(), ras_affine())
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ ras_affine(), 1)
    nib.save(image, folder / "a.nii")
    return folder / "a.nii"


def _bomb(folder: Path) -> Path:
    head = nifti(folder / "a.nii").read_bytes()[:352]
    return put(folder / "b.nii.gz", gzip.compress(head + bytes(64 << 20), 9))


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.nii.gz")
    return folder / "a.nii.gz"


LARGE = np.diag([10.0, 10.0, 2.5, 1.0])
NIFTI: list[tuple[str, Callable[[Path], Path], str]] = [
    ("missing", lambda f: f / "none.nii.gz", "no such file"),
    ("empty", lambda f: put(f / "a.nii.gz", b""), "is empty"),
    ("text", lambda f: put(f / "a.nii", "a volume " * 100), "is not NIfTI"),
    ("zip", lambda f: put(f / "a.nii.gz", b"PK\x03\x04" + bytes(400)), "is not NIfTI"),
    ("pipe", _pipe, "not a regular file"),
    ("zeros", lambda f: put(f / "a.nii", bytes(4000)), "is not NIfTI"),
    ("header cut", header() and (lambda f: cut(nifti(f / "a.nii"), 200)), "truncated: 200 of 348"),
    ("half", lambda f: cut(nifti(f / "a.nii"), 0.5), "is truncated"),
    ("last byte", lambda f: cut(nifti(f / "a.nii"), -1), "is truncated"),
    *[(f"gzip cut at {s}", packed(lambda p, s=s: cut(p, s)), "truncated|damaged") for s in (0.1, 0.5, 0.9, -8, -1)],
    *[
        (f"bit flipped at {s}", packed(lambda p, s=s: flip(p, s)), "damaged|truncated|more than")
        for s in (0.3, 0.45, 0.6, 0.8, 0.95)
    ],
    ("checksum", packed(lambda p: patch(p, (-8, b"\0\0\0\0"))), "damaged"),
    ("gzip length", packed(lambda p: patch(p, (-4, b"\1\2\3\4"))), "damaged"),
    ("gzip bomb", _bomb, "more than"),
    ("magic", header((344, b"xyz\0")), "magic"),
    ("pair", header((344, b"ni1\0")), "pair"),
    ("no dimension", header((40, struct.pack("<h", 0))), "declares 0 dimensions"),
    ("9 dimensions", header((40, struct.pack("<h", 9))), "declares .* dimensions"),
    ("2 dimensions", values(lambda v: v[:, :, 0]), "2 dimensions"),
    ("3 volumes", values(lambda v: np.stack([v] * 3, -1)), "3 volumes in one file"),
    ("5 dimensions", values(lambda v: np.stack([v] * 2, -1)[:, :, :, None]), "2 volumes in one file"),
    ("zero size", header((42, struct.pack("<h", 0))), "declares an array of 0 x"),
    ("negative size", header((46, struct.pack("<h", -9))), "declares an array"),
    ("70 TB", header((42, struct.pack("<3h", 32767, 32767, 32767))), "declares 64 TiB, limit 2 GiB"),
    ("more than its shape", header((46, struct.pack("<h", 5))), "more than the shape"),
    ("type code", header((70, struct.pack("<h", 999))), "data type code 999"),
    ("complex", values(lambda v: v.astype(np.complex64)), "expected integers or floats"),
    ("colour", values(lambda v: np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "expected integers"),
    ("bits", header((72, struct.pack("<h", 32))), "32 bits per voxel"),
    ("offset 0", header((108, struct.pack("<f", 0))), "voxels start at byte 0"),
    ("offset huge", header((108, struct.pack("<f", 1e12))), "voxels start at byte"),
    ("offset nan", header((108, struct.pack("<f", np.nan))), "voxels start at byte nan"),
    ("slope inf", header((112, struct.pack("<2f", np.inf, 0))), "scl_slope inf"),
    ("intercept inf", header((112, struct.pack("<2f", 1, np.inf))), "scl_inter inf"),
    ("zero affine", header(_srow((0,) * 4, (0,) * 4, (0,) * 4)), "singular"),
    ("flat affine", header(_srow((0.8, 0, 0, 0), (0, 1.1, 0, 0), (0, 0, 0, 0))), "singular"),
    ("parallel axes", header(_srow((0.8, 0.8, 0, 0), (0, 0, 0, 0), (0, 0, 2.5, 0))), "singular"),
    ("sheared", header(_srow((0.8, 0, 0, 0), (0, 1.1, 0, 0), (0.3, 0, 2.5, 0))), "sheared by"),
    ("nan affine", header(_srow((np.nan, 0, 0, 0), (0, 1.1, 0, 0), (0, 0, 2.5, 0))), "NaN or infinite"),
    ("inf origin", header(_srow((0.8, 0, 0, np.inf), (0, 1.1, 0, 0), (0, 0, 2.5, 0))), "NaN or infinite"),
    ("contradictory spacing", header((80, struct.pack("<3f", 0.8, 1.1, 5))), "contradictory spacing"),
    ("contradictory forms", _mirrored, "contradict each other by 180 degrees"),
    ("in metres unsaid", values(lambda v: v, np.diag([0.0008, 0.0008, 0.0025, 1])), "voxel spacing 0.0008"),
    ("spacing 900 mm", values(lambda v: v, np.diag([1, 1, 900.0, 1])), "voxel spacing 1 x 1 x 900"),
    ("nan voxels", values(lambda v: np.where(v > 800, np.nan, v).astype(np.float32)), "48 of 1,080 voxels are NaN"),
    ("inf voxels", values(lambda v: np.where(v > 800, np.inf, v).astype(np.float32)), "NaN or infinite"),
    ("constant", values(lambda v: v * 0), "constant"),
    ("8-bit window", values(lambda v: np.clip((v + 1000) / 5, 0, 255).astype(np.uint8), LARGE), "8-bit window"),
    ("HU without offset", values(lambda v: (v + 1024).astype(np.uint16), LARGE), "HU with an offset"),
    ("offset and padding", values(lambda v: np.where(v < -990, -3024, v + 2000).astype(np.int16), LARGE), "above 700"),
    ("rescaled twice", values(lambda v: (v - 1024).astype(np.int16), LARGE), "rescaled twice"),
    ("slope 10", values(lambda v: (v * 10).astype(np.int16), LARGE), "below -1100"),
    ("wrapped", values(lambda v: v.astype(np.uint16)), "wrapped into unsigned 16 bits"),
    ("overflow", values(lambda v: v.astype(np.float64) * 1e300), "overflow"),
    ("unit range", values(lambda v: ((v + 1000) / 2000).astype(np.float32)), "not HU"),
]
DICOM: list[tuple[str, Callable[[Path], Path], str]] = [
    *[(name, lambda f, o=options: series(f / "s", **o), says) for name, (options, says) in SERIES_FAULTS.items()],
    ("first and two more missing", lambda f: series(f / "s", skip=(3, 6)), "gap 5.0 mm after slice 3.* and 1 more"),
    ("no rescale tags", lambda f: _without(f, "RescaleSlope", "RescaleIntercept"), "unsigned values with no Rescale"),
    ("no orientation", lambda f: _without(f, "ImageOrientationPatient"), "has no ImageOrientationPatient"),
    ("no spacing", lambda f: _without(f, "PixelSpacing"), "has no PixelSpacing"),
    ("no pixels", lambda f: _without(f, "PixelData"), "truncated|ends before"),
    ("slope 0", lambda f: _tags(f, RescaleSlope=0), "RescaleSlope 0"),
    ("spacing 0", lambda f: _tags(f, PixelSpacing=[0, 0]), "pixel spacing 0|varies"),
    ("spacing negative", lambda f: _tags(f, PixelSpacing=[-1, -1]), "pixel spacing -1"),
    ("skewed directions", lambda f: _tags(f, ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0]), "not unit and square"),
    ("position of two numbers", lambda f: _tags(f, ImagePositionPatient=[0, 0]), "holds 2 values, expected 3"),
    ("bits", lambda f: _tags(f, BitsStored=20, HighBit=19), "contradicts itself"),
    ("1 bit", lambda f: _tags(f, BitsAllocated=1), "1 bits allocated"),
    ("colour", lambda f: _tags(f, SamplesPerPixel=3), "truncated|samples per pixel"),
    ("70 TB", lambda f: _tags(f, Rows=65535, Columns=65535, NumberOfFrames=9000), "declares .* TiB, limit 2 GiB"),
    ("one slice of another size", lambda f: series(f / "s", change=_other_size), r"2 sizes \(8 of 10 x 12, 1 of 5 x 24"),
    ("text named dcm", lambda f: put(f / "s" / "a.dcm", "no picture" * 50).parent, "is not DICOM"),
    ("empty slice", lambda f: put(series(f / "s") / "zz.dcm", b"").parent, "is empty"),
    ("empty folder", lambda f: _folder(f / "s"), "no CT slice"),
    ("folder of text", lambda f: put(f / "s" / "notes.txt", "hello").parent, "no CT slice"),
    ("cut slice", lambda f: cut(series(f / "s") / "004.dcm", -40).parent, "004.dcm: is truncated"),
    ("cut header of the last", lambda f: cut(series(f / "s") / "008.dcm", 300).parent, "008.dcm: holds no image"),
    ("cut header", lambda f: cut(series(f / "s") / "004.dcm", 300).parent, "004.dcm"),
    ("no syntax", lambda f: cut(series(f / "s") / "004.dcm", 140).parent, "004.dcm"),
    ("codec", lambda f: _compressed(f, "1.2.840.10008.1.2.4.201"), "codec|cannot be decoded|not supported"),
    ("unknown syntax", lambda f: _compressed(f, "1.2.840.10008.1.2.4.999"), "not supported"),
    ("video", lambda f: _compressed(f, "1.2.840.10008.1.2.4.102"), "not supported"),
    ("deflated", lambda f: _compressed(f, "1.2.840.10008.1.2.1.99"), "is deflated and damaged"),
    ("link outside", lambda f: _link(f), "leaves its folder"),
    ("cut before its mark", lambda f: cut(series(f / "s", lambda i: f"IM{i:04d}") / "IM0004", 90).parent, "named as the slices"),
    ("phases", lambda f: _phases(f), "every one of 9 positions occurs twice: several phases"),
    ("spacing in words", lambda f: _words(f), "PixelSpacing holds '1,1.0,8', expected 2 numbers"),
    ("rescale in some", lambda f: _some(f), "2 of 9 files state no rescale"),
    ("another quantity", lambda f: _tags(f, RescaleType="Z_EFF"), "does not hold HU"),
]  # fmt: skip


def _phases(folder: Path) -> Path:
    path = series(folder / "s")
    for index in range(SHAPE[2]):
        dataset = slice_dataset(index, SOPInstanceUID=f"9.9.{index}")
        dataset.PixelData = bytes(reversed(dataset.PixelData))
        dataset.save_as(path / f"second{index}.dcm")
    return path


def _words(folder: Path) -> Path:
    path = series(folder / "s")
    data = (path / "004.dcm").read_bytes()
    return put(path / "004.dcm", data.replace(b"1.1\\0.8", b"1,1\\0,8")).parent


def _some(folder: Path) -> Path:
    path = series(folder / "s")
    for index in (3, 5):
        dataset = slice_dataset(index)
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.save_as(path / f"{index:03d}.dcm")
    return path


def _bare(folder: Path) -> Path:
    path = series(folder / "s")
    for file in path.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    return path


def _deflated(folder: Path) -> Path:
    path = folder / "s"
    path.mkdir()
    for index in range(SHAPE[2]):
        dataset = slice_dataset(index)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path / f"{index:03d}.dcm")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _without(folder: Path, *tags: str) -> Path:
    (folder / "s").mkdir()
    for index in range(SHAPE[2]):
        dataset = slice_dataset(index)
        for tag in tags:
            delattr(dataset, tag)
        dataset.save_as(folder / "s" / f"{index:03d}.dcm")
    return folder / "s"


def _tags(folder: Path, **tags: object) -> Path:
    return series(folder / "s", change=lambda index: tags)


def _other_size(index: int) -> dict[str, int]:
    return {"Rows": 5, "Columns": 24} if index == 6 else {}


def _compressed(folder: Path, syntax: str) -> Path:
    from pydicom.encaps import encapsulate

    dataset = slice_dataset(0)
    dataset.PixelData = encapsulate([bytes(64)])
    dataset["PixelData"].is_undefined_length = True
    path = folder / "a.dcm"
    dataset.save_as(path)
    old, new = (text.encode().ljust(24, b"\0") for text in ("1.2.840.10008.1.2.1", syntax))
    data = path.read_bytes()
    at = data.index(b"UI", data.index(b"\x02\x00\x10\x00")) + 2
    length = int.from_bytes(data[at : at + 2], "little")
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    group = int.from_bytes(data[140:144], "little") + len(value) - length
    data = (
        data[:140]
        + group.to_bytes(4, "little")
        + data[144:at]
        + len(value).to_bytes(2, "little")
        + value
        + data[at + 2 + length :]
    )
    return put(path, data)


def _link(folder: Path) -> Path:
    path = series(folder / "s")
    slice_dataset(0).save_as(folder / "outside.dcm")
    (path / "link.dcm").symlink_to(folder / "outside.dcm")
    return path


def _metres(folder: Path) -> Path:
    affine = ras_affine()
    affine[:3] /= 1000
    image = nib.Nifti1Image(phantom(), affine)
    image.header.set_xyzt_units("meter")
    nib.save(image, folder / "a.nii")
    return folder / "a.nii"


def _turned(folder: Path) -> Path:
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    nib.save(nib.Nifti1Image(phantom(), turn @ ras_affine()), folder / "a.nii")
    return folder / "a.nii"


def _implicit(folder: Path) -> Path:
    path = series(folder / "s")
    for index in range(SHAPE[2]):
        dataset = slice_dataset(index)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path / f"{index:03d}.dcm", implicit_vr=True, little_endian=True)
    return path


same = equals(PHANTOM)
PUT_RIGHT: list[tuple[str, str, Callable[[Path], Path], str]] = [
    ("metres", "fixed", _metres, "converted to mm"),
    ("copies", "fixed", lambda f: _copy(series(f / "s")), "1 copies of slices left out"),
    ("localizer", "note", lambda f: _extra(series(f / "s"), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    ("unsaid localizer", "flagged", lambda f: _extra(series(f / "s"), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "localizer"),
    ("capture", "note", lambda f: _extra(series(f / "s"), SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "secondary capture"),
    ("magnetic", "note", lambda f: _extra(series(f / "s"), Modality="MR"), "modality MR"),
    ("readme", "note", lambda f: put(series(f / "s") / "readme.txt", "hello").parent, "not DICOM"),
    ("dicomdir", "note", lambda f: put(series(f / "s") / "DICOMDIR", bytes(128) + b"DICM").parent, "DICOMDIR"),
    ("no preamble", "fixed", _bare, "without the preamble"),
    ("unused qform", "flagged", header((252, struct.pack("<h", 1)), (256, struct.pack("<3f", 3, 4, 0))), "sform is used"),
    ("slope nan", "flagged", header((112, struct.pack("<2f", np.nan, 0))), "scl_slope is nan"),
    ("trailing bytes", "flagged", lambda f: put(nifti(f / "a.nii"), (f / "a.nii").read_bytes() + b"\0" * 9), "9 bytes after"),
    ("oblique", "note", _turned, "oblique"),
    ("overlay unsaid", "flagged", lambda f: series(f / "s", change=_overlaid), "bits above the 12"),
    ("lossy", "flagged", lambda f: _tags(f, LossyImageCompression="01"), "with loss"),
]  # fmt: skip
CONTROLS: list[tuple[str, Callable[[Path], Path]]] = [
    *[(f"nifti {codes}", lambda f, c=codes: nifti(f / "a.nii.gz", c)) for codes in ("RAS", "LPS", "PIR", "SAL")],
    ("big-endian", lambda f: _big_endian(f)),
    ("spaces in the name", lambda f: nifti(f / "a volume, éü.nii.gz")),
    ("dicom", lambda f: series(f / "s")),
    ("dicom without suffix", lambda f: series(f / "s", lambda i: f"IM{i:05d}")),
    ("dicom in subfolders", lambda f: _nested(f)),
    ("dicom implicit", _implicit),
    ("dicom deflated", _deflated),
]


def _big_endian(folder: Path) -> Path:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(phantom(), ras_affine(), header), folder / "a.nii")
    return folder / "a.nii"


def _nested(folder: Path) -> Path:
    path = series(folder / "s")
    (path / "deeper").mkdir()
    for name in ("002.dcm", "007.dcm"):
        (path / name).rename(path / "deeper" / name)
    return path


def _overlaid(index: int) -> dict[str, object]:
    values = np.frombuffer(slice_dataset(index).PixelData, np.uint16).astype(np.int16) - 1024
    raw = (values.view(np.uint16) & 0x0FFF) | 0x5000
    return {"PixelData": raw.tobytes(), "PixelRepresentation": 1, "RescaleIntercept": 0}


def _copy(folder: Path) -> Path:
    slice_dataset(3).save_as(folder / "copy.dcm")
    return folder


def _extra(folder: Path, **tags: object) -> Path:
    slice_dataset(0, SeriesInstanceUID="9.9", SOPInstanceUID="9.9.1", **tags).save_as(folder / "extra.dcm")
    return folder


def cases() -> list[Case]:
    found = [Case("ct", f"nifti: {name}", "refused", make, says) for name, make, says in NIFTI]
    found += [Case("ct", f"dicom: {name}", "refused", make, says) for name, make, says in DICOM]
    found += [Case("ct", name, verdict, make, says, same) for name, verdict, make, says in PUT_RIGHT]
    blank = header((252, bytes(4)))
    found.append(Case("ct", "no orientation codes", "flagged", blank, "states no orientation", equals(PHANTOM[::-1])))
    return found + [Case("ct", name, "accepted", make, "", same) for name, make in CONTROLS]
