"""How well the words of a text and the regions of an image go together, word by word.

References: [1] Huang et al., GLoRIA, ICCV 2021. [2] Wang et al., MGCA, NeurIPS 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def word_region_similarity(
    regions: Tensor, words: Tensor, region_mask: Tensor, word_mask: Tensor, *, attend: float, match: float
) -> Tensor:
    """Z(i, j) = log sum over words t of j of exp(match * cos(c_ijt, w_jt)), the image read with each word of a text in turn.

        c_ijt = sum over regions r of a_ijtr v_ir,   a = softmax over r of (attend * softmax over t of v_ir . w_jt)

    Memory grows with Ni * Nj * T * D.

    Args:
        regions: (Ni, R, D) v. words: (Nj, T, D) w.
        region_mask: (Ni, R) bool. word_mask: (Nj, T) bool; a row of either without any real token is answered with NaN.
        attend: how sharply regions are chosen. match: how far the best word counts before the others.

    Returns:
        (Ni, Nj), in float32 or better.
    """
    with torch.autocast(regions.device.type, enabled=False):
        dtype = torch.promote_types(regions.dtype, torch.float32)
        v, w = regions.to(dtype), words.to(dtype)
        # Padding may hold anything: 0 * NaN is NaN.
        v, w = (torch.where(mask[..., None], x, 0.0) for x, mask in ((v, region_mask), (w, word_mask)))
        scores = torch.einsum("ird,jtd->ijtr", v, w)
        over_words = scores.masked_fill(~word_mask[None, :, :, None], -torch.inf).softmax(2)
        chosen = (attend * over_words).masked_fill(~region_mask[:, None, None, :], -torch.inf).softmax(3)
        seen = torch.einsum("ijtr,ird->ijtd", chosen, v)
        cosine = F.cosine_similarity(seen, w[None], dim=-1)
        return (match * cosine).masked_fill(~word_mask[None], -torch.inf).logsumexp(2)


def token_contrast(
    a: Tensor, b: Tensor, a_mask: Tensor, b_mask: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Each token of `a` finds what it sees in the `b` of its own study, among what the study's other tokens see.

        o_t = unit(sum over s of softmax over s of (a_t . b_s / temperature) b_s)
        term of t = [-log softmax over t' of (a_t . o_t' / temperature) at t  +  the same with a and o exchanged] / 2

    Tokens that are not real are neither asked nor candidates.

    Args:
        a: (n, T, D) unit vectors. b: (n, S, D) unit vectors. a_mask: (n, T) bool. b_mask: (n, S) bool, each row with a True.

    Returns:
        (n,) mean of the terms of each study, 0 where it has fewer than two tokens of `a`, and (n,) bool, where it has two.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = (torch.where(mask[..., None], x, 0.0) for x, mask in ((a, a_mask), (b, b_mask)))
        attention = (a @ b.mT / temperature).masked_fill(~b_mask[:, None, :], -torch.inf).softmax(-1)
        seen = F.normalize(attention @ b, dim=-1)
        logits = (a @ seen.mT / temperature).masked_fill(~a_mask[:, None, :], -torch.inf)
        own = logits.diagonal(dim1=1, dim2=2)
        by_token = logits.logsumexp(2) - own
        by_seen = (a @ seen.mT / temperature).masked_fill(~a_mask[:, :, None], -torch.inf).logsumexp(1) - own
    several = a_mask.sum(1) > 1
    asked = a_mask & several[:, None]
    terms = torch.where(asked, (by_token + by_seen) / 2, 0.0)
    return terms.sum(1) / asked.sum(1).clamp(min=1), several
