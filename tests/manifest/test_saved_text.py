"""A table as people save it: read with a line that says so in a check, refused where it may be one thing or another."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medssml.cli import main
from medssml.manifest.manifest import Manifest, ManifestError
from medssml.manifest.problems import account
from medssml.manifest.tolerant_read import read_studies


def test_the_check_says_how_a_table_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("Subject ID;study_id;Report Text\nä;1;No effusion.\n".encode("cp1252"))
    assert main(["check", str(path), "--problems", str(tmp_path / "p.csv"), "--workers", "0"]) == 0
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert {(line["code"], line["action"], line["row"]) for line in lines} == {("saved", "fixed", "")} and len(
        lines
    ) == 3
    assert Manifest.read(path).subject_ids.tolist() == ["ä"]


def test_a_refused_row_does_not_hide_it(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("subject_id;study_id;report_text\na;1;fine\nb;;fine\n")
    studies = read_studies(path)
    assert [problem.code for problem in studies.problems] == ["table", "saved"]
    assert account(studies.rows, studies.problems) == (2, 1, 0, 1)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Subject-ID", "subject_id"), ("X Ray", None), ("XRAY", "xray"), ("ct.spacing", "ct_spacing"),
        ("Label Sick", "label_Sick"),        ("GROUP_sex", "group_sex"), ("Table CRP", "table_CRP"), ("Age", None),
        ("label_A b", None),
    ],
)  # fmt: skip
def test_known_names_but_for_capitals_and_blanks(name: str, known: str | None) -> None:
    from medssml.manifest.columns import known_names

    notes: list[str] = []
    assert known_names(Path("m.csv"), [name], notes) == [known or name]
    assert notes == ([f"columns read by their known names: {name!r} as {known}"] if known else [])


def test_two_ways_to_read_a_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("subject_id,study_id,x;subject_id;study_id\na,1,b;a;1\n")
    with pytest.raises(ManifestError, match="commas and semicolons; fix: save"):
        Manifest.read(path)
