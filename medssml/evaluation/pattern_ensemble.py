"""One head for every subset of modalities: the costly line above what one model of all subsets can answer.

ACN and SMU-Net train a network per subset of what may be there; here the encoders are given and each subset has a linear head
of its own, fitted to the training studies that have at least that subset. Nothing is missing in its training, and nothing when it
answers; 2^M - 1 heads of which each sees fewer studies are the price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from medssml.evaluation.encoded_studies import EncodedStudies, bits, subsets
from medssml.evaluation.probes import Readout, linear_readout
from medssml.evaluation.subsets import Predictions
from medssml.model import Task
from medssml.statistics.bootstrap import Array

#: Probabilities of a class end here, so that the answer to nothing is finite.
LEAST = 1e-6


def pattern_ensemble(
    train: EncodedStudies,
    asked: EncodedStudies,
    tasks: Mapping[str, Task],
    *,
    validation: EncodedStudies | None = None,
    seed: int = 0,
) -> Predictions:
    """What the head of each subset answers, for every subset of what each study has.

    Logistic (ridge) regression on the vectors of the subset's modalities, one after the other, before any fusion. A subset that
    has too few labelled training studies is answered by the largest part of it that has enough, and nothing by the share of each
    class, or the mean, in training.

    Args:
        train: studies that the heads are fitted to.
        asked: studies that are answered, of the same encoders.
        tasks: name -> task.
        validation: on which the strength of the penalty is chosen; folds of the training subjects where it is None or small.
        seed: of the folds.

    Raises:
        ValueError: other modalities, or a task that no training study is labelled for.
    """
    if train.modalities != asked.modalities:
        raise ValueError(
            f"training studies of {', '.join(train.modalities)}, asked ones of {', '.join(asked.modalities)}"
        )
    outputs = {}
    for name, task in tasks.items():
        y = train.targets.get(name, np.full(len(train), np.nan))
        if not np.isfinite(y).any():
            raise ValueError(f"no training study is labelled for {name!r}; fix: another task or split")
        heads = _heads(train, y, name, task, validation, seed)
        outputs[name] = _answers(asked, heads, _of_nothing(y, task), task)
    return Predictions(
        outputs=outputs,
        kinds={name: task.kind for name, task in tasks.items()},
        present=asked.has,
        modalities=asked.modalities,
        study_id=asked.study_id,
        subject=asked.subject,
        targets=asked.targets,
        classes={name: task.classes for name, task in tasks.items()},
    )


def vectors_of(studies: EncodedStudies, subset: int) -> tuple[Array, Array]:
    """(n,) places of the studies that have all of a subset, and (n, size x D) their vectors, one modality after the other."""
    rows = np.flatnonzero((bits(studies.has) & subset) == subset)
    at = torch.from_numpy(rows)
    parts = [
        studies.encoded[name].pooled[studies.position(name)[at]].numpy()
        for column, name in enumerate(studies.modalities)
        if subset >> column & 1 and name in studies.encoded
    ]
    return rows, np.concatenate(parts, axis=1).astype(np.float64) if parts else np.zeros((0, 0))


def _heads(
    train: EncodedStudies, y: Array, name: str, task: Task, validation: EncodedStudies | None, seed: int
) -> dict[int, Readout]:
    """Subset -> its head, where there are labels enough."""
    heads = {}
    for subset in subsets(train.modalities)[1:]:
        rows, x = vectors_of(train, subset)
        if len(rows) == 0:
            continue
        held = None
        if validation is not None and name in validation.targets:
            others, xv = vectors_of(validation, subset)
            held = (xv, validation.targets[name][others]) if len(others) else None
        found = linear_readout(
            x, y[rows], train.subject[rows], kind=task.kind, validation=held, classes=task.n_classes, seed=seed
        )
        if isinstance(found, Readout):
            heads[subset] = found
    return heads


def _answers(asked: EncodedStudies, heads: Mapping[int, Readout], nothing: Array, task: Task) -> Array:
    """(N, 2^M) logits or values, or (N, 2^M, K)."""
    order = subsets(asked.modalities)
    by_size = sorted(heads, key=lambda subset: subset.bit_count(), reverse=True)
    out = np.tile(nothing, (len(asked), len(order), 1))
    full = bits(asked.has)
    for seen in order[1:]:
        # Of each subset a study is answered from what it has of it.
        which = np.array([mask for mask in order if mask & seen == seen])
        head = _largest_part(by_size, seen)
        if head is None:
            continue
        rows, x = vectors_of(asked, head)
        logits = x @ heads[head].weight.T + heads[head].bias
        place = np.full(len(asked), -1)
        place[rows] = np.arange(len(rows))
        for mask in which:
            exactly = np.flatnonzero((full & mask) == seen)
            out[exactly, mask] = logits[place[exactly]]
    return out if task.kind == "multiclass" else out[..., 0]


def _largest_part(by_size: Iterable[int], seen: int) -> int | None:
    """The largest subset with a head that lies in `seen`."""
    return next((subset for subset in by_size if subset & seen == subset), None)


def _of_nothing(y: Array, task: Task) -> Array:
    """(K,) or (1,) what is answered to nothing."""
    known = y[np.isfinite(y)]
    if task.kind == "regression":
        return np.array([known.mean()])
    share = np.clip(np.bincount(known.astype(int), minlength=task.n_classes) / len(known), LEAST, 1.0)
    return np.log(share) if task.kind == "multiclass" else np.log(share[1:2]) - np.log(share[:1])
