"""Result files as metrics: every number with its interval, nothing that is not known."""

from __future__ import annotations

from typing import Any

from medssml.tracking.results import evaluation_metrics, impact_metrics


def interval(estimate: float | None) -> dict[str, Any]:
    ends = (None, None) if estimate is None else (estimate - 0.1, estimate + 0.1)
    return {"estimate": estimate, "ci_low": ends[0], "ci_high": ends[1], "n": 9, "reason": ""}


def test_tasks_subsets_and_retrieval() -> None:
    sick = {
        "kind": "binary",
        "as_observed": {"n": 60, "auroc": interval(0.5), "calibration": {"curve": [1]}},
        "subsets": {
            "": {"auroc": interval(None)},
            "ct+eeg": {"n": 9, "auroc": interval(0.75), "never_trained": ["eeg"]},
        },
    }
    shot = {"tasks": {"sick": {"classes": ["no"], "subsets": {"ct": {"n": 7}}}}}
    found = {"zero_shot": shot, "tasks": {"sick": sick}, "retrieval": {"ct->report": {"n": 8, "r@5": interval(0.25)}}}
    assert dict(evaluation_metrics(found, "evaluate-test")) == {
        "evaluate-test/zero-shot/sick/ct/n": 7.0,
        "evaluate-test/sick/n": 60.0,
        "evaluate-test/sick/auroc": 0.5,
        "evaluate-test/sick/auroc/ci_low": 0.4,
        "evaluate-test/sick/auroc/ci_high": 0.6,
        "evaluate-test/sick/ct+eeg/n": 9.0,
        "evaluate-test/sick/ct+eeg/auroc": 0.75,
        "evaluate-test/sick/ct+eeg/auroc/ci_low": 0.65,
        "evaluate-test/sick/ct+eeg/auroc/ci_high": 0.85,
        "evaluate-test/retrieval/ct->report/n": 8.0,
        "evaluate-test/retrieval/ct->report/r@5": 0.25,
        "evaluate-test/retrieval/ct->report/r@5/ci_low": 0.15,
        "evaluate-test/retrieval/ct->report/r@5/ci_high": 0.35,
    }


def test_aligned_figures_have_names_of_their_own() -> None:
    seen = {"n": 9, "inductive": {"auroc": interval(0.5)}, "transductive": {"auroc": interval(0.75)}, "difference": {}}
    apart = {"tasks": {"sick": {"as_observed": seen}, "none": {"subsets": {}}}}
    assert dict(evaluation_metrics({"tasks": {}, "transductive": apart}, "evaluate-test")) == {
        "evaluate-test/transductive/sick/auroc": 0.75,
        "evaluate-test/transductive/sick/auroc/ci_low": 0.65,
        "evaluate-test/transductive/sick/auroc/ci_high": 0.85,
    }


def test_impact() -> None:
    found = {"task": "sick", "modalities": {"ct": {"shapley": interval(0.2), "swap": interval(None)}}}
    assert list(dict(impact_metrics(found, "impact-all"))) == [
        "impact-all/sick/ct/shapley",
        "impact-all/sick/ct/shapley/ci_low",
        "impact-all/sick/ct/shapley/ci_high",
    ]
