"""Measured impact against the true one, where the truth of simulated studies is known.

The truth is the same measures of the best possible prediction of the same studies. What differs is then the model: an
interval that does not hold the truth says that the model reads its modalities otherwise than the best reader would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from medssml.counterfactual.measure import SWAPPED, Answers, CohortMeasure, Finding, Measure
from medssml.counterfactual.summary import Resampling
from medssml.evaluation.bayes import bayes_by_subset
from medssml.evaluation.encoded_studies import bits, subset_name
from medssml.statistics.bootstrap import Array, Interval

#: A measured value this near to the truth agrees with it, however narrow its interval (a modality that is never read).
NEGLIGIBLE = 1e-3


def best_answers(
    answers: Answers, study_id: Sequence[str], task: str, modalities: tuple[str, ...], truth: pd.DataFrame
) -> Answers | None:
    """The answers of the best possible reader to the same studies, of those that the truth knows.

    Args:
        answers: of a model.
        study_id: (N) of these studies.
        task: name.
        modalities: of the columns of `answers.has`.
        truth: of `medssml.evaluation.bayes.read_truth`.

    Returns:
        None where the truth of the task is not known, or does not tell the value.
    """
    bayes = bayes_by_subset(truth, study_id, task, modalities) if answers.value.has_truth else None
    if bayes is None:
        return None
    best = np.stack([bayes[subset_name(mask, modalities)] for mask in range(1 << len(modalities))], axis=1)
    known = np.flatnonzero(np.isfinite(best).all(axis=1))
    some, p = answers.within(known), true_scores(best[known], answers.has[known])
    values = some.value(np.log(p) - np.log1p(-p), np.arange(len(known)))
    swapped = np.full_like(some.swapped, np.nan)
    return replace(some, values=values, scores=p, swapped=swapped, empty_error=np.zeros(len(known)))


def true_scores(best: Array, has: Array) -> Array:
    """(N, 2^M) probabilities of the best reader, from those of complete studies: of S a study shows what it has."""
    masks = bits(has)[:, None] & np.arange(best.shape[1])[None, :]
    return np.clip(np.take_along_axis(best, masks, axis=1), 1e-12, 1 - 1e-12)


def compare_with_truth(
    findings: Sequence[Finding],
    best: Answers,
    measures: Sequence[Measure | CohortMeasure],
    modalities: tuple[str, ...],
) -> dict[str, Any]:
    """Whether each measured quantity's interval holds the true value on the same studies.

    Args:
        findings: of the models.
        best: of `best_answers`.
        measures: that the findings are of; one that asks for swaps has no known truth.
        modalities: of the studies.

    Returns:
        {"pairs": [{"quantity", "modality", "estimate", "ci_low", "ci_high", "truth", "inside"}, ..],
        "inside": quantity -> share, "n"}.
    """
    # Estimates only: two resamples are as good as a thousand.
    how = Resampling(np.arange(len(best.y)), n=2)
    known = [measure for measure in measures if SWAPPED not in measure.asks]
    true = {(f.quantity, f.of): f.interval.estimate for m in known for f in m.findings([best], modalities, how)}
    pairs = [
        _pair(finding, value) for finding in findings if (value := true.get((finding.quantity, finding.of))) is not None
    ]
    quantities = dict.fromkeys(pair["quantity"] for pair in pairs)
    return {
        "pairs": pairs,
        "inside": {q: float(np.mean([p["inside"] for p in pairs if p["quantity"] == q])) for q in quantities},
        "n": len(best.y),
    }


def _pair(finding: Finding, truth: float) -> dict[str, Any]:
    head = {"quantity": finding.quantity, "modality": finding.of}
    return {**head, **finding.interval.to_dict(), "truth": truth, "inside": agrees(finding.interval, truth)}


def agrees(interval: Interval, truth: float) -> bool:
    """Whether the interval holds the truth, or the estimate is next to it."""
    near = interval.estimate is not None and abs(interval.estimate - truth) < NEGLIGIBLE
    return near or interval.holds(truth)
