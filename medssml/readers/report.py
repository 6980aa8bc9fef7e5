"""Radiology reports: text in whatever encoding, its sections, its de-identification marks made one."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from medssml.readers.errors import ReadError, human, reading, require_file

MAX_TEXT_BYTES = 16 * 1024**2
DEID = "[DEID]"
SECTIONS = ("indication", "technique", "comparison", "findings", "impression")

_SYNONYMS = {
    "findings": "findings|finding|chest findings|hallazgos|hallazgo|befund|befunde",
    "impression": (
        "impression|impressions|conclusion|conclusions|summary|opinion|findings and impression|findings/impression|"
        "impression and findings|final impression|impresión|impresion|impresión diagnóstica|conclusión|conclusiones|"
        "beurteilung|zusammenfassung"
    ),
    "indication": (
        "indication|indications|clinical indication|reason for exam|reason for examination|reason for study|history|"
        "clinical history|clinical information|indicación|indicacion|datos clínicos|motivo|"
        "indikation|fragestellung|klinische angaben|anamnese"
    ),
    "comparison": (
        "comparison|comparisons|comparison studies|comparación|comparacion|estudio previo|vergleich|voruntersuchung|"
        "voraufnahme"
    ),
    "technique": "technique|procedure|exam|examination|study|técnica|tecnica|technik|untersuchung",
}
_CANONICAL = {word: section for section, words in _SYNONYMS.items() for word in words.split("|")}
_KNOWN = "|".join(re.escape(word) for word in sorted(_CANONICAL, key=len, reverse=True))
_HEADER = re.compile(
    rf"(?:^[ \t]*(?P<line>{_KNOWN})"  # a known heading at the start of a line, any case
    rf"|(?:(?<=[.:;?!])|(?<=[ \t]))[ \t]*(?P<inline>(?-i:(?=[A-ZÁÉÍÓÚÑ]))(?:{_KNOWN}))"  # or inside one, with a capital
    r"|^[ \t]*(?P<other>(?-i:[A-ZÁÉÍÓÚÑÄÖÜ][A-ZÁÉÍÓÚÑÄÖÜ /,&()-]{2,40})))[ \t]*:",
    re.MULTILINE | re.IGNORECASE,
)
_INLINE_AFTER = ".:;?!"
_DEID_MARK = re.compile(r"\[\*\*.*?\*\*\]|_{3,}|(?<![A-Za-z])X{4,}(?![A-Za-z])|\[DEID\]", re.DOTALL)
_NO_TEXT = {
    b"%PDF": "PDF",
    b"PK\x03\x04": "a zip or Word file",
    b"{\\rtf": "RTF",
    b"\x89PNG": "PNG",
    b"\x1f\x8b": "gzip",
    b"<?xml": "XML",
}
_FILE_NAME = re.compile(r"[^\n]{1,1024}\.(txt|text|rpt|rep|md)$", re.IGNORECASE)


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

    A `Path` is a file. A string is a file when it is one line that ends in .txt, .text, .rpt, .rep or .md, else it is
    the text. Text that comes out of a manifest goes to `parse_report`, which touches no file.

    Raises:
        ReadError: missing, empty, too long, or no text (PDF, XML, RTF, binary).
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
        text, notes = _decode(path.read_bytes(), path)
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


def _decode(data: bytes, path: Path) -> tuple[str, list[str]]:
    """Text of `data`: by its byte-order mark, else UTF-8, else UTF-16 without a mark, else Latin-1."""
    for magic, kind in _NO_TEXT.items():
        if data.lstrip()[: len(magic)] == magic:
            raise ReadError(path, f"is {kind}, not plain text", "export the report as a .txt file", code="format")
    if data.startswith(b"\xef\xbb\xbf"):
        return data.decode("utf-8-sig"), ["byte-order mark removed"]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16"), ["read as UTF-16"]
    if 0 in data:
        return _decode_utf16(data, path), ["read as UTF-16 without a mark"]
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        controls = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in data)
        if controls > 0.01 * len(data):
            raise ReadError(
                path, f"is not text ({controls:,} control bytes)", "name the text file", code="format"
            ) from None
        # Windows writes its quotes and dashes where Latin-1 has control characters
        return data.decode("cp1252", errors="replace"), ["not UTF-8: read as Latin-1 (Windows-1252)"]


def _decode_utf16(data: bytes, path: Path) -> str:
    zeros = data[0::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(zeros) > 0.3 * len(data) / 2 and min(zeros) == 0:
        return data.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
    raise ReadError(path, f"is not text ({sum(zeros):,} zero bytes)", "name the text file", code="format")


def _report(text: str, notes: list[str], source: str) -> Report:
    if "\\.br\\" in text:
        text = text.replace("\\.br\\", "\n")
        notes = [*notes, "HL7 line breaks converted"]
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


def split_sections(text: str) -> dict[str, str]:
    """Heading -> its text; a heading that occurs twice has both parts. {} where there is no heading.

    Headings are English, Spanish or German, in any case at the start of a line, with a capital inside one.
    """
    found = [match for match in _HEADER.finditer(text) if _is_heading(match, text)]
    sections: dict[str, str] = {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends[: len(found)], strict=True):
        name = next(group for group in match.group("line", "inline", "other") if group is not None)
        body = text[match.end() : end].strip()
        key = _CANONICAL.get(name.lower().strip(), name.lower().strip())
        if body:
            sections[key] = f"{sections[key]}\n{body}" if key in sections else body
    return sections


def _is_heading(match: re.Match[str], text: str) -> bool:
    """An inline heading follows the end of a sentence, or is all in capitals: "see the Findings: no" is prose."""
    name = match.group("inline")
    if name is None or name.isupper():
        return True
    before = text[: match.start("inline")].rstrip()
    return before.endswith(tuple(_INLINE_AFTER)) and name[0].isupper()
