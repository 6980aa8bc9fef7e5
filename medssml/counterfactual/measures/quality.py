"""The quality of the predictions as they are: whether there is anything to share out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medssml.counterfactual.measure import Answers, CohortMeasure, Question
from medssml.counterfactual.performance import PERFORMANCE
from medssml.evaluation.encoded_studies import bits
from medssml.statistics.bootstrap import Array
from medssml.statistics.metrics import why_undefined


class Quality(CohortMeasure):
    """metric(P) over the labelled studies, each answered from all that it has."""

    name = "quality"
    words = "Quality: the metric from all that each study has."

    def __call__(self, answers: Answers, weights: Array) -> Array:
        """(R,) in every resample, weights (R, N)."""
        metric = PERFORMANCE[answers.value.kind][1]
        return metric(answers.y, answers.scores[np.arange(len(answers.y)), bits(answers.has)], weights)

    def questions(self, answers: Answers, modalities: tuple[str, ...]) -> Iterator[Question]:
        """All labelled studies at once."""
        labelled = np.isfinite(answers.y)
        reason = why_undefined(answers.value.kind, answers.y[labelled])
        yield Question(self.name, ("observed",), (("performance", "observed"),), labelled, self, reason)
