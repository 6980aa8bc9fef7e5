"""Studies whose modalities are vectors, and a model that takes them as they are: what a remedy does with known numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.fusion import Fusion, MaskedAttention
from medssml.model import MultimodalModel, Task


class AsItIs(nn.Module):
    """The encoder of a vector (n, D): itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def vector_model(
    names: Sequence[str],
    dim: int,
    fusion: Callable[[Sequence[str], int], Fusion] | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> MultimodalModel:
    """A model whose encoded vectors are the inputs: nothing but the fusion and the heads has a parameter that matters."""
    made = MaskedAttention(names, dim, 1, 2) if fusion is None else fusion(names, dim)
    model = MultimodalModel({name: AsItIs(dim) for name in names}, made, tasks)
    for layer in model.project.values():
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
        layer.requires_grad_(False)
    model.standardise.eval()
    return model


def vector_batch(
    vectors: Mapping[str, Tensor],
    present: Tensor | None = None,
    targets: Mapping[str, Tensor] | None = None,
    *,
    epoch: int = 0,
) -> Batch:
    """The batch of B studies with vectors (B, D) of each modality, where present (B, M)."""
    names = tuple(vectors)
    count = len(vectors[names[0]])
    there = torch.ones(count, len(names), dtype=torch.bool) if present is None else present
    number = torch.arange(count)
    return Batch(
        inputs={name: vectors[name][there[:, j]] for j, name in enumerate(names) if bool(there[:, j].any())},
        present=there,
        modalities=names,
        study_id=tuple(map(str, range(count))),
        subject=number,
        key=number + 100_000 * epoch,
        targets=dict(targets or {}),
        index=number,
    )
