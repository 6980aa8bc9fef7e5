"""Tensor fusion: the outer product of all modalities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear

#: Products in the tensor; with a width D of 64 the map behind it has 64 times as many weights.
LARGEST = 2**17


def outer_products(vectors: Tensor) -> Tensor:
    """(B, (d + 1)^M) the flattened outer product of [1; u_1], ..., [1; u_M], from vectors (B, M, d); the last varies fastest."""
    factors = torch.cat([torch.ones_like(vectors[..., :1]), vectors], dim=-1)
    product = factors[:, 0]
    for m in range(1, factors.shape[1]):
        product = (product.unsqueeze(2) * factors[:, m].unsqueeze(1)).flatten(1)
    return product


class TensorFusion(Fusion):
    """z = [1; u_1] x ... x [1; u_M] (outer product),  h = W z + b,  u_m = P_m x_m + p_m  (TFN, Zadeh et al. 2017)

    z holds every product of features of one, two, ... M modalities. An absent modality is [1; 0]: the products without it
    stay. The published networks of text, audio and video have widths of 128, 32 and 32; here each x_m is made `width`
    wide first, since z has (width + 1)^M numbers.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. width: d of the vectors that are multiplied; None multiplies the D-dimensional vectors themselves.

    Raises:
        ValueError: more than 131,072 products.
    """

    reads = "pooled"

    def __init__(self, modalities: Sequence[str], dim: int, width: int | None = 8) -> None:
        super().__init__(modalities, dim)
        count = len(self.modalities)
        products = ((dim if width is None else width) + 1) ** count
        if products > LARGEST:
            raise ValueError(
                f"tensor fusion of {count} modalities with width {dim if width is None else width} has {products:,} products, "
                f"at most {LARGEST:,}; fix: a smaller `width`, or LowRankTensorFusion"
            )
        self.narrow = None if width is None else OwnLinear(count, dim, width)
        self.out = nn.Linear(products, dim)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with one token per modality, tokens (B, M, D); see `Fusion.forward`."""
        tokens = self.table(encoded, present)
        vectors = tokens if self.narrow is None else self.narrow(tokens)
        vectors = torch.where(present.unsqueeze(-1), vectors, 0.0)
        return Fused(tokens, present, self.out(outer_products(vectors)))
