"""The impact of each modality on a model's predictions: one page of numbers from one encoding of every study.

All of it is about the model. That hiding the CT moves a prediction says nothing of what a CT does for a patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from medssml.counterfactual.effects import Effects, Intervention, study_effects, without_any
from medssml.counterfactual.interventions import BASELINES, EMPTIES
from medssml.counterfactual.performance import PERFORMANCE, performance_drop, performance_shapley
from medssml.counterfactual.summary import (
    Resampling,
    interaction_shares,
    interaction_summary,
    modality_summary,
    subgroup_summary,
)
from medssml.evaluation.encoded_studies import EncodedStudies, bits, subset_name, subsets
from medssml.evaluation.subsets import Predictions, predict_subsets
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array

NOTE = (
    "Effects of the modalities on this model's predictions, not on patients: a modality without impact may still be "
    "informative, and one with impact may be read wrongly."
)
#: Donors per study in the comparison of baselines, where only means are shown.
SWEEP_DRAWS = 5
#: Shapley values below this, in units of the value, have no sign worth comparing.
SMALLEST = 0.01


@dataclass(frozen=True)
class Impact:
    """What `measure_impact` finds. result: the content of impact.json. rows: that of impact.csv."""

    result: dict[str, Any]
    rows: pd.DataFrame


@dataclass(frozen=True)
class _Measured:
    """The effects of S models on the same N studies."""

    encoded: list[EncodedStudies]
    predictions: list[Predictions]
    effects: list[Effects]
    n_reference: int

    @property
    def studies(self) -> EncodedStudies:
        """The studies, behind the first model's encoders."""
        return self.encoded[0]

    def stack(self, name: str) -> Array:
        """(S, N, ...) of one field of the effects."""
        return np.stack([getattr(e, name) for e in self.effects])


