"""Columns that say who somebody is are noticed, by name or by what most of their cells look like; cells are never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.checks.cohort_check import check_manifest
from medssml.manifest.identity_columns import identity_of
from medssml.manifest.manifest import Manifest
from tests.importers.trees import put, run


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PatientName", "names"), ("last_name", "names"), ("Nachname", "names"), ("apellidos", "names"), ("Pt Name", "names"),
        ("DOB", "dates of birth"), ("date_of_birth", "dates of birth"), ("PatientBirthDate", "dates of birth"),
        ("Geburtsdatum", "dates of birth"), ("fecha_nacimiento", "dates of birth"), ("group_birthdate", "dates of birth"),
        ("MRN", "record numbers"), ("Medical Record Number", "record numbers"), ("patient_number", "record numbers"),
        ("NHS_number", "record numbers"), ("SSN", "record numbers"), ("Fallnummer", "record numbers"),
        ("home_address", "addresses"), ("ZIP", "addresses"), ("PLZ", "addresses"), ("postal_code", "addresses"),
        ("phone", "contacts"), ("E-Mail", "contacts"),
    ],
)  # fmt: skip
def test_by_name(name: str, kind: str) -> None:
    found = identity_of(name, ["x", "y"])
    assert found is not None and (found.kind, found.because) == (kind, "name")
    assert identity_of(name, ["", " "]) is None, "an empty column carries nothing"


@pytest.mark.parametrize(
    "name",
    ["age", "sex", "file_name", "scanner_name", "accession_number", "patient_id", "birth_weight", "number", "index", "site",
     "n_slices", "record_id", "study_date", "address_type", "name"],
)  # fmt: skip
def test_other_columns_carry_none(name: str) -> None:
    assert identity_of(name, ["scan1.png", "12"]) is None


@pytest.mark.parametrize(
    ("name", "cells", "kind"),
    [
        ("name", ["Doe^John", "Roe^Ann"], "names"), ("name", ["Maria Muster", "Jörg Beispiel"], "names"),
        ("contact", ["a.b@c.org", "x@y.de"], "contacts"), ("note", ["Maria Muster", "Jörg Beispiel"], None),
        ("subject_id", ["Doe, John", "Roe, Ann"], "names"), ("subject_id", ["P001", "P002"], None),
    ],
)  # fmt: skip
def test_by_cells(name: str, cells: list[str], kind: str | None) -> None:
    found = identity_of(name, cells)
    assert (found and found.kind) == kind


def test_the_check_says_it_and_quotes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        'subject_id,study_id,PatientName,dob,report_text\n"Secret, Ann",1,Secret^Ann,1950-01-02,Lungs are clear.\n'
    )
    found = [p for p in check_manifest(Manifest.read(path), workers=0) if p.code == "identifiers"]
    assert [(p.column, p.action) for p in found] == [
        ("subject_id", "flagged"),
        ("PatientName", "flagged"),
        ("dob", "flagged"),
    ] or {p.column for p in found} == {"subject_id", "PatientName", "dob"}
    assert not any("Secret" in p.problem + p.fix or "1950" in p.problem for p in found)


def test_the_import_says_it(tmp_path: Path) -> None:
    table = "MRN,study,image,Last Name,DOB,weight\n10,a,a.png,Secret,1950-01-02,70\n11,b,a.png,Other,1950-01-02,70\n"
    made = run("csv", put(tmp_path / "t", {"t.csv": table, "a.png": b"1"}))
    notes = " ".join(made.done.notes)
    assert "subject_id holds record numbers, as the name of 'MRN' say" in notes
    assert "column 'Last Name' holds names" in notes and "column 'DOB' holds dates of birth" in notes
    assert (
        "Secret" not in notes and "weight" not in notes.replace("'weight'", "weight") or "'weight' holds" not in notes
    )


def test_the_import_says_what_is_odd_about_the_ids(tmp_path: Path) -> None:
    table = "subject,study,image\n007,a,a.png\n7,b,a.png\nx,c,a.png\n"
    notes = " ".join(run("csv", put(tmp_path / "t", {"t.csv": table, "a.png": b"1"})).done.notes)
    assert "subject_id: 1 may be another one in another spelling" in notes and "007" not in notes
    files = {f"a{n}.png": b"1" for n in range(3)}
    table = "subject,study,image\n" + "".join(f"ANON,s{n},a{n}.png\n" for n in range(3))
    notes = " ".join(run("csv", put(tmp_path / "u", {"t.csv": table, **files})).done.notes)
    assert "all 3 studies are of one subject ('ANON' looks like the word of an anonymiser)" in notes
