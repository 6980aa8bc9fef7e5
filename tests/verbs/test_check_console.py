"""The console of a check: one line for a file, no traceback, no address, nothing that a terminal would obey."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from medssml.checks import inspection
from medssml.cli import main


def undecodable(path: Path) -> None:
    """A DICOM with a JPEG frame that is none: pydicom logs a traceback of every decoder that it tries."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Modality, data.PhotometricInterpretation = "DX", "MONOCHROME2"
    data.Rows = data.Columns = 100
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 7, 0, 1
    data.PixelData = encapsulate([b"\xff\xd8\xff\xe0" + bytes(range(256))])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A radiograph, a DICOM whose frame no decoder knows, and names that would clear a terminal."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80)).astype(np.uint8)
    for name in ("a.png", "\x1b[2Jb.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    undecodable(tmp_path / "c.dcm")
    rows = ["subject_id,study_id,split,xray", "p0,=1+1,train,a.png", "p0,-x,train,\x1b[2Jb.png", "p1,s2,train,c.dcm"]
    (tmp_path / "m.csv").write_text("\n".join([*rows, "p1,s3,train,gone\x1b[2J.png"]) + "\n")
    return tmp_path


@pytest.mark.parametrize("deep", [[], ["--deep"]])
def test_the_console_is_ours(cohort: Path, deep: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    main(["check", str(cohort / "m.csv"), *deep, "--problems", str(cohort / "p.csv"), "--workers", "1"])
    told = "".join(capfd.readouterr()) + (cohort / "p.csv").read_text()
    assert "Traceback" not in told and not re.search(r"0x[0-9a-f]{6}", told) and "\x1b" not in told
    with (cohort / "p.csv").open(newline="") as stream:
        studies = {line["study_id"] for line in csv.DictReader(stream) if line["row"] in ("4", "5")}
    assert studies == ({"s2", "s3"} if deep else {"s3"})


def test_a_warning_of_a_library_is_told_for_its_file(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    reader = inspection.HEADERS["xray"]

    def loud(path: Path) -> object:
        logging.getLogger("pydicom").warning("says\nsomething of %r", object())
        return reader(path)

    monkeypatch.setitem(inspection.HEADERS, "xray", loud)
    main(["check", str(cohort / "m.csv"), "--problems", str(cohort / "p.csv"), "--workers", "0"])
    with (cohort / "p.csv").open(newline="") as stream:
        said = [line for line in csv.DictReader(stream) if line["code"] == "library"]
    assert {line["row"] for line in said} == {"2", "3", "4"}
    assert {(line["problem"], line["action"]) for line in said} == {("pydicom: says something of object", "flagged")}


def test_what_each_label_was_taken_for_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = ["subject_id,study_id,split,report_text,label_edema,label_grade,label_weight"]
    rows += [f"p{i},s{i},{'test' if i > 8 else 'train'},Clear lungs.,{i % 2},{1 + i % 4},{60 + i}.5" for i in range(12)]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    main(["check", str(tmp_path / "m.csv"), "--problems", str(tmp_path / "p.csv"), "--workers", "1"])
    lines = [" ".join(line.split()) for line in "".join(capfd.readouterr()).splitlines()]
    assert "edema binary train 9 9 0: 5, 1: 4" in lines and "edema: the positive class is 1" in lines
    assert "grade multiclass test 3 3 1: 0, 2: 1, 3: 1, 4: 1" in lines
    assert any(line.startswith("weight regression train 9 9 mean 64.5, sd 2.58199") for line in lines)
