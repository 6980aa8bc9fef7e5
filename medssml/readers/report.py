"""Radiology reports: text in whatever encoding and wrapping, its sections, its de-identification marks made one.

Plain text, RTF, HTML, OpenI XML, FHIR DiagnosticReport (JSON, bundle, NDJSON), an HL7 version 2 message, DICOM SR.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from medssml.readers.encodings import decode
from medssml.readers.errors import ReadError, human, reading, require_file
from medssml.readers.markup import html_text, rtf_text, xml_text
from medssml.readers.messages import hl7_text, hl7_unescaped, is_hl7, is_json, one_fhir_report
from medssml.readers.sections import SECTIONS, split_sections

__all__ = ["DEID", "SECTIONS", "Report", "parse_report", "read_report", "report_header", "split_sections"]

MAX_TEXT_BYTES = 16 * 1024**2
DEID = "[DEID]"
_DEID_MARK = re.compile(r"\[\*\*.*?\*\*\]|_{3,}|(?<![A-Za-z])X{4,}(?![A-Za-z])|\[DEID\]", re.DOTALL)
_NO_TEXT = {b"%PDF": "PDF", b"PK\x03\x04": "a zip or Word file", b"\x89PNG": "PNG", b"\x1f\x8b": "gzip"}
_NO_TEXT |= {b"\xd0\xcf\x11\xe0": "an old Word file", b"\xff\xd8\xff": "JPEG"}
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
    return _report(text, [], "report text")


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
    if data[128:132] == b"DICM":
        from medssml.readers.structured import sr_text

        return sr_text(path), []
    if data.lstrip()[:5] == b"{\\rtf":
        return rtf_text(data.decode("latin-1")), []
    text, notes = decode(data, path)
    return _unwrapped(text, path), notes


def _unwrapped(text: str, path: Path) -> str:
    """The report in HTML, XML, JSON or an HL7 message; other text is the report."""
    start = text[:200].lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<div", "<body", "<p>")):
        return html_text(text)
    if start.startswith(("<?xml", "<!doctype")) or (
        re.match(r"<[a-z_][\w.:-]*[\s>/]", start) and text.rstrip()[-1] == ">"
    ):
        return xml_text(text, path)
    if is_json(text):
        return one_fhir_report(text, path)
    return hl7_text(text, path) if is_hl7(text) else text


def _report(text: str, notes: list[str], source: str) -> Report:
    plain = hl7_unescaped(text)
    if plain != text:
        text, notes = plain, [*notes, "HL7 line breaks converted"]
    text = _normalise(text)
    if not re.search(r"\w", text.replace(DEID, "")):
        raise ReadError(source, "holds no text", "leave the cell empty", code="content")
    return Report(text, split_sections(text), tuple(notes))


def _normalise(text: str) -> str:
    """One form of each character, blank and line end; every de-identification mark becomes `DEID`."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf"))
    text = _DEID_MARK.sub(DEID, text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
