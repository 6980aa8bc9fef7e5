"""Each modality's tokens as a stream of its own: what operators that let tokens see each other work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, scatter


class Stream(NamedTuple):
    """One modality of the n_m studies that have it.

    tokens: (n_m, N, D), 0 where no token is real. mask: (n_m, N) bool. rows: (n_m,) positions of the studies in the batch.
    pooled: (n_m, D) vector that the fusion was given.
    """

    tokens: Tensor
    mask: Tensor
    rows: Tensor
    pooled: Tensor

    def with_tokens(self, tokens: Tensor) -> Stream:
        """The same with other tokens (n_m, N, D), 0 where no token is real."""
        return self._replace(tokens=torch.where(self.mask.unsqueeze(-1), tokens, 0.0))


Streams = dict[str, Stream]


def streams_of(fusion: Fusion, encoded: dict[str, Encoded], present: Tensor) -> Streams:
    """Modality -> its stream, in the order of the columns and in the dtype of the parameters; see `Fusion.in_order`."""
    dtype = next(fusion.parameters()).dtype
    out: Streams = {}
    for column, part, rows in fusion.in_order(encoded, present):
        tokens = torch.where(part.mask.unsqueeze(-1), part.tokens, 0.0).to(dtype)
        out[fusion.modalities[column]] = Stream(tokens, part.mask, rows, part.pooled)
    return out


def others_of(streams: Mapping[str, Stream], name: str, size: int) -> tuple[Tensor, Tensor]:
    """What the studies of one stream have besides: tokens (n_m, N', D) of all other modalities in a row, and their mask.

    A study that has nothing besides has no real token there; where no study of the batch has, N' is 0.
    """
    own = streams[name]
    others = [stream for other, stream in streams.items() if other != name]
    tokens = [scatter(stream.tokens, stream.rows, size)[own.rows] for stream in others]
    masks = [scatter(stream.mask, stream.rows, size)[own.rows] for stream in others]
    empty = own.tokens[:, :0], own.mask[:, :0]
    return torch.cat([empty[0], *tokens], dim=1), torch.cat([empty[1], *masks], dim=1)


def fused_of(pooled: Tensor, streams: Mapping[str, Stream]) -> Fused:
    """Fused with pooled (B, D) as the first token, then those of each modality; `parts` are the streams."""
    size = len(pooled)
    tokens = [pooled.unsqueeze(1), *(scatter(stream.tokens, stream.rows, size) for stream in streams.values())]
    first = torch.ones(size, 1, dtype=torch.bool, device=pooled.device)
    masks = [first, *(scatter(stream.mask, stream.rows, size) for stream in streams.values())]
    parts = {name: Encoded(stream.tokens, stream.mask, stream.pooled) for name, stream in streams.items()}
    return Fused(torch.cat([part.to(pooled.dtype) for part in tokens], 1), torch.cat(masks, 1), pooled, parts)


def led(streams: Mapping[str, Stream]) -> Streams:
    """The same with the pooled vector before the tokens, always real, as a CLS token."""
    return {
        name: stream._replace(
            tokens=torch.cat([stream.pooled.to(stream.tokens.dtype).unsqueeze(1), stream.tokens], dim=1),
            mask=torch.cat([stream.mask.new_ones(len(stream.mask), 1), stream.mask], dim=1),
        )
        for name, stream in streams.items()
    }


def unled(streams: Mapping[str, Stream]) -> Streams:
    """The same without the first token; see `led`."""
    return {
        name: stream._replace(tokens=stream.tokens[:, 1:], mask=stream.mask[:, 1:]) for name, stream in streams.items()
    }
