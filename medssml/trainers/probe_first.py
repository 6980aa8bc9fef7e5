"""Heads that begin where a linear probe of the model as it is ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from medssml.evaluation.encoded_studies import EncodedStudies, fuse_studies
from medssml.evaluation.probes import Readout, linear_readout
from medssml.evaluation.stacking import Part, Stack, stacked_readouts
from medssml.fusion.base import Evidence
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array
from medssml.trainers.label_weights import LabelWeights

#: The part of a stack that sees the fused vector; no modality is called so.
FUSED = "all together"
#: Features that vary less than this share of the one that varies most are not read, and directions that a projection shrinks
#: below this share of its largest not brought back: a head would have to stretch them as far again, and the first steps of
#: training, which move the projection a little, would change its answers beyond measure.
LEAST = 0.03


def fit_heads(
    model: MultimodalModel,
    tasks: Sequence[str],
    studies: EncodedStudies,
    seed: int = 0,
    weights: Mapping[str, LabelWeights] | None = None,
) -> dict[str, str]:
    """Sets the head of each task to the logistic (or ridge) regression on the vectors of labelled studies.

    Linear probing, then fine-tuning (Kumar et al. 2022): a head that begins at random sends gradients through the model
    that say nothing of the task, and undo part of the pretraining before the head has found what is there. The fused
    vector of each study is seen with all that it has and, where it has several modalities, with each of them alone. A
    head with evidence begins as a stack of that probe and of one for each modality: see `stacked_readouts`. A fusion that
    has room for what each modality says of each task is given that, and heads begin with its sum.

    Args:
        model: its heads are changed, and its fusion where that has room.
        tasks: of the model.
        studies: of the training split, from `encode_studies`.
        seed: of the folds on which the penalty is chosen.
        weights: task -> of the labels, above 0; 1 each for a task that is not named.

    Returns:
        task -> what was done, in words; a task with too few labels keeps its head.
    """
    asked = sum(_outputs(model, name) for name in tasks)
    counts = {name: (weights or {}).get(name) for name in tasks}
    if 0 < asked <= model.fusion.room:
        return _fit_fusion(model, tasks, studies, seed, counts)
    crowded = (
        "" if not model.fusion.room else f", as the fusion has room for {model.fusion.room} numbers and not {asked}"
    )
    rows, within = _as_seen(studies.has)
    fused = fuse_studies(model, studies, torch.from_numpy(within), rows=torch.from_numpy(rows))
    x = torch.cat([part.pooled.detach() for part in fused]).double().numpy()
    together = Part(x, rows, (within == studies.has[rows]).all(1))
    return {name: _fit_head(model, name, studies, together, seed, counts[name]) + crowded for name in tasks}


def _fit_head(
    model: MultimodalModel, name: str, studies: EncodedStudies, together: Part, seed: int, weights: LabelWeights | None
) -> str:
    task, head = model.tasks[name], model.heads[name]
    y = (studies.targets.get(name, np.full(len(studies), np.nan)) - task.mean) / task.sd
    kind, classes = task.kind, task.n_classes
    if not task.evidence:
        rows = together.study
        found = linear_readout(
            together.x, y[rows], studies.subject[rows], kind=kind, classes=classes, seed=seed,
            weights=None if weights is None else weights.of_whole(studies.study_id)[rows],
        )  # fmt: skip
        if isinstance(found, str):
            return f"its head begins at random: {found}"
        _set(head.linear, found.weight, found.bias)
        return f"its head begins as a linear probe, C = {found.setting['C']:g}"
    alone = {m: _alone(model, studies, m) for m in model.modalities if m in studies.encoded}
    stack = stacked_readouts(
        {FUSED: together, **alone}, y, studies.subject, kind=kind, classes=classes, seed=seed,
        **_counts_of(studies, weights),
    )  # fmt: skip
    if isinstance(stack, str):
        return f"its head begins at random: {stack}"
    fused = stack.readouts.get(FUSED)
    _set(head.linear, 0.0 if fused is None else fused.weight, stack.bias + (0.0 if fused is None else fused.bias))
    for modality in alone.keys() & stack.readouts.keys():
        _set(cast(nn.Linear, head.own[modality]), *_of_projected(model, modality, stack.readouts[modality]))
    return f"its head begins as a stack of linear probes, which count: {_counts(stack)}"


def _outputs(model: MultimodalModel, name: str) -> int:
    """How many numbers the head of a task gives."""
    return model.heads[name].linear.out_features


def _fit_fusion(
    model: MultimodalModel,
    tasks: Sequence[str],
    studies: EncodedStudies,
    seed: int,
    weights: Mapping[str, LabelWeights | None],
) -> dict[str, str]:
    """Stacks of the probes of each modality alone, placed in the fusion; see `Fusion.begin`."""
    alone = {m: _alone(model, studies, m) for m in model.modalities if m in studies.encoded}
    evidence: list[dict[str, Evidence]] = []
    said, bias = {}, {}
    for name in tasks:
        task = model.tasks[name]
        y = (studies.targets.get(name, np.full(len(studies), np.nan)) - task.mean) / task.sd
        stack = stacked_readouts(
            alone, y, studies.subject, kind=task.kind, classes=task.n_classes, seed=seed,
            **_counts_of(studies, weights[name]),
        )  # fmt: skip
        if isinstance(stack, str):
            said[name] = f"its head begins at random: {stack}"
            continue
        maps = {m: _of_projected(model, m, readout) for m, readout in stack.readouts.items()}
        bias[name] = (len(evidence), stack.bias)
        evidence += [{m: (w[k], float(b[k])) for m, (w, b) in maps.items()} for k in range(_outputs(model, name))]
        said[name] = f"the fusion begins as a stack of linear probes, which count: {_counts(stack)}"
    model.fusion.begin(evidence)
    directions = np.eye(model.dim)
    for name, (first, offset) in bias.items():
        head = model.heads[name]
        _set(head.linear, directions[first : first + len(offset)], offset)
        for own in head.own.values():
            _set(cast(nn.Linear, own), 0.0, np.zeros(1))
    return said


def _counts_of(studies: EncodedStudies, weights: LabelWeights | None) -> dict[str, Any]:
    """Those of `stacked_readouts`. A modality alone is looked at whatever else a study has."""
    if weights is None:
        return {}
    label, factors = weights.of_label(studies.study_id), weights.factors(studies.study_id, studies.modalities)
    alone = {name: label * factors[:, column] for column, name in enumerate(studies.modalities)}
    return {"weights": weights.of_whole(studies.study_id), "alone": alone}


def _counts(stack: Stack) -> str:
    return ", ".join(f"{part} {weight:.2f}" for part, weight in stack.weights.items())


def _alone(model: MultimodalModel, studies: EncodedStudies, modality: str) -> Part:
    """One modality as its encoder gave it. A penalty on the weights of what the projection made of it would take the
    directions that the projection stretches for the likelier ones: with few labels that costs. Of it, what the projection
    lets through: taken from before it, as its inverse would make rounding errors of features that do not vary as large as
    those that do."""
    layer = _projection(model, modality)
    with torch.no_grad():
        given = model.standardise[modality].cpu()(studies.raw[modality]).double().numpy()
    sd = given.std(0)
    varying = np.where(sd > LEAST * sd.max(), given, given.mean(0)) if len(given) else given
    x = varying @ (np.linalg.pinv(layer.weight, LEAST) @ layer.weight).T
    rows = np.flatnonzero(studies.has[:, studies.column(modality)])
    return Part(x, rows, np.ones(len(rows), bool), studies.measured.get(modality, 0))


def _of_projected(model: MultimodalModel, modality: str, readout: Readout) -> tuple[Array, Array]:
    """Weight and bias that say of the projected vector what `readout` says of the one of `_alone`."""
    layer = _projection(model, modality)
    weight = readout.weight @ np.linalg.pinv(layer.weight, LEAST)
    return weight, readout.bias - weight @ layer.bias


class _Projection(NamedTuple):
    weight: Array
    bias: Array


def _projection(model: MultimodalModel, modality: str) -> _Projection:
    layer = cast(nn.Linear, model.project[modality])
    return _Projection(layer.weight.detach().double().cpu().numpy(), layer.bias.detach().double().cpu().numpy())


@torch.no_grad()
def _set(layer: nn.Linear, weight: Array | float, bias: Array) -> None:
    layer.weight.copy_(torch.as_tensor(weight))
    layer.bias.copy_(torch.as_tensor(bias))


def _as_seen(has: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) studies and (n, M) what is seen of each: everything, and each modality alone where there are several."""
    rows, within = [np.flatnonzero(has.any(1))], [has[has.any(1)]]
    several = has.sum(1) > 1
    for column in range(has.shape[1]):
        chosen = np.flatnonzero(several & has[:, column])
        rows.append(chosen)
        within.append(np.tile(np.arange(has.shape[1]) == column, (len(chosen), 1)))
    return np.concatenate(rows), np.concatenate(within)
