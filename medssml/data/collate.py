"""Samples to a `Batch`: only rows that are present are gathered; nothing stands in for what is absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from medssml.batch import Batch, Inputs

Sample = dict[str, Any]


def collate(samples: Sequence[Sample], modalities: Sequence[str], tasks: Iterable[str] = ()) -> Batch:
    """The batch of `samples`, in their order.

    Args:
        samples: dicts of `StudyDataset.item`; an absent modality is an absent key. `views` of a sample are its further
            looks, each a dict of what differs from the first.
        modalities: names, the columns of `present`.
        tasks: names of the targets.

    Returns:
        tensors of one modality are stacked; those of differing length or channel count are filled up with 0 to the
        longest: channel 0 and attention 0 are no channel and no token. Targets are NaN where unlabelled.

    Raises:
        ValueError: no samples, or a modality whose tensors cannot be stacked.
    """
    if not samples:
        raise ValueError("no samples to make a batch of")
    present = torch.tensor([[m in sample for m in modalities] for sample in samples], dtype=torch.bool)
    inputs: dict[str, Inputs] = {}
    content: dict[str, Tensor] = {}
    for modality in modalities:
        having = [sample for sample in samples if modality in sample]
        if having:
            inputs[modality] = _gather([sample[modality] for sample in having], modality)
            known = [sample["content"][modality] for sample in having if modality in sample["content"]]
            if len(known) == len(having):
                content[modality] = torch.tensor(known, dtype=torch.int64)
    unknown = float("nan")
    return Batch(
        inputs=inputs,
        present=present.reshape(len(samples), len(modalities)),
        modalities=tuple(modalities),
        study_id=tuple(sample["study_id"] for sample in samples),
        subject=torch.tensor([sample["subject"] for sample in samples], dtype=torch.int64),
        key=torch.tensor([sample["key"] for sample in samples], dtype=torch.int64),
        targets={
            task: torch.tensor([sample["targets"].get(task, unknown) for sample in samples], dtype=torch.float64)
            for task in tasks
        },
        content=content,
        index=torch.tensor([sample.get("index", -1) for sample in samples], dtype=torch.int64),
        views=tuple(collate(looks, modalities, tasks) for looks in _further_looks(samples)),
    )


def _further_looks(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """The samples of the second look at each study, of the third, and so on."""
    for looks in zip(*(sample.get("views", ()) for sample in samples), strict=True):
        yield [{**sample, **look, "views": ()} for sample, look in zip(samples, looks, strict=True)]


def _gather(rows: list[Inputs], modality: str) -> Inputs:
    first = rows[0]
    if isinstance(first, dict):
        return {name: _stack([row[name] for row in rows], f"{modality}.{name}") for name in first}  # type: ignore[index]
    return _stack(rows, modality)  # type: ignore[arg-type]


def _stack(tensors: list[Tensor], name: str) -> Tensor:
    """(n, ...) the tensors, filled up with 0 at the end of every axis that differs."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) == 1:
        return torch.stack(tensors)
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"{name}: tensors with different numbers of axes cannot be stacked: {sorted(shapes)}")
    longest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    out = tensors[0].new_zeros(len(tensors), *longest)
    for row, tensor in enumerate(tensors):
        out[row][tuple(slice(n) for n in tensor.shape)] = tensor
    return out
