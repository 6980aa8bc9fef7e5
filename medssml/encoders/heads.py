"""Prediction heads: a fused study in, the logits of one task out."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.batch import Fused

KINDS = ("binary", "multiclass", "regression")


class PatternScale(nn.Module):
    """u = scale[s] z + shift[s] of logits z, s the bits of what was seen: answers as sure as they are right, by subset.

    Both are set when training is over (`medssml.trainers.calibration`), not learned; at first nothing changes.

    Args:
        modalities: M, of the columns of `present`; there are 2^M subsets.
        outputs: K of a multiclass task, 1 of a binary one.
    """

    scale: Tensor
    shift: Tensor
    bit: Tensor

    def __init__(self, modalities: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(2**modalities))
        self.register_buffer("shift", torch.zeros(2**modalities, outputs))
        self.register_buffer("bit", 2 ** torch.arange(modalities), persistent=False)

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """(B, K) logits of studies of which `present` (B, M) was seen."""
        subset = (present * self.bit).sum(1)
        return logits * self.scale[subset, None] + self.shift[subset]


class Head(nn.Module):
    """One linear map, so that a head reads what pretraining has put there and no more.

        logits = W h + b + sum over seen m of (W_m x_m + b_m)

    The sum, with h the fused and x_m each modality's own vector, is there where `evidence` names modalities: what one of
    them says of this task then has weights of its own, and one that says nothing can be left out (late fusion). It begins
    at zero. Where the head is calibrated, `PatternScale` of these logits is answered.

    A regression is learned in standard deviations of its training studies and answered in the unit of the table:

        value = mean + sd logit, where W and b begin at zero, so that the first answer is the training mean.

    Args:
        dim: D of the input.
        kind: "binary", "multiclass" or "regression".
        n_classes: K of a multiclass task.
        evidence: modalities with weights of their own, in the order of the columns; none by default.
        mean, sd: of the training targets of a regression, in their unit.
    """

    def __init__(
        self,
        dim: int,
        kind: str = "binary",
        n_classes: int = 2,
        evidence: Sequence[str] = (),
        mean: float = 0.0,
        sd: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
        if kind == "multiclass" and n_classes < 2:
            raise ValueError(f"a multiclass task has at least 2 classes, not {n_classes}")
        self.kind, self.mean, self.sd = kind, mean, sd
        size = n_classes if kind == "multiclass" else 1
        self.linear = nn.Linear(dim, size)
        if kind == "regression":
            nn.init.zeros_(self.linear.weight)
        else:
            nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.own = nn.ModuleDict({name: nn.Linear(dim, size) for name in evidence})
        for parameter in self.own.parameters():
            nn.init.zeros_(parameter)
        self.calibration: PatternScale | None = None

    def forward(self, fused: Fused) -> Tensor:
        """(B,) logits, or (B,) float64 values of a regression, or (B, K) logits.

        Raises:
            ValueError: a head with evidence, or a calibrated one, is not told what was seen.
        """
        out = self.linear(fused.pooled)
        if (self.own or self.calibration is not None) and fused.present is None:
            raise ValueError("this head reads what was seen; fuse with MultimodalModel.fuse")
        for column, (name, layer) in enumerate(self.own.items()):
            if name in fused.parts and fused.present is not None:
                rows = fused.present[:, column].nonzero().squeeze(1)
                out = out.index_add(0, rows, layer(fused.parts[name].pooled).to(out.dtype))
        if self.calibration is not None and fused.present is not None:
            out = self.calibration(out, fused.present)
        if self.kind == "regression":
            # float64: beside a mean of a thousand million, float32 has steps of 64.
            return out.squeeze(-1).double() * self.sd + self.mean
        return out if self.kind == "multiclass" else out.squeeze(-1)


class Heads(nn.Module):
    """Task -> its head, as an `nn.ModuleDict`, but for any name: a task may be called `type` or `FEV1.0`.

    Weights are saved under the name itself where PyTorch takes it, and under one that it takes where it does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._key_of: dict[str, str] = {}

    def __setitem__(self, task: str, head: nn.Module) -> None:
        key = _key(task)
        self.add_module(key, head)
        self._key_of[task] = key

    def __getitem__(self, task: str) -> Head:
        return cast(Head, self._modules[self._key_of[task]])

    def __delitem__(self, task: str) -> None:
        del self._modules[self._key_of.pop(task)]

    def __contains__(self, task: object) -> bool:
        return task in self._key_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._key_of)

    def __len__(self) -> int:
        return len(self._key_of)

    def items(self) -> ItemsView[str, Head]:
        """Task and head, in the order in which they came."""
        return {task: self[task] for task in self._key_of}.items()


def _key(task: str) -> str:
    """A name that a submodule can have: of those that none can have, a dot is written as %2E and a % goes before it all."""
    if "." not in task and not task.startswith("%") and not hasattr(nn.ModuleDict, task) and task != "training":
        return task
    return "%" + task.replace("%", "%25").replace(".", "%2E")
