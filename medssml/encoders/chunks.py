"""Encoders over a few studies at a time: a batch as large as a contrast wants, in the memory of a small one.

References: [1] Gao, Zhang, Han, Callan, Scaling deep contrastive learning batch size under memory limited setup (GradCache),
RepL4NLP 2021. [2] Chen, Xu, Zhang, Guestrin, Training deep nets with sublinear memory cost, arXiv:1604.06174 (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medssml.batch import Encoded, Inputs, row_count, select_rows


def in_chunks(
    encode: Callable[[Inputs, Tensor | None], Encoded], inputs: Inputs, keep: Tensor | None, size: int | None
) -> Encoded:
    """`encode(inputs, keep)`, whose activations are held for no more than `size` rows at a time.

    A first pass keeps what comes out and nothing of what lies between. Whatever is computed from all rows, and its gradient, is
    what it would be. When the gradient of what came out is there, each chunk passes once more, with the dropout of its first
    pass, and takes its rows of that gradient back; then its activations are gone. Memory: those of one chunk, and of each
    study what the encoder gives. Time: one more forward pass. Rows that see each other, as by batch norms, are not for this:
    see `batch_statistics`.

    Args:
        inputs: of n rows. keep: (n, K), or None.
        size: rows that pass together; None for all, and n rows or fewer pass together once.
    """
    rows = row_count(inputs)
    if size is None or rows <= size:
        return encode(inputs, keep)
    parts = []
    for start in range(0, rows, size):
        part = slice(start, start + size)
        given = select_rows(inputs, part), None if keep is None else keep[part]
        twice = torch.is_grad_enabled()
        parts.append(checkpoint(encode, *given, use_reentrant=False) if twice else encode(*given))
    return _joined(parts)


def batch_statistics(encoder: nn.Module) -> str | None:
    """The class of a norm over the batch in an encoder, as it is now; None where there is none."""
    for part in encoder.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and (part.training or part.running_mean is None):
            return type(part).__name__
    return None


def _joined(parts: Sequence[Encoded]) -> Encoded:
    """All rows; of an encoder that leaves padding out, a chunk's tokens are filled up to the longest."""
    layers = zip(*(part.layers for part in parts), strict=True)
    return Encoded(
        _rows([part.tokens for part in parts]),
        _rows([part.mask[..., None] for part in parts]).squeeze(2),
        torch.cat([part.pooled for part in parts]),
        tuple(_rows(layer) for layer in layers),
    )


def _rows(tokens: Sequence[Tensor]) -> Tensor:
    """(sum of n, N, D) from (n, N', D)."""
    longest = max(part.shape[1] for part in tokens)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in tokens])
