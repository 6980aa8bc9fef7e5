"""Contrast across modalities that a share of wrong pairs does not mislead: RINCE in the place of InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medssml.bounds import bounded
from medssml.losses import InfoNCE
from medssml.losses.info_nce import cosine_logits
from medssml.losses.robust_info_nce import robust_terms
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.contrast import CrossModalContrast
from medssml.objectives.pairs import Pair, sides_of
from medssml.objectives.step import Step


class RobustContrast(CrossModalContrast):
    """l = -exp(q s+) / q + (lambda (exp(s+) + sum of exp(s-)))^q / q,   s = (cos - 1) / temperature

    For studies of which some are put together from two patients. InfoNCE pulls hardest where a pair is unlike, which wrong
    pairs are; here q says how much less such a pair counts. Towards q = 0 it is InfoNCE, at q = 1 wrong pairs cancel out but
    right ones are learned slowly. Pairs, directions and negatives are those of `CrossModalContrast`.

    The temperature is not learned: what is robust about the loss depends on it. -1 in s, a constant factor
    exp(-q / temperature) of the paper's loss, keeps all powers at or below 1. Memory grows with the square of the batch.

    [1] Chuang et al., Robust contrastive learning against noisy views, CVPR 2022. Defaults are as we know the paper, not
    checked against its code.

    Args:
        model: the model.
        q: above 0, at most 1. balance: lambda, how much the negatives weigh, above 0, at most 1.
        dim: of the space of the contrast. temperature: constant.
        pairs, share, batch_norm: as `CrossModalContrast`.
        weight: in the sum of objectives.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        q: float = 0.5,
        balance: float = 0.01,
        dim: int = 128,
        temperature: float = 0.5,
        pairs: Sequence[str] | None = None,
        share: float = 0.5,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(
            model, dim=dim, temperature=temperature, learn_temperature=False, pairs=pairs, share=share,
            batch_norm=batch_norm, weight=weight,
        )  # fmt: skip
        bounded("q of RobustContrast", q, above=0, most=1)
        bounded("balance of RobustContrast", balance, above=0, most=1)
        self.q, self.balance = q, balance

    def _contrast(self, step: Step, embeddings: dict[str, Tensor], pair: Pair, scale: Tensor) -> InfoNCE:
        sides = sides_of(step, pair)
        logits = cosine_logits(embeddings[pair[0]], embeddings[pair[1]], scale) - scale
        directions = [(logits, sides.match, sides.negative), (logits.T, sides.match.T, sides.negative.T)]
        there, back = (robust_terms(*tables, q=self.q, share_of_all=self.balance) for tables in directions)
        parts = zip(there, back, strict=True)
        return InfoNCE(*(self.share * one + (1 - self.share) * other for one, other in parts))
