"""Latent fusion: a few learned vectors read one modality after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion
from medssml.fusion.streams import streams_of
from medssml.layers import Block, CrossBlock, initialise


class LatentFusion(Fusion):
    """l = latents;  `depth` times:  for each present m: l = l + attention(l, tokens of m), + mlp;  then a block over l
    h = mean of norm(l)    (Perceiver, Jaegle et al. 2021; HEALNet, Hemker et al. 2024)

    What it costs is linear in the number of tokens, so that volumes and long recordings are read whole. An absent modality
    is skipped, study by study. What it reads stays as it was: every pass reads the tokens themselves.

    Args:
        modalities: names, in the order of the columns of `present`, which is the order in which they are read.
        dim: D. depth: passes over the modalities. heads: attention heads.
        latents: L. tied: every pass has the same weights, as published.
        mlp_ratio, dropout: of the blocks.

    Raises:
        ValueError: no pass or no latent.
    """

    reads = "tokens"

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 2,
        heads: int = 4,
        latents: int = 16,
        *,
        tied: bool = True,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim)
        if depth < 1 or latents < 1:
            raise ValueError(f"depth {depth}, latents {latents}; fix: at least 1 of each")
        self.depth = depth
        self.latents = nn.Parameter(torch.randn(latents, dim) * 0.02)
        passes = range(1 if tied else depth)
        self.read = nn.ModuleDict(
            {
                name: nn.ModuleList([CrossBlock(dim, heads, mlp_ratio, dropout) for _ in passes])
                for name in self.modalities
            }
        )
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio, dropout) for _ in passes])
        self.blocks.apply(initialise)
        self.norm = nn.LayerNorm(dim)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with the latents as tokens (B, L, D); see `Fusion.forward`."""
        streams = streams_of(self, encoded, present)
        latents = self.latents.expand(len(present), -1, -1)
        for turn in range(self.depth):
            place = turn % len(self.blocks)
            for name, stream in streams.items():
                reading = self.read[name][place]  # type: ignore[index]
                latents = latents.index_put((stream.rows,), reading(latents[stream.rows], stream.tokens, stream.mask))
            latents = self.blocks[place](latents)
        latents = self.norm(latents)
        return Fused(latents, present.new_ones(latents.shape[:2]), latents.mean(1))
