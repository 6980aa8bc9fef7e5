"""Table encoder: a token per feature, whether it was measured or not, and a transformer over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Inputs
from medssml.encoders.base import Encoder, refuse_keep
from medssml.layers import Transformer


class TableEncoder(Encoder):
    """The feature tokenizer and transformer (FT-Transformer) of Gorishniy et al. 2021.

    A known value x of feature j is the token b_j + x w_j; an unknown one is a learned m_j, so that "not measured" can
    be told from "average". The pooled vector is that of a class token. What stands in an unknown place moves nothing.

    [1] Gorishniy, Rubachev, Khrulkov, Babenko, Revisiting deep learning models for tabular data, NeurIPS 2021.

    Args:
        features: F, as many as the transform has.
        dim: D. depth: layers. heads: attention heads.
        mlp_ratio: hidden width of the MLPs, as a multiple of dim.
        dropout: in the layers.
    """

    def __init__(
        self,
        features: int,
        dim: int = 64,
        depth: int = 2,
        heads: int = 4,
        *,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features is {features}, expected 1 or more")
        self.dim, self.features = dim, int(features)
        bound = dim**-0.5  # the paper's: uniform within +- 1 / sqrt(D)
        self.weight, self.bias, self.unknown = (
            nn.Parameter(torch.empty(self.features, dim).uniform_(-bound, bound)) for _ in range(3)
        )
        self.cls = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))
        self.transformer = Transformer(dim, depth, heads, mlp_ratio, dropout)

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes a dict of values (n, F) and known (n, F) bool; tokens (n, 1 + F, D), the class token first.

        Raises:
            ValueError: another input, or another number of features.
        """
        refuse_keep(self, keep)
        if not isinstance(inputs, dict) or inputs["values"].shape[1] != self.features:
            got = f"{inputs['values'].shape[1]} features" if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(f"TableEncoder received {got}, expected a dict of values and known, (n, {self.features})")
        known = inputs["known"].bool().unsqueeze(-1)

        # What is not known never enters a product: 0 * NaN is NaN.
        values = torch.where(known, inputs["values"].unsqueeze(-1), 0.0)
        tokens = torch.where(known, self.bias + values * self.weight, self.unknown)

        # All features see each other; the class token sees them all.
        tokens = torch.cat([self.cls.expand(len(tokens), 1, -1), tokens], dim=1)
        tokens, outputs = self.transformer.with_layers(tokens, None, layers)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens, mask, tokens[:, 0], outputs)
