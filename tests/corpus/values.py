"""Laboratory values: tables as CSV and JSON, one fault each, and controls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import Case, put

CSV = "name,value,unit\ncrp,5.0,mg/l\nldh,145,U/l\nbase excess,-2.5,mmol/l\n"
JSON = json.dumps({"crp": 5.0, "ldh": 145, "base excess": -2.5, "po2": None})


def file(name: str, content: str | bytes) -> Callable[[Path], Path]:
    return lambda folder: put(folder / name, content)


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "a.csv")
    return folder / "a.csv"


def _crp_is_5(read: object) -> None:
    assert read.values["crp"] == 5.0 and "po2" not in read.values  # type: ignore[attr-defined]


CONTROLS = [
    ("csv", file("a.csv", CSV)),
    ("csv without units", file("a.csv", "name,value\ncrp,5\nldh,1.45e2\n")),
    ("csv with blanks and capitals", file("a.csv", " Name , Value \r\n crp , 5.0 \r\n\r\n")),
    ("nothing measured of one", file("a.csv", "name,value\ncrp,5\npo2,\npco2,NA\n")),
    ("json", file("a.json", JSON)),
]
FAULTS = [
    ("empty", file("a.csv", ""), "empty"),
    ("no header", file("a.csv", "crp,5\n"), "columns name and value"),
    ("semicolons", file("a.csv", CSV.replace(",", ";")), "columns name and value"),
    ("decimal comma", file("a.csv", "name,value\ncrp,5,3\n"), "3 cells"),
    ("decimal comma in quotes", file("a.csv", 'name,value\ncrp,"5,3"\n'), "expected a number"),
    ("a word", file("a.csv", "name,value\ncrp,high\n"), "expected a number"),
    ("infinite", file("a.csv", "name,value\ncrp,1e999\n"), "expected a number"),
    ("a name twice", file("a.csv", CSV + "crp,6,mg/l\n"), "twice"),
    ("no value", file("a.csv", "name,value\ncrp,\n"), "holds no value"),
    ("open quote", file("a.csv", 'name,value\n"crp,5\n'), "decoded|cells"),
    ("json list", file("a.json", "[5, 145]"), "no object"),
    ("json nested", file("a.json", '{"crp": {"value": 5}}'), "expected a number"),
    ("json cut", file("a.json", JSON[:-8]), "not valid JSON"),
    ("json deep", file("a.json", "[" * 100_000), "not valid JSON"),
    ("json twice", file("a.json", '{"crp": 5, "crp": 6}'), "twice"),
    ("binary", file("a.csv", bytes(range(256)) * 8), "not text"),
    ("too many", file("a.csv", "name,value\n" + "".join(f"v{i},1\n" for i in range(5000))), "more than 4,096"),
    ("too large", file("a.csv", "name,value\n" + "a,1\n" * 400_000), "limit 1 MiB"),
    ("a pipe", _pipe, "not a regular file"),
]
NOTED = [
    ("a bound", "flagged", file("a.csv", "name,value\ncrp,<5\n"), "bound"),
    ("a mark", "fixed", file("a.csv", b"\xef\xbb\xbf" + CSV.encode()), "byte-order mark removed"),
]


def cases() -> list[Case]:
    accepted = [Case("table", name, "accepted", make, oracle=_crp_is_5) for name, make in CONTROLS]
    refused = [Case("table", name, "refused", make, says) for name, make, says in FAULTS]
    return accepted + refused + [Case("table", name, what, make, says, _crp_is_5) for name, what, make, says in NOTED]
