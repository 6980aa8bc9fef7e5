"""Every missing pattern: each study is encoded once, then fused for every subset of its modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.evaluation.encoded_studies import (
    EncodedStudies,
    bits,
    encode_studies,
    fuse_studies,
    subset_name,
    subsets,
)
from medssml.manifest.labels import Label
from medssml.model import MultimodalModel
from medssml.predictor import probability
from medssml.statistics.bootstrap import Array, Interval, paired_bootstrap
from medssml.statistics.metrics import auroc, score_task


@dataclass(frozen=True)
class Predictions:
    """What a model answers for N studies, had it seen each subset of the modalities only.

    Args:
        outputs: task -> logits (N, 2^M), or (N, 2^M, K). Column s is the subset with bits s; a study that lacks a part
            of it is answered from what it has of it.
        kinds: task -> binary, multiclass or regression.
        present: (N, M) bool.
        modalities: names of the columns of `present`.
        study_id: (N) names.
        subject: (N,) int64.
        targets: task -> (N,) float, NaN where unlabelled.
        classes: task -> what the table calls its classes; their places where it is not said.
    """

    outputs: dict[str, Array]
    kinds: dict[str, str]
    present: Array
    modalities: tuple[str, ...]
    study_id: tuple[str, ...]
    subject: Array
    targets: dict[str, Array]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.study_id)

    @property
    def full(self) -> Array:
        """(N,) bits of what each study has."""
        return bits(self.present)

    def holds(self, subset: int) -> Array:
        """(N,) bool: studies that have all of a subset."""
        return (self.full & subset) == subset

    @property
    def complete(self) -> Array:
        """(N,) bool: studies that have every modality that any study has."""
        return np.asarray(self.present[:, np.flatnonzero(self.present.sum(axis=0))].all(axis=1))

    def probabilities(self, task: str) -> Array:
        """(N, 2^M) or (N, 2^M, K) probabilities; the value itself for a regression.

        Raises:
            KeyError: no such task.
        """
        if task not in self.outputs:
            raise KeyError(f"no task {task!r}; this model has {list(self.outputs) or 'none: it is pretrained only'}")
        return probability(torch.from_numpy(self.outputs[task]).double(), self.kinds[task]).numpy()

    def observed(self, values: Array) -> Array:
        """The column of `values` (N, 2^M, ...) that holds what each study really has: (N, ...)."""
        return values[np.arange(len(self)), self.full]

    def target(self, task: str) -> Array:
        """(N,) targets; all NaN for a task that the manifest does not label."""
        return self.targets.get(task, np.full(len(self), np.nan))

    def table(self, split: Mapping[str, str] | None = None) -> pd.DataFrame:
        """One row per study, task and subset that the study has all of (and per class of a multiclass task).

        Args:
            split: study id -> split, for the column `split`.
        """
        frames = [self._rows(task, subset) for task in self.outputs for subset in subsets(self.modalities)]
        table = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
        table.insert(2, "split", table["study_id"].map(dict(split or {})).fillna(""))
        return table

    def _rows(self, task: str, subset: int) -> pd.DataFrame:
        rows = np.flatnonzero(self.holds(subset))
        logits = self.outputs[task][rows, subset]
        scores = self.probabilities(task)[rows, subset]
        classes = logits.shape[1] if logits.ndim == 2 else 1
        names = self.classes.get(task, tuple(str(index) for index in range(classes)))
        repeat = np.repeat(rows, classes)
        frame = pd.DataFrame(
            {
                "study_id": np.array(self.study_id, dtype=object)[repeat],
                "subject": self.subject[repeat],
                "task": task,
                "subset": subset_name(subset, self.modalities),
                "logit": logits.reshape(-1),
                "probability": scores.reshape(-1),
                "y": shown_targets(self.target(task)[repeat], self.kinds[task], names),
            }
        )
        if classes > 1:
            frame.insert(4, "class", np.tile(np.array(names, dtype=object), len(rows)))
        return frame


def shown_targets(values: Array, kind: str, names: tuple[str, ...]) -> Array:
    """(n,) targets as results show them: classes by the table's name for them, 1 for the positive one of two, numbers."""
    return Label(kind, len(names), names).names(values) if kind == "multiclass" and names else values


def predict_subsets(
    model: MultimodalModel,
    source: EncodedStudies | Iterable[Batch],
    tasks: Iterable[str] | None = None,
    device: str | torch.device = "cpu",
) -> Predictions:
    """The model's answers for all 2^M subsets of every study's modalities.

    Args:
        model: with heads.
        source: encoded studies, or batches to encode.
        tasks: only these; None for all.
        device: where the model runs.

    Raises:
        KeyError: a task that the model does not have.
    """
    studies = source if isinstance(source, EncodedStudies) else encode_studies(model, source, device)
    names = list(model.tasks) if tasks is None else list(tasks)
    for name in names:
        if name not in model.tasks:
            raise KeyError(f"no task {name!r}; this model has {list(model.tasks) or 'none: it is pretrained only'}")
    model.eval().to(device)
    masks = subsets(studies.modalities)
    outputs: dict[str, list[Any]] = {name: [None] * len(masks) for name in names}
    for mask in masks:
        answers = predict_within(model, studies, within_subset(studies.present, mask), device=device)
        for name in names:
            outputs[name][mask] = answers[name]
    return Predictions(
        outputs={name: np.stack(columns, axis=1) for name, columns in outputs.items()},
        kinds={name: model.tasks[name].kind for name in names},
        present=studies.has,
        modalities=studies.modalities,
        study_id=studies.study_id,
        subject=studies.subject,
        targets=studies.targets,
        classes={name: model.tasks[name].classes for name in names},
    )


