"""Heads that begin where a linear probe of the model as it is ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from medssml.encoders.heads import Head
from medssml.evaluation.probes import linear_readout
from medssml.evaluation.studies import EncodedStudies, fuse_studies
from medssml.model import MultimodalModel


def fit_heads(model: MultimodalModel, tasks: Sequence[str], studies: EncodedStudies, seed: int = 0) -> dict[str, str]:
    """Sets the head of each task to the logistic (or ridge) regression on the fused vectors of labelled studies.

    Linear probing, then fine-tuning (Kumar et al. 2022): a head that begins at random sends gradients through the model
    that say nothing of the task, and undo part of the pretraining before the head has found what is there. Each study
    counts with all that it has and, where it has several modalities, with each of them alone.

    Args:
        model: its heads are changed.
        tasks: of the model.
        studies: of the training split, from `encode_studies`.
        seed: of the folds on which the penalty is chosen.

    Returns:
        task -> what was done, in words; a task with too few labels keeps its head.
    """
    rows, within = _as_seen(studies.has)
    fused = fuse_studies(model, studies, torch.from_numpy(within), rows=torch.from_numpy(rows))
    x = torch.cat([part.pooled.detach() for part in fused]).double().numpy()
    said = {}
    for name in tasks:
        task, linear = model.tasks[name], cast(Head, model.heads[name]).linear
        y = studies.targets.get(name, np.full(len(studies), np.nan))[rows]
        found = linear_readout(x, y, studies.subject[rows], kind=task.kind, classes=task.n_classes, seed=seed)
        if isinstance(found, str):
            said[name] = f"its head begins at random: {found}"
            continue
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(found.weight))
            linear.bias.copy_(torch.from_numpy(found.bias))
        said[name] = f"its head begins as a linear probe, C = {found.setting['C']:g}"
    return said


def _as_seen(has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) studies and (n, M) what is seen of each: everything, and each modality alone where there are several."""
    rows, within = [np.flatnonzero(has.any(1))], [has[has.any(1)]]
    several = has.sum(1) > 1
    for column in range(has.shape[1]):
        chosen = np.flatnonzero(several & has[:, column])
        rows.append(chosen)
        within.append(np.tile(np.arange(has.shape[1]) == column, (len(chosen), 1)))
    return np.concatenate(rows), np.concatenate(within)
