"""MIL-NCE: an image belongs to a report of which only some part may speak of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.losses.info_nce import InfoNCE
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, mean_of_terms, others_than
from medssml.objectives.clock import Ramp
from medssml.objectives.pairs import Sides, sides_of
from medssml.objectives.step import Step
from medssml.objectives.words import words_of_all
from medssml.spaces import ProjectionHead


class MILNCE(Objective):
    """loss = mean over studies of  -log  P_i / (P_i + N_i)

        P_i = sum over segments k of report i of exp(x_i . y_ik)
        N_i = sum over other reports j and their segments k of exp(x_i . y_jk)  +  over other images j of exp(x_j . y_ik)

    x_i is the projected pooled vector of a modality, y_ik the projected mean of `words` tokens in a row: a bag of positives, of
    which one that fits is enough. Each positive stands once in the denominator, so that the least loss is 0. Plain products,
    neither normalised nor divided by a temperature, as in the paper. No negatives: studies of one subject, identical inputs.

    [1] Miech et al., End-to-end learning of visual representations from uncurated instructional videos, CVPR 2020.

    Args:
        model: the model.
        anchor: the modality that is cut into segments.
        modalities: that are compared with it; all others by default.
        dim: of the space; 512 in the paper.
        words: tokens of a segment.
        weight: in the sum of objectives.
    """

    anchored = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        words: int = 8,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if words < 1:
            raise ValueError(f"words is {words}; expected a positive number of tokens")
        self.anchor, self.modalities = others_than(model, anchor, modalities, "MILNCE")
        self.words = words
        self.heads = nn.ModuleDict({name: ProjectionHead(model.dim, dim) for name in (self.anchor, *self.modalities)})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies that are nearer to their report than to any other."""
        text = words_of_all(step, self.anchor)
        means, real = segments(text.tokens, text.mask, self.words)
        y = self.heads[self.anchor](means)
        found = {}
        for name in self.modalities:
            x = self.heads[name](step.pooled_of_all(name))
            found[name] = mil_nce(x, y, real, sides_of(step, (name, self.anchor)))
        return mean_of_terms(found, step, self._count)

    def _count(self, step: Step) -> Tensor:
        sides = [sides_of(step, (name, self.anchor)) for name in self.modalities]
        return torch.stack([len(_asked(side)[0]) + side.partner.new_zeros(()) for side in sides]).sum()


def segments(tokens: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Means of `length` real tokens in a row.

    Args:
        tokens: (n, T, D). mask: (n, T) bool.

    Returns:
        (n, K, D), and (n, K) bool, which segments hold a token.
    """
    # A real token's place among the real ones: padding in between changes nothing.
    place = (mask.cumsum(1) - 1).clamp(min=0) // length
    count = -(-tokens.shape[1] // length)
    of = (place[..., None] == torch.arange(count, device=mask.device)) & mask[..., None]
    total = torch.einsum("ntk,ntd->nkd", of.to(tokens.dtype), torch.where(mask[..., None], tokens, 0.0))
    return total / of.sum(1).clamp(min=1)[..., None].to(tokens.dtype), of.any(1)


def mil_nce(x: Tensor, y: Tensor, real: Tensor, sides: Sides) -> InfoNCE:
    """Of every x with a bag of its own and a negative; see `MILNCE`.

    Args:
        x: (Na, D). y: (Nb, K, D). real: (Nb, K) bool.
    """
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(x.dtype, torch.float32)
        each = torch.einsum("id,jkd->ijk", x.to(dtype), y.to(dtype)).masked_fill(~real[None], -torch.inf)
        logits = each.logsumexp(2)
    rows, own = _asked(sides)
    positive = logits[rows, own]
    other_texts = logits[rows].masked_fill(~sides.negative[rows], -torch.inf)
    other_images = logits.T[own].masked_fill(~sides.negative.T[own], -torch.inf)
    total = torch.cat([positive[:, None], other_texts, other_images], 1).logsumexp(1) - positive
    nearest = positive.detach() > other_texts.detach().amax(1) if len(rows) else rows.bool()
    return InfoNCE(total.sum(), torch.tensor(len(rows), device=x.device), nearest.sum())


def _asked(sides: Sides) -> tuple[Tensor, Tensor]:
    """Rows with a partner and a negative in one of the two directions, and their partners."""
    negative = sides.negative
    rows = (sides.partner >= 0).nonzero().squeeze(1)
    own = sides.partner[rows]
    some = negative.any(1)[rows] | negative.any(0)[own]
    return rows[some], own[some]
