"""Reports: texts in every wrapping, one fault each, and controls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.case import Case, cut, put
from tests.readers.test_report_formats import (
    FHIR,
    FINDINGS,
    IMPRESSION,
    PATIENT,
    RTF,
    TEXT,
    diagnostic_report,
    form,
    item,
    openi,
    structured,
)

ENTITIES = "<!DOCTYPE a [" + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10)) + "]>"


def file(name: str, content: str | bytes | dict | list) -> Callable[[Path], Path]:
    data = json.dumps(content) if isinstance(content, (dict, list)) else content
    return lambda folder: put(folder / name, data)


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.txt")
    return folder / "a.txt"


def _huge(folder: Path) -> Path:
    with (folder / "a.txt").open("wb") as stream:
        stream.truncate(3 << 30)
    return folder / "a.txt"


def _sr(*content: Any, modality: str = "SR") -> Callable[[Path], Path]:
    return lambda folder: structured(folder / "a.dcm", list(content), modality)


def _message(number: int, status: str = "F") -> str:
    """HL7 with lines within its text."""
    header = f"MSH|^~\\&|A|B|C|D|2024||ORU^R01|{number}|P|2.5\rPID|1||{number}||Secret^Name\rOBR|1||A{number}|CT\r"
    return f"{header}OBX|1|TX|R||{TEXT.replace('&', chr(92) + 'T' + chr(92))}||||||{status}\r"


SAID = item("CONTAINER", "Findings", [item("TEXT", "Finding", FINDINGS)])
CONCLUDED = item("CONTAINER", "Impressions", [item("TEXT", "Impression", IMPRESSION)])
REFUSED: list[tuple[str, Callable[[Path], Path], str]] = [
    ("missing", lambda f: f / "none.txt", "no such file"),
    ("empty", file("a.txt", b""), "is empty"),
    ("blanks", file("a.txt", " \n\t\r\n"), "holds no text"),
    ("marks alone", file("a.txt", "___ [**Name**] XXXX"), "holds no text"),
    ("folder", lambda f: f, "is a folder"),
    ("pipe", _pipe, "not a regular file"),
    ("3 GiB", _huge, "has 3 GiB, limit 16 MiB"),
    ("pdf", file("a.txt", b"%PDF-1.7\n1 0 obj"), "is PDF"),
    ("docx", file("a.txt", b"PK\x03\x04" + bytes(90)), "zip or Word"),
    ("doc", file("a.txt", b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(90)), "old Word"),
    ("png", file("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(90)), "is PNG"),
    ("jpeg", file("a.txt", b"\xff\xd8\xff\xe0" + bytes(90)), "is JPEG"),
    ("gzip", file("a.txt", b"\x1f\x8b\x08" + bytes(90)), "is gzip"),
    ("all bytes", file("a.txt", bytes(range(256))), "is not text"),
    ("control bytes", file("a.txt", b"\x01\x02\xff\x03" * 20), "control bytes"),
    ("half a UTF-16", file("a.txt", b"\xff\xfea"), "cannot be decoded as utf-16-le"),
    ("bad UTF-32", file("a.txt", b"\xff\xfe\0\0\xff\xff\xff\xff"), "cannot be decoded as utf-32"),
    ("bad UTF-8 after a mark", file("a.txt", b"\xef\xbb\xbf\xff\xfe"), "holds no text"),
    ("xml cut", file("a.xml", openi()[:-40]), "not well-formed"),
    ("xml of another kind", file("a.xml", "<?xml version='1.0'?><svg/>"), "another layout"),
    ("xml without text", file("a.xml", "<?xml version='1.0'?><a><AbstractText/></a>"), "holds no text"),
    ("xml external entity", file("a.xml", openi(extra='<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>')), "DOCTYPE"),
    ("xml billion laughs", file("a.xml", openi(extra=ENTITIES)), "DOCTYPE"),
    ("xml many tags", file("a.xml", "<a>" + "<b/>" * 200_000 + "</a>"), "tags, limit"),
    ("xml deep", file("a.xml", "<?xml version='1.0'?>" + "<a>" * 90_000), "not well-formed"),
    ("xml two reports", file("a.xml", openi().replace("</eCitation>", "<Abstract/></eCitation>")), "holds 2 reports"),
    ("rtf without text", file("a.rtf", "{\\rtf1{\\fonttbl{\\f0 Arial;}}}"), "holds no text"),
    ("html without text", file("a.html", "<html><script>run()</script></html>"), "holds no text"),
    ("json cut", file("a.json", json.dumps(FHIR["plain"])[:-5]), "not valid JSON"),
    ("json of another kind", file("a.json", {"a": 1}), "no valid FHIR"),
    ("json numbers", file("a.json", "[{}, 1]"), "no FHIR resource"),
    ("json deep", file("a.json", '{"a":' * 100_000), "nested|not valid"),
    ("fhir patient", file("a.json", PATIENT), "no valid FHIR"),
    ("fhir withdrawn", file("a.json", diagnostic_report(status="cancelled", conclusion="x")), "no valid FHIR"),
    ("fhir pdf alone", file("a.json", diagnostic_report(presentedForm=form("application/pdf", b"%PDF"))), "application/pdf"),
    ("fhir without text", file("a.json", diagnostic_report()), "has no text"),
    ("fhir bad base64", file("a.json", diagnostic_report(presentedForm=[{"data": "!"}])), "not base64"),
    ("fhir two", file("a.json", [FHIR["plain"], FHIR["rtf"]]), "holds 2 reports"),
    ("fhir odd fields", file("a.json", diagnostic_report(presentedForm="x", result=3, text=[], contained={})), "has no text"),
    ("ndjson bad line", file("a.ndjson", json.dumps(FHIR["plain"]) + "\n{"), "line 2 is not valid"),
    ("hl7 without text", file("a.hl7", "MSH|^~\\&|A\rPID|1||7||Secret^Name\r"), "without a text observation"),
    ("hl7 two patients", file("a.hl7", _message(1) + _message(2)), "holds 2 reports of 2 patients"),
    ("hl7 withdrawn", file("a.hl7", _message(1, "W")), "withdrawn"),
    ("hl7 in part", file("a.hl7", _message(1).partition("\r")[2]), "without its header"),
    ("sr without content", _sr(modality="SR"), "without text|no content"),
    ("sr of a CT", _sr(SAID, modality="CT"), "modality CT"),
    ("sr cut", lambda f: cut(_sr(SAID)(f), 150), "decoded|without a report|no transfer syntax"),
]  # fmt: skip
PUT_RIGHT: list[tuple[str, str, Callable[[Path], Path], str]] = [
    ("latin-1", "fixed", file("a.txt", TEXT.encode("latin-1")), "Latin-1"),
    ("cp850", "fixed", file("a.txt", TEXT.encode("cp850")), "DOS"),
    ("utf-16", "fixed", file("a.txt", TEXT.encode("utf-16")), "UTF-16"),
    ("utf-16 without a mark", "fixed", file("a.txt", TEXT.encode("utf-16-be")), "without a mark"),
    ("utf-8 with a mark", "fixed", file("a.txt", TEXT.encode("utf-8-sig")), "byte-order"),
    ("encoded twice", "flagged", file("a.txt", TEXT.encode().decode("cp1252")), "encoded twice"),
    ("hl7 breaks", "fixed", file("a.txt", TEXT.replace("\n", "\\.br\\")), "HL7"),
    (
        "one bad byte",
        "flagged",
        file("a.txt", TEXT.encode().replace(b"effusion", b"\xffeffusion")),
        "1 letters are lost",
    ),
    ("terminal escapes", "flagged", file("a.txt", f"\x1b[1m{TEXT}\x1b[0m"), "2 terminal escapes"),
    ("line ends as two characters", "flagged", file("a.txt", TEXT.replace("\n", "\\n")), "1 line ends"),
    ("xml latin-1", "fixed", file("a.xml", openi("iso-8859-1").encode("latin-1")), "iso8859-1"),
]
CONTROLS: list[tuple[str, Callable[[Path], Path]]] = [
    ("plain", file("a.txt", TEXT)),
    ("windows line ends", file("a.txt", TEXT.replace("\n", "\r\n"))),
    ("blanks around", file("a.txt", f"\n\n  {TEXT}  \n\n\n")),
    ("no suffix", file("report 7", TEXT)),
    ("xml", file("a.xml", openi())),
    ("rtf", file("a.rtf", RTF)),
    ("sr", _sr(SAID, CONCLUDED)),
    ("hl7", file("a.hl7", _message(1))),
    *[(f"fhir {name}", file("a.json", content)) for name, content in FHIR.items()],
]


def same(report: Any) -> None:
    assert {name: body.replace("\ufffd", "") for name, body in report.sections.items()} == {
        "findings": FINDINGS,
        "impression": IMPRESSION,
    }


def cases() -> list[Case]:
    found = [Case("report", name, "refused", make, says) for name, make, says in REFUSED]
    found += [Case("report", name, verdict, make, says, same) for name, verdict, make, says in PUT_RIGHT]
    return found + [Case("report", name, "accepted", make, "", same) for name, make in CONTROLS]
