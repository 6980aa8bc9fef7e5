"""Prediction heads: a fused study in, the logits of one task out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medssml.batch import Fused

KINDS = ("binary", "multiclass", "regression")


class Head(nn.Module):
    """One linear map, so that a head reads what pretraining has put there and no more.

        logits = W h + b + sum over seen m of (W_m x_m + b_m)

    The sum, with h the fused and x_m each modality's own vector, is there where `evidence` names modalities: what one of
    them says of this task then has weights of its own, and one that says nothing can be left out (late fusion). It begins
    at zero.

    Args:
        dim: D of the input.
        kind: "binary", "multiclass" or "regression".
        n_classes: K of a multiclass task.
        evidence: modalities with weights of their own, in the order of the columns; none by default.
    """

    def __init__(self, dim: int, kind: str = "binary", n_classes: int = 2, evidence: Sequence[str] = ()) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
        if kind == "multiclass" and n_classes < 2:
            raise ValueError(f"a multiclass task has at least 2 classes, not {n_classes}")
        self.kind = kind
        size = n_classes if kind == "multiclass" else 1
        self.linear = nn.Linear(dim, size)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.own = nn.ModuleDict({name: nn.Linear(dim, size) for name in evidence})
        for parameter in self.own.parameters():
            nn.init.zeros_(parameter)

    def forward(self, fused: Fused) -> Tensor:
        """(B,) logits, or the value of a regression, or (B, K) logits.

        Raises:
            ValueError: a head with evidence is not told what was seen.
        """
        out = self.linear(fused.pooled)
        if self.own and fused.present is None:
            raise ValueError("this head reads each modality's own vector; fuse with MultimodalModel.fuse")
        for column, (name, layer) in enumerate(self.own.items()):
            if name in fused.parts and fused.present is not None:
                rows = fused.present[:, column].nonzero().squeeze(1)
                out = out.index_add(0, rows, layer(fused.parts[name].pooled).to(out.dtype))
        return out if self.kind == "multiclass" else out.squeeze(-1)
