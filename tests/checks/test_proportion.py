"""A table of which nothing, or nothing of a kind, is left never passes a check, and the causes are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssml.cli import main

GOOD, GONE = "ok.png", "gone.png"


def checked(folder: Path, rows: list[str], capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Exit code and what is said on stderr."""
    pixels = np.random.default_rng(0).integers(0, 255, (80, 80)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / GOOD)
    header = "subject_id,study_id,split,source,xray,report_text,label_a"
    (folder / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    code = main(["check", str(folder / "m.csv"), "--problems", str(folder / "p.csv"), "--workers", "0", *flags])
    return code, capsys.readouterr().err


def rows(count: int, split: str = "train", file: str = GOOD, source: str = "here", label: str = "1") -> list[str]:
    """Studies of one subject each; a copy is no problem within a subject."""
    return [f"p,{split}{source}{label}{file}{i},{split},{source},{file},," + label for i in range(count)]


def test_a_table_without_a_row_is_never_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked(tmp_path, [], capsys)
    assert code == 4 and "the table has no row" in said


@pytest.mark.parametrize("count", [1, 4])
def test_a_table_of_which_nothing_is_left(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked(tmp_path, rows(count, file=GONE), capsys)
    assert code == 4 and f"no study is left: {count} of {count} are quarantined (xray missing {count})" in said


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (["q,t0,test,here,gone.png,,0"], "no study of split test is left: the one (xray missing 1)"),
        (rows(1, source="there", file=GONE), "no study of source there is left: the one (xray missing 1)"),
        (rows(1, label="0", file=GONE), "no study with a 0 is left"),
    ],
    ids=["split", "source", "class"],
)
def test_a_whole_group_that_is_lost_is_told(
    tmp_path: Path, lost: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [*rows(30), "r,s,val,elsewhere,ok.png,,"]
    assert checked(tmp_path, kept, capsys) == (0, "")
    code, said = checked(tmp_path, [*kept, *lost], capsys)
    assert code == 4 and told in said


def test_a_modality_and_a_label_that_are_lost_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"q,t{i},train,here,,no finding," for i in range(30)]
    code, said = checked(tmp_path, [*texts, *rows(1, file=GONE)], capsys)
    assert code == 4 and "no study with xray is left" in said and "no study with a label a is left" in said


def test_a_table_without_any_modality_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked(tmp_path, ["p,s,train,here,,,1"], capsys)
    assert code == 4 and "no study has a file" in said


def test_a_small_share_of_a_large_table_may_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path, [*rows(30), *rows(5, file=GONE)], capsys)[0] == 0
    code, said = checked(tmp_path, [*rows(30), *rows(6, file=GONE)], capsys)
    assert code == 4 and "6 of 36 studies are quarantined, the limit is 5 (xray missing 6)" in said
