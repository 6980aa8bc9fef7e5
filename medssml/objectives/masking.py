"""Which tokens of each study are hidden."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medssml.objectives.draws import random_ranks, uniform


class Masking(NamedTuple):
    """A split of each study's real tokens into visible and hidden ones.

    keep: (n, K) int64 visible tokens, K those of the study that shows most; shorter rows are filled up with a token
    that is not real, or -1 where there is none. restore: (n, N) int64, where in [visible tokens, mask token] each token
    is found. masked: (n, N) bool, hidden and real.
    """

    keep: Tensor
    restore: Tensor
    masked: Tensor


def draw_masking(real: Tensor, keys: Tensor, ratio: float, purpose: str, *, seed: int = 0) -> Masking:
    """Hides `ratio` of each study's real tokens, at least one and not all; a study of one token shows it.

    Args:
        real: (n, N) bool. keys: (n,) int64, one seed per study. ratio: in (0, 1).
        purpose, seed: see `medssml.objectives.draws.uniform`.
    """
    rank = random_ranks(uniform(keys, real.shape[1], purpose, seed=seed), real)
    count = real.sum(1)
    hidden = (ratio * count).round().long().clamp(min=1)
    hidden = torch.minimum(hidden, (count - 1).clamp(min=0))
    return split(real, rank, count - hidden)


def split(real: Tensor, rank: Tensor, visible: Tensor) -> Masking:
    """Shows the first tokens of an order and hides the rest.

    Args:
        real: (n, N) bool. rank: (n, N) from `random_ranks`. visible: (n,) how many of each study, at most those that are real.
    """
    visible = visible[:, None]

    # The longest row decides K.
    longest = int(visible.max()) if len(visible) else 0
    order = rank.argsort(dim=1)
    own = torch.arange(longest, device=real.device)[None, :] < visible
    last = order[:, -1:]
    keep = torch.where(own, order[:, :longest], torch.where(real.gather(1, last), -1, last))

    restore = torch.where(rank < visible, rank, longest)
    return Masking(keep, restore, real & (rank >= visible))
