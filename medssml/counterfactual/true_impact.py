"""Measured impact against the true one, where the truth of simulated studies is known.

The truth is the same computation on the best possible prediction of the same studies. What differs is then the model: an
interval that does not hold the truth says that the model reads its modalities otherwise than the best reader would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from medssml.counterfactual.performance import PERFORMANCE, performance_game
from medssml.counterfactual.shapley import shapley
from medssml.evaluation.bayes import bayes_by_subset
from medssml.evaluation.encoded_studies import bits
from medssml.statistics.bootstrap import Array

#: A measured value this near to the truth agrees with it, however narrow its interval (a modality that is never read).
NEGLIGIBLE = 1e-3
#: Value functions, in the words of impact.json, whose truth is known from the best possible probability.
KNOWN_VALUES = ("probability of the positive class", "logit of the positive class")


def compare_with_truth(result: Mapping[str, Any], rows: pd.DataFrame, truth: pd.DataFrame) -> dict[str, Any] | None:
    """Whether each measured quantity's interval holds the true value on the same studies.

    Args:
        result: content of impact.json.
        rows: that of impact.csv.
        truth: of `medssml.evaluation.bayes.read_truth`.

    Returns:
        {"pairs": [{"quantity", "modality", "estimate", "ci_low", "ci_high", "truth", "inside"}, ..],
        "inside": quantity -> share}; None where the truth of the task, or of the value, is not known.
    """
    if result["value"] not in KNOWN_VALUES:
        return None
    modalities = tuple(max(result["coalitions"], key=lambda name: name.count("+") + bool(name)).split("+"))
    studies, has, y = _studies(rows, modalities)
    bayes = bayes_by_subset(truth, studies, result["task"], modalities)
    if bayes is None:
        return None
    best = _by_bits(bayes, modalities)
    known = np.isfinite(best).all(axis=1)
    best, has, y = best[known], has[known], y[known]
    pairs = _mean_pairs(result, best, has, modalities) + _performance_pairs(result, best, has, y, modalities)
    quantities = dict.fromkeys(pair["quantity"] for pair in pairs)
    return {
        "pairs": pairs,
        "inside": {q: float(np.mean([p["inside"] for p in pairs if p["quantity"] == q])) for q in quantities},
        "n": int(known.sum()),
    }


def _studies(rows: pd.DataFrame, modalities: tuple[str, ...]) -> tuple[list[str], Array, Array]:
    """Study ids (N), has (N, M) and labels (N,) from impact.csv."""
    member = pd.crosstab(rows["study_id"].astype(str), rows["modality"])
    has = member.reindex(columns=list(modalities), fill_value=0).to_numpy() > 0
    y = rows.assign(study_id=rows["study_id"].astype(str)).groupby("study_id")["label"].first()
    return list(member.index), has, y.reindex(member.index).to_numpy(dtype=np.float64)


def _by_bits(bayes: Mapping[str, Array], modalities: tuple[str, ...]) -> Array:
    """(N, 2^M) with subsets at their bits."""
    columns = [""] * (1 << len(modalities))
    for mask in range(len(columns)):
        columns[mask] = "+".join(m for j, m in enumerate(modalities) if mask >> j & 1)
    return np.stack([bayes[name] for name in columns], axis=1)


def true_values(best: Array, has: Array) -> Array:
    """v(S) of the best reader: (N, 2^M) where a study shows of S what it has of it."""
    masks = bits(has)[:, None] & np.arange(best.shape[1])[None, :]
    return np.take_along_axis(best, masks, axis=1)


def _mean_pairs(
    result: Mapping[str, Any], best: Array, has: Array, modalities: tuple[str, ...]
) -> list[dict[str, Any]]:
    p = np.clip(best, 1e-12, 1 - 1e-12)
    values = true_values(np.log(p / (1 - p)) if result["value"].startswith("logit") else best, has)
    phi = shapley(values)
    pairs = []
    for column, name in enumerate(modalities):
        if name in result["modalities"] and has[:, column].any():
            own = phi[has[:, column], column]
            found = result["modalities"][name]
            pairs.append(_pair("shapley", name, found["shapley"], own.mean()))
            pairs.append(_pair("shapley_abs", name, found["shapley_abs"], np.abs(own).mean()))
    return pairs


def _performance_pairs(
    result: Mapping[str, Any], best: Array, has: Array, y: Array, modalities: tuple[str, ...]
) -> list[dict[str, Any]]:
    labelled = np.isfinite(y)
    covered = has[labelled].sum(axis=0) > 0
    complete = labelled & has[:, covered].all(axis=1)
    if result["kind"] not in PERFORMANCE or len(np.unique(y[complete])) < 2:
        return []
    game = performance_game(result["kind"], best[complete], y[complete], np.ones((1, int(complete.sum()))))
    true = dict(zip(modalities, shapley(game)[0], strict=True))
    return [_pair("performance_shapley", m, found, true[m]) for m, found in result["performance"]["shapley"].items()]


def _pair(quantity: str, modality: str, found: Mapping[str, Any], truth: float) -> dict[str, Any]:
    low, high = found["ci_low"], found["ci_high"]
    inside = low is not None and high is not None and low <= truth <= high
    inside = inside or (found["estimate"] is not None and abs(found["estimate"] - truth) < NEGLIGIBLE)
    return {"quantity": quantity, "modality": modality, **found, "truth": float(truth), "inside": bool(inside)}
