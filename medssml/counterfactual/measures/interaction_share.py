"""How much of the answers is interaction (InterSHAP)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from medssml.counterfactual.measure import VALUES, Answers, CohortMeasure, Question
from medssml.counterfactual.shapley import share, split_interactions
from medssml.statistics.bootstrap import Array

#: Order of averaging -> what is done to the split of each study before the mean.
ORDERS: dict[str, Callable[[Array], Array]] = {"mean_of_abs": np.abs, "abs_of_mean": np.asarray}


class InteractionShare(CohortMeasure):
    """The off-diagonal part of the mean split of v(all) - v(none) into interactions and what is a modality's own [1].

    mean_of_abs: of the mean of sizes. abs_of_mean: of the size of means, in which opposite interactions of different
    studies cancel.

    [1] Wenderoth et al., InterSHAP, AAAI 2025.
    """

    name = "interaction_share"
    words = "Share of interaction: what part of the answers is interaction between modalities."
    asks = frozenset({VALUES})

    def __call__(self, answers: Answers, weights: Array, order: str) -> Array:
        """(R,) in every resample, weights (R, N)."""
        split = ORDERS[order](split_interactions(answers.values))
        mean = np.tensordot(weights, split, axes=1) / weights.sum(axis=1)[:, None, None]
        return share(mean)

    def questions(self, answers: Answers, modalities: tuple[str, ...]) -> Iterator[Question]:
        """Both orders, of all studies."""
        everyone = np.ones(len(answers.y), dtype=bool)
        for order in ORDERS:
            yield Question(self.name, (order,), ((self.name, order),), everyone, partial(self, order=order))
