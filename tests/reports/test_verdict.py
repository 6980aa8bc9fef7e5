"""The sentences at the top of the demo's page: what was learned and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssml.reports.results import Results
from medssml.reports.verdict import verdicts


def interval(estimate: float, low: float, high: float, **more: float) -> dict[str, float]:
    return {"estimate": estimate, "ci_low": low, "ci_high": high, **more}


def said(gain: dict[str, float], pretrained: dict[str, float], **files: Any) -> list[str]:
    tasks = {"effusion": {"pretrained": pretrained, "scratch": interval(0.7, 0.6, 0.8), "gain": gain, "bayes": 0.95}}
    found = {"gain.json": {"": {"tasks": tasks}}, **{name: {"": value} for name, value in files.items()}}
    return verdicts(Results(Path("run"), found))


def test_a_gain_is_said_with_its_interval_and_the_best_possible() -> None:
    (line,) = said(interval(0.2, 0.1, 0.3), interval(0.9, 0.85, 0.94))
    assert line == (
        "effusion: AUROC 0.900 (0.850 to 0.940) where 0.950 is the best possible; "
        "pretraining adds 0.200 (0.100 to 0.300) to the 0.700 of training from scratch."
    )


def test_chance_no_difference_and_a_loss_are_said_as_such() -> None:
    (line,) = said(interval(0.0, -0.1, 0.1), interval(0.55, 0.48, 0.62))
    assert line.startswith("effusion: not better than chance, AUROC 0.550") and "no difference shown" in line
    (line,) = said(interval(-0.1, -0.2, -0.05), interval(0.6, 0.55, 0.65))
    assert "not better than chance" not in line and "pretraining costs 0.100 (0.050 to 0.200) of the" in line


def test_the_modality_that_counts_most_is_set_beside_the_true_one() -> None:
    def impact(true_ct: float) -> dict[str, Any]:
        pairs = [
            {"quantity": "performance_shapley", "modality": "ct", "estimate": 0.3, "truth": true_ct},
            {"quantity": "performance_shapley", "modality": "xray", "estimate": 0.1, "truth": 0.2},
            {"quantity": "shapley", "modality": "xray", "estimate": 0.9, "truth": 0.9},
        ]
        return {"task": "effusion", "truth": {"pairs": pairs}}

    gain, model = interval(0.2, 0.1, 0.3), interval(0.9, 0.85, 0.94)
    assert said(gain, model, **{"impact.json": impact(0.25)})[0].endswith(". CT counts most, as in truth.")
    assert said(gain, model, **{"impact.json": impact(0.1)})[0].endswith(". CT counts most, in truth X-ray.")
    by_report = impact(0.1)
    by_report["truth"]["pairs"][0]["modality"] = "report"
    assert said(gain, model, **{"impact.json": by_report})[0].endswith(". Report counts most, in truth X-ray.")


def test_retrieval_of_reports_is_set_beside_chance() -> None:
    rows = {
        "ct->report": {"r@5": interval(0.3, 0.2, 0.4, chance=0.1)},
        "xray->report": {"r@5": interval(0.12, 0.05, 0.2, chance=0.1)},
        "report->ct": {"r@5": interval(0.3, 0.2, 0.4, chance=0.1)},
    }
    _, ct, xray = said(interval(0.2, 0.1, 0.3), interval(0.9, 0.85, 0.94), **{"metrics.json": {"retrieval": rows}})
    assert ct == "CT → report: the right one is among the first five for 0.300 (0.200 to 0.400), 3.0 times chance."
    assert "not better than chance (0.100)" in xray


def test_the_space_of_the_pretraining_is_the_one_that_counts() -> None:
    own = {"retrieval": {"ct->report": {"r@5": interval(0.1, 0.0, 0.2, chance=0.1)}}}
    better = {"retrieval": {"ct->report": {"r@5": interval(0.5, 0.4, 0.6, chance=0.1)}}}
    gain = {"tasks": {}}
    files = {"gain.json": {"": gain}, "metrics.json": {"": own, "pretrain": better}}
    (line,) = verdicts(Results(Path("run"), files))
    assert "5.0 times chance" in line


def test_nothing_is_said_where_no_gain_was_measured() -> None:
    assert verdicts(Results(Path("run"), {"metrics.json": {"": {"retrieval": {}}}})) == []
