"""One task's page of numbers: the model's head, or a linear probe where it has none, for every subset of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from medssml.evaluation.bayes import bayes_by_subset
from medssml.evaluation.encoded_studies import EncodedStudies, subset_name
from medssml.evaluation.probing import (
    Answers,
    FusedEmbeddings,
    Target,
    probe_encoders,
    probe_subsets,
    validation_threshold,
)
from medssml.evaluation.subsets import Predictions, predict_subsets, shown_targets, subset_metrics
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array, Interval
from medssml.statistics.calibration import curve
from medssml.statistics.metrics import metrics_of, score_task

#: Columns of predictions.csv, which it has even where nothing could be answered.
PREDICTION_COLUMNS = ("study_id", "subject", "split", "task", "subset", "probability", "y", "method")


@dataclass(frozen=True)
class TaskSettings:
    """How a task is evaluated.

    Args:
        bootstrap: resamples.
        seed: of the resamples and folds.
        probes: fit probes.
        device: where fusion runs.
        truth: of simulated studies, or None.
    """

    bootstrap: int = 1000
    seed: int = 0
    probes: bool = True
    device: str = "cpu"
    truth: pd.DataFrame | None = None


def evaluate_task(
    model: MultimodalModel,
    embeddings: FusedEmbeddings,
    target: Target,
    settings: TaskSettings,
    split_of: Mapping[str, str],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The entry of a task in metrics.json, and its rows of predictions.csv.

    Args:
        model: with or without a head for the task.
        embeddings: of the training, validation and reported studies.
        target: the task.
        settings: how.
        split_of: study id -> split.
    """
    entry = _of(target, embeddings.splits.test)
    frames = []
    if target.task in model.tasks:
        found, predictions = _by_head(model, embeddings, target, settings)
        entry |= found
        frames.append(predictions.table(split_of).assign(method="head"))
    if settings.probes:
        probed, answers = probe_subsets(embeddings, target, n=settings.bootstrap, seed=settings.seed)
        own = probe_encoders(embeddings.splits, target, n=settings.bootstrap, seed=settings.seed)
        entry["probes"] = {name: {"fused": probed[name], "encoder": own[name]} for name in probed}
        if target.task not in model.tasks:
            entry |= {"method": "linear probe", "subsets": {k: v for k, v in probed["linear"].items() if "probe" in v}}
            frames.append(probe_table(answers, target, embeddings.splits.test, split_of))
    if "subsets" not in entry:
        entry |= {"method": "none", "subsets": {}, "reason": "the model has no head for it, and no probe was fitted"}
        nothing = Interval(None, None, None, 0, reason=entry["reason"]).to_dict()
        entry["as_observed"] = {"n": 0} | dict.fromkeys(metrics_of(target.kind), nothing)
    return entry, stacked(frames)


def _of(target: Target, studies: EncodedStudies) -> dict[str, Any]:
    """What the task is, and which of its classes no reported study has."""
    entry: dict[str, Any] = {"kind": target.kind}
    if target.names:
        y = studies.targets.get(target.task, np.zeros(0))
        absent = [name for index, name in enumerate(target.names) if not (y == index).any()]
        entry |= {"classes": list(target.names), "absent_classes": absent}
    return entry | ({"unit": target.unit} if target.unit else {})


def stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of predictions.csv of several tasks or subsets; its columns where there is no row."""
    some = [frame for frame in frames if len(frame)]
    return pd.concat(some, ignore_index=True) if some else pd.DataFrame(columns=list(PREDICTION_COLUMNS))


def _by_head(
    model: MultimodalModel, embeddings: FusedEmbeddings, target: Target, settings: TaskSettings
) -> tuple[dict[str, Any], Predictions]:
    splits, task = embeddings.splits, target.task
    predictions = predict_subsets(model, splits.test, [task], settings.device)
    threshold, origin = 0.5, "not used"
    if target.kind == "binary":
        threshold, origin = 0.5, "fixed: no validation studies"
        if splits.val is not None:
            chosen_on = predict_subsets(model, splits.val, [task], settings.device)
            threshold, origin = validation_threshold(
                chosen_on.target(task), chosen_on.observed(chosen_on.probabilities(task))
            )
    bayes = None
    if settings.truth is not None:
        bayes = bayes_by_subset(settings.truth, predictions.study_id, task, predictions.modalities)
    how: dict[str, Any] = {"n": settings.bootstrap, "seed": settings.seed, "threshold": threshold, "bayes": bayes}
    entry = {
        "method": "head",
        "threshold": {"value": threshold, "from": origin},
        "subsets": subset_metrics(predictions, task, **how),
        "complete_cases": subset_metrics(predictions, task, only=complete_cases(predictions, task), **how),
        "as_observed": _observed(predictions, target, settings, threshold),
    }
    return entry, predictions


def complete_cases(predictions: Predictions, task: str) -> Array:
    """(N,) bool: labelled studies with every modality that any labelled study of the task has."""
    labelled = np.isfinite(predictions.target(task))
    covered = predictions.present[labelled].sum(axis=0) > 0
    return labelled & np.asarray(predictions.present[:, covered].all(axis=1))


def _observed(predictions: Predictions, target: Target, settings: TaskSettings, threshold: float) -> dict[str, Any]:
    """Every study from all that it has: what the model is worth in a clinic where patterns differ."""
    y, scores = predictions.target(target.task), predictions.observed(predictions.probabilities(target.task))
    some = predictions.present.any(axis=1)
    found = score_task(
        target.kind,
        np.where(some, y, np.nan),
        scores,
        predictions.subject,
        n=settings.bootstrap,
        seed=settings.seed,
        threshold=threshold,
    )
    known = np.isfinite(y) & some
    out: dict[str, Any] = {"n": int(known.sum())} | {name: interval.to_dict() for name, interval in found.items()}
    if target.kind == "binary" and known.any():
        out["calibration"] = curve(y[known], scores[known])
    return out


def probe_table(
    answers: Mapping[int, Answers], target: Target, studies: EncodedStudies, split_of: Mapping[str, str]
) -> pd.DataFrame:
    """predictions.csv of the linear probes."""
    frames = []
    for mask, (rows, scores) in ((mask, (a.rows, a.scores)) for mask, a in answers.items()):
        classes = scores.shape[1] if scores.ndim == 2 else 1
        repeat = np.repeat(rows, classes)
        ids = np.array(studies.study_id, dtype=object)[repeat]
        columns: dict[str, Any] = {
            "study_id": ids,
            "subject": studies.subject[repeat],
            "split": [split_of.get(str(study), "") for study in ids],
            "task": target.task,
            "subset": subset_name(mask, studies.modalities),
            "probability": scores.reshape(-1),
            "y": shown_targets(studies.targets[target.task][repeat], target.kind, target.names),
            "method": "linear probe",
        }
        if classes > 1:
            columns["class"] = np.tile(np.array(target.names or range(classes), dtype=object), len(rows))
        frames.append(pd.DataFrame(columns))
    return stacked(frames)
