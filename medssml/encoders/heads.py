"""Prediction heads: a fused vector in, the logits of one task out."""

from __future__ import annotations

from torch import Tensor, nn

KINDS = ("binary", "multiclass", "regression")


class Head(nn.Module):
    """One linear map, so that a head reads what pretraining has put there and no more.

    Args:
        dim: D of the input.
        kind: "binary", "multiclass" or "regression".
        n_classes: K of a multiclass task.
    """

    def __init__(self, dim: int, kind: str = "binary", n_classes: int = 2) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
        if kind == "multiclass" and n_classes < 2:
            raise ValueError(f"a multiclass task has at least 2 classes, not {n_classes}")
        self.kind = kind
        self.linear = nn.Linear(dim, n_classes if kind == "multiclass" else 1)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B,) logits, or the value of a regression, or (B, K) logits, from pooled (B, D)."""
        out = self.linear(pooled)
        return out if self.kind == "multiclass" else out.squeeze(-1)
