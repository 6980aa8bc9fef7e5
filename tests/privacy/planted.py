"""A small simulated cohort in whose names, tags, headers and texts tokens are planted, and the search for them."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import re
import shutil
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

#: One token per place, so that a find says where it came from. Rare letters: no word holds them by chance.
TOKENS = {
    place: f"zqx{index:02d}{place}wvk"
    for index, place in enumerate(
        ("subject", "study", "folder", "file", "dicom", "nifti", "edf", "png", "report", "note")
    )
}


def plant(cohort: Path, out: Path) -> Path:
    """Copies the cohort of manifest `cohort` to `out` with a token in every place; one CT file is truncated."""
    shutil.copytree(cohort.parent, out)
    for name in ("truth.csv", "truth.json"):
        (out / name).unlink()
    with cohort.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    _as_dicom(out, rows)
    reports = 0
    for number, row in enumerate(rows):
        row["subject_id"] = f"{TOKENS['subject']}{row['subject_id']}"
        row["study_id"] = f"{TOKENS['study']}{row['study_id']}"
        row["comment"] = TOKENS["note"]
        for column in ("ct", "xray", "eeg", "report"):
            if row[column]:
                row[column] = _moved(out, row[column], number)
                reports += column == "report"
                for path in _files(out / row[column]):
                    _WRITERS[path.suffix](path, number if column == "report" and reports > 3 else 0)
    first = next(out / row["ct"] for row in rows if row["ct"].endswith(".gz"))
    first.write_bytes(first.read_bytes()[:-3000])
    manifest = out / "manifest.csv"
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _as_dicom(root: Path, rows: list[dict[str, str]]) -> None:
    """One CT of the cohort becomes a series and one radiograph a film, as a scanner writes them."""
    from medssml.phantom.files import write_dicom_film, write_series
    from medssml.phantom.shapes import Grid
    from medssml.readers import read_ct, read_xray

    row = next(row for row in rows[1:] if row["ct"].endswith(".gz"))
    volume = read_ct(root / row["ct"])
    grid = Grid(tuple(float(mm) for mm in volume.spacing))
    write_series(root / "ct" / "series", np.resize(volume.array, grid.shape), grid, "p", "s")
    row["ct"] = "ct/series"
    row = next(row for row in rows if row["xray"].endswith(".png"))
    write_dicom_film(root / "xray" / "film.dcm", read_xray(root / row["xray"]).array, 0.2, "p", "s", inverted=True)
    row["xray"] = "xray/film.dcm"


def _moved(root: Path, cell: str, number: int) -> str:
    """The file or folder `cell` under a name and in a folder of tokens."""
    old = root / cell
    name = f"{TOKENS['file']}{number}{''.join(old.suffixes)}"
    new = root / f"Ward {TOKENS['folder']}" / f"{TOKENS['folder']}^{number}" / name
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)
    return new.relative_to(root).as_posix()


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _nifti(path: Path, _: int) -> None:
    import nibabel as nib

    image = nib.load(path)
    affine, data = image.affine, image.get_fdata().astype("int16")
    named = nib.Nifti1Image(data, affine)
    token = TOKENS["nifti"]
    named.header["descrip"], named.header["aux_file"], named.header["intent_name"] = token, token, token[:16]
    named.header["db_name"] = token[:18]
    named.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{token} born 1950".encode()))
    nib.save(named, path)


def _dicom(path: Path, _: int) -> None:
    import pydicom

    dataset, token = pydicom.dcmread(path), TOKENS["dicom"]
    dataset.PatientID, dataset.PatientName, dataset.InstitutionName = token, f"{token}^Maria", token
    dataset.ReferringPhysicianName, dataset.PatientComments, dataset.AccessionNumber = token, token, token[:16]
    dataset.StudyDescription, dataset.StudyID, dataset.PatientAddress = token, token[:16], token
    dataset.private_block(0x0009, token, create=True).add_new(0x01, "LT", f"{token} private")
    dataset.file_meta.SourceApplicationEntityTitle = token[:16]
    dataset.save_as(path)


def _edf(path: Path, _: int) -> None:
    whole, token = bytearray(path.read_bytes()), TOKENS["edf"].encode()
    whole[8:88] = b"X X X " + token.ljust(74)
    whole[88:168] = b"Startdate X X X " + token.ljust(64)
    path.write_bytes(bytes(whole))


def _png(path: Path, _: int) -> None:
    whole, token = path.read_bytes(), TOKENS["png"].encode()
    pieces = {
        b"tEXt": b"Author\0" + token,
        b"zTXt": b"Comment\0\0" + zlib.compress(token),
        b"eXIf": b"MM\0*\0\0\0\x08\0\0\0\0",
    }
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in pieces.items()
    )
    path.write_bytes(whole[:33] + chunks + whole[33:])  # behind the header chunk


def _text(path: Path, number: int) -> None:
    if number == 0:  # the reports of three subjects
        path.write_text(f"{path.read_text()}\nMrs. {TOKENS['report']} was seen by Dr. {TOKENS['report']}.\n" * 2)


_WRITERS = {".gz": _nifti, ".nii": _nifti, ".dcm": _dicom, ".edf": _edf, ".png": _png, ".txt": _text}


def spellings(token: str) -> set[bytes]:
    """A token as it may be stored: text of 8 and 16 bits, its hexadecimal, and base64 at its three offsets."""
    plain = token.encode()
    found = {plain, token.encode("utf-16-le"), token.encode("utf-16-be"), plain.hex().encode()}
    for offset in range(3):
        whole = base64.b64encode(bytes(offset) + plain)
        found.add(whole[4 if offset else 0 : -4])
    return found


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """(what, bytes) of a file, and of what is packed in it: members of archives, compressed streams, Parquet columns, cells of
    SQLite, pictures, and what stands in a page as base64."""
    data = path.read_bytes()
    yield path.name, data
    yield from _picture(path.name, data)
    for embedded in re.finditer(rb"base64,([A-Za-z0-9+/=]{16,})", data):
        inside = base64.b64decode(embedded.group(1) + b"==")
        yield f"{path.name}@{embedded.start()}", inside
        yield from _picture(f"{path.name}@{embedded.start()}", inside)
    if data.startswith(b"SQLite format 3\0"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield f"{path.name}:cells", "\n".join(database.iterdump()).encode()
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield f"{path.name}:{member}", archive.read(member)
    if path.suffix == ".parquet":
        import pandas as pd

        yield f"{path.name}:columns", pd.read_parquet(path).to_csv().encode()
    for packed in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x9c\xda]", data):
        try:
            unpacked = zlib.decompressobj(47).decompress(data[packed.start() :], 1 << 22)
        except zlib.error:
            continue
        if unpacked:
            yield f"{path.name}@{packed.start()}", unpacked


def _picture(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The pixels of a PNG or JPEG, whose rows are not stored as they are."""
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        with Image.open(io.BytesIO(data)) as image:
            yield f"{name}:pixels", np.asarray(image).tobytes()


def finds(folder: Path, words: dict[str, set[bytes]]) -> list[str]:
    """ "file: place" for every word (place -> its spellings) in a file or in the name of one."""
    found = []
    for path in sorted(folder.rglob("*")):
        pieces = [("name", path.relative_to(folder).as_posix().encode())]
        pieces += list(contents(path)) if path.is_file() else []
        for what, data in pieces:
            lower = data.lower()
            found += [
                f"{path.relative_to(folder)} ({what}): {place}"
                for place, spelled in words.items()
                if any(word in data or word in lower for word in spelled)
            ]
    return found
