"""Laboratory values: CSV and JSON say the same; what was not measured is not there; what is no number is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssml.readers import ReadError, parse_table, read_table

VALUES = {"crp": 5.0, "d-dimer": 0.31, "ph": 7.4, "base excess": -2.5, "ldh": 145.0}


def test_csv_and_json_are_the_same(tmp_path: Path) -> None:
    rows = "\n".join(f"{name} , {value}" for name, value in VALUES.items())
    (tmp_path / "a.csv").write_bytes(f"\ufeffName,Value\r\n{rows}\r\n\r\npco2,\r\npo2,NA\r\n".encode())
    (tmp_path / "a.json").write_text(json.dumps({**VALUES, "pco2": None, "po2": ""}))
    for read in (read_table(tmp_path / "a.csv"), read_table(tmp_path / "a.json"), parse_table(json.dumps(VALUES))):
        assert read.values == VALUES and read.units == {}


def test_units_and_bounds(tmp_path: Path) -> None:
    read = parse_table("name,value,unit\ncrp,<5,mg/l\nldh,1.45e2,\npo2,≥ 300,mmHg\n")
    assert read.values == {"crp": 5.0, "ldh": 145.0, "po2": 300.0} and read.units == {"crp": "mg/l", "po2": "mmHg"}
    assert [note.split()[0] for note in read.notes] == ["crp", "po2"] and "bound" in read.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("crp,5\n", "does not begin with the columns name and value.*fix: name,value"),
        ("name;value\ncrp;5\n", "does not begin"),
        ("name,value\ncrp,5,3\n", "line 2 has 3 cells, expected 2.*decimals with a point"),
        ("name,value\n,5\n", "line 2"),
        ("name,value\ncrp,5\ncrp,6\n", "names 'crp' twice"),
        ('{"crp": 5, "crp": 6}', "names 'crp' twice"),
        ("name,value\ncrp,positive\n", "has 'positive' for 'crp', expected a number"),
        ("name,value\ncrp,1e999\n", "expected a number"),
        ('{"crp": "5,3"}', "has '5,3' for 'crp'"),
        ('{"crp": true}', "has 'True' for 'crp'"),
        ('{"crp": Infinity}', "expected a number"),
        ('{"crp": {"value": 5}}', "expected a number"),
        ("[1, 2]", "no object of values"),
        ('{"crp": 5', "not valid JSON"),
        ('{"crp": null}', "holds no value"),
        ("name,value\n", "holds no value"),
        ("", "does not begin"),
        ("name,value\n" + "".join(f"v{i},1\n" for i in range(5000)), "more than 4,096 values"),
        ("{" * 5000, "not valid JSON"),
    ],
)
def test_what_is_no_table_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=says):
        parse_table(text)
    (tmp_path / "a.csv").write_text(text or " ")
    with pytest.raises(ReadError, match=says) as caught:
        read_table(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value) and "fix: " in str(caught.value)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(ReadError, match="has 1 GiB, limit 1 MiB"):
        read_table(tmp_path / "a.csv")
