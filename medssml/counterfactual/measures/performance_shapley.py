"""The share of each modality in the quality of the predictions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from medssml.counterfactual.measure import Answers, CohortMeasure, Question
from medssml.counterfactual.performance import performance_game
from medssml.counterfactual.shapley import shapley
from medssml.statistics.bootstrap import Array
from medssml.statistics.metrics import why_undefined


class PerformanceShapley(CohortMeasure):
    """The Shapley value of the game A(S) = metric from S, all subsets being scored on the same studies; A(none) knows
    nothing. The shares sum to metric(all) - metric(none).

    On the studies that have every modality, and ("observed") on all that have a label, each from what it has of S.
    """

    name = "performance_shapley"
    words = "Share of the quality: the Shapley value of the metric from each set of modalities."

    def __call__(self, answers: Answers, weights: Array, columns: Array) -> Array:
        """(R, K) in every resample, weights (R, N), of the modalities `columns` (K,)."""
        game = performance_game(answers.value.kind, answers.scores, answers.y, weights)
        return shapley(game)[:, columns]

    def questions(self, answers: Answers, modalities: tuple[str, ...]) -> Iterator[Question]:
        """All modalities that a labelled study has, of the complete studies and of all."""
        labelled = np.isfinite(answers.y)
        covered = answers.has[labelled].any(axis=0)
        complete = labelled & answers.has[:, covered].all(axis=1)
        columns = np.flatnonzero(covered)
        names = tuple(modalities[column] for column in columns)
        for key, studies in (("shapley", complete), ("shapley_observed", labelled)):
            places = tuple(("performance", key, name) for name in names)
            reason = why_undefined(answers.value.kind, answers.y[studies])
            yield Question(f"performance_{key}", names, places, studies, partial(self, columns=columns), reason)
