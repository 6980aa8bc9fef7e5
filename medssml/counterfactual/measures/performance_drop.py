"""What the quality of the predictions loses without a modality."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from medssml.counterfactual.measure import Answers, CohortMeasure, Question
from medssml.counterfactual.performance import PERFORMANCE
from medssml.evaluation.encoded_studies import bits
from medssml.statistics.bootstrap import Array
from medssml.statistics.metrics import why_undefined


class PerformanceDrop(CohortMeasure):
    """metric(P) - metric(P without m) over the labelled studies that have m; the same resample applies to both."""

    name = "performance_drop"
    title = "drop in quality"
    words = "Drop in quality: the metric from all that a study has, minus the metric without this modality."

    def __call__(self, answers: Answers, weights: Array, column: int) -> Array:
        """(R,) in every resample, weights (R, N)."""
        metric, everyone, full = PERFORMANCE[answers.value.kind][1], np.arange(len(answers.y)), bits(answers.has)
        with_it = answers.scores[everyone, full]
        without = answers.scores[everyone, full & ~(1 << column)]
        return metric(answers.y, with_it, weights) - metric(answers.y, without, weights)

    def questions(self, answers: Answers, modalities: tuple[str, ...]) -> Iterator[Question]:
        """Each modality of the labelled studies that have it."""
        for column, name in enumerate(modalities):
            studies = np.isfinite(answers.y) & answers.has[:, column]
            place = ("modalities", name, self.name)
            reason = why_undefined(answers.value.kind, answers.y[studies])
            if answers.has[:, column].any():
                yield Question(self.name, (name,), (place,), studies, partial(self, column=column), reason)
