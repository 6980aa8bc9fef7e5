"""Probes of every subset of modalities: fitted on the training studies, scored on the studies that are reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medssml.evaluation.encoded_studies import EncodedStudies, bits, subset_name, subsets
from medssml.evaluation.probes import Probe, knn_probe, linear_probe
from medssml.evaluation.subsets import embed_subset
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array
from medssml.statistics.metrics import choose_threshold, score_task

METHODS = ("linear", "knn")
#: What probes are scored by; calibration is a matter of heads.
METRICS = ("auroc", "auprc", "balanced_accuracy", "brier", "r2", "mae")


@dataclass(frozen=True)
class Splits:
    """The same model's studies: those to fit on, those to choose on (or None), those to report."""

    train: EncodedStudies
    val: EncodedStudies | None
    test: EncodedStudies


@dataclass(frozen=True)
class Target:
    """What is probed for. kind: binary, multiclass or regression. classes: K of a multiclass task. names: of its classes, as
    the table has them. unit: of a number."""

    task: str
    kind: str
    classes: int = 2
    names: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Answers:
    """Scores of one probe. rows: (n,) positions among the reported studies. scores: (n,) or (n, K)."""

    rows: Array
    scores: Array


class FusedEmbeddings:
    """Fused embeddings of every subset, each computed when it is first asked for."""

    def __init__(self, model: MultimodalModel, splits: Splits, device: str | torch.device = "cpu") -> None:
        self.model, self.splits, self.device = model, splits, device
        self._known: dict[tuple[str, int], Array] = {}

    def of(self, split: str, mask: int) -> Array:
        """(N, D) of a split, seen through one subset."""
        if (split, mask) not in self._known:
            studies = getattr(self.splits, split)
            self._known[split, mask] = embed_subset(self.model, studies, mask, self.device)
        return self._known[split, mask]


def probe_subsets(
    embeddings: FusedEmbeddings, target: Target, *, n: int = 1000, seed: int = 0, methods: tuple[str, ...] = METHODS
) -> tuple[dict[str, Any], dict[int, Answers]]:
    """Probes of the fused embedding of every subset: one is fitted for each, on training studies that have all of it.

    Returns:
        method -> subset name -> metrics with intervals, or {"n": 0, "reason": ..}; and the linear probe's scores by the
        subset's bits.
    """
    splits = embeddings.splits
    found: dict[str, dict[str, Any]] = {method: {} for method in methods}
    answers: dict[int, Answers] = {}
    for mask in subsets(splits.test.modalities)[1:]:
        sides = {
            name: embeddings.of(name, mask) for name in ("train", "val", "test") if getattr(splits, name) is not None
        }
        holds = {name: _holding(getattr(splits, name), target, mask) for name in sides}
        if not holds["test"].any():
            continue
        name = subset_name(mask, splits.test.modalities)
        for method in methods:
            found[method][name], scores = _probe(method, sides, holds, splits, target, n, seed)
            if scores is not None and method == "linear":
                answers[mask] = scores
    return found, answers


def probe_encoders(
    splits: Splits, target: Target, *, n: int = 1000, seed: int = 0, methods: tuple[str, ...] = METHODS
) -> dict[str, Any]:
    """method -> modality -> metrics of probes of each encoder's own embedding, before fusion."""
    found: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for column, modality in enumerate(splits.test.modalities):
        sides = {}
        for name in ("train", "val", "test"):
            studies = getattr(splits, name)
            if studies is not None and modality in studies.raw:
                vectors = np.zeros((len(studies), studies.raw[modality].shape[1]))
                vectors[studies.has[:, column]] = studies.raw[modality].numpy()
                sides[name] = vectors
        if not {"train", "test"} <= set(sides):
            continue
        holds = {name: _holding(getattr(splits, name), target, 1 << column) for name in sides}
        if holds["test"].any():
            block = splits.test.measured.get(modality, 0)
            for method in methods:
                found[method][modality], _ = _probe(method, sides, holds, splits, target, n, seed, block)
    return found


def _holding(studies: EncodedStudies, target: Target, mask: int) -> Array:
    """(N,) bool: labelled studies that have all of a subset."""
    y = studies.targets.get(target.task, np.full(len(studies), np.nan))
    return np.isfinite(y) & ((bits(studies.has) & mask) == mask)


def _probe(
    method: str,
    sides: dict[str, Array],
    holds: dict[str, Array],
    splits: Splits,
    target: Target,
    n: int,
    seed: int,
    block: int = 0,
) -> tuple[dict[str, Any], Answers | None]:
    train, rows = holds["train"], np.flatnonzero(holds["test"])
    y = splits.train.targets[target.task][train] if train.any() else np.zeros(0)
    asked = sides["test"][rows]
    held = _validation(sides, holds, splits, target)
    if method == "linear":
        probe = linear_probe(
            sides["train"][train],
            y,
            splits.train.subject[train],
            asked,
            kind=target.kind,
            validation=held,
            classes=target.classes,
            seed=seed,
            block=block,
        )
    else:
        probe = knn_probe(sides["train"][train], y, asked, kind=target.kind, classes=target.classes)
    if probe.scores is None:
        return {"n": len(rows), "reason": probe.reason}, None
    return _scored(probe, probe.scores, rows, splits.test, target, n, seed), Answers(rows, probe.scores)


def _validation(
    sides: dict[str, Array], holds: dict[str, Array], splits: Splits, target: Target
) -> tuple[Array, Array] | None:
    if "val" not in sides or splits.val is None or not holds["val"].any():
        return None
    return sides["val"][holds["val"]], splits.val.targets[target.task][holds["val"]]


def _scored(
    probe: Probe, scores: Array, rows: Array, test: EncodedStudies, target: Target, n: int, seed: int
) -> dict[str, Any]:
    y, subject = test.targets[target.task][rows], test.subject[rows]
    found = score_task(target.kind, y, scores, subject, n=n, seed=seed, names=METRICS)
    out: dict[str, Any] = {"n": len(rows), "subjects": len(np.unique(subject))}
    if target.kind == "binary":
        out["positives"] = int(y.sum())
    return out | {name: interval.to_dict() for name, interval in found.items()} | {"probe": probe.setting}


def validation_threshold(y: Array, score: Array, least: int = 30) -> tuple[float, str]:
    """Threshold of balanced accuracy and where it comes from: the validation studies, or 0.5 where they are few."""
    known = np.isfinite(y)
    counts = np.unique(y[known], return_counts=True)[1]
    if known.sum() < least or len(counts) < 2 or counts.min() < 5:
        return 0.5, "fixed: too few labelled validation studies"
    return choose_threshold(y[known], score[known]), "validation"
