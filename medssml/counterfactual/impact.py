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

from medssml.counterfactual.answers import Intervention, study_answers
from medssml.counterfactual.interventions import BASELINES, EMPTIES
from medssml.counterfactual.measure import VALUES, Answers, CohortMeasure, Finding, Measure
from medssml.counterfactual.measures import MEASURES, ShapleyValue
from medssml.counterfactual.performance import PERFORMANCE
from medssml.counterfactual.summary import Resampling, subgroup_summary
from medssml.counterfactual.true_impact import best_answers, compare_with_truth
from medssml.evaluation.encoded_studies import EncodedStudies, bits, subset_name, subsets
from medssml.evaluation.subsets import Predictions, predict_subsets
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array

Measures = Sequence[Measure | CohortMeasure]

NOTE = (
    "Effects of the modalities on this model's predictions, not on patients: a modality without impact may still be "
    "informative, and one with impact may be read wrongly."
)
#: Donors per study in the comparison of baselines, where only means are shown.
SWEEP_DRAWS = 5
#: Shapley values below this, in units of the value, have no sign worth comparing.
SMALLEST = 0.01
#: The first columns of impact.csv, which others read by their place.
COLUMNS = ("study_id", "modality", "shapley", "necessity", "sufficiency", "prediction")

_SHAPLEY = ShapleyValue()


@dataclass(frozen=True)
class Impact:
    """What `measure_impact` finds. result: the content of impact.json. rows: that of impact.csv."""

    result: dict[str, Any]
    rows: pd.DataFrame


