"""Co-attention: a stream for each modality, whose tokens look at those of all others, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear
from medssml.fusion.streams import Streams, fused_of, led, others_of, streams_of, unled
from medssml.layers import Block, CrossBlock, initialise


class CoAttention(Fusion):
    """`depth` times for each present m (ViLBERT, Lu et al. 2019), every weight its own:

        x_m = x_m + attention(x_m; all tokens of the others), + mlp       co-attention: keys and values are the others'
        x_m = x_m + attention(x_m; x_m), + mlp

    h = product over present m of (W_m first_m + c_m), elementwise, the factor of an absent modality 1: the published product
    of the two streams' pooled tokens. x_m begins as [pooled of m; tokens of m], and first_m is the first of norm(x_m). With
    more than two modalities a stream attends to the tokens of all others in a row; one that is alone is left to itself.
    Pre-norm. The offsets c_m begin at 1.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: layers (6 in the paper). heads: attention heads.
        mlp_ratio, dropout: of the blocks.
    """

    reads = "tokens"

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 2,
        heads: int = 4,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim)
        self.depth = depth
        names = self.modalities if len(self.modalities) > 1 else ()
        self.co = nn.ModuleDict(
            {m: nn.ModuleList([CrossBlock(dim, heads, mlp_ratio, dropout) for _ in range(depth)]) for m in names}
        )
        self.own = nn.ModuleDict(
            {m: nn.ModuleList([Block(dim, heads, mlp_ratio, dropout) for _ in range(depth)]) for m in self.modalities}
        )
        self.own.apply(initialise)
        self.norm = nn.LayerNorm(dim)
        self.factors = OwnLinear(len(self.modalities), dim, dim)
        nn.init.ones_(self.factors.bias)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with tokens (B, 1 + N, D), pooled as the first one; see `Fusion.forward`."""
        size = len(present)
        streams = led(streams_of(self, encoded, present))
        for layer in range(self.depth):
            streams = self._layer(layer, streams, size)

        firsts = self.factors.weight.new_zeros(*present.shape, self.dim)
        for name, stream in streams.items():
            at = torch.full_like(stream.rows, self.modalities.index(name))
            firsts = firsts.index_put((stream.rows, at), self.norm(stream.tokens[:, 0]).to(firsts.dtype))
        factors = torch.where(present.unsqueeze(-1), self.factors(firsts), 1.0)
        return fused_of(factors.prod(1), unled(streams))

    def _layer(self, layer: int, streams: Streams, size: int) -> Streams:
        # All look at what the layer was given, so that the order of the modalities means nothing.
        out: Streams = {}
        for name, stream in streams.items():
            tokens = stream.tokens
            if self.co:
                tokens = self.co[name][layer](tokens, *others_of(streams, name, size))  # type: ignore[index]
            out[name] = stream.with_tokens(self.own[name][layer](tokens, stream.mask))  # type: ignore[index]
        return out
