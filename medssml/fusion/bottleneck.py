"""Bottleneck fusion: modalities speak to each other through a few shared tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, scatter
from medssml.fusion.streams import Stream, fused_of, led, streams_of, unled
from medssml.layers import Block, initialise


class BottleneckFusion(Fusion):
    """[x_m; z_m] = block_m([x_m; z]) for each present m,  z = mean over present m of z_m    (MBT, Nagrani et al. 2021)

    x_m begins as [pooled of m; tokens of m], and pooled is read as its first token, as the published model reads a CLS
    token: h = mean over present m of norm(first of x_m), which under a linear head is the published mean of logits. All
    that a modality learns of another fits into a few vectors z. A study without anything has the norm of the mean of z.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. depth: blocks of each modality; what one says reaches the others in the second (4 in the paper, after 8
            layers that are the encoders' here). heads: attention heads.
        bottlenecks: tokens z; 4 in the paper.
        mlp_ratio, dropout: of the blocks.

    Raises:
        ValueError: fewer than two blocks, or no bottleneck.
    """

    reads = "tokens"

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 2,
        heads: int = 4,
        bottlenecks: int = 4,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim)
        if depth < 2 or bottlenecks < 1:
            raise ValueError(
                f"depth {depth}, bottlenecks {bottlenecks}; fix: at least 2 blocks, so that modalities hear of each other, "
                "and 1 bottleneck"
            )
        self.bottleneck = nn.Parameter(torch.randn(bottlenecks, dim) * 0.02)
        self.blocks = nn.ModuleDict(
            {
                name: nn.ModuleList([Block(dim, heads, mlp_ratio, dropout) for _ in range(depth)])
                for name in self.modalities
            }
        )
        self.blocks.apply(initialise)
        self.norm = nn.LayerNorm(dim)
        self.depth = depth

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with tokens (B, 1 + N, D), pooled as the first one; see `Fusion.forward`."""
        size, count = len(present), present.sum(1)
        shared = self.bottleneck.expand(size, -1, -1)
        streams = led(streams_of(self, encoded, present))

        # Each modality's block sees its own tokens and the shared ones; their copies are averaged over who is there.
        for layer in range(self.depth):
            copies = torch.zeros_like(shared)
            for name, stream in streams.items():
                own, copy = self._block(name, layer, stream, shared[stream.rows])
                streams[name] = stream.with_tokens(own)
                copies = copies + scatter(copy, stream.rows, size)
            shared = torch.where((count > 0)[:, None, None], copies / count.clamp(min=1)[:, None, None], shared)

        firsts = torch.zeros_like(shared[:, 0])
        for stream in streams.values():
            firsts = firsts + scatter(self.norm(stream.tokens[:, 0]), stream.rows, size)
        mean = firsts / count.clamp(min=1)[:, None]
        pooled = torch.where((count > 0)[:, None], mean, self.norm(shared.mean(1)))
        return fused_of(pooled, unled(streams))

    def _block(self, name: str, layer: int, stream: Stream, shared: Tensor) -> tuple[Tensor, Tensor]:
        """A modality's block over [x_m; z]: its own (n_m, 1 + N, D), and its copy of the shared ones (n_m, Z, D)."""
        seen = torch.cat([stream.mask, stream.mask.new_ones(shared.shape[:2])], dim=1)
        out = self.blocks[name][layer](torch.cat([stream.tokens, shared], dim=1), seen)  # type: ignore[index]
        length = stream.tokens.shape[1]
        return out[:, :length], out[:, length:]
