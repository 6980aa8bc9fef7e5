"""What a model answers under every intervention: per study, and all that measures of impact are made of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from medssml.counterfactual.interventions import (
    BASELINES,
    EMPTIES,
    coalition_values,
    draw_background,
    swapped_modalities,
)
from medssml.counterfactual.measure import SWAPPED, Answers
from medssml.counterfactual.shapley import checked_shapley
from medssml.counterfactual.values import Value
from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.subsets import Predictions, predict_subsets
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array


@dataclass(frozen=True)
class Intervention:
    """How a modality outside a coalition is taken away.

    Args:
        baseline: a key of `BASELINES`.
        empty: v of the empty coalition where the baseline is "absent": a key of `EMPTIES`. Modality dropout never hides
            everything, so most models were never asked about nothing; the mean prediction for others is the safer zero.
        draws: donors per study, where modalities are taken from others.
        seed: of the draws.
    """

    baseline: str = "absent"
    empty: str = "mean"
    draws: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("baseline", self.baseline, BASELINES), ("empty", self.empty, EMPTIES)):
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; accepted: {', '.join(known)}")
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}; at least 1")


def study_answers(
    model: MultimodalModel,
    studies: EncodedStudies,
    task: str,
    *,
    value: str | None = None,
    intervention: Intervention | None = None,
    predictions: Predictions | None = None,
    reference: Array | None = None,
    asks: Collection[str] = (SWAPPED,),
    device: str | torch.device = "cpu",
) -> Answers:
    """A model's answers to every study, for every coalition and with every modality swapped.

    Args:
        model: with a head for `task`.
        studies: encoded once; every coalition is computed in fusion.
        task: name.
        value: a key of `medssml.counterfactual.values.VALUES`; None for the default of the kind of task.
        intervention: how a modality is taken away.
        predictions: of the same model and studies, where they are there already.
        reference: (R,) or (R, K) logits of other studies, such as those of training, the mean of which is v of the empty
            coalition; None for the studies themselves.
        asks: what the measures ask for; without `SWAPPED` no modality is swapped, and `Answers.swapped` is NaN.
        device: where fusion runs.

    Raises:
        ValueError: the value does not suit the task, or has no label to refer to in some study, or the answers are not
            finite.
    """
    how = Intervention() if intervention is None else intervention
    predictions = predict_subsets(model, studies, [task], device) if predictions is None else predictions
    outputs, everyone = predictions.outputs[task], np.arange(len(studies))
    factual_outputs = predictions.observed(outputs)
    worth = Value.of(predictions.kinds[task], value, factual_outputs, predictions.target(task))
    if not worth.defined.all():
        missing = int((~worth.defined).sum())
        raise ValueError(f"value {worth.name!r} needs a label, {missing} studies have none; fix: leave them out")
    factual = worth(factual_outputs, everyone)
    donors = draw_background(studies, how.baseline, how.draws, how.seed)
    error = np.zeros(len(studies))
    if how.baseline == "absent":
        values = worth(outputs, everyone)
        if how.empty == "mean":
            nothing, error = worth.of_others(factual_outputs if reference is None else reference, everyone)
            values = np.where(without_any(studies.has), nothing[:, None], values)
    else:
        values = _filled(coalition_values(model, studies, task, worth, donors, factual, device))
    checked_shapley(values)
    swapped = np.full((*studies.has.shape, how.draws), np.nan)
    if SWAPPED in asks:
        swapped = swapped_modalities(model, studies, task, worth, donors, device)
    scores = subset_scores(predictions, task, how.empty)
    return Answers(worth, studies.has, values, error, swapped, scores, predictions.target(task))


def without_any(has: Array) -> Array:
    """(N, 2^M) bool: coalitions that leave a study, has (N, M), with nothing."""
    masks = np.arange(1 << has.shape[1])
    member = (masks[:, None] >> np.arange(has.shape[1])) & 1
    return (has.astype(int) @ member.T) == 0


def subset_scores(predictions: Predictions, task: str, empty: str) -> Array:
    """(N, 2^M[, K]) probabilities for every subset; a study left with nothing gets the mean one where empty is "mean"."""
    scores = predictions.probabilities(task)
    if empty == "model":
        return scores
    nothing = without_any(predictions.present)
    mean = predictions.observed(scores).mean(axis=0)
    return np.where(nothing[..., None] if scores.ndim == 3 else nothing, mean, scores)


def _filled(values: Array) -> Array:
    """A study for which nobody can stand in has no effects; its values are its factual one, so that it counts nothing."""
    lost = np.isnan(values).sum(axis=1, keepdims=True) > 0
    return np.where(lost, values[:, -1:], values)
