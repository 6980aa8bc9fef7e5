"""The page of a comparison of methods: order, winners, gains that stand out, and who could not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssml.reports.gain_matrix import gain_matrix
from medssml.reports.methods_page import above, write_methods_page
from medssml.reports.results import Estimate


def entry(gain: float, auroc: float = 0.8) -> dict[str, Any]:
    def near(value: float) -> dict[str, Any]:
        return {"estimate": value, "ci_low": value - 0.02, "ci_high": value + 0.02, "n": 90}

    return {"auroc": near(auroc), "gain": near(gain), "validation": auroc}


def results() -> dict[str, Any]:
    rank = {"estimate": 1.5, "ci_low": 1.0, "ci_high": 2.0, "n": 90}
    cell = {"seed": 0, "learns_from": ["eeg"], "labels_seen": True, "loss": [2.0, 1.0], "seconds": 3.0,
            "processor_seconds": 4.0, "peak_mib": None}  # fmt: skip
    tasks = {"ill": {"first": {"all": entry(0.1), "ct": entry(0.0)}, "second": {"all": entry(0.01), "ct": entry(-0.1)}}}
    ranks = {name: {"validation": place, "test": rank} for place, name in enumerate(("first", "second"), 1)}
    found = {"ranks": ranks, "winners": {"ill": "first"}, "tasks": tasks}
    cells = {"first": [cell], "second": [{**cell, "loss": [1.0, 1.5]}]}
    return {"labels": {"0.1": found}, "cells": cells, "failed": {"third": "needs a <table>"}}


def test_the_page_says_who_wins_whose_loss_rises_and_who_cannot_run(tmp_path: Path) -> None:
    text = write_methods_page(tmp_path / "r.html", results(), {"seeds": "1 <only>"}).read_text()
    assert "10% of the labels: first is best on validation; on test AUROC 0.800 (0.780 to 0.820), +0.100" in text
    assert text.index("first is best") < text.index("<section"), "the verdict comes first"
    assert "The loss of 1 of 2 methods falls in every seed; not that of second." in text
    assert "third cannot run on these studies: needs a &lt;table&gt;" in text and "1 &lt;only&gt;" in text
    assert "No probe of these beats its random encoder with an interval above 0: second." in text
    assert "EEG, labels" in text


def test_only_intervals_above_nothing_count() -> None:
    tasks = results()["labels"]["0.1"]["tasks"]
    assert above(tasks, "first") == [("ill", "all")] and above(tasks, "second") == []


def test_gains_that_stand_out_are_bold() -> None:
    gains = {
        ("a", "x"): Estimate(0.2, 0.1, 0.3),
        ("a", "y"): Estimate(0.12, -0.1, 0.3),
        ("b", "x"): Estimate(-0.3, -0.4, -0.2),
    }
    svg = gain_matrix("gains", ["a", "b"], ["x", "y"], gains, most=0.3)
    texts = {t.split(">")[-1].strip(): t for part in svg.split("</text>") for t in [part[part.rfind("<text") :]]}
    bold = "font-weight: 700"
    assert bold in texts["+0.20"] and bold not in texts["+0.12"] and bold in texts["−0.30"]
