"""Runs side by side: the numbers are those of the files, the verdict follows from the paired interval."""

from __future__ import annotations

from pathlib import Path

from medssml.reports.compare_page import ComparedRun, judged, write_compare_page
from medssml.reports.words import BETTER, EVEN, WORSE


def entry(low: float, high: float) -> dict[str, object]:
    interval = {"estimate": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 90}
    gain = {"estimate": (low + high) / 2, "ci_low": low, "ci_high": high, "n": 90}
    head = {"kind": "binary", "metric": "auroc", "n": 90, "subjects": 80, "positives": 30}
    return {**head, "runs": {"a": interval, "b": interval}, "gains": {"b": gain}}


def test_the_mark_follows_from_the_interval_of_the_difference() -> None:
    assert [judged("ill", entry(*ends))[0][1] for ends in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.2))] == [
        BETTER,
        WORSE,
        EVEN,
    ]
    ((_, _, said),) = judged("ill", entry(0.1, 0.2))
    assert "on the same 90 studies, 30 positive: a difference of +0.150 (0.100 to 0.200)." in said
    ((_, mark, said),) = judged("ill", {"runs": {}, "gains": {}, "reason": "no labelled study"})
    assert mark == EVEN and "no labelled study" in said


def test_the_page_shows_curves_and_only_the_keys_that_differ(tmp_path: Path) -> None:
    history = [{"step": str(s), "train/loss": str(1 / s)} for s in (1, 2, 3)]
    configs = [{"seed": 0, "optim": {"lr": lr, "betas": 0.9}, "cache": f"/data/{lr}/x"} for lr in (0.001, 0.002)]
    runs = [ComparedRun(name, history, config) for name, config in zip("ab", configs, strict=True)]
    protocol = {"resamples": 100, "seed": 0, "unit": "subjects"}
    text = write_compare_page(tmp_path / "c.html", runs, {"ill": entry(0.1, 0.2)}, protocol).read_text(encoding="utf-8")
    assert "optim.lr" in text and "0.002" in text and "optim.betas" not in text and "/data/" not in text
    assert "Learning curves: Loss" in text and "100 resamples of subjects" in text
    assert text.index("a difference of +0.150") < text.index("<section")
