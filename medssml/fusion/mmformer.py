"""mmFormer: the tokens of each modality by themselves, then those of all that a study has together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.masked_attention import MaskedAttention
from medssml.layers import Transformer


class MMFormer(MaskedAttention):
    """X_m = transformer_m(X_m) for each present m;  then  [f; X_1 + e_1; ...; X_M + e_M] -> transformer -> the output at f

    The first transformers are within a modality, the second one between them (Zhang et al. 2022), a `MaskedAttention` over all
    tokens. The published network multiplies the features of absent modalities with zero at every scale, and attention still
    sees the zeros; here nobody looks at them, study by study, and no transformer runs on them.

    Its further losses are of the labels: the separate decoder of each modality is `unimodal_weight`, and a loss of the fused
    answer that begins later is `fused_weight`, a `Ramp`. Not here are the convolutions (encoders are the model's, positions
    theirs) and the losses at each scale of a segmentation.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: blocks between modalities. heads: attention heads. own_depth: blocks within each; the paper has one
            of both, and 8 heads, as remembered.
        mlp_ratio, dropout: of the blocks.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 1,
        heads: int = 4,
        own_depth: int = 1,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim, depth, heads, "all", mlp_ratio=mlp_ratio, dropout=dropout)
        self.within = nn.ModuleDict(
            {m: Transformer(dim, own_depth, heads, mlp_ratio, dropout) for m in self.modalities}
        )

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with tokens (B, 1 + N, D), the fusion token first; see `Fusion.forward`."""
        own = {}
        for column, part, _ in self.in_order(encoded, present):
            name = self.modalities[column]
            tokens = torch.where(part.mask.unsqueeze(-1), part.tokens, 0.0)
            own[name] = part._replace(tokens=self.within[name](tokens, part.mask))
        return super().forward(own, present)
