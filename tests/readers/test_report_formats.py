"""Reports in every wrapping read as the same text; what a wrapping says about a patient is left behind."""

import base64
import json
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from medssml.readers import ReadError, read_report
from medssml.readers.fhir import fhir_reports
from medssml.readers.markup import html_text, rtf_text

FINDINGS = "Größe normal, no effusion & no «mass»."
IMPRESSION = "1. Normal chest."
TEXT = f"FINDINGS: {FINDINGS}\nIMPRESSION: {IMPRESSION}"


def write(path: Path, content: str | bytes | dict | list, encoding: str = "utf-8") -> Path:
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


# XML


def openi(encoding: str = "utf-8", extra: str = "") -> str:
    escaped = FINDINGS.replace("&", "&amp;")
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>{extra}<eCitation><uId id="CXR1"/>'
        '<note>Secret^Name</note><Abstract><AbstractText Label="COMPARISON"/>'
        f'<AbstractText Label="FINDINGS">\n {escaped}</AbstractText>'
        f'<AbstractText Label="IMPRESSION">{IMPRESSION}</AbstractText></Abstract></eCitation>'
    )


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "utf-16", "utf-8-sig"])
def test_openi_xml_in_any_encoding(tmp_path, encoding):
    path = write(tmp_path / "1.xml", openi(encoding.removesuffix("-sig")), encoding)
    report = read_report(path)
    assert report.text == TEXT
    assert report.sections == {"findings": FINDINGS, "impression": IMPRESSION}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (openi(extra='<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'), "declares a DOCTYPE"),
        (openi()[:-30], "not well-formed XML"),
        ("<ClinicalDocument><title>a</title></ClinicalDocument>", "another layout .root element 'ClinicalDocument'"),
        ("<a>" * 60_000 + "</a>" * 60_000, "120,000 tags, limit 100,000"),
        (openi().replace("</eCitation>", "<Abstract/></eCitation>"), "holds 2 reports"),
    ],
)
def test_xml_that_is_refused(tmp_path, content, message):
    with pytest.raises(ReadError, match=message) as caught:
        read_report(write(tmp_path / "1.xml", content))
    assert "1.xml" in str(caught.value) and "fix: " in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "<Final report>\nLungs are clear. <end>",
        "<Report> Lungs are clear.\nSee <below>",
        "<Final report> clear </Final report>",
    ],
)
def test_a_text_in_angle_brackets_is_no_xml(tmp_path, text):
    assert read_report(write(tmp_path / "a.txt", text)).text == text


# RTF and HTML

RTF = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss Arial;}}{\colortbl;\red0\green0\blue0;}"
    r"{\*\generator Secret 1.0;}{\info{\author Secret^Name}}\viewkind4\uc1\pard\b FINDINGS:\b0  Gr\'f6\'dfe normal, "
    "no eff\r\nusion & no \\u171?mass\\u187?.\\par\r\n{\\pict\\wmetafile8 010203}IMPRESSION: 1. Normal chest.\\par}"
)


def test_rtf(tmp_path):
    report = read_report(write(tmp_path / "a.rtf", RTF))
    assert report.text == TEXT and report.notes == ()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"{\rtf1 a\{b\}\\c\~d\_e\-f}", "a{b}\\c\u00a0d-ef"),
        (r"{\rtf1\uc2 \u8364\'3f\'3fx\uc0\u223y}", "€xßy"),
        (r"{\rtf1\ansicpg1251 \'cf\'f0}", "Пр"),
        (r"{\rtf1 \u-10179?\u-8704?}", "\U0001f600"),
        (r"{\rtf1 a\tab b\line c\rquote s}", "a\tb\nc’s"),
        (r"{\rtf1{\header no}{\footer no}yes{{{{", "yes"),
        (r"{\rtf1 a}}}}b", "ab"),
        ("{\\rtf1" + "{" * 100_000 + "a", "a"),
    ],
    ids=range(8),
)
def test_rtf_by_its_specification(source, text):
    assert rtf_text(source) == text


def test_html(tmp_path):
    source = (
        "<html><head><title>Secret</title><style>p {}</style></head><body><p>FINDINGS: Gr&ouml;&szlig;e normal,\n no"
        " effusion &amp; no «mass».</p><script>x</script>IMPRESSION: 1. Normal<br/> chest.</body></html>"
    )
    assert read_report(write(tmp_path / "a.html", source)).text == TEXT.replace("Normal chest", "Normal\nchest")
    assert html_text("a<b>b</b> < c") == "ab < c"


# FHIR


def diagnostic_report(**fields) -> dict:
    return {
        "resourceType": "DiagnosticReport", "id": "r1", "status": "final", "subject": {"reference": "Patient/p7"},
        "effectiveDateTime": "2024-01-02", **fields,
    }  # fmt: skip


def form(mime: str, data: bytes) -> list[dict]:
    return [
        {"contentType": "application/pdf", "data": "JVBERi0="},
        {"contentType": mime, "data": base64.b64encode(data).decode()},
    ]


