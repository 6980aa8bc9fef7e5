"""What is lost without a modality."""

from __future__ import annotations

import numpy as np

from medssml.counterfactual.measure import Answers, Measure
from medssml.statistics.bootstrap import Array


class Necessity(Measure):
    """v(P) - v(P without m), P being what the study has."""

    name = "necessity"
    title = "necessity"
    words = "Necessity: all that a study has, minus all but this modality."

    def __call__(self, answers: Answers) -> Array:
        """(N, M)."""
        everything = answers.values.shape[1] - 1
        without = everything - (1 << np.arange(answers.has.shape[1]))
        return np.where(answers.has, answers.values[:, -1:] - answers.values[:, without], np.nan)
