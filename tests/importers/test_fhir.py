"""FHIR exports: which study a report is of, which version of it counts, and what is no imaging report."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from medssml.importers import LayoutError
from tests.importers.test_dicom_tree import series
from tests.importers.trees import Made, put, run


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
    assert made.why(source=source, row=1) == "a newer report of the study was taken"
    assert made.why(source=source, row=3) == "a final report of the study was taken"
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


def imported(folder: Path, *resources: dict[str, Any]) -> Made:
    return run("fhir", put(folder, {"a.ndjson": lines(*resources)}))


def of(patient: str, number: str, issuer: str = "", **more: Any) -> dict[str, Any]:
    """What makes a report one of a patient, with an accession number."""
    own = {**accession(number)[0], **({"system": issuer} if issuer else {})}
    return {"subject": {"reference": f"Patient/{patient}"}, "identifier": [own], **more}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"issued": "2024-10-27T02:50:00+02:00"}, {"issued": "2024-10-27T02:10:00+01:00"}),
        ({"issued": "2024-05-01T10:00:00+09:00"}, {"issued": "2024-05-01T02:00:00Z"}),
        ({"issued": "2024-05-01T10:00:00.5Z"}, {"issued": "2024-05-01T10:00:00.51234567Z"}),
        ({"issued": "2024-05-01T10:00:00Z"}, {"issued": "2024-05-01T10:00:00Z", "status": "corrected"}),
        ({"issued": "2024-05-02T10:00:00Z", "status": "preliminary"}, {"issued": "2024-05-01T10:00:00Z"}),
        (
            {"issued": None, "effectiveDateTime": "2024-05-01"},
            {"issued": None, "effectiveDateTime": "2024-05-02T01:00:00Z"},
        ),
        (
            {"issued": None, "effectiveDateTime": "2024-05-03", "meta": {"lastUpdated": "2024-05-03T10:00:00Z"}},
            {"meta": {"lastUpdated": "2024-05-04T10:00:00Z"}, "issued": "2024-05-01T10:00:00Z"},
        ),
    ],
)
def test_versions_are_ordered_as_instants(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Whatever the order in the file."""
    versions = [of("p1", "A1", **old), of("p1", "A1", **new)]
    for place, order in enumerate(((0, 1), (1, 0))):
        made = imported(tmp_path / str(place), *[report(f"r{n}", ("old", "new")[n], **versions[n]) for n in order])
        assert made.rows["A1"]["report_text"] == "new"
        (why,) = [line["reason"] for line in made.lines if line["status"] == "left out"]
        assert why in {f"a {what} report of the study was taken" for what in ("newer", "final", "corrected")}


def test_what_is_newer_may_be_unknown(tmp_path: Path) -> None:
    same = of("p1", "A1", issued=None, effectiveDateTime="2024-05-01")
    exact = of("p1", "A1", issued=None, effectiveDateTime="2024-05-01T10:00:00Z")
    made = imported(tmp_path / "a", report("r1", "One.", **same), report("r2", "Two.", **exact))
    assert made.rows["A1"]["report_text"] == "One." and "which is newer is not stated" in made.why(
        source="a.ndjson", row=2
    )
    made = imported(tmp_path / "b", report("r1", "One.", **same), report("r2", "One.", **exact))
    assert made.why(source="a.ndjson", row=2) == "the same text is in another report of the study"


