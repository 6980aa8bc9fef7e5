"""Text of a manifest file as a table of text: every cell as it was written, every fault with its line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from medssml.files import original


class ManifestError(ValueError):
    """A study table that is refused. `problems` holds (row, column, reason); row 1 is the header, None = whole file."""

    exit_code = 3

    def __init__(self, path: str | Path, problems: list[tuple[int | None, str | None, str]]) -> None:
        self.path = str(path)
        self.problems = problems
        super().__init__(self.path, problems)

    def __str__(self) -> str:
        lines = [f"{self.path}{_where(row, column)}: {reason}" for row, column, reason in self.problems[:10]]
        if len(self.problems) > 10:
            lines.append(f"... and {len(self.problems) - 10} more problems of this table")
        return "\n".join(lines)


def _where(row: int | None, column: str | None) -> str:
    parts = ([] if row is None else [f"row {row}"]) + ([] if column is None else [f"column {column!r}"])
    return ", " + ", ".join(parts) if parts else ""


def refuse(path: Path, row: int | None, column: str | None, reason: str) -> ManifestError:
    """The error of one problem."""
    return ManifestError(path, [(row, column, reason)])


def read_table(path: Path, content: bytes) -> pd.DataFrame:
    """All cells of a CSV or Parquet file as text, empty text where there is none; the index is the row number.

    Row 1 is the header, as a spreadsheet counts.

    Raises:
        ManifestError: not a table, with the line and the fix.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path, content)
    header, rows = _csv_rows(path, _decode(path, content))
    table = pd.DataFrame(rows, columns=pd.Index(header), dtype=object)
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table


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


def _decode(path: Path, content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in content:
        raise refuse(path, 1, None, "the file is UTF-16 or binary, expected UTF-8; fix: save it as 'CSV UTF-8'")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = (
            f"line {line} holds the byte 0x{content[error.start]:02x}, which is not UTF-8; fix: save it as 'CSV UTF-8'"
        )
        raise refuse(path, line, None, reason) from error


def _csv_rows(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    starts: list[int] = []
    start = 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                starts.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        reason = (
            f"line {start}: {error}; a quote that opens here is not closed, or not followed by a comma; fix: close it"
        )
        raise refuse(path, len(rows) + 1, None, reason) from error
    if not rows:
        raise refuse(path, None, None, "the file is empty; fix: give a table with subject_id and study_id")
    rows = [[original(cell) for cell in row] for row in rows]
    header = [name.strip() for name in rows[0]]
    _check_separator(path, header)
    for number, (row, line) in enumerate(zip(rows[1:], starts[1:], strict=True), start=2):
        if len(row) != len(header):
            reason = (
                f"line {line} has {len(row)} cells, the header has {len(header)}; fix: quote cells that hold a comma"
            )
            raise refuse(path, number, None, reason)
    return header, rows[1:]


def _check_separator(path: Path, header: list[str]) -> None:
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise refuse(path, 1, None, f"cells are separated by {name}; fix: save the table with commas")
