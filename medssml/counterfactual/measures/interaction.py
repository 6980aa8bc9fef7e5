"""How much more two modalities add together than apart (Grabisch and Roubens 1999)."""

from __future__ import annotations

import numpy as np

from medssml.counterfactual.measure import Answers, Measure
from medssml.counterfactual.shapley import interactions
from medssml.statistics.bootstrap import Array


class Interaction(Measure):
    """The Shapley interaction index: the mean of v(S + ij) - v(S + i) - v(S + j) + v(S) over the coalitions S [1].

    [1] Grabisch and Roubens, Int. J. Game Theory 28:547, 1999.
    """

    name = "interactions"
    title = "interaction"
    words = "Interaction, positive: together they say more than each alone; negative: they repeat each other."

    def __call__(self, answers: Answers) -> Array:
        """(N, M, M), symmetric."""
        both = answers.has[:, :, None] & answers.has[:, None, :]
        return np.where(both, interactions(answers.values), np.nan)