def measure_impact(
    models: Sequence[MultimodalModel],
    encoded: Sequence[EncodedStudies],
    task: str,
    *,
    value: str | None = None,
    intervention: Intervention | None = None,
    sweep: Sequence[str] = ("marginal", "joint"),
    groups: Mapping[str, Array] | None = None,
    references: Sequence[Array | None] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Impact:
    """The impact of each modality on the predictions of one task.

    Args:
        models: of the same task and modalities, such as several training seeds.
        encoded: the same studies behind each model's encoders, each with at least one modality.
        task: name.
        value: a key of `medssml.counterfactual.values.VALUES`; None for the default of the kind of task.
        intervention: how a modality is taken away.
        sweep: further baselines to repeat the Shapley values with.
        groups: name of a grouping -> (N,) text, "" where not known.
        references: of each model, the logits of other studies, the mean of which is the answer to nothing; None for the
            studies themselves.
        bootstrap: resamples.
        seed: of the resamples.
        device: where fusion runs.

    Raises:
        ValueError: no model, other studies behind one of them, or a study without any modality.
    """
    _checked(models, encoded)
    how = Intervention() if intervention is None else intervention
    predictions = [predict_subsets(m, e, [task], device) for m, e in zip(models, encoded, strict=True)]
    others: Sequence[Array | None] = [None] * len(models) if references is None else references
    effects = [
        study_effects(m, e, task, value=value, intervention=how, predictions=p, reference=r, device=device)
        for m, e, p, r in zip(models, encoded, predictions, others, strict=True)
    ]
    measured = _Measured(list(encoded), predictions, effects, len(encoded[0]) if others[0] is None else len(others[0]))
    resampling = Resampling(encoded[0].subject, bootstrap, seed)
    result = _header(measured, task, how, resampling) | _overall(measured, task, how, resampling)
    result["subgroups"] = subgroup_summary(
        measured.stack("shapley"), _groups(measured, task, groups), encoded[0].modalities, resampling
    )
    result["baselines"] = _sweep(models, measured, task, value, how, sweep, resampling, device)
    return Impact(result, _rows(measured, task))


def _checked(models: Sequence[MultimodalModel], encoded: Sequence[EncodedStudies]) -> None:
    if not models or len(models) != len(encoded):
        raise ValueError(
            f"{len(models)} models and {len(encoded)} sets of encoded studies; expected the same, at least 1"
        )
    first = encoded[0]
    for other in encoded:
        if other.study_id != first.study_id or other.modalities != first.modalities:
            raise ValueError("the models do not share studies and modalities; fix: compare models of one cohort")
    if not first.has.any(axis=1).all():
        raise ValueError("a study has no modality at all; fix: leave it out, there is nothing to take away")


def _header(measured: _Measured, task: str, how: Intervention, resampling: Resampling) -> dict[str, Any]:
    value = measured.effects[0].value
    return {
        "task": task,
        "kind": value.kind,
        "value": value.words,
        "baseline": how.baseline,
        "baseline_words": BASELINES[how.baseline],
        "empty": how.empty if how.baseline == "absent" else how.baseline,
        "empty_words": EMPTIES[how.empty] if how.baseline == "absent" else BASELINES[how.baseline],
        "note": NOTE,
        "n_studies": len(measured.studies),
        "n_subjects": len(np.unique(resampling.subjects)),
        "n_models": len(measured.effects),
        "bootstrap": {
            "resamples": resampling.n,
            "seed": resampling.seed,
            "level": resampling.level,
            "unit": "subjects and models" if len(measured.effects) > 1 else "subjects",
            "donors": how.draws,
        },
        "n_reference": measured.n_reference,
        "efficiency_gap": max(effects.gap for effects in measured.effects),
    }


def _overall(measured: _Measured, task: str, how: Intervention, resampling: Resampling) -> dict[str, Any]:
    modalities = measured.studies.modalities
    values = measured.stack("values")
    quantities = {name: measured.stack(name) for name in ("shapley", "necessity", "sufficiency")}
    quantities["swap"] = np.stack([e.swap.effect for e in measured.effects])
    complete = complete_rows(measured.studies.has)
    shifts = _shifts(measured)
    found = modality_summary(quantities, modalities, resampling, shifts)
    performance = _performance(measured, task, how, resampling)
    for name, entry in found.items():
        entry["performance_drop"] = performance["drop"][name]
        entry["coverage"] = float(measured.studies.has[:, modalities.index(name)].mean())
        entry["swap_error"] = _donor_error(measured, modalities.index(name))
    del performance["drop"]
    inside = {name: q[:, complete] for name, q in quantities.items()}
    inside_shifts = {name: shift[:, complete] for name, shift in shifts.items()}
    return {
        "coalitions": _means(values, modalities),
        "coalitions_complete": _means(values[:, complete], modalities) if complete.any() else {},
        "modalities": found,
        "complete": {
            "n": int(complete.sum()),
            "modalities": modality_summary(inside, modalities, resampling.within(complete), inside_shifts)
            if complete.any()
            else {},
        },
        "waterfall": _waterfall(measured),
        "interactions": interaction_summary(measured.stack("interactions"), modalities, resampling),
        "interaction_share": interaction_shares(values, resampling),
        "performance": performance,
    }


def _shifts(measured: _Measured) -> dict[str, Array]:
    """quantity -> (S, N), how it moves when v of the empty coalition is one standard error larger."""
    error = measured.stack("empty_error")
    count = measured.studies.has.sum(axis=1)
    return {"shapley": -error / count, "sufficiency": -error, "necessity": np.where(count == 1, -error, 0.0)}


def complete_rows(has: Array) -> Array:
    """(N,) bool: studies with every modality that any of them has, from has (N, M)."""
    return np.asarray(has[:, has.sum(axis=0) > 0].all(axis=1))


def _means(values: Array, modalities: tuple[str, ...]) -> dict[str, float]:
    mean = values.mean(axis=(0, 1))
    return {subset_name(mask, modalities): float(mean[mask]) for mask in subsets(modalities)}


def _waterfall(measured: _Measured) -> dict[str, Any]:
    """From v(none) to v(all) in means over all studies, where a study that lacks a modality counts 0 for it."""
    values, phi = measured.stack("values"), np.nan_to_num(measured.stack("shapley"))
    steps = zip(measured.studies.modalities, phi.mean(axis=(0, 1)), strict=True)
    return {
        "base": float(values[..., 0].mean()),
        "contributions": {name: float(step) for name, step in steps},
        "prediction": float(values[..., -1].mean()),
    }


def _donor_error(measured: _Measured, column: int) -> float | None:
    """Standard error of the mean swap effect that is due to the finite number of donors."""
    errors = np.stack([e.swap.error[:, column] for e in measured.effects])
    known = errors[np.isfinite(errors)]
    return float(np.sqrt((known**2).sum()) / len(known)) if len(known) else None


def scores_of(predictions: Predictions, task: str, empty: str) -> Array:
    """(N, 2^M[, K]) probabilities for every subset; a study left with nothing gets the mean one where empty is "mean"."""
    scores = predictions.probabilities(task)
    if empty == "model":
        return scores
    nothing = without_any(predictions.present)
    mean = predictions.observed(scores).mean(axis=0)
    return np.where(nothing[..., None] if scores.ndim == 3 else nothing, mean, scores)


def _performance(measured: _Measured, task: str, how: Intervention, resampling: Resampling) -> dict[str, Any]:
    studies, kind = measured.studies, measured.effects[0].value.kind
    scores = np.stack([scores_of(p, task, how.empty) for p in measured.predictions])
    y, has = measured.predictions[0].target(task), studies.has
    labelled = np.isfinite(y)
    complete = np.zeros(len(studies), dtype=bool)
    complete[labelled] = complete_rows(has[labelled]) if labelled.any() else False
    covered = has[labelled].sum(axis=0) > 0
    found: dict[str, Any] = {"metric": PERFORMANCE[kind][0], "baseline": "absent", "n_complete": int(complete.sum())}
    for key, rows in (("shapley", complete), ("shapley_observed", labelled)):
        split = performance_shapley(kind, scores, y, rows, studies.modalities, resampling)
        found[key] = {m: split[m] for m, known in zip(studies.modalities, covered, strict=True) if known}
    found["drop"] = {
        m: performance_drop(kind, scores, y, has, column, resampling).to_dict()
        for column, m in enumerate(studies.modalities)
    }
    return found


def _groups(measured: _Measured, task: str, groups: Mapping[str, Array] | None) -> dict[str, Array]:
    """The given groupings, the label's classes, and the patterns of modalities."""
    studies = measured.studies
    found = {name: np.asarray(labels, dtype=object) for name, labels in (groups or {}).items()}
    y = measured.predictions[0].target(task)
    if measured.effects[0].value.kind != "regression":
        found["label"] = np.array(["" if np.isnan(v) else f"{v:.0f}" for v in y], dtype=object)
    found["present"] = np.array([subset_name(int(b), studies.modalities) for b in bits(studies.has)], dtype=object)
    return found


def _sweep(
    models: Sequence[MultimodalModel],
    measured: _Measured,
    task: str,
    value: str | None,
    how: Intervention,
    sweep: Sequence[str],
    resampling: Resampling,
    device: str | torch.device,
) -> dict[str, Any]:
    """Shapley values under further baselines, and how often their sign changes with the baseline."""
    studies = measured.studies
    phis = {how.baseline: measured.stack("shapley")}
    for baseline in sweep:
        if baseline in phis:
            continue
        other = Intervention(baseline, how.empty, min(how.draws, SWEEP_DRAWS), how.seed)
        phis[baseline] = np.stack(
            [
                study_effects(
                    m, studies_of, task, value=value, intervention=other, predictions=p, device=device
                ).shapley
                for m, studies_of, p in zip(models, measured.encoded, measured.predictions, strict=True)
            ]
        )
    out: dict[str, Any] = {
        name: {
            m: entry["shapley"]
            for m, entry in modality_summary({"shapley": phi}, studies.modalities, resampling).items()
        }
        for name, phi in phis.items()
    }
    return {"shapley": out, "sign_flips": _sign_flips(phis, studies.modalities)}


def _sign_flips(phis: Mapping[str, Array], modalities: tuple[str, ...]) -> dict[str, Any]:
    """modality -> share of studies whose Shapley value is positive under one baseline and negative under another."""
    stacked = np.stack([phi.mean(axis=0) for phi in phis.values()])
    out = {}
    for column, name in enumerate(modalities):
        values = stacked[:, np.isfinite(stacked[:, :, column]).all(axis=0), column]
        if values.shape[1]:
            flips = (values.max(axis=0) > SMALLEST) & (values.min(axis=0) < -SMALLEST)
            means = values.mean(axis=1)
            out[name] = {"studies": float(flips.mean()), "mean": bool(means.max() > 0 > means.min())}
    return out


def _rows(measured: _Measured, task: str) -> pd.DataFrame:
    """One row per study and modality that it has; with several models their mean, and the range over them."""
    studies, effects = measured.studies, measured.effects
    row, column = np.nonzero(studies.has)
    phi = measured.stack("shapley")[:, row, column]
    many = len(effects) > 1

    def mean(values: Array) -> Array:
        return values[:, row, column].mean(axis=0)

    return pd.DataFrame(
        {
            "study_id": np.array(studies.study_id, dtype=object)[row],
            "modality": np.array(studies.modalities, dtype=object)[column],
            "shapley": phi.mean(axis=0),
            "necessity": mean(measured.stack("necessity")),
            "sufficiency": mean(measured.stack("sufficiency")),
            "prediction": measured.stack("factual").mean(axis=0)[row],
            "swap": mean(np.stack([e.swap.effect for e in effects])),
            "swap_low": mean(np.stack([e.swap.low for e in effects])),
            "swap_high": mean(np.stack([e.swap.high for e in effects])),
            "shapley_low": phi.min(axis=0) if many else np.nan,
            "shapley_high": phi.max(axis=0) if many else np.nan,
            "label": measured.predictions[0].target(task)[row],
        }
    )
