"""HL7 version 2: by its grammar, so that no line of a report is lost, none that was withdrawn is kept, and no two are joined."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from medssml.readers import ReadError, parse_report, read_report
from medssml.readers.hl7 import unescaped
from medssml.readers.report import Report

TEXT = "FINDINGS: Lungs are clear.\nNo effusion.\nIMPRESSION: Nodule of 9 mm."


def header(kind: str = "ORU^R01") -> str:
    return f"MSH|^~\\&|RIS|HOSP|X|X|20240101||{kind}|1|P|2.5\r"


def patient(number: int = 1) -> str:
    return f"PID|1||T000{number}^^^HOSP||Secret^Person{number}\r"


def order(number: int = 1, code: str = "71250^CT", status: str = "F") -> str:
    return f"OBR|1||ACC{number}|{code}" + "|" * 21 + f"{status}\r"


def line(text: str, status: str = "F", number: int = 1, kind: str = "TX", what: str = "RPT") -> str:
    return f"OBX|{number}|{kind}|{what}||{text}||||||{status}\r"


def message(text: str, number: int = 1) -> str:
    return header() + patient(number) + order(number) + line(text)


def read(folder: Path, *segments: str, end: str = "\r", inside: str = "") -> Report:
    path = folder / "a.hl7"
    path.write_bytes("".join(segments).replace("\r", end).replace("\0", inside).encode())
    return read_report(path)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("inside", ["\n", "\r", "\r\n", "~", "\\.br\\", "\\X0A\\", "\\X0D0A\\", "\\.sp\\", "\\.BR\\"])
def test_a_text_may_have_lines(tmp_path: Path, end: str, inside: str) -> None:
    report = read(tmp_path, header(), patient(), order(), line(TEXT.replace("\n", "\0")), end=end, inside=inside)
    assert report.text == TEXT and list(report.sections) == ["findings", "impression"] and report.notes == ()


def test_empty_lines_and_lines_of_other_segments(tmp_path: Path) -> None:
    report = read(
        tmp_path, header(), "PID|1||T1||Secret^A\nSecret street\r", order(), line("A b.\n\nRUL: c|d".replace("|d", ""))
    )
    assert report.text == "A b.\n\nRUL: c" and "Secret" not in report.text
    assert read(tmp_path, header(), "OBX|1|TX|R||First pa\rADD|rt of it||||||F\r").text == "First part of it"


@pytest.mark.parametrize(
    ("name", "parts", "says"),
    [
        ("two patients", [message("Clear.", 1), message("Pneumothorax.", 2)], "holds 2 reports of 2 patients"),
        ("one text", [message("Clear.", 1), message("Clear.", 2)], "holds 2 reports of 2 patients"),
        ("framed", ["\x0b", message("Clear.", 1), "\x1c\r\x0b", message("Fracture.", 2), "\x1c\r"], "holds 2 reports of 2"),
        ("two orders", [header(), patient(), order(1), line("Clear."), order(2), line("Fracture.")], "holds 2 reports;"),
        ("two procedures", [header(), patient(), order(1), line("a b"), order(1, "74150^CT"), line("c d")], "holds 2 reports;"),
        ("two groups", [header(), patient(1), order(), line("Clear."), patient(2), order(), line("Bad.")], "2 patients"),
        ("no header", [patient(), order(), line("Clear.")], "without its header"),
        ("order alone", [header("ORM^O01"), patient(), order(), line("Why?")], "messages of ORM, no report"),
        ("withdrawn", [header(), patient(), order(), line("Wrong.", "W"), line("Gone.", "D", 2)], "withdrawn report: 2 text"),
        ("cancelled", [header(), patient(), order(status="X"), line("Nothing done.")], "withdrawn report: 1 text"),
        ("document", [header("MDM^T11"), patient(), "TXA|1|RAD\r", line("Clear.")], "withdrawn"),
        ("pdf", [header(), patient(), order(), line("^AP^PDF^Base64^JVBERi0=", kind="ED")], "TX, FT or ST.: it has ED"),
        ("base64", [header(), patient(), order(), line("^TEXT^PLAIN^Base64^@@@", kind="ED")], "ED is not BASE64"),
    ],
)  # fmt: skip
def test_what_is_not_one_report_is_refused(tmp_path: Path, name: str, parts: list[str], says: str) -> None:
    with pytest.raises(ReadError, match=says) as caught:
        read(tmp_path, *parts)
    assert "Secret" not in str(caught.value) and "fix: " in str(caught.value)


def test_batches_and_other_messages_are_passed_over(tmp_path: Path) -> None:
    batch = ["FHS|^~\\&|A\rBHS|^~\\&|A\r", message("Heart is enlarged."), "BTS|1\rFTS|1\r"]
    assert read(tmp_path, *batch).text == "Heart is enlarged."
    report = read(tmp_path, header("ADT^A08"), patient(), line("Allergy.", kind="ST"), *batch[1:2])
    assert report.text == "Heart is enlarged." and report.notes == (
        "messages that are no report are left out: ADT x 1",
    )
    again = read(tmp_path, message("Sent twice."), message("Sent twice."))
    assert again.text == "Sent twice."
    for said in ("2024-01-01 received:\r", "2024-01-01 received: "):
        logged = read(tmp_path, said, message("Clear."))
        assert logged.text == "Clear." and logged.notes == ("20 letters before the message are left out",)
    document = read(tmp_path, header("MDM^T02"), patient(), "TXA|1|RAD|TX\r", line("A document."))
    assert document.text == "A document."


def test_withdrawn_and_corrected_observations(tmp_path: Path) -> None:
    start = header() + patient() + order()
    report = read(
        tmp_path, start, line("No nodule.", "F", 1), line("Heart normal.", "F", 2), line("Nodule of 9 mm.", "C", 1)
    )
    assert report.text == "Heart normal.\nNodule of 9 mm."
    assert "1 of 3 observations are replaced by their correction" in report.notes[0]
    report = read(tmp_path, start, line("Wrong side.", "W", 1), line("Left side.", "C", 1), line("Old.", "D", 2))
    assert report.text == "Left side." and "2 observations that were withdrawn" in report.notes[0]
    report = read(tmp_path, start, line("A.", "P", 1), line("B.", "F", 1))
    assert report.text == "B."
    alike = read(tmp_path, start, *[line(text, status) for text, status in (("A.", "F"), ("B.", "C"), ("C.", "F"))])
    assert alike.text == "A.\nB.\nC." and "3 observations of one number" in alike.notes[0]
    assert "preliminary" in read(tmp_path, start, line("A.", "P")).notes[0]


def test_parts_of_a_report_by_their_codes(tmp_path: Path) -> None:
    start = header() + patient() + order()
    report = read(
        tmp_path, start, line("Clear.", what="71250&GDT^CT"), line("Heart normal.", what="71250&GDT^CT"),
        line("None.", what="71250&IMP^CT"), "NTE|1||said by phone\r",
    )  # fmt: skip
    assert report.sections == {"findings": "Clear.\nHeart normal.", "impression": "None."}
    assert report.notes == ("left out beside the text: comments (NTE) x 1",)
    report = read(tmp_path, start, line("IMPRESSION: None.", what="19005-8^Radiology impression^LN"))
    assert report.text == "IMPRESSION: None."
    assert read(tmp_path, start, line("Clear.", what="RPT^FINDINGS")).sections == {"findings": "Clear."}


def encapsulated(data: bytes, kind: str) -> str:
    return line(f"RIS^TEXT^{kind}^Base64^{base64.b64encode(data).decode()}", kind="ED", number=2)


def test_encapsulated_text_is_read_once(tmp_path: Path) -> None:
    start = header() + patient() + order()
    rtf = b"{\\rtf1 FINDINGS: Lungs are clear.\\par No effusion.\\par IMPRESSION: Nodule of 9 mm.}"
    assert read(tmp_path, start, encapsulated(rtf, "RTF")).text == TEXT
    assert read(tmp_path, start, encapsulated(f"<p>{TEXT}</p>".replace("\n", "<br>").encode(), "HTML")).text == TEXT
    both = read(tmp_path, start, line(TEXT.replace("\n", "~")), encapsulated(rtf, "RTF"))
    assert both.text == TEXT and both.notes == ()
    other = read(tmp_path, start, line("See the attachment."), encapsulated(rtf, "RTF"))
    assert other.text == "See the attachment.\n" + TEXT and "say different things" in other.notes[0]
    document = read(tmp_path, start, line("Clear."), encapsulated(b"<ClinicalDocument/>", "XML"))
    assert document.text == "Clear." and document.notes == ("left out beside the text: ED x 1",)
    pdf = read(tmp_path, start, line("Clear."), encapsulated(b"%PDF-1.4", "PDF"))
    assert pdf.text == "Clear." and pdf.notes == ("left out beside the text: ED x 1",)


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        ("no\\.sp2\\effusion", "no\n\neffusion"), ("no\\.in4\\effusion", "no    effusion"), ("no\\.sk1\\effusion", "no effusion"),
        ("a\\.ce\\b", "a\nb"), ("a\\.ti+2\\b", "a  b"), ("a\\.fi\\b", "a b"),
        ("\\H\\bold\\N\\", "bold"), ("\\XC3A9\\", "é"), ("\\XE9\\", "é"),
        ("a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f", "a|b^c&d~e\\f"), ("C:\\Temp\\S001", "C:\\Temp\\S001"),
    ],
)  # fmt: skip
def test_escapes(escaped: str, plain: str) -> None:
    assert unescaped(escaped) == plain


def test_the_header_says_what_separates(tmp_path: Path) -> None:
    text = "MSH$*%#@$RIS$H$X$X$2024$$ORU*R01$1\rPID$1$$T1$$Secret*A\rOBX$1$TX$R$$a#F#b#T#c%d\\.br\\e|f^g$$$$$$F\r"
    assert read(tmp_path, text).text == "a$b@c\nd\\.br\\e|f^g"


def test_a_message_in_a_column_shows_no_patient() -> None:
    assert parse_report(message("Clear.")).text == "Clear."