@dataclass(frozen=True)
class _Measured:
    """The answers of S models to the same N studies, and what the measures say of them."""

    encoded: list[EncodedStudies]
    predictions: list[Predictions]
    answers: list[Answers]
    measures: Measures
    n_reference: int

    @property
    def studies(self) -> EncodedStudies:
        """The studies, behind the first model's encoders."""
        return self.encoded[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the studies."""
        return self.studies.modalities

    @property
    def complete(self) -> Array:
        """(N,) bool: studies with every modality that any of them has."""
        return self.answers[0].complete

    @property
    def values(self) -> Array:
        """v(S), (S, N, 2^M)."""
        return np.stack([answers.values for answers in self.answers])

    @property
    def shapley(self) -> Array:
        """(S, N, M)."""
        return np.stack([_SHAPLEY(answers) for answers in self.answers])

    def findings(self, how: Resampling) -> list[Finding]:
        """What every measure finds."""
        return [found for m in self.measures for found in m.findings(self.answers, self.modalities, how)]


def measure_impact(
    models: Sequence[MultimodalModel],
    encoded: Sequence[EncodedStudies],
    task: str,
    *,
    value: str | None = None,
    intervention: Intervention | None = None,
    sweep: Sequence[str] = ("marginal", "joint"),
    groups: Mapping[str, Array] | None = None,
    classes: Sequence[str] = (),
    references: Sequence[Array | None] | None = None,
    truth: pd.DataFrame | None = None,
    measures: Measures = MEASURES,
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
        classes: what the table calls the classes of the task, for the rows and the groups; their places otherwise.
        references: of each model, the logits of other studies, the mean of which is the answer to nothing; None for the
            studies themselves.
        truth: of `medssml.evaluation.bayes.read_truth`, for simulated studies: what is measured is compared with it.
        measures: what to measure.
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
    asks = frozenset().union(*(measure.asks for measure in measures))
    answers = [
        study_answers(m, e, task, value=value, intervention=how, predictions=p, reference=r, asks=asks, device=device)
        for m, e, p, r in zip(models, encoded, predictions, others, strict=True)
    ]
    n_reference = len(encoded[0]) if others[0] is None else len(others[0])
    measured = _Measured(list(encoded), predictions, answers, measures, n_reference)
    resampling = Resampling(encoded[0].subject, bootstrap, seed)
    findings = measured.findings(resampling)
    result = _header(measured, task, how, resampling) | _overall(measured, findings, resampling)
    best = None if truth is None else best_answers(answers[0], encoded[0].study_id, task, measured.modalities, truth)
    if best is not None:
        result["truth"] = compare_with_truth(findings, best, measures, measured.modalities)
    result["subgroups"] = subgroup_summary(
        measured.shapley, _groups(measured, groups, classes), measured.modalities, resampling
    )
    result["baselines"] = _sweep(models, measured, task, value, how, sweep, resampling, device)
    return Impact(result, _rows(measured, classes))


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
    value = measured.answers[0].value
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
        "n_models": len(measured.answers),
        "bootstrap": {
            "resamples": resampling.n,
            "seed": resampling.seed,
            "level": resampling.level,
            "unit": "subjects and models" if len(measured.answers) > 1 else "subjects",
            "donors": how.draws,
        },
        "n_reference": measured.n_reference,
        "efficiency_gap": max(answers.gap for answers in measured.answers),
    }


def _overall(measured: _Measured, findings: Sequence[Finding], resampling: Resampling) -> dict[str, Any]:
    values, answers, complete = measured.values, measured.answers, measured.complete
    labelled = answers[0].within(np.isfinite(answers[0].y))
    result: dict[str, Any] = {
        "measures": {m.name: {"headings": m.headings, "words": m.words} for m in measured.measures},
        "coalitions": _means(values, measured.modalities),
        "coalitions_complete": _means(values[:, complete], measured.modalities) if complete.any() else {},
        "modalities": {},
        "complete": {"n": int(complete.sum()), "modalities": {}},
        "waterfall": _waterfall(measured),
        "interactions": {},
        "performance": {
            "metric": PERFORMANCE[answers[0].value.kind][0],
            "baseline": "absent",
            "nothing": PERFORMANCE[answers[0].value.kind][2],
            "positives": int((labelled.y == 1).sum()) if answers[0].value.kind == "binary" else None,
            "n_complete": int(labelled.complete.sum()),
            "shapley": {},
            "shapley_observed": {},
        },
    }
    for finding in findings:
        _put(result, finding)
    for column, name in enumerate(measured.modalities):
        if name in result["modalities"]:
            entry = result["modalities"][name]
            entry["coverage"] = float(answers[0].has[:, column].mean())
            for measure in measured.measures:
                entry |= measure.further(answers, column) if isinstance(measure, Measure) else {}
    if complete.any():
        inside, how = [of_model.within(complete) for of_model in answers], resampling.within(complete)
        for measure in measured.measures:
            for finding in measure.findings(inside, measured.modalities, how) if isinstance(measure, Measure) else []:
                if finding.place[0] == "modalities":
                    _put(result["complete"], finding)
    return result


def _put(result: dict[str, Any], finding: Finding) -> None:
    """Writes a number where it belongs."""
    for key in finding.place:
        result = result.setdefault(key, {})
    result |= finding.interval.to_dict()


def _means(values: Array, modalities: tuple[str, ...]) -> dict[str, float]:
    mean = values.mean(axis=(0, 1))
    return {subset_name(mask, modalities): float(mean[mask]) for mask in subsets(modalities)}


def _waterfall(measured: _Measured) -> dict[str, Any]:
    """From v(none) to v(all) in means over all studies, where a study that lacks a modality counts 0 for it."""
    values, phi = measured.values, np.nan_to_num(measured.shapley)
    steps = zip(measured.modalities, phi.mean(axis=(0, 1)), strict=True)
    return {
        "base": float(values[..., 0].mean()),
        "contributions": {name: float(step) for name, step in steps},
        "prediction": float(values[..., -1].mean()),
    }


def _labels(answers: Answers, classes: Sequence[str]) -> Array:
    """(N,) the table's name of each study's class, None where it has none; numbers as they are."""
    if answers.value.kind == "regression":
        return answers.y
    names = [classes[int(v)] if classes else f"{v:.0f}" for v in answers.y[np.isfinite(answers.y)]]
    labels = np.full(len(answers.y), None, dtype=object)
    labels[np.isfinite(answers.y)] = names
    return labels


def _groups(measured: _Measured, groups: Mapping[str, Array] | None, classes: Sequence[str]) -> dict[str, Array]:
    """The given groupings, the label's classes, and the patterns of modalities."""
    studies, answers = measured.studies, measured.answers[0]
    found = {name: np.asarray(labels, dtype=object) for name, labels in (groups or {}).items()}
    if answers.value.kind != "regression":
        found["label"] = np.array([name or "" for name in _labels(answers, classes)], dtype=object)
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
    answers = {how.baseline: measured.answers}
    for baseline in sweep:
        if baseline not in answers:
            other = Intervention(baseline, how.empty, min(how.draws, SWEEP_DRAWS), how.seed)
            answers[baseline] = [
                study_answers(m, e, task, value=value, intervention=other, predictions=p, asks={VALUES}, device=device)
                for m, e, p in zip(models, measured.encoded, measured.predictions, strict=True)
            ]
    out = {
        baseline: {
            found.of: found.interval.to_dict()
            for found in _SHAPLEY.findings(of_models, measured.modalities, resampling)
            if found.quantity == _SHAPLEY.name
        }
        for baseline, of_models in answers.items()
    }
    phis = {baseline: np.stack([_SHAPLEY(a) for a in of_models]) for baseline, of_models in answers.items()}
    return {"shapley": out, "sign_flips": _sign_flips(phis, measured.modalities)}


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


def _rows(measured: _Measured, classes: Sequence[str]) -> pd.DataFrame:
    """One row per study and modality that it has, as means over the models."""
    studies, answers = measured.studies, measured.answers
    row, column = np.nonzero(studies.has)
    table = {
        "study_id": np.array(studies.study_id, dtype=object)[row],
        "modality": np.array(studies.modalities, dtype=object)[column],
        "prediction": np.mean([of_model.factual for of_model in answers], axis=0)[row],
    }
    for measure in measured.measures:
        columns = measure.columns(answers) if isinstance(measure, Measure) else {}
        table |= {name: values[row, column] for name, values in columns.items()}
    table["label"] = _labels(answers[0], classes)[row]
    first = [name for name in COLUMNS if name in table]
    return pd.DataFrame({name: table[name] for name in [*first, *(name for name in table if name not in first)]})
