"""Cross-modality encoder: each modality by itself first, then layers in which all look at each other by the same weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, scatter
from medssml.fusion.streams import Streams, fused_of, led, others_of, streams_of, unled
from medssml.layers import Block, CrossAttention, Transformer, initialise


class CrossModalityEncoder(Fusion):
    """x_m = transformer_m([pooled of m; tokens of m]);  then `depth` times for each present m (LXMERT, Tan and Bansal 2019):

        x_m = x_m + attention(x_m; all tokens of the others)      the same weights in every direction
        x_m = x_m + attention(x_m; x_m), + mlp                    weights of its own

    h = tanh(W c + b), c the mean over present m of the first of norm(x_m), a learned vector where nothing is. Against
    `CoAttention` the cross-attention is shared and has no perceptron of its own, and each modality has layers before it.
    LXMERT pools the first token of the language, which a study may lack here. Pre-norm.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: cross-modality layers (5 in the paper). heads: attention heads.
        own_depth: layers of each modality before them (9 of language and 5 of vision in the paper).
        mlp_ratio, dropout: of the blocks.
    """

    reads = "tokens"

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 2,
        heads: int = 4,
        own_depth: int = 1,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim)
        self.depth = depth
        self.before = nn.ModuleDict(
            {m: Transformer(dim, own_depth, heads, mlp_ratio, dropout) for m in self.modalities}
        )
        between = range(depth if len(self.modalities) > 1 else 0)
        self.look = nn.ModuleList([nn.LayerNorm(dim) for _ in between])
        self.across = nn.ModuleList([CrossAttention(dim, heads, dropout) for _ in between])
        self.own = nn.ModuleDict(
            {m: nn.ModuleList([Block(dim, heads, mlp_ratio, dropout) for _ in range(depth)]) for m in self.modalities}
        )
        self.across.apply(initialise)
        self.own.apply(initialise)
        self.norm = nn.LayerNorm(dim)
        self.nothing = nn.Parameter(torch.randn(dim) * 0.02)
        self.pool = nn.Linear(dim, dim)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with tokens (B, 1 + N, D), pooled as the first one; see `Fusion.forward`."""
        size, count = len(present), present.sum(1, keepdim=True)
        streams = led(streams_of(self, encoded, present))
        streams = {m: s.with_tokens(self.before[m](s.tokens, s.mask)) for m, s in streams.items()}
        for layer in range(self.depth):
            streams = self._layer(layer, streams, size)

        total = self.nothing.new_zeros(size, self.dim)
        for stream in streams.values():
            total = total + scatter(self.norm(stream.tokens[:, 0]), stream.rows, size)
        mean = torch.where(count > 0, total / count.clamp(min=1), self.nothing)
        return fused_of(self.pool(mean).tanh(), unled(streams))

    def _layer(self, layer: int, streams: Streams, size: int) -> Streams:
        # All look at what the layer was given, so that the order of the modalities means nothing.
        out: Streams = {}
        for name, stream in streams.items():
            tokens = stream.tokens
            if self.across:
                others, mask = others_of(streams, name, size)
                look = self.look[layer]
                tokens = tokens + self.across[layer](look(tokens), look(others), mask)
            out[name] = stream.with_tokens(self.own[name][layer](tokens, stream.mask))  # type: ignore[index]
        return out