def test_no_report_replaces_that_of_another_patient_or_procedure(tmp_path: Path) -> None:
    made = imported(
        tmp_path,
        report("r1", "Clear.", **of("t1", "12345", "urn:hospital:a")),
        report("r2", "Pneumothorax.", **of("t2", "12345", "urn:hospital:b")),
        report("r3", "Nodule.", **of("t3", "777", code={"text": "CT chest"}, issued="2024-05-03T10:00:00Z")),
        report("r4", "Liver normal.", **of("t3", "777", code={"text": "CT abdomen"}, issued="2024-05-03T10:20:00Z")),
        report("r5", "One.", **of("t4", "9")),
        report("r6", "Other.", **of("t5", "9")),
        report("r7", "First.", **of("t6", "5", "urn:hospital:a")),
        report("r8", "Second.", **of("t6", "5", "urn:hospital:b")),
    )
    texts = {name: (row["subject_id"], row["report_text"]) for name, row in made.rows.items()}
    assert texts == {
        "12345_urn_hospital_a": ("t1", "Clear."), "12345_urn_hospital_b": ("t2", "Pneumothorax."),
        "777": ("t3", "Nodule.\nLiver normal."), "9_t4": ("t4", "One."), "9_t5": ("t5", "Other."),
        "5_urn_hospital_a": ("t6", "First."), "5_urn_hospital_b": ("t6", "Second."),
    }  # fmt: skip
    assert made.rows["777"]["procedure"] == "CT chest; CT abdomen" and made.why(source="a.ndjson", row=4) == ""


def test_a_version_may_state_less(tmp_path: Path) -> None:
    """The DICOM study, the issuer and the procedure of one version hold for the other."""
    more = of("p1", "A1", "urn:hospital:a", imagingStudy=[{"reference": "ImagingStudy/i1"}], code={"text": "CT"})
    made = imported(
        tmp_path,
        report("r1", "Old.", **more),
        IMAGING,
        report("r2", "New.", **of("p1", "A1", code=None, issued="2021-01-01T00:00:00Z")),
    )
    assert {name: row["report_text"] for name, row in made.rows.items()} == {"1.2.40": "New."}
    assert (made.rows["1.2.40"]["procedure"], made.rows["1.2.40"]["accession_number"]) == ("CT", "A1")


def test_a_dicom_study_of_two_patients_is_a_contradiction(tmp_path: Path) -> None:
    study = {"imagingStudy": [{"reference": "ImagingStudy/i1"}]}
    files = {
        "a.ndjson": lines(
            IMAGING, *[report(p, **of(p, p), **study) for p in ("p1", "p2")], *[report(f"o{n}") for n in range(9)]
        )
    }
    made = run("fhir", put(tmp_path, files), max_lost=1.0)
    assert len(made.rows) == 9
    assert {made.why(source="a.ndjson", row=row) for row in (2, 3)} == {
        "its StudyInstanceUID is that of another patient as well"
    }


def test_text_in_a_binary_of_the_export(tmp_path: Path) -> None:
    data = base64.b64encode(b"Lungs are clear.").decode()
    binary = {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": data}
    picture = {"resourceType": "Binary", "id": "b2", "contentType": "application/pdf", "data": "JVBERi0="}
    form = {"presentedForm": [{"contentType": "text/markdown", "url": "https://server/fhir/Binary/b1"}]}
    made = imported(tmp_path, report("r1", **form), binary, picture)
    assert made.rows["r1"]["report_text"] == "Lungs are clear." and made.why(source="a.ndjson", row=2) == ""
    assert any(line["file"] == "a.ndjson#Binary" for line in made.lines)


def test_an_accession_number_of_two_patients_joins_no_images(tmp_path: Path) -> None:
    series(tmp_path / "pacs" / "a", 1)
    number = run("dicom", tmp_path / "pacs", out=tmp_path / "o.csv").rows["1.2.40"]["accession_number"]
    text = lines(report("r1", "Clear.", **of("t1", number)), report("r2", "Bad.", **of("t2", number)))
    made = run("dicom", tmp_path / "pacs", reports=put(tmp_path / "fhir", {"all.ndjson": text}), max_lost=1.0)
    assert made.rows["1.2.40"].get("report_text", "") == ""
    assert made.why(source="all.ndjson", row=1) == made.why(source="all.ndjson", row=2)
    assert "several patients have its accession number" in made.why(source="all.ndjson", row=1)


def test_an_export_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no DiagnosticReport"):
        run("fhir", put(tmp_path / "x", {"a.ndjson": lines(PATIENT)}))