HTML = f"<p>{TEXT}</p>".replace("\n", "<br>").encode()
PATIENT = {"resourceType": "Patient", "id": "p7", "name": [{"family": "Secret"}]}
OBSERVATION = {"resourceType": "Observation", "id": "o1", "valueString": f"FINDINGS: {FINDINGS}"}
FHIR = {
    "plain": diagnostic_report(presentedForm=form("text/plain", TEXT.encode())),
    "charset": diagnostic_report(presentedForm=form("text/plain; charset=ISO-8859-1", TEXT.encode("latin-1"))),
    "rtf": diagnostic_report(presentedForm=form("text/rtf", RTF.encode())),
    "markdown": diagnostic_report(presentedForm=form("text/markdown; charset=utf-8", TEXT.encode())),
    "two forms": diagnostic_report(presentedForm=[*form("text/html", HTML), *form("text/plain", TEXT.encode())]),
    "binary contained": diagnostic_report(
        contained=[{"resourceType": "Binary", "id": "b", **form("text/plain", TEXT.encode())[1]}],
        presentedForm=[{"contentType": "text/plain", "url": "#b"}],
    ),
    "binary beside": {
        "resourceType": "Bundle",
        "entry": [
            {"resource": diagnostic_report(presentedForm=[{"url": "http://host/fhir/Binary/b7/_history/2"}])},
            {"resource": {"resourceType": "Binary", "id": "b7", **form("text/html", HTML)[1]}},
        ],
    },
    "html": diagnostic_report(presentedForm=form("text/html", f"<p>{TEXT}</p>".replace("\n", "<br>").encode())),
    "narrative": diagnostic_report(text={"div": f"<div>FINDINGS: {FINDINGS}</div>"}, conclusion=IMPRESSION),
    "contained": diagnostic_report(contained=[OBSERVATION], result=[{"reference": "#o1"}], conclusion=IMPRESSION),
    "bundle": {
        "resourceType": "Bundle",
        "entry": [
            {"resource": PATIENT},
            {"fullUrl": "urn:uuid:1", "resource": OBSERVATION},
            {"resource": diagnostic_report(result=[{"reference": "urn:uuid:1"}], conclusion=IMPRESSION)},
            {"resource": diagnostic_report(status="entered-in-error", conclusion="wrong patient")},
        ],
    },
    "list": [PATIENT, OBSERVATION, diagnostic_report(result=[{"reference": "Observation/o1"}], conclusion=IMPRESSION)],
}


@pytest.mark.parametrize("case", FHIR)
def test_fhir_in_every_form(tmp_path, case):
    report = read_report(write(tmp_path / "a.json", FHIR[case]))
    assert report.sections == {"findings": FINDINGS, "impression": IMPRESSION}
    assert report.text == TEXT and report.notes == ()


def test_forms_that_differ_are_said(tmp_path):
    plain, html = (
        form("text/plain", b"FINDINGS: Clear lungs and a normal heart.")[1],
        b"<p>FINDINGS: Clear lungs and a heart.</p>",
    )
    read = read_report(write(tmp_path / "a.json", diagnostic_report(presentedForm=[plain, form("text/html", html)[1]])))
    assert read.text == "FINDINGS: Clear lungs and a normal heart." and "0 words more and 1 fewer" in read.notes[0]
    other = form("text/plain", b"Addendum: nodule of 9 mm.")[1]
    read = read_report(write(tmp_path / "b.json", diagnostic_report(presentedForm=[plain, other])))
    assert read.text.endswith("heart.\nAddendum: nodule of 9 mm.") and "say different things" in read.notes[0]


def test_ndjson_of_one_and_of_several(tmp_path):
    lines = [json.dumps(PATIENT), "", json.dumps(FHIR["plain"])]
    assert read_report(write(tmp_path / "a.ndjson", "\n".join(lines))).text == TEXT
    several = "\r\n".join([*lines, json.dumps({**FHIR["rtf"], "id": "r2"})])
    found = list(fhir_reports(several, Path("a.ndjson")))
    assert [(item.id, item.subject, item.date) for item in found] == [
        ("r1", "Patient/p7", "2024-01-02"), ("r2", "Patient/p7", "2024-01-02"),
    ]  # fmt: skip
    with pytest.raises(ReadError, match="holds 2 reports"):
        read_report(write(tmp_path / "b.ndjson", several))
    with pytest.raises(ReadError, match="line 3 is not valid JSON"):
        read_report(write(tmp_path / "c.ndjson", "\n".join(lines)[:-1]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PATIENT, "no valid FHIR DiagnosticReport"),
        (diagnostic_report(status="entered-in-error", conclusion="a"), "no valid FHIR DiagnosticReport"),
        (diagnostic_report(), r"'r1' has no text \(presentedForm: absent"),
        (diagnostic_report(presentedForm=form("application/pdf", b"%PDF")), "presentedForm: application/pdf"),
        (diagnostic_report(presentedForm=[{"contentType": "text/plain", "data": "@@"}]), "is not base64"),
        (
            diagnostic_report(presentedForm=[{"contentType": "text/plain", "url": "Binary/1"}]),
            "at an address that is not in",
        ),
        ('{"resourceType": "DiagnosticReport", }', r"not valid JSON \(line 1"),
        ("[{}, 3]", "no FHIR resource"),
        ('{"a":' * 50_000 + "1", "nested too deeply|not valid JSON"),
    ],
    ids=range(9),
)
def test_fhir_that_is_refused(tmp_path, content, message):
    with pytest.raises(ReadError, match=message) as caught:
        read_report(write(tmp_path / "a.json", content))
    assert "a.json" in str(caught.value) and "fix: " in str(caught.value)


