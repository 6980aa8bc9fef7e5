"""The section on aligned sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssml.reports.alignment_section import alignment, left_as_they_are
from medssml.reports.blocks import Fold, Heading, Table, Text
from medssml.reports.results import Results


def interval(value: float, half: float = 0.05) -> dict[str, Any]:
    return {"estimate": value, "ci_low": value - half, "ci_high": value + half, "n": 40}


def figures(before: float, after: float) -> dict[str, Any]:
    ways = {"inductive": before, "transductive": after, "difference": after - before}
    counts = {"n": 40, "subjects": 30, "positives": 9}
    return counts | {way: {"auroc": interval(value), "brier": interval(-value)} for way, value in ways.items()}


def moved(n: int, **more: Any) -> dict[str, Any]:
    return {"n": n, "moved": True, "shift": 1.234, "shift_by_chance": 0.21, "shrinkage": 0.25, **more}


FEW = {"n": 3, "moved": False, "reason": "3 studies have it, 10 are needed"}
FOUND = {
    "protocol": "transductive: used the unlabelled reported studies of each group of group_site",
    "align": "covariance",
    "by": "group_site",
    "least": 10,
    "ungrouped": 2,
    "groups": {
        "B": {"studies": 40, "in_training": 0, "modalities": {"ct": moved(30), "eeg": FEW}},
        "C": {"studies": 3, "in_training": 7, "modalities": {"ct": FEW}},
    },
    "tasks": {
        "sick": {
            "method": "head",
            "subsets": {"ct+eeg": figures(0.7, 0.6), "ct": figures(0.7, 0.71)},
            "as_observed": figures(0.7, 0.8),
            "groups": {"B": figures(0.6, 0.8)},
        },
        "unanswered": {"method": "none", "subsets": {}, "reason": "no head"},
    },
}


def results(**evaluations: Any) -> Results:
    return Results(
        Path("run"), {"metrics.json": {name: {"transductive": found} for name, found in evaluations.items()}}
    )


def test_a_task_is_shown_both_ways_with_its_difference_and_what_that_says() -> None:
    section = alignment(results(run=FOUND))
    assert section is not None and "transductive" in section.title
    text, table, fold, moves = section.blocks
    assert isinstance(text, Text) and isinstance(table, Table) and isinstance(fold, Fold) and isinstance(moves, Fold)
    assert text.text.startswith(
        "The unlabelled reported studies of each value of group_site were used: the mean and covariance"
    )
    assert section.lead.startswith("Transductive: ")
    assert table.rows == [
        ["sick", "AUROC", "0.700 (0.650 to 0.750)", "0.800 (0.750 to 0.850)", "0.100 (0.050 to 0.150)", "better", "40"],
        # Of an error less is better.
        [
            "sick",
            "Brier score",
            "−0.700 (−0.750 to −0.650)",
            "−0.800 (−0.850 to −0.750)",
            "−0.100 (−0.150 to −0.050)",
            "better",
            "40",
        ],
    ]
    subsets, groups = fold.blocks
    assert isinstance(subsets, Table) and isinstance(groups, Table) and fold.title == "sick"
    assert [(row[0], row[5]) for row in subsets.rows] == [("CT", "no difference shown"), ("CT + EEG", "worse")]
    assert groups.columns[0] == "group_site" and groups.rows[0][0] == "B"


def test_what_was_moved_and_what_was_not_is_listed() -> None:
    section = alignment(results(run=FOUND))
    assert section is not None
    fold = section.blocks[-1]
    assert isinstance(fold, Fold)
    (table,) = fold.blocks
    assert isinstance(table, Table)
    assert table.rows[0] == ["B", "CT", "moved", "30", "0", "1.23", "0.21", "0.25"]
    assert ["C", "CT", "3 studies have it, 10 are needed", "3", "7", "–", "–", "–"] in table.rows
    assert left_as_they_are(FOUND) == (
        "1 of 2 groups, some modalities of 1 group, 2 studies of no group (fewer than 10 studies have them, there or in training)"
    )


def test_several_evaluations_go_by_their_folders_and_none_is_no_section() -> None:
    section = alignment(results(one=FOUND, two=FOUND))
    assert section is not None
    assert [block.text for block in section.blocks if isinstance(block, Heading)] == ["one", "two"]
    assert alignment(Results(Path("run"), {"metrics.json": {"": {"tasks": {}}}})) is None
