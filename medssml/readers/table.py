"""Laboratory values and other numbers of a study: name, value, unit, from CSV or JSON. What was not measured is not there."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from medssml.readers.encodings import decode
from medssml.readers.errors import Flag, ReadError, human, reading, require_file

MAX_TABLE_BYTES = 1 << 20
MAX_VALUES = 4096
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-"})
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_BOUND = re.compile(r"[<>≤≥]=?\s*")


class Values(NamedTuple):
    """values: name -> number. units: name -> unit, of those that state one. notes: what is odd."""

    values: dict[str, float]
    units: dict[str, str]
    notes: tuple[str, ...]


def read_table(path: str | Path) -> Values:
    """The values in a file: CSV with the columns name, value and perhaps unit, or one flat JSON object.

    Raises:
        ReadError: neither of the two, a name twice, no number, or no value at all.
    """
    path = require_file(path)
    with reading(path, "table"):
        size = path.stat().st_size
        if size > MAX_TABLE_BYTES:
            reason = f"has {human(size)}, limit {human(MAX_TABLE_BYTES)}"
            raise ReadError(path, reason, "name the values of one study", code="too_large")
        text, notes = decode(path.read_bytes(), path)
        return _values(text, str(path), notes)


def parse_table(text: str) -> Values:
    """The same from the text itself; never opens a file.

    Raises:
        ReadError: as `read_table`.
    """
    return _values(text, "table text", [])


def _values(text: str, source: str, notes: list[str]) -> Values:
    lines = _json_lines(text, source) if text.lstrip().startswith(("{", "[")) else _csv_lines(text, source)
    values: dict[str, float] = {}
    units: dict[str, str] = {}
    for name, cell, unit in lines:
        if name in values or len(values) >= MAX_VALUES:
            what = f"names {name!r} twice" if name in values else f"holds more than {MAX_VALUES:,} values"
            raise ReadError(source, what, "keep one value of each name, that of the study's day", code="mixed")
        number = _number(name, cell, source, notes)
        if number is not None:
            values[name] = number
            if unit:
                units[name] = unit
    if not values:
        raise ReadError(source, "holds no value", "leave the cell empty", code="content")
    return Values(values, units, tuple(notes))


def _csv_lines(text: str, source: str) -> list[tuple[str, str, str]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]
    rows = [row for row in rows if any(row)]
    head = [cell.lower() for cell in rows[0]] if rows else []
    if head not in (["name", "value"], ["name", "value", "unit"]):
        fix = "name,value or name,value,unit as the first line, with commas"
        raise ReadError(source, "does not begin with the columns name and value", fix, code="format")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(head) or not row[0]:
            reason = f"line {number} has {len(row)} cells, expected {len(head)} with a name first"
            raise ReadError(source, reason, "write decimals with a point, and one value a line", code="damaged")
    return [(row[0], row[1], row[2] if len(row) > 2 else "") for row in rows[1:]]


def _json_lines(text: str, source: str) -> list[tuple[str, Any, str]]:
    try:
        pairs = json.loads(text, object_pairs_hook=lambda found: found)
    except (ValueError, RecursionError) as error:
        raise ReadError(source, "is not valid JSON", "export the values again", code="damaged") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ReadError(source, "is JSON, but no object of values", 'write {"crp": 5.0, ...}', code="format")
    return [(name.strip(), value, "") for name, value in pairs]


def _number(name: str, cell: Any, source: str, notes: list[str]) -> float | None:
    """The number of a cell, None where nothing was measured; "<5" is 5, with a note."""
    if cell is None:
        return None
    text = "" if isinstance(cell, bool) else str(cell).strip()
    if text.lower() in _MISSING and not isinstance(cell, bool):
        return None
    bound = _BOUND.match(text)
    digits = text[bound.end() :] if bound else text
    if not _NUMBER.fullmatch(digits) or not math.isfinite(float(digits)):
        fix = "write a number with a decimal point, or nothing"
        raise ReadError(source, f"has {str(cell)[:16]!r} for {name!r}, expected a number", fix, code="content")
    if bound:
        notes.append(Flag(f"{name} is given as a bound; its figure is used", "reread"))
    return float(digits)
