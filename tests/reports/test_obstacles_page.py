"""The page of a study of obstacles: ranks, curves, what helps, every number, and what could not be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medssml.reports import words
from medssml.reports.obstacles_page import judged, mean, write_obstacles_page
from medssml.reports.stress_figures import Line, lines_over_severity


def near(value: float, spread: float = 0.02) -> dict[str, Any]:
    return {"estimate": value, "ci_low": value - spread, "ci_high": value + spread, "n": 90}


def entry(same: float) -> dict[str, Any]:
    figures = {
        "same": same,
        "undamaged": 0.9,
        "untaught": 0.6,
        "cost": 0.9 - same,
        "price": 0.01,
        "ece": 0.05,
        "gap": 0.03,
    }
    return {name: near(value) for name, value in figures.items()} | {
        "worst": {"subset": "ct+xray", "gap": 0.123}, "validation": same, "best": 0.95,
    }  # fmt: skip


def results() -> dict[str, Any]:
    cases = {
        f"absent_{s:g}": {"obstacle": "absent", "severity": s, "at": "training and test", "says": "modalities <gone>"}
        for s in (0.5, 0.25)
    }
    of = {"plain": {"absent_0.25": 0.8, "absent_0.5": 0.7}, "remedy": {"absent_0.25": 0.85, "absent_0.5": 0.8}}
    by = {case: {recipe: entry(found[case]) for recipe, found in of.items()} for case in cases}
    by = {"undamaged": {recipe: entry(0.9) for recipe in of}, **by}
    ranks = {
        "remedy": {"validation": 1.25, "same": near(1.3, 0.1), "undamaged": near(1.5)},
        "plain": {"validation": 1.75, "same": near(1.7, 0.1), "undamaged": near(1.5)},
    }
    return {
        "recipes": ["remedy", "plain"], "against": "plain", "ranks": ranks, "cases": cases, "tasks": {"ill": by},
        "gains": {"absent": {"remedy": near(0.075)}}, "chosen": {"absent": "remedy"}, "failed": {"odd, absent_0.5": "no <b>"},
    }  # fmt: skip


def test_the_page_says_what_helps_and_what_was_done(tmp_path: Path) -> None:
    text = write_obstacles_page(tmp_path / "r.html", results(), {"seeds": "1 <only>"}).read_text()
    assert text.index("remedy has the best mean rank") < text.index("<section"), "the verdict comes first"
    assert "remedy, best on validation, +0.075 (0.055 to 0.095) beside it on test" in text
    assert "costs plain 0.150 AUROC" in text, "the mean over severities of 0.1 and 0.2"
    assert "1 &lt;only&gt;" in text and "no &lt;b&gt;" in text and "modalities &lt;gone&gt;" in text
    assert "0.123 CT + X-ray" in text and "in training and test" in text
    assert "Bayes predictor" in text and "price when complete" in text
    assert ">reversed<" not in text, "a column that nothing has is left out"


def test_overlapping_ranks_are_no_order() -> None:
    found = results()
    (first, *_) = judged(found)
    assert "overlap" not in first[2] and first[1] == words.BETTER
    found["ranks"]["plain"]["same"] = near(1.4, 0.3)
    (first, *_) = judged(found)
    assert "intervals overlap: the order is not known" in first[2] and first[1] == words.EVEN


def test_a_mean_needs_every_cell() -> None:
    found = results()
    assert mean(found, list(found["cases"]), "plain", "same") == pytest.approx(0.75)
    del found["tasks"]["ill"]["absent_0.5"]["plain"]
    assert mean(found, list(found["cases"]), "plain", "same") is None


def test_a_panel_has_a_line_a_recipe_and_bayes_apart() -> None:
    lines = [Line("a", [0, 1], [0.9, 0.8]), Line("b", [0, 1], [0.9, 0.7]), Line("Bayes", [0, 1], [0.95, 0.9], True)]
    svg = lines_over_severity("absent", lines, "AUROC", limits=(0.5, 1.0))
    assert all(f">{name}<" in svg for name in ("a", "b", "Bayes")) and svg.count("stroke-dasharray") >= 1


def test_a_page_of_one_recipe_has_no_ranks_and_no_gains(tmp_path: Path) -> None:
    found = results()
    found |= {"recipes": ["plain"], "ranks": {}, "gains": {"absent": {}}, "chosen": {"absent": "plain"}, "failed": {}}
    text = write_obstacles_page(tmp_path / "r.html", found, {}).read_text()
    assert 'id="helps"' not in text and "no other recipe is better on validation" in text
