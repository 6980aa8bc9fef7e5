"""The share of each modality in the answer (Shapley 1953)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssml.counterfactual.measure import Answers, Measure
from medssml.counterfactual.shapley import shapley
from medssml.statistics.bootstrap import Array


class ShapleyValue(Measure):
    """phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! [v(S + m) - v(S)], after [1].

    [1] Shapley, A value for n-person games, 1953.
    """

    name = "shapley"
    title = "Shapley"
    size_title = "mean size of Shapley"
    words = (
        "Shapley: the share of this modality in the answer, averaged over the orders in which the modalities can come."
    )

    def __call__(self, answers: Answers) -> Array:
        """(N, M)."""
        return np.where(answers.has, shapley(answers.values), np.nan)

    def columns(self, answers: Sequence[Answers]) -> dict[str, Array]:
        """The mean over the models and, of several, the range."""
        phi = np.stack([self(of_model) for of_model in answers])
        low, high = (phi.min(axis=0), phi.max(axis=0)) if len(phi) > 1 else (np.full(phi[0].shape, np.nan),) * 2
        return {"shapley": phi.mean(axis=0), "shapley_low": low, "shapley_high": high}
