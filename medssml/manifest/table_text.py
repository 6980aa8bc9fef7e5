"""Text of a manifest file as a table of text: every cell as it was written, every fault with its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from medssml.files import original
from medssml.manifest.columns import known_names
from medssml.manifest.refusal import ManifestError, refuse
from medssml.manifest.saved_text import MARKS, decoded, separator, without_directive, without_empty_columns

__all__ = ["ManifestError", "RawTable", "read_raw", "refuse"]

_NAMES = {mark: name.rstrip("s") for mark, name in MARKS.items()}


class RawTable(NamedTuple):
    """A table as it was read, before anything is checked.

    path: its name tells Parquet from CSV. content: of the file. cells: as text, empty text where there is none; the index is
    the row number. saved: what is unlike comma, UTF-8 and names as they are documented.
    """

    path: Path
    content: bytes
    cells: pd.DataFrame
    saved: tuple[str, ...]


def read_raw(path: str | Path) -> RawTable:
    """All cells of a CSV or Parquet file. Row 1 is the header, as a spreadsheet counts.

    A table may be saved as spreadsheets do: see `medssml.manifest.saved_text`.

    Raises:
        ManifestError: not a table, with the line and the fix.
    """
    path, told = Path(path), list[str]()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise refuse(path, None, None, f"cannot be read ({error.strerror}); fix: give the path of a table") from error
    if path.suffix.lower() in (".parquet", ".pq"):
        table = _parquet(path, content)
    else:
        text = without_directive(decoded(path, content, told), told)
        mark = separator(path, text, told)
        header, rows = _csv_rows(path, text, mark)
        table = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)
        table.index = pd.RangeIndex(2, len(table) + 2)
        table = without_empty_columns(table, told)
    table.columns = pd.Index(known_names(path, [str(name) for name in table.columns], told))
    return RawTable(path, content, table, tuple(told))


def _parquet(path: Path, content: bytes) -> pd.DataFrame:
    try:
        raw = pd.read_parquet(io.BytesIO(content))
    except Exception as error:  # pyarrow raises many kinds; all mean the same to the user
        raise refuse(path, None, None, f"cannot be read as Parquet ({error}); fix: write it again") from error
    for column in raw.columns:
        if str(column) in ("subject_id", "study_id") and not pd.api.types.is_string_dtype(raw[column].dropna()):
            reason = f"ids are stored as {raw[column].dtype}, which loses leading zeros; fix: store them as text"
            raise refuse(path, None, str(column), reason)
    table = raw.astype(object).where(raw.notna(), "").map(_text)
    table.columns = pd.Index([str(column) for column in table.columns])
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _csv_rows(path: Path, text: str, mark: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a text whose cells are separated by `mark`, all of one length."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    rows: list[list[str]] = []
    starts: list[int] = []
    start = 1
    try:
        for row in reader:
            if row:
                rows.append([original(cell) for cell in row])
                starts.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        reason = f"line {start}: {error}; a quote that opens here is not closed, or no {_NAMES[mark]} follows it; fix: close it"
        raise refuse(path, len(rows) + 1, None, reason) from error
    if not rows:
        raise refuse(path, None, None, "the file is empty; fix: give a table with subject_id and study_id")
    while len(rows) > 1 and not any(cell.strip() for cell in rows[-1]):
        rows.pop()  # a spreadsheet writes the rows below a table that were once in use
    header = [name.strip() for name in rows[0]]
    for number, (row, line) in enumerate(zip(rows[1:], starts[1:], strict=False), start=2):
        if len(row) != len(header):
            reason = f"line {line} has {len(row)} cells, the header has {len(header)}"
            raise refuse(path, number, None, f"{reason}; fix: quote cells that hold a {_NAMES[mark]}")
    return header, rows[1:]
