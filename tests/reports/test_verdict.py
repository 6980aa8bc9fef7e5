"""The sentences at the top of a page: what was learned and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssml.reports.results import Results
from medssml.reports.verdict import FEW_STUDIES, LEARNED, NOT_LEARNED, Verdict, sentences, verdict_on, verdicts


def interval(estimate: float, low: float, high: float, **more: float) -> dict[str, float]:
    return {"estimate": estimate, "ci_low": low, "ci_high": high, **more}


def said(gain: dict[str, float], pretrained: dict[str, float], **files: Any) -> list[str]:
    tasks = {"effusion": {"pretrained": pretrained, "scratch": interval(0.7, 0.6, 0.8), "gain": gain, "bayes": 0.95}}
    found = {"gain.json": {"": {"tasks": tasks}}, **{name: {"": value} for name, value in files.items()}}
    return sentences(Results(Path("run"), found))


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
    (line,) = sentences(Results(Path("run"), files))
    assert "5.0 times chance" in line


def evaluated(value: dict[str, float], positives: int, negatives: int, **more: Any) -> Verdict:
    n = positives + negatives
    labels = {
        "test": {"per_class": {"no": negatives, "yes": positives}},
        "train": {"per_class": {"no": 500, "yes": 500}},
    }
    observed = {"n": n, "auroc": {**value, "n": n}}
    task = {"method": "head", "subsets": {"ct": observed}, "as_observed": observed, "labels": labels} | more
    results = Results(Path("run"), {"metrics.json": {"": {"tasks": {"ill": task}, "protocol": {"split": "test"}}}})
    (verdict,) = verdicts(results)
    assert verdict_on(results, "ill") == verdict and verdict_on(results, "well") is None
    return verdict


def test_an_evaluation_alone_is_judged_with_its_studies_and_who_answered() -> None:
    good = evaluated(interval(0.8, 0.7, 0.9), 40, 60)
    assert good.mark == LEARNED
    assert good.text == "AUROC 0.800 (0.700 to 0.900), by its head on 100 studies, 40 positive."
    probe = evaluated(interval(0.8, 0.7, 0.9), 40, 60, method="linear probe")
    assert "by a linear probe, as the model has no head for it on 100 studies" in probe.text


def test_an_interval_that_holds_one_half_is_not_better_than_chance() -> None:
    bad = evaluated(interval(0.6, 0.5, 0.7), 40, 60)
    assert bad.mark == NOT_LEARNED and bad.text.startswith("not better than chance, AUROC 0.600")
    assert evaluated(interval(0.6, 0.501, 0.7), 40, 60).mark == LEARNED


def test_a_perfect_auroc_on_few_studies_carries_its_caution() -> None:
    """Three independent pairs in order: an AUROC of 0.37 gives that in one of twenty cohorts (0.37 cubed is 0.05)."""
    nine = evaluated(interval(1.0, 1.0, 1.0), 3, 6)
    assert nine.mark == NOT_LEARNED and "the rarer class has 3 studies, which leaves anything above 0.37" in nine.text
    some = evaluated(interval(1.0, 1.0, 1.0), 8, 20)
    assert some.mark == FEW_STUDIES and "anything above 0.69" in some.text
    assert evaluated(interval(1.0, 1.0, 1.0), 60, 80).mark == LEARNED
    rough = evaluated(interval(0.9, 0.8, 1.0), 5, 80)
    assert rough.mark == FEW_STUDIES and "only 5 studies of the rarer class" in rough.text


def test_impact_alone_says_how_good_the_answers_are_and_which_modality_counts() -> None:
    shares = {"ct": interval(0.3, 0.2, 0.4), "eeg": interval(0.0, -0.1, 0.1)}
    quality = {"metric": "auroc", "positives": 30, "observed": {**interval(0.8, 0.7, 0.9), "n": 90}, "shapley": shares}
    files = {"impact.json": {"": {"task": "ill", "performance": quality}}}
    (verdict,) = verdicts(Results(Path("run"), files))
    assert verdict.text.startswith("AUROC 0.800 (0.700 to 0.900), by its head on 90 studies, 30 positive")
    assert verdict.text.endswith("CT counts most, 0.300 (0.200 to 0.400) of the AUROC.")
    quality["observed"] = {**interval(0.5, 0.4, 0.6), "n": 90}
    (verdict,) = verdicts(Results(Path("run"), files))
    assert verdict.mark == NOT_LEARNED and "counts most" not in verdict.text


def test_numbers_are_judged_beside_their_mean() -> None:
    row = {"n": 80, "r2": interval(0.1, -0.2, 0.3)}
    task = {"kind": "regression", "method": "head", "subsets": {"ct": row}, "as_observed": row}
    (verdict,) = verdicts(Results(Path("run"), {"metrics.json": {"": {"tasks": {"age": task}}}}))
    assert verdict.mark == NOT_LEARNED and verdict.text.startswith("not better than the mean of the labels, R² 0.100")


def test_nothing_is_said_where_nothing_was_measured() -> None:
    assert verdicts(Results(Path("run"), {"metrics.json": {"": {"retrieval": {}}}})) == []


def test_a_probe_of_one_set_of_modalities_says_which_and_how_many_of_its_own_studies() -> None:
    """Each probe reads one set; the figures of the set that most studies have, with its own positives, not those of the split."""
    labels = {"test": {"per_class": {"0": 40, "1": 60}}}
    subsets = {
        "": {"n": 100, "positives": 60, "auroc": interval(0.5, 0.5, 0.5)},
        "ct": {"n": 50, "positives": 20, "auroc": interval(0.8, 0.7, 0.9)},
        "ct+xray": {"n": 5, "positives": 3, "auroc": interval(0.3, 0.0, 1.0)},
    }
    entry = {"kind": "binary", "method": "linear probe", "subsets": subsets, "labels": labels}
    (line,) = sentences(Results(Path("run"), {"metrics.json": {"": {"tasks": {"effusion": entry}}}}))
    assert line == (
        "effusion: AUROC 0.800 (0.700 to 0.900), by a linear probe, as the model has no head for it from CT alone, "
        "on 50 studies, 20 positive."
    )


def test_without_an_interval_nothing_is_shown() -> None:
    entry = {"kind": "binary", "method": "head", "subsets": {}, "as_observed": {"n": 4, "auroc": {"estimate": 0.9}}}
    entry |= {"subsets": {"ct": {"n": 4}}}
    (verdict,) = verdicts(Results(Path("run"), {"metrics.json": {"": {"tasks": {"effusion": entry}}}}))
    assert verdict.mark == NOT_LEARNED and "counts most" not in verdict.text
