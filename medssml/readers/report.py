"""Radiology reports: text in whatever encoding and wrapping, its sections, its de-identification marks made one.

Plain text, RTF, HTML, OpenI XML, FHIR DiagnosticReport (JSON, bundle, NDJSON), an HL7 version 2 message, DICOM SR.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from medssml.readers.dicom_file import is_dicom
from medssml.readers.encodings import decode
from medssml.readers.errors import ReadError, human, reading, require_file
from medssml.readers.fhir import is_json, one_fhir_report
from medssml.readers.hl7 import hl7_text, is_hl7, unescaped
from medssml.readers.markup import html_text, rtf_text, xml_text
from medssml.readers.plain_text import DEID, plain_text
from medssml.readers.sections import SECTIONS, split_sections

__all__ = ["DEID", "SECTIONS", "Report", "parse_report", "read_report", "report_header", "split_sections"]

MAX_TEXT_BYTES = 16 * 1024**2
_NO_TEXT = {b"%PDF": "PDF", b"PK\x03\x04": "a zip or Word file", b"\x89PNG": "PNG", b"\x1f\x8b": "gzip"}
_NO_TEXT |= {b"\xd0\xcf\x11\xe0": "an old Word file", b"\xff\xd8\xff": "JPEG"}
_HTML = re.compile(r"<(?:html|head|body|div|p|span|b|strong|i|u|font|pre|table|h[1-6]|br|ul|ol)(?:\s[^<>]*)?/?>")
_TAG = re.compile(r"\s*<[A-Za-z_][\w.:-]*(?:\s+[\w.:-]+\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'))*\s*/?>")
_MANY_TAGS = 20
#: What tells a text with HL7 escapes in it from one with a Windows path.
_HL7_BREAK = re.compile(r"\\(?:\.[A-Za-z]{2}[+-]?\d{0,3}|X0[ADad])\\")
_FILE_NAME = re.compile(r"[^\n]{1,1024}\.(txt|text|rpt|rep|md|rtf|html?|xml|json|ndjson|hl7|dcm)$", re.IGNORECASE)


class Report(NamedTuple):
    """A report.

    text: the whole of it, blanks normalised, lines kept. sections: of `SECTIONS` those found, and other headings in
    capitals under their lower-case names. notes: what was fixed or is odd.
    """

    text: str
    sections: dict[str, str]
    notes: tuple[str, ...]


def read_report(path_or_text: str | Path) -> Report:
    """A report from a file, or from the text itself.

    A `Path` is a file. A string is a file when it is one line that ends in .txt, .text, .rpt, .rep, .md, .rtf, .html,
    .xml, .json, .ndjson, .hl7 or .dcm, else it is the text. Text that comes out of a manifest goes to `parse_report`,
    which touches no file.

    Raises:
        ReadError: missing, empty, too long, several reports in one file, or no text (PDF, Word, binary).
    """
    if isinstance(path_or_text, str) and not _FILE_NAME.fullmatch(path_or_text.strip()):
        return parse_report(path_or_text)
    path = require_file(Path(str(path_or_text).strip()) if isinstance(path_or_text, str) else path_or_text)
    with reading(path, "report"):
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise ReadError(
                path,
                f"has {human(size)}, limit {human(MAX_TEXT_BYTES)}",
                "name the text of one report",
                code="too_large",
            )
        text, notes = _file_text(path)
        return _report(text, notes, str(path))


def parse_report(text: str) -> Report:
    """A report from its text; never opens a file.

    Raises:
        ReadError: no text in it.
    """
    source = Path("report text")
    text, notes = _unwrapped(text, source)
    return _report(text, notes, str(source))


def report_header(path: str | Path) -> Report:
    """The report itself: a text has no header that is cheaper to read.

    Raises:
        ReadError: as `read_report`.
    """
    return read_report(Path(path))


def _file_text(path: Path) -> tuple[str, list[str]]:
    """The text of a file, whatever it is wrapped in, and what was done to it."""
    data = path.read_bytes()
    for magic, kind in _NO_TEXT.items():
        if data.lstrip()[: len(magic)] == magic:
            raise ReadError(path, f"is {kind}, not text", "export the report as a .txt file", code="format")
    if is_dicom(path):
        from medssml.readers.structured import sr_text

        return sr_text(path), []
    if data.lstrip()[:5] == b"{\\rtf":
        return rtf_text(data.decode("latin-1")), []
    text, notes = decode(data, path)
    text, more = _unwrapped(text, path)
    return text, notes + more


def _unwrapped(text: str, path: Path) -> tuple[str, list[str]]:
    """The report in RTF, HTML, XML, JSON or an HL7 message; other text is the report."""
    start = text[:200].lstrip("\ufeff \t\r\n").lower()
    if start.startswith("{\\rtf"):
        return rtf_text(text.encode("cp1252", "replace").decode("latin-1")), []
    if start.startswith("<!doctype html") or _HTML.match(start):
        return html_text(text), []
    # A text may begin with <Final report>: a tag has no words in it, and an element ends, or has many within.
    if start.startswith(("<?xml", "<!doctype")) or (
        _TAG.match(text) and ("</" in text or text.count("<") > _MANY_TAGS)
    ):
        return xml_text(text, path), []
    if is_json(text):
        return one_fhir_report(text, path)
    if is_hl7(text):
        return hl7_text(text, path)
    plain = unescaped(text) if _HL7_BREAK.search(text) else text
    return plain, ["HL7 line breaks converted"] if plain != text else []


def _report(text: str, notes: list[str], source: str) -> Report:
    text, more = plain_text(text)
    if not re.search(r"\w", text.replace(DEID, "")):
        raise ReadError(source, "holds no text", "leave the cell empty", code="content")
    return Report(text, split_sections(text), (*notes, *more))
