"""Cross-modal attention: every modality's tokens look at those of every other one, in a tower for each direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, scatter
from medssml.fusion.streams import Stream, Streams, fused_of, streams_of
from medssml.layers import CrossBlock, Transformer, masked_mean


class CrossModalAttention(Fusion):
    """h = b + sum over present m of (W_m mean_m + b_m)    (MulT, Tsai et al. 2019)

        z_nm   = tower n -> m: `depth` blocks in which tokens of m attend to those of n, which stay as they are
        y_m    = transformer_m(mean over present n of z_nm);  mean_m the mean of its real tokens

    A study without n has no tower n -> m, and one that has m alone goes on with its own tokens. Against the published code:
    padding is masked everywhere, nothing is causal (a study is no stream), real tokens are averaged where it takes the
    last position, be it padding, and towers into m are averaged where it joins them, so that m takes any number of them.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: blocks of each tower (5 in the paper). heads: attention heads.
        own_depth: blocks of each transformer_m (3 in the paper).
        mlp_ratio, dropout: of the blocks.
    """

    reads = "tokens"

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
        super().__init__(modalities, dim)
        self.base = nn.Parameter(torch.zeros(dim))
        pairs = [(n, m) for m in self.modalities for n in self.modalities if n != m]
        self.towers = nn.ModuleDict(
            {
                f"{n} to {m}": nn.ModuleList([CrossBlock(dim, heads, mlp_ratio, dropout) for _ in range(depth)])
                for n, m in pairs
            }
        )
        self.own = nn.ModuleDict({m: Transformer(dim, own_depth, heads, mlp_ratio, dropout) for m in self.modalities})
        self.out = nn.ModuleDict({m: nn.Linear(dim, dim) for m in self.modalities})

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with tokens (B, 1 + N, D), pooled as the first one; see `Fusion.forward`."""
        streams = streams_of(self, encoded, present)
        mixed: Streams = {}
        pooled = self.base.expand(len(present), -1)
        for name, stream in streams.items():
            tokens = self.own[name](self._looked_around(name, streams, present), stream.mask)
            mixed[name] = stream.with_tokens(tokens)
            mean = self.out[name](masked_mean(tokens, stream.mask))
            pooled = pooled + scatter(mean, stream.rows, len(present))
        return fused_of(pooled, mixed)

    def _looked_around(self, name: str, streams: Streams, present: Tensor) -> Tensor:
        """(n_m, N, D) the mean of the towers that lead to a modality, its own tokens where there is none."""
        target = streams[name]
        total, count = torch.zeros_like(target.tokens), torch.zeros_like(target.rows)
        for other, source in streams.items():
            both = present[target.rows, self.modalities.index(other)]
            if other == name or not bool(both.any()):
                continue
            at = both.nonzero().squeeze(1)
            total = total.index_add(0, at, self._tower(f"{other} to {name}", target, source, at, len(present)))
            count = count + both
        towers = total / count.clamp(min=1)[:, None, None]
        return torch.where((count > 0)[:, None, None], towers, target.tokens)

    def _tower(self, key: str, target: Stream, source: Stream, at: Tensor, size: int) -> Tensor:
        rows = target.rows[at]
        context, mask = (scatter(part, source.rows, size)[rows] for part in (source.tokens, source.mask))
        x = target.tokens[at]
        for block in self.towers[key]:  # type: ignore[attr-defined]
            x = block(x, context, mask)
        return x
