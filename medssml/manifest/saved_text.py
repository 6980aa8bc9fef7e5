"""How people save a table: in which encoding, with which separator, with what a spreadsheet adds.

UTF-8 and commas are the rule. UTF-16, Windows-1252, semicolons and tabs are read where nothing else can be meant, and each is
told; what may be one thing or another is refused with the way out.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path

import pandas as pd

from medssml.manifest.refusal import refuse

#: What may stand between cells, and what it is called.
MARKS = {",": "commas", ";": "semicolons", "\t": "tabs"}
#: In a header, these two are looked for to tell the separator.
_IDS = {"subject_id", "study_id"}
_SAVE = "fix: save it as 'CSV UTF-8'"
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
#: UTF-8 of two or more bytes, read as Windows-1252.
_TWICE = re.compile(
    r"[\u00c2-\u00f4\u0178\u017d\u0160\u0161\u017e\u0152\u0153][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u2039\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u203a]"
)
#: No word of a Western language has three such letters in a row; in another code of one byte each all letters are such.
_FOREIGN = re.compile(r"[\u00c0-\u00ff]{3}")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def decoded(path: Path, content: bytes, notes: list[str]) -> str:
    """The text of a table.

    Raises:
        ManifestError: no text, or text in an encoding that cannot be told.
    """
    if content[:4] == b"PK\x03\x04":
        raise refuse(path, 1, None, f"the file is a workbook or an archive (binary), expected text; {_SAVE}")
    if content[:2] in _UTF16 or b"\x00" in content:
        return _utf16(path, content, notes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _windows(path, content, error.start, notes)


def _utf16(path: Path, content: bytes, notes: list[str]) -> str:
    """By its mark, else by the zero bytes, which stand in every second place of a text in a European language."""
    code = _UTF16.get(content[:2])
    zeros = content[0::2].count(0), content[1::2].count(0)
    if code is None and len(content) % 2 == 0 and min(zeros) == 0 and max(zeros) > 0.3 * len(content) / 2:
        code = "utf-16-be" if zeros[0] else "utf-16-le"
    try:
        text = content.decode(code).removeprefix("\ufeff") if code is not None else "\0"
    except UnicodeDecodeError:
        text = "\0"
    if _CONTROLS.search(text):
        raise refuse(path, 1, None, f"the file is binary, or damaged UTF-16, expected text; {_SAVE}")
    notes.append("the table is in UTF-16: read as such")
    return text


def _windows(path: Path, content: bytes, place: int, notes: list[str]) -> str:
    """Windows-1252, of which Latin-1 is a part, where every byte is a letter or a sign and nothing looks like UTF-8."""
    line = content.count(b"\n", 0, place) + 1
    said = f"line {line} holds the byte 0x{content[place]:02x}, which is not UTF-8"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        raise refuse(path, line, None, f"{said}, and the text is not Windows-1252; {_SAVE}") from error
    if _CONTROLS.search(text):
        raise refuse(path, line, None, f"{said}: the file is binary; {_SAVE}")
    foreign = [letter for letter in text if ord(letter) > 127]
    if _TWICE.search(text):
        raise refuse(path, line, None, f"{said}, while other bytes are: two encodings in one file; {_SAVE}")
    letters = sum(letter.isalpha() and "\u00c0" <= letter <= "\u00ff" for letter in foreign)
    if letters < 0.5 * len(foreign) or _FOREIGN.search(text):
        raise refuse(path, line, None, f"{said}, and most of its signs are none of Windows-1252: which code?; {_SAVE}")
    notes.append(f"the table is not in UTF-8: read as Windows-1252 (Latin-1), {len(foreign):,} letters beyond ASCII")
    return text


def without_directive(text: str, notes: list[str]) -> str:
    """Without the line "sep=;" that a spreadsheet writes for itself."""
    first, _, rest = text.partition("\n")
    if not re.fullmatch(r"\"?sep=.\"?\s*", first, re.IGNORECASE):
        return text
    notes.append(f"the line {first.strip()!r} before the header is left out")
    return rest


def separator(path: Path, text: str, notes: list[str]) -> str:
    """The mark under which the header holds the ids; a comma where none does, which the check of the columns then tells.

    Raises:
        ManifestError: more than one mark would do.
    """
    fits = [mark for mark in MARKS if _has_ids(text, mark)]
    if len(fits) > 1:
        names = " and ".join(MARKS[mark] for mark in fits)
        raise refuse(path, 1, None, f"the header can be read with {names}; fix: save the table with one of them")
    if not fits:
        return ","
    if fits[0] != ",":
        notes.append(f"cells are separated by {MARKS[fits[0]]}: read as such")
    return fits[0]


def _has_ids(text: str, mark: str) -> bool:
    lines = csv.reader(io.StringIO(text[: 1 << 16], newline=""), delimiter=mark)
    try:
        header = next((line for line in lines if any(line)), [])
    except csv.Error:
        return False
    return {plain_name(name) for name in header} >= _IDS


def plain_name(name: str) -> str:
    """A name of a column without capitals, and with one underscore for blanks, points and hyphens: "Subject ID" is subject_id."""
    return re.sub(r"[\s.\-_]+", "_", name.strip().lower())


def without_empty_columns(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Without the columns to the right that have neither a name nor a cell: a spreadsheet saves what was once in use."""
    keep = len(table.columns)
    while keep and not table.columns[keep - 1] and not (table.iloc[:, keep - 1].str.strip() != "").any():
        keep -= 1
    if keep < len(table.columns):
        notes.append(f"{len(table.columns) - keep} columns without a name and without a cell left out")
    return table.iloc[:, :keep]
