"""What a task is worth on aligned studies, beside the same studies as they are: apart, as it used the others of their group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from medssml.evaluation.alignment import Aligned
from medssml.evaluation.encoded_studies import bits, subset_name, subsets
from medssml.evaluation.probing import Answers, FusedEmbeddings, Target, probe_subsets
from medssml.evaluation.subsets import predict_subsets
from medssml.evaluation.tasks import TaskSettings, probe_table, stacked
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array, Interval, paired_bootstrap
from medssml.statistics.metrics import metrics_of, score_task, why_undefined

#: What is compared; slopes of calibration are not, a difference of which says little.
MEASURES = ("auroc", "auprc", "balanced_accuracy", "brier", "ece", "r2", "mae")


def transductive_task(
    model: MultimodalModel,
    embeddings: FusedEmbeddings,
    aligned: Aligned,
    groups: Array,
    target: Target,
    settings: TaskSettings,
    threshold: float = 0.5,
    split_of: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """A task's entry of `transductive` in metrics.json, and its rows of predictions_aligned.csv.

    Args:
        model: with a head for the task; else a linear probe answers where `settings.probes`.
        embeddings: of the studies as they are.
        aligned: the reported ones as moved.
        groups: (N,) group of each reported study.
        target: the task.
        settings: how.
        threshold: of balanced accuracy, the one that the studies as they are were measured with.
        split_of: study id -> split.

    Returns:
        {"method", "subsets": name -> figures, "as_observed": figures, "groups": moved group -> figures of as_observed}, where
        figures are {"n", "subjects", "positives", "inductive", "transductive", "difference"} and each of the last three holds
        metric -> interval; the difference is paired, aligned less as they are.
    """
    names = aligned.studies.modalities
    after = FusedEmbeddings(model, replace(embeddings.splits, test=aligned.studies), embeddings.device)
    (plain, _), (moved, table) = (_answers(model, of, target, settings, split_of or {}) for of in (embeddings, after))
    if not plain:
        return {"method": "none", "subsets": {}, "reason": "no head, no probe, or no labelled study"}, table
    figures = _Figures(target, embeddings, settings, threshold)
    rows, *both = _observed(plain, moved, bits(embeddings.splits.test.has))
    within = {name: np.isin(rows, np.flatnonzero(groups == name)) for name in _moved_groups(aligned)}
    entry = {
        "method": "head" if target.task in model.tasks else "linear probe",
        "subsets": {
            subset_name(mask, names): figures(found.rows, found.scores, moved[mask].scores)
            for mask, found in plain.items()
        },
        "as_observed": figures(rows, *both),
        "groups": {
            name: figures(rows[own], *(scores[own] for scores in both)) for name, own in within.items() if own.any()
        },
    }
    return entry, table.assign(method=f"{entry['method']}, aligned")


def _moved_groups(aligned: Aligned) -> list[str]:
    return [n for n, found in aligned.groups.items() if any(m["moved"] for m in found["modalities"].values())]


def _answers(
    model: MultimodalModel,
    embeddings: FusedEmbeddings,
    target: Target,
    settings: TaskSettings,
    split_of: Mapping[str, str],
) -> tuple[dict[int, Answers], pd.DataFrame]:
    """Bits of a subset -> scores of the labelled studies that have all of it, from it alone; and the answers as a table.

    Subsets for which no probe was fitted are left out.
    """
    studies = embeddings.splits.test
    if target.task not in model.tasks:
        if not settings.probes:
            return {}, stacked([])
        how: dict[str, Any] = {"n": settings.bootstrap, "seed": settings.seed, "methods": ("linear",)}
        answers = probe_subsets(embeddings, target, **how)[1]
        return answers, probe_table(answers, target, studies, split_of)
    predictions = predict_subsets(model, studies, [target.task], settings.device)
    scores, labelled = predictions.probabilities(target.task), np.isfinite(predictions.target(target.task))
    rows = {mask: np.flatnonzero(labelled & predictions.holds(mask)) for mask in subsets(studies.modalities)[1:]}
    return {m: Answers(own, scores[own, m]) for m, own in rows.items() if len(own)}, predictions.table(split_of)


def _observed(plain: Mapping[int, Answers], moved: Mapping[int, Answers], full: Array) -> tuple[Array, Array, Array]:
    """(n,) studies, and their scores both ways, from all that each has."""
    own = {mask: full[answers.rows] == mask for mask, answers in plain.items()}
    rows = np.concatenate([plain[mask].rows[here] for mask, here in own.items()])
    order = np.argsort(rows)
    before, after = (np.concatenate([a[mask].scores[here] for mask, here in own.items()]) for a in (plain, moved))
    return rows[order], before[order], after[order]


class _Figures:
    """Metrics of some studies both ways, and their paired difference."""

    def __init__(self, target: Target, embeddings: FusedEmbeddings, settings: TaskSettings, threshold: float) -> None:
        self.kind, self.settings, self.threshold = target.kind, settings, threshold
        studies = embeddings.splits.test
        self.y = studies.targets.get(target.task, np.full(len(studies), np.nan))
        self.subject = studies.subject

    def __call__(self, rows: Array, plain: Array, moved: Array) -> dict[str, Any]:
        y, subject = self.y[rows], self.subject[rows]
        how: dict[str, Any] = {"n": self.settings.bootstrap, "seed": self.settings.seed}
        each = {**how, "threshold": self.threshold, "names": MEASURES}
        out: dict[str, Any] = {"n": len(rows), "subjects": len(np.unique(subject))}
        if self.kind == "binary":
            out["positives"] = int(y.sum())
        for name, scores in (("inductive", plain), ("transductive", moved)):
            found = score_task(self.kind, y, scores, subject, **each)
            out[name] = {metric: interval.to_dict() for metric, interval in found.items()}
        reason = why_undefined(self.kind, y)
        out["difference"] = {}
        for metric, measure in metrics_of(self.kind, threshold=self.threshold).items():
            if metric in MEASURES:
                change = (
                    paired_bootstrap(measure, y, moved, plain, subject, **how)
                    if reason is None
                    else Interval(None, None, None, len(y), reason=reason)
                )
                out["difference"][metric] = change.to_dict()
        return out
