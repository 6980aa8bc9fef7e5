"""Reports: the same text in any encoding, its sections under one name, de-identification marks made one."""

from pathlib import Path

import pytest

from medssml.readers import ReadError, modality_kind, parse_report, read_report

TEXT = "INDICATION: Fieber, für Größe übermäßig häufig, 38 °C\n\nFINDINGS: Clear lungs.\nNo effusion.\n\nIMPRESSION: Normal."


@pytest.mark.parametrize(
    ("encoding", "note"),
    [("utf-8", ""), ("utf-8-sig", "byte-order"), ("utf-16", "UTF-16"), ("utf-16-le", "without a mark"),
     ("utf-16-be", "without a mark"),
     ("latin-1", "Latin-1"), ("cp1252", "Latin-1"), ("utf-32", "UTF-32"), ("cp850", "DOS"), ("mac_roman", "Mac Roman")],
)  # fmt: skip
def test_any_encoding_reads_as_the_same_text(tmp_path, encoding, note):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode(encoding))
    report = read_report(path)
    assert report.text == TEXT
    assert note in " ".join(report.notes) and bool(report.notes) == bool(note)


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("FINDINGS: clear.\nIMPRESSION: normal.", {"findings": "clear.", "impression": "normal."}),
        ("  findings :\n clear\n Conclusion: normal", {"findings": "clear", "impression": "normal"}),
        ("Findings: clear. Impression: normal.", {"findings": "clear.", "impression": "normal."}),
        ("FINDINGS: clear IMPRESSION: normal", {"findings": "clear", "impression": "normal"}),
        ("Hallazgos: claros\nCONCLUSIÓN: normal", {"findings": "claros", "impression": "normal"}),
        ("Befund: frei\nBeurteilung: normal", {"findings": "frei", "impression": "normal"}),
        ("History: cough\nTechnique: PA\nComparison: none", {"indication": "cough", "technique": "PA", "comparison": "none"}),
        ("WET READ: 11:30 PM ok\nFINDINGS AND IMPRESSION: ok", {"wet read": "11:30 PM ok", "impression": "ok"}),
        ("FINDINGS: a\nFINDINGS: b", {"findings": "a\nb"}),
        ("FINDINGS:\n\nIMPRESSION: ok", {"impression": "ok"}),
        ("No acute findings.", {}),
        ("as the findings: say, nothing", {}),
        ("1. Normal chest.\n2. No change.", {}),
        ("FINDINGS\nClear lungs.\n\nImpression\nNormal.", {"findings": "Clear lungs.", "impression": "Normal."}),
        ("we list the\nfindings\nhere", {}),
        ("Fragestellung: Husten\nTechnik: CT\nBefundung: frei\nZusammenfassende Beurteilung: normal",
         {"indication": "Husten", "technique": "CT", "findings": "frei", "impression": "normal"}),
        ("MOTIVO DE LA EXPLORACIÓN: tos\nJUICIO DIAGNÓSTICO: normal", {"indication": "tos", "impression": "normal"}),
    ],
)  # fmt: skip
def test_sections(text, sections):
    assert parse_report(text).sections == sections


@pytest.mark.parametrize("mark", ["___", "________", "XXXX", "XXXXXX", "[**Hospital 12**]", "[DEID]"])
def test_one_token_for_what_was_removed(mark):
    assert parse_report(f"Seen by {mark}, XXL shirt.").text == "Seen by [DEID], XXL shirt."
    assert parse_report(f"{mark}-year-old woman").text == "[DEID]-year-old woman"


def test_blanks_line_ends_and_control_characters_are_normalised():
    assert parse_report("\ufeffa \t b\r\nc\u00a0d\r\n\r\n\r\n\r\ne\x07\x0c").text == "a b\nc d\n\ne"
    report = parse_report("FINDINGS: clear\\.br\\IMPRESSION: normal")
    assert report.sections == {"findings": "clear", "impression": "normal"} and "HL7" in report.notes[0]


def test_text_or_path(tmp_path):
    (tmp_path / "a.txt").write_text("from a file")
    assert read_report(str(tmp_path / "a.txt")).text == "from a file"
    assert read_report("No acute findings.").text == "No acute findings."
    assert parse_report(str(tmp_path / "a.txt")).text == str(tmp_path / "a.txt")
    with pytest.raises(ReadError, match="no such file"):
        read_report("reports/absent.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"), (b"  \n\t ", "holds no text"), (b"___", "holds no text"), (b"%PDF-1.7 ...", "is PDF"),
        (b"{\\rtf1 }", "holds no text"), (b"<?xml version='1.0'?><a/>", "XML of another layout"),
        (bytes(range(256)), "is not text"),
        (b"\x01\x02\xff\x03" * 20, "is not text"), (b"\xff\xfea", "cannot be decoded"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=message):
        read_report(path)


def test_a_long_text_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(ReadError, match="has 3 GiB, limit 16 MiB"):
        read_report(path)


def test_headings_are_found_in_linear_time():
    text = "A" * 200_000 + " FINDINGS " * 20_000
    assert parse_report(text).sections == {}


def test_a_pipe_or_a_folder_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ReadError, match="not a regular file"):
        read_report(tmp_path / "pipe.txt")
    with pytest.raises(ReadError, match="is a folder"):
        read_report(Path(tmp_path))


def test_kind_of_a_modality():
    assert modality_kind("xray") == "xray" and modality_kind("xray_lateral") == "xray"
    with pytest.raises(KeyError, match="no reader for modality 'mri'"):
        modality_kind("mri")