def test_a_text_that_starts_with_a_bracket_is_no_json(tmp_path):
    assert (
        read_report(write(tmp_path / "a.txt", "[DEID] presented. Clear lungs.")).text
        == "[DEID] presented. Clear lungs."
    )


def test_a_windows_path_in_a_report_is_no_escape():
    assert read_report("saved under C:\\Temp\\S001 today").text == "saved under C:\\Temp\\S001 today"


# Double encoding


def test_text_that_was_encoded_twice_is_turned_back(tmp_path):
    twice = TEXT.encode().decode("cp1252")
    report = read_report(write(tmp_path / "a.txt", twice))
    assert report.text == TEXT and "encoded twice" in report.notes[0]


# DICOM SR


def item(kind: str, name: str, value=None, relation: str = "CONTAINS") -> Dataset:
    found, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "DCM", name
    found.ValueType, found.RelationshipType, found.ConceptNameCodeSequence = kind, relation, Sequence([code])
    if kind == "TEXT":
        found.TextValue = value
    elif kind == "PNAME":
        found.PersonName = value
    elif kind == "CODE":
        meaning = Dataset()
        meaning.CodeValue, meaning.CodingSchemeDesignator, meaning.CodeMeaning = "2", "DCM", value
        found.ConceptCodeSequence = Sequence([meaning])
    else:
        found.ContentSequence = Sequence(value)
    return found


def structured(path: Path, content: list[Dataset], modality: str = "SR") -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.88.11"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = Dataset()
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.Modality, dataset.PatientName, dataset.PatientID = modality, "Secret^Name", "secret-7"
    dataset.ContentSequence = Sequence(content)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_structured_report(tmp_path):
    content = [
        item("CODE", "Language", "English", "HAS CONCEPT MOD"),
        item("PNAME", "Person Observer Name", "Secret^Doctor", "HAS OBS CONTEXT"),
        item("CONTAINER", "Findings", [item("TEXT", "Finding", FINDINGS)]),
        item(
            "CONTAINER", "Impressions", [item("TEXT", "Impression", IMPRESSION), item("CODE", "Impression", "2. Done.")]
        ),
    ]
    report = read_report(structured(tmp_path / "a.dcm", content))
    assert report.sections == {"findings": FINDINGS, "impression": f"{IMPRESSION}\n2. Done."}
    assert "secret" not in report.text.lower() and "English" not in report.text
    bare = tmp_path / "bare.dcm"
    bare.write_bytes((tmp_path / "a.dcm").read_bytes()[132:])
    assert read_report(bare).text == report.text
    with pytest.raises(ReadError, match="without text"):
        read_report(structured(tmp_path / "b.dcm", content[:2]))
    with pytest.raises(ReadError, match=r"DICOM without a report \(modality CT"):
        read_report(structured(tmp_path / "c.dcm", content, "CT"))


def test_a_deep_structured_report_ends(tmp_path):
    content = [item("TEXT", "Finding", "a")]
    for _ in range(40):
        content = [item("CONTAINER", "", content)]
    with pytest.raises(ReadError, match="over 32 deep"):
        read_report(structured(tmp_path / "a.dcm", content))


def test_no_wrapping_lets_a_name_through(tmp_path):
    write(tmp_path / "a.xml", openi())
    write(tmp_path / "a.rtf", RTF)
    write(tmp_path / "a.json", FHIR["bundle"])
    for path in sorted(tmp_path.iterdir()):
        assert "secret" not in read_report(path).text.lower()


def test_a_conclusion_beside_a_form_is_told_where_the_form_does_not_have_it(tmp_path):
    said = form("text/plain", b"FINDINGS: Clear lungs. IMPRESSION: No acute disease.")[1]
    inside = diagnostic_report(presentedForm=[said], conclusion="No acute disease.")
    assert read_report(write(tmp_path / "a.json", inside)).notes == ()
    other = diagnostic_report(presentedForm=[said], conclusion="Nodule of 9 mm, no acute disease.")
    (note,) = read_report(write(tmp_path / "b.json", other)).notes
    assert note.startswith("its conclusion has 4 words that its form does not have: left out")
