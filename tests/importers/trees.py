"""Miniature trees, and what an import made of them; every import is checked to account for every row and file."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medssml.importers import layout_named
from medssml.importers.study import Options
from medssml.importers.write_manifest import Imported, import_layout
from medssml.manifest.manifest import Manifest


class Made(NamedTuple):
    """rows: of the manifest, by study id. lines: of import_report.csv. done: what the library returned."""

    rows: dict[str, dict[str, str]]
    lines: list[dict[str, str]]
    manifest: Manifest
    done: Imported

    def why(self, file: str = "", source: str = "", row: int = 0) -> str:
        """Why a file, or a row of a table, was left out; "" where it was imported."""
        found = [
            line
            for line in self.lines
            if (file and line["file"] == file and not line["source"])
            or (source and line["source"].endswith(source) and line["row"] == str(row))
        ]
        assert len(found) == 1, (file, source, row, found)
        assert (found[0]["status"] == "imported") == (found[0]["reason"] == "")
        return found[0]["reason"]


def put(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Writes `files`, path -> content, below `root`; a path that ends in .gz is packed."""
    for path, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(data) if path.endswith(".csv.gz") else data)
    return root


def run(name: str, root: Path, out: Path | None = None, **options: Any) -> Made:
    """Imports `root`; the manifest is read back as training would read it."""
    out = out or root.parent / "out" / "manifest.csv"
    outside = bool(options.pop("allow_outside", False))
    options.setdefault("max_lost", 1.0)  # a miniature tree loses on purpose
    done = import_layout(layout_named(name), root, out, Options(**options), allow_outside=outside)
    manifest = Manifest.read(done.manifest, done.data_root, allow_outside=outside)
    with done.manifest.open(encoding="utf-8", newline="") as file:
        rows = {row["study_id"]: row for row in csv.DictReader(file)}
    with done.report.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    made = Made(rows, lines, manifest, done)
    _check_account(made, root, layout_named(name).data, options.get("write_into"))
    return made


def _check_account(made: Made, root: Path, endings: tuple[str, ...], written: Path | None) -> None:
    """Rows of tables as another parser counts them; every data file; every file that the manifest names is imported."""
    assert {line["status"] for line in made.lines} <= {"imported", "left out"}
    assert all(bool(line["reason"]) == (line["status"] == "left out") for line in made.lines)
    folder = root if root.is_dir() else root.parent
    rows: dict[str, set[int]] = {}
    for line in made.lines:
        if line["source"].endswith((".csv", ".csv.gz", ".tsv")) and (folder / line["source"]).exists():
            rows.setdefault(line["source"], set()).add(int(line["row"]))
    for table, found in rows.items():
        opened = gzip.open if table.endswith(".gz") else open
        with opened(folder / table, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            count = sum(
                any(cell.strip() for cell in row) for row in csv.reader(file, delimiter="\t" if "tsv" in table else ",")
            )
        assert found == set(range(2, count + 1)), f"rows of {table}"
    known = {line["file"] for line in made.lines} | {line["source"] for line in made.lines}
    if endings and root.is_dir():
        for file in root.rglob("*"):
            hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
            if written is not None and file.is_relative_to(written):
                continue
            if file.is_file() and not hidden and file.name.lower().endswith(endings):
                path = file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
                seen = path in known or path.endswith((".json", ".ndjson", ".xml", "summary.txt"))
                assert seen, f"{path} is not accounted for"
    for modality in made.manifest.modalities:
        for place in range(len(made.manifest)):
            path = made.manifest.path_of(place, modality)
            assert path is None or path.exists(), path


def dicom_slice(path: Path, *, index: int = 0, shape: tuple[int, int] = (8, 10), **tags: Any) -> Path:
    """A small CT slice, 2.5 mm from its neighbours; `tags` replace or, with None, remove."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", f"1.2.3.{abs(hash(str(path))) % 10**9}.{index}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    values: dict[str, Any] = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientID": "MRN7",
        "PatientName": "Secret^Name",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.40",
        "SeriesInstanceUID": "1.2.40.1",
        "SeriesNumber": 1,
        "AccessionNumber": "A1",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [0.0, 0.0, 2.5 * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.7],
        "SliceThickness": 2.5,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": shape[0],
        "Columns": shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        **tags,
    }
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = np.arange(np.prod(shape), dtype=np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def code(value: str, meaning: str) -> Dataset:
    """A coded concept of a structured report."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99X", meaning
    return item
