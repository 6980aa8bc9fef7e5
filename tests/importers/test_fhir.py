"""FHIR exports: which study a report is of, which version of it counts, and what is no imaging report."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from medssml.importers import LayoutError
from tests.importers.test_dicom_tree import series
from tests.importers.trees import put, run


def report(id: str, text: str = "Lungs are clear.", **more: Any) -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    return {
        "resourceType": "DiagnosticReport",
        "id": id,
        "status": "final",
        "subject": {"reference": "Patient/p1"},
        "issued": "2020-01-01T00:00:00Z",
        "code": {"text": "Chest CT"},
        "presentedForm": [{"contentType": "text/plain", "data": data}],
        **more,
    }


def accession(value: str) -> list[dict[str, Any]]:
    return [{"type": {"coding": [{"code": "ACSN"}]}, "value": value}]


PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "name": [{"family": "Secret"}]}
IMAGING = {
    "resourceType": "ImagingStudy",
    "id": "i1",
    "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.40"}, *accession("A1")],
}


def lines(*resources: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, resources)) + "\n"


def test_bulk_export(tmp_path: Path) -> None:
    laboratory = {"category": [{"coding": [{"code": "LAB"}]}]}
    root = put(
        tmp_path / "bulk",
        {
            "Patient.ndjson": lines(PATIENT, {"resourceType": "Patient", "id": "p9"}),
            "ImagingStudy.ndjson": lines(IMAGING),
            "Encounter.ndjson": lines({"resourceType": "Encounter"}, {"resourceType": "Encounter"}),
            "DiagnosticReport.ndjson": lines(
                report("old", "Old words.", imagingStudy=[{"reference": "ImagingStudy/i1"}]),
                report(
                    "new", "New words.", imagingStudy=[{"reference": "ImagingStudy/i1"}], issued="2020-02-01T00:00:00Z"
                ),
                report(
                    "draft",
                    "Draft.",
                    imagingStudy=[{"reference": "ImagingStudy/i1"}],
                    status="preliminary",
                    issued="2021",
                ),
                report("wrong", status="entered-in-error"),
                report("lab", **laboratory),
                report("pdf", presentedForm=[{"contentType": "application/pdf", "data": "JVBERi0="}]),
                report("nobody", subject={}),
                report(
                    "alone",
                    subject={"reference": "https://server/fhir/Patient/p2/_history/3"},
                    identifier=accession("A7"),
                ),
                report("own", subject={"identifier": {"value": "MRN5"}}),
            ),
        },
    )
    made = run("fhir", root)
    assert {name: row["subject_id"] for name, row in made.rows.items()} == {"1.2.40": "p1", "A7": "p2", "own": "MRN5"}
    row = made.rows["1.2.40"]
    assert row["report_text"] == "New words." and row["group_sex"] == "F" and row["accession_number"] == "A1"
    assert row["procedure"] == "Chest CT"
    source = "DiagnosticReport.ndjson"
    assert made.why(source=source, row=1) == made.why(source=source, row=3) == "a newer report of the study was taken"
    assert made.why(source=source, row=2) == "" and made.why(source="ImagingStudy.ndjson", row=1) == ""
    assert made.why(source=source, row=4) == "status entered-in-error"
    assert made.why(source=source, row=5) == "a laboratory or pathology report"
    assert made.why(source=source, row=6) == "no text" and made.why(source=source, row=7) == "no subject"
    assert made.why(source="Patient.ndjson", row=2) == "nothing on disk belongs to it"
    assert any(line["file"] == "Encounter.ndjson#Encounter" and line["reason"].startswith("2 ") for line in made.lines)
    assert "Secret" not in made.done.manifest.read_text() + made.done.report.read_text()


def test_bundle_with_full_urls_and_a_broken_file(tmp_path: Path) -> None:
    order = {"resourceType": "ServiceRequest", "id": "s", "identifier": accession("A3")}
    entry = [
        {"fullUrl": "urn:uuid:aa", "resource": {**PATIENT, "id": "real"}},
        {"fullUrl": "urn:uuid:bb", "resource": order},
        {"resource": report("r", subject={"reference": "urn:uuid:aa"}, basedOn=[{"reference": "urn:uuid:bb"}])},
    ]
    root = put(
        tmp_path / "bundle",
        {"bundle.json": json.dumps({"resourceType": "Bundle", "entry": entry}), "broken.json": "{", "list.json": "[1]"},
    )
    made = run("fhir", root)
    assert {name: (row["subject_id"], row["group_sex"]) for name, row in made.rows.items()} == {"A3": ("real", "F")}
    assert made.why(file="broken.json").startswith("no FHIR") and made.why(file="list.json").startswith("no FHIR")
    assert len(run("fhir", root / "bundle.json", out=tmp_path / "one.csv").rows) == 1


def test_logical_references_without_resources(tmp_path: Path) -> None:
    uid = {"type": {"coding": [{"code": "110180"}]}, "value": "1.2.77"}
    text = lines(
        report("a", study=[{"identifier": uid}]),
        report("b", basedOn=[{"identifier": accession("A8")[0]}]),
    )
    made = run("fhir", put(tmp_path / "logical", {"a.ndjson": text}))
    assert list(made.rows) == ["1.2.77", "A8"]


def test_reports_join_the_images_of_a_dicom_tree(tmp_path: Path) -> None:
    series(tmp_path / "pacs" / "a", 1)
    text = lines(
        report("r", imagingStudy=[{"reference": "ImagingStudy/i1"}]), IMAGING, report("x", identifier=accession("A404"))
    )
    export = put(tmp_path / "fhir", {"all.ndjson": text})
    made = run("dicom", tmp_path / "pacs", reports=export)
    assert made.rows["1.2.40"]["report_text"] == "Lungs are clear." and made.rows["1.2.40"]["procedure"] == "Chest CT"
    assert made.why(source="all.ndjson", row=3) == "nothing on disk belongs to it"


def test_an_export_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no DiagnosticReport"):
        run("fhir", put(tmp_path / "x", {"a.ndjson": lines(PATIENT)}))
