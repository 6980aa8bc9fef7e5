"""Whose DICOM file it is: the few tags that tie files to a patient and a study, and that readers never read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from medssml.readers.dicom_file import read_dataset
from medssml.readers.errors import reading

_TAGS = ("PatientID", "StudyInstanceUID", "AccessionNumber", "SeriesNumber", "PatientSex", "Modality", "SOPClassUID")
#: Basic text, enhanced and comprehensive structured reports: those in words, not doses nor marks of a detector.
_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (11, 22, 33, 34))


class Identity(NamedTuple):
    """patient: PatientID, "" where blank. study: StudyInstanceUID. sex: M, F or "". modality: "" where not
    stated. report: a structured report in words."""

    patient: str
    study: str
    accession: str
    series_number: int
    sex: str
    modality: str
    report: bool


def identity(path: Path) -> Identity:
    """The identity of one file; neither name nor date nor free text is read.

    Raises:
        ReadError: the file cannot be read.
    """
    with reading(path, "DICOM file"):
        dataset, _ = read_dataset(path, _TAGS)

    def text(tag: str) -> str:
        return str(dataset.get(tag) or "").strip(" \0")

    number = text("SeriesNumber")
    sex = text("PatientSex").upper()
    return Identity(
        patient=text("PatientID"),
        study=text("StudyInstanceUID"),
        accession=text("AccessionNumber"),
        series_number=int(number) if number.lstrip("-").isdigit() else 0,
        sex=sex if sex in ("M", "F") else "",
        modality=text("Modality"),
        report=text("Modality") == "SR" and text("SOPClassUID") in _REPORTS,
    )
