"""Effects of the modalities on one model's answer to every study: per study, before any averaging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medssml.counterfactual.interventions import (
    BASELINES,
    EMPTIES,
    Swap,
    coalition_values,
    draw_background,
    swap_effects,
)
from medssml.counterfactual.shapley import checked_shapley, efficiency_gap, interactions
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


@dataclass(frozen=True)
class Effects:
    """What each modality does to one model's answers; NaN where a study lacks the modality.

    Args:
        value: the value function.
        values: v(S), (N, 2^M); a study that lacks a part of S has v of what it has of it.
        factual: (N,) v(P), P being what the study has.
        shapley: (N, M).
        necessity: (N, M) v(P) - v(P without m): what is lost without it.
        sufficiency: (N, M) v({m}) - v(none): what it gives alone.
        interactions: (N, M, M) Shapley interaction index; NaN where a study lacks one of the pair.
        swap: see `Swap`.
        gap: largest failure of the Shapley values to add up.
        empty_error: (N,) standard error of v of the empty coalition where it is a mean over reference studies, else 0;
            negative where the value falls as the mean rises.
    """

    value: Value
    values: Array
    factual: Array
    shapley: Array
    necessity: Array
    sufficiency: Array
    interactions: Array
    swap: Swap
    gap: float
    empty_error: Array


def study_effects(
    model: MultimodalModel,
    studies: EncodedStudies,
    task: str,
    *,
    value: str | None = None,
    intervention: Intervention | None = None,
    predictions: Predictions | None = None,
    reference: Array | None = None,
    device: str | torch.device = "cpu",
) -> Effects:
    """The effects of every modality on a model's answer to every study.

    Args:
        model: with a head for `task`.
        studies: encoded once; every coalition is computed in fusion.
        task: name.
        value: a key of `medssml.counterfactual.values.VALUES`; None for the default of the kind of task.
        intervention: how a modality is taken away.
        predictions: of the same model and studies, where they are there already.
        reference: (R,) or (R, K) logits of other studies, such as those of training, the mean of which is v of the empty
            coalition; None for the studies themselves.
        device: where fusion runs.

    Raises:
        ValueError: the value does not suit the task, or has no label to refer to in some study.
    """
    how = Intervention() if intervention is None else intervention
    answers = predict_subsets(model, studies, [task], device) if predictions is None else predictions
    outputs, everyone = answers.outputs[task], np.arange(len(studies))
    factual_outputs = answers.observed(outputs)
    worth = Value.of(answers.kinds[task], value, factual_outputs, answers.target(task))
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
        values = coalition_values(model, studies, task, worth, donors, factual, device)
        values = _filled(values)
    swap = swap_effects(model, studies, task, worth, donors, factual, device)
    return _effects(worth, values, studies.has, swap, error)


def without_any(has: Array) -> Array:
    """(N, 2^M) bool: coalitions that leave a study, has (N, M), with nothing."""
    masks = np.arange(1 << has.shape[1])
    member = (masks[:, None] >> np.arange(has.shape[1])) & 1
    return (has.astype(int) @ member.T) == 0


def _filled(values: Array) -> Array:
    """A study for which nobody can stand in has no effects; its values are its factual one, so that it counts nothing."""
    lost = np.isnan(values).sum(axis=1, keepdims=True) > 0
    return np.where(lost, values[:, -1:], values)


def _effects(worth: Value, values: Array, has: Array, swap: Swap, error: Array) -> Effects:
    members = 1 << np.arange(has.shape[1])
    everything = values.shape[1] - 1
    phi = checked_shapley(values)
    both = has[:, :, None] & has[:, None, :]
    return Effects(
        value=worth,
        values=values,
        factual=values[:, -1],
        shapley=np.where(has, phi, np.nan),
        necessity=np.where(has, values[:, -1:] - values[:, everything - members], np.nan),
        sufficiency=np.where(has, values[:, members] - values[:, :1], np.nan),
        interactions=np.where(both, interactions(values), np.nan),
        swap=swap,
        gap=efficiency_gap(values, phi),
        empty_error=error,
    )