def within_subset(present: Tensor, mask: int) -> Tensor:
    """(N, M) bool: what of `present` lies in the subset with these bits."""
    columns = torch.tensor([bool(mask >> j & 1) for j in range(present.shape[1])])
    return present & columns


def predict_within(
    model: MultimodalModel,
    studies: EncodedStudies,
    within: Tensor,
    source: Tensor | None = None,
    rows: Tensor | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Array]:
    """Task -> logits (B,) or (B, K) of made-up studies; the arguments are those of `fuse_studies`."""
    parts: dict[str, list[Array]] = {name: [] for name in model.tasks}
    with torch.inference_mode():
        for fused in fuse_studies(model, studies, within, source, rows, device):
            for name, logits in model.predict_from(fused).items():
                # A regression's values are float64 already.
                parts[name].append(logits.to(torch.promote_types(logits.dtype, torch.float32)).cpu().numpy())
    return {name: np.concatenate(chunks) for name, chunks in parts.items()}


def answers_table(
    model: MultimodalModel,
    studies: EncodedStudies,
    tasks: Iterable[str],
    mask: int | None = None,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """study_id, task, subset, probability (and class), from the modalities of a subset; studies with none are left out."""
    within = studies.present if mask is None else within_subset(studies.present, mask)
    rows = np.flatnonzero(within.any(dim=1).numpy())
    answers = predict_within(model, studies, within, device=device)
    seen = [subset_name(int(b), studies.modalities) for b in bits(within.numpy())[rows]]
    ids = np.array(studies.study_id, dtype=object)[rows]
    frames = []
    for task in tasks:
        kind = model.tasks[task].kind
        scores = probability(torch.from_numpy(answers[task][rows]).double(), kind).numpy()
        classes = scores.shape[1] if scores.ndim == 2 else 1
        columns: dict[str, Any] = {
            "study_id": np.repeat(ids, classes),
            "task": task,
            "subset": np.repeat(np.array(seen, dtype=object), classes),
            "probability": scores.reshape(-1),
        }
        if classes > 1:
            columns["class"] = np.tile(np.array(model.tasks[task].classes, dtype=object), len(rows))
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def embed_subset(
    model: MultimodalModel, studies: EncodedStudies, mask: int | None = None, device: str | torch.device = "cpu"
) -> Array:
    """(N, D) fused embeddings from the modalities of a subset; None for all that each study has."""
    within = studies.present if mask is None else within_subset(studies.present, mask)
    return torch.cat(
        [fused.pooled.float().cpu() for fused in fuse_studies(model, studies, within, device=device)]
    ).numpy()


def subset_metrics(
    predictions: Predictions,
    task: str,
    *,
    n: int = 1000,
    seed: int = 0,
    threshold: float = 0.5,
    bayes: Mapping[str, Array] | None = None,
    only: Array | None = None,
) -> dict[str, dict[str, Any]]:
    """Subset name -> metrics with intervals, on the labelled studies that have all of the subset.

    Args:
        predictions: of all subsets.
        task: one of them.
        n: resamples.
        seed: of the resamples.
        threshold: of balanced accuracy.
        bayes: subset name -> (N,) the best possible probability of each study, where the truth is known; then each
            subset also gets the AUROC of that on the same studies, and the gap to it.
        only: (N,) bool, studies to look at.

    Returns:
        {"ct+xray": {"n": .., "positives": .., "auroc": {..}, ..}, ..}; subsets that no labelled study has are left out.
    """
    probabilities, y = predictions.probabilities(task), predictions.target(task)
    chosen = np.isfinite(y) if only is None else np.isfinite(y) & only
    out: dict[str, dict[str, Any]] = {}
    for subset in subsets(predictions.modalities):
        rows = np.flatnonzero(predictions.holds(subset) & chosen)
        if len(rows) == 0:
            continue
        score, subject = probabilities[rows, subset], predictions.subject[rows]
        kind = predictions.kinds[task]
        found = score_task(kind, y[rows], score, subject, n=n, seed=seed, threshold=threshold)
        name = subset_name(subset, predictions.modalities)
        out[name] = {"n": len(rows), "subjects": len(np.unique(subject))}
        if kind == "binary":
            out[name]["positives"] = int(y[rows].sum())
        out[name] |= {metric: interval.to_dict() for metric, interval in found.items()}
        if bayes is not None and name in bayes and kind == "binary":
            out[name]["bayes"] = _against_bayes(y[rows], score, np.asarray(bayes[name])[rows], subject, n, seed)
    return out


def _against_bayes(y: Array, score: Array, best: Array, subject: Array, n: int, seed: int) -> dict[str, Any]:
    """AUROC of the best possible prediction on the same studies, and by how much the model falls short of it."""
    known = np.isfinite(best)
    y, score, best, subject = y[known], score[known], best[known], subject[known]
    if len(np.unique(y)) < 2:
        nothing = Interval(None, None, None, len(y), reason="one class only").to_dict()
        return {"auroc": nothing, "gap": nothing}
    return {
        "auroc": score_task("binary", y, best, subject, n=n, seed=seed, names=("auroc",))["auroc"].to_dict(),
        "gap": paired_bootstrap(auroc, y, best, score, subject, n=n, seed=seed).to_dict(),
    }
