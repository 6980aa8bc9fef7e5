"""Late fusion: what a model answers from each modality alone, joined into one answer for every subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medssml.evaluation.stacking import fitted_weights
from medssml.evaluation.subsets import Predictions
from medssml.statistics.bootstrap import Array

RULES = ("vote", "mean", "weighted", "product", "stacked")
#: Probabilities end here, so that their logits are finite.
LEAST = 1e-6


def late_fusion(
    predictions: Predictions,
    rule: str,
    *,
    weights: Mapping[str, float] | None = None,
    validation: Predictions | None = None,
    prior: Mapping[str, Sequence[float]] | None = None,
) -> Predictions:
    """The same studies, answered for each subset from the answers to its modalities alone; nothing runs again.

    With p_m the probability that the model gives where it sees modality m alone, over those of the subset that a study has:

        vote       the share of them that hold the class for likeliest (from 0.5 on, of a binary task)
        mean       sum of p_m / number of them
        weighted   sum of a_m p_m / sum of a_m
        product    product of p_m / prior^(number of them - 1), normalised      (a product of experts; naive Bayes)
        stacked    logits = bias + sum of a_m (logit_m - mean of logit_m), a >= 0 and bias fitted on `validation`

    An absent modality has no vote, no term and no factor; a study that has nothing of a subset keeps what the model answers
    to nothing. A regression has `mean`, `weighted` and `stacked` of its values.

    Args:
        predictions: of every subset, for example from `predict_subsets`.
        rule: one of these names.
        weights: modality -> a_m, at least 0, for "weighted".
        validation: answers to other studies, with labels, for "stacked".
        prior: task -> probability of each class, (1 - p, p) of a binary task, for "product"; uniform where not given.

    Returns:
        predictions with other outputs, of which everything can be asked that the model's own are asked.

    Raises:
        ValueError: an unknown rule, one that lacks what it needs, or one that a task has no use for.
    """
    if rule not in RULES:
        raise ValueError(f"late fusion by {rule!r}; accepted: {', '.join(RULES)}")
    if rule == "weighted" and set(weights or {}) != set(predictions.modalities):
        raise ValueError(f"weighted late fusion needs `weights` of each of {', '.join(predictions.modalities)}")
    if rule == "stacked" and validation is None:
        raise ValueError("stacked late fusion needs `validation`, answers to labelled studies that it is fitted on")
    outputs = {}
    for task, logits in predictions.outputs.items():
        if predictions.kinds[task] == "regression" and rule in ("vote", "product"):
            raise ValueError(f"task {task!r} is a regression, which has no {rule}; fix: mean, weighted or stacked")
        alone = _alone(predictions, task)
        if rule == "stacked":
            joined = _stacked(predictions, task, alone, validation)  # type: ignore[arg-type]
        elif rule == "product":
            joined = _product(predictions, alone, (prior or {}).get(task))
        else:
            joined = _averaged(predictions, task, alone, rule, weights)
        joined = joined[..., 0] if logits.ndim == 2 else joined
        nothing = _members(predictions).sum(-1) == 0
        outputs[task] = np.where(nothing if logits.ndim == 2 else nothing[..., None], logits, joined)
    return replace(predictions, outputs=outputs)


def _members(predictions: Predictions) -> Array:
    """(N, 2^M, M) bool: what of each subset a study has."""
    count = len(predictions.modalities)
    subset = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
    return np.asarray(predictions.present, dtype=bool)[:, None, :] & subset.astype(bool)[None]


def _alone(predictions: Predictions, task: str) -> Array:
    """(N, M, K) logits from each modality alone, 0 where a study lacks it; K is 1 of a binary task or a regression."""
    columns = [1 << m for m in range(len(predictions.modalities))]
    alone = predictions.outputs[task][:, columns].astype(np.float64)
    alone = alone[..., None] if alone.ndim == 2 else alone
    return np.where(np.asarray(predictions.present, dtype=bool)[..., None], alone, 0.0)


def _probabilities(alone: Array) -> Array:
    """(N, M, K) probability of every class; of two classes where there is one logit."""
    logits = np.concatenate([np.zeros_like(alone), alone], axis=-1) if alone.shape[-1] == 1 else alone
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _logits(probabilities: Array, size: int) -> Array:
    """(N, 2^M, K) logits whose probabilities these are."""
    log = np.log(np.clip(probabilities, LEAST, 1.0))
    return log[..., 1:] - log[..., :1] if size == 1 else log


def _averaged(
    predictions: Predictions, task: str, alone: Array, rule: str, weights: Mapping[str, float] | None
) -> Array:
    said = alone if predictions.kinds[task] == "regression" else _probabilities(alone)
    if rule == "vote":
        # Of two classes that are as likely the later one is chosen: 0.5 is positive.
        chosen = said.shape[-1] - 1 - said[..., ::-1].argmax(axis=-1)
        said = np.eye(said.shape[-1])[chosen]
    each = [(weights or {}).get(name, 1.0) if rule == "weighted" else 1.0 for name in predictions.modalities]
    share = _members(predictions) * np.array(each)
    total = share.sum(-1, keepdims=True)
    joined = np.einsum("nsm,nmk->nsk", share, said) / np.where(total > 0, total, 1.0)
    return joined if predictions.kinds[task] == "regression" else _logits(joined, alone.shape[-1])


def _product(predictions: Predictions, alone: Array, prior: Sequence[float] | None) -> Array:
    members = _members(predictions).astype(float)
    log = np.log(_probabilities(alone))
    uniform = np.zeros(log.shape[-1])
    common = uniform if prior is None else np.log(np.asarray(prior, dtype=float))
    joined = np.einsum("nsm,nmk->nsk", members, log) - (members.sum(-1, keepdims=True) - 1) * common
    return joined[..., 1:] - joined[..., :1] if alone.shape[-1] == 1 else joined


def _stacked(predictions: Predictions, task: str, alone: Array, validation: Predictions) -> Array:
    known = np.isfinite(validation.target(task))
    if not known.any():
        raise ValueError(f"no study of `validation` has a label of {task!r}, which stacked late fusion is fitted on")
    seen, present = _alone(validation, task)[known], np.asarray(validation.present, dtype=bool)[known]
    count = present.sum(axis=0)
    mean = seen.sum(axis=0) / np.maximum(count, 1)[:, None]
    centred = np.where(present[..., None], seen - mean, 0.0)
    spread = np.sqrt((centred**2).mean(axis=(0, 2))) + 1e-9
    weight, bias = fitted_weights(
        centred.transpose(1, 0, 2) / spread[:, None, None], validation.target(task)[known], validation.kinds[task]
    )
    members = _members(predictions)
    return np.einsum("nsm,nmk->nsk", members * (weight / spread), alone - mean) + bias
