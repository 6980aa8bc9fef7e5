"""Labels that the other studies contradict: confident learning on what an embedding says of subjects it was not fitted to.

Northcutt, Jiang and Chuang 2021, Confident learning: estimating uncertainty in dataset labels (JAIR 70); by cleanlab.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.probes import STRENGTHS, cannot_fit, held_out_logits
from medssml.statistics.bootstrap import Array


@dataclass(frozen=True)
class Suspects:
    """What was found of one task's labels.

    Args:
        probability: (n, K) of each class by readouts of the other subjects; NaN for a study without a label.
        suspect: (n,) bool.
        wrong: the estimated share of labels that are wrong.
        taken_for: (K, K) estimated share of the studies of class j (column) that are labelled i (row); NaN for a class that
            no label has.
        setting: of the readouts.
    """

    probability: Array
    suspect: Array
    wrong: float
    taken_for: Array
    setting: dict[str, Any]

    def of_label(self, y: Array) -> Array:
        """(n,) held-out probability of each study's label, y (n,); NaN where there is none."""
        known = np.isfinite(y)
        out = np.full(len(y), np.nan)
        out[known] = self.probability[known, y[known].astype(int)]
        return out


def joined_embeddings(studies: EncodedStudies) -> Array:
    """(N, sum of D_m + M) what every encoder gave of a study, standardised, 0 where absent, and which modalities it has.

    Not the fused vectors: a fusion that was never fine-tuned need not keep what labels depend on.
    """
    parts = [studies.has.astype(np.float64)]
    for column, modality in enumerate(studies.modalities):
        if modality in studies.raw:
            given = studies.standardised(modality)
            filled = np.zeros((len(studies), given.shape[1]))
            filled[studies.has[:, column]] = given
            parts.append(filled)
    return np.concatenate(parts, axis=1)


def find_suspects(
    x: Array, y: Array, subjects: Array, *, kind: str = "binary", classes: int = 2, seed: int = 0
) -> Suspects | str:
    """Which labels a linear readout of the other folds' subjects contradicts, as many as confident learning counts.

    A study counts as class k where its probability of k is at least the mean among the studies labelled k. The counts of
    label and class say how many labels of each class are wrong, and the least probable labels are taken for them.

    Args:
        x: (n, D) embeddings. y: (n,) places of classes, NaN where unlabelled. subjects: (n,) ids: nobody is in two folds.
        kind: binary or multiclass. classes: K. seed: of the folds.

    Returns:
        what was found, or why nothing can be.
    """
    reason = cannot_fit(kind, y[np.isfinite(y)])
    if reason is not None:
        return reason
    answers = {
        strength: _probabilities(held_out_logits(x, y, subjects, strength, kind=kind, classes=classes, seed=seed), kind)
        for strength in STRENGTHS
    }
    # By how probable the labels are and not by their order, as a probe is chosen: it is probabilities that are counted.
    strength = min(answers, key=lambda key: _log_loss(y, answers[key]))
    probability = answers[strength]
    told = np.flatnonzero(np.isfinite(y) & np.isfinite(probability).all(axis=1))
    if len(told) == 0:
        return "no fold of the subjects has all classes"
    # Classes that no label has are none to be mistaken for.
    present = np.unique(y[told].astype(int))
    given = np.searchsorted(present, y[told].astype(int))
    shown = probability[told][:, present]
    shown = shown / shown.sum(axis=1, keepdims=True)
    flagged, joint = _confident(given, shown)
    suspect = np.zeros(len(y), dtype=bool)
    suspect[told[flagged]] = True
    taken_for = np.full((classes, classes), np.nan)
    taken_for[np.ix_(present, present)] = joint / np.maximum(joint.sum(axis=0, keepdims=True), 1e-12)
    return Suspects(probability, suspect, float(1 - np.trace(joint)), taken_for, {"C": strength})


def _probabilities(logits: Array, kind: str) -> Array:
    return np.asarray(softmax(logits, axis=1)) if kind == "multiclass" else np.c_[expit(-logits), expit(logits)]


def _log_loss(y: Array, probability: Array) -> float:
    known = np.isfinite(y) & np.isfinite(probability).all(axis=1)
    if not known.any():
        return float("inf")
    return float(-np.log(probability[known, y[known].astype(int)].clip(1e-12)).mean())


def _confident(given: Array, probability: Array) -> tuple[Array, Array]:
    """(n,) bool, and (K, K) the estimated joint of label (row) and class (column)."""
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues

    flagged = find_label_issues(given, probability, filter_by="prune_by_noise_rate", n_jobs=1)
    return np.asarray(flagged, dtype=bool), np.asarray(estimate_joint(given, probability))
