"""What a modality gives alone."""

from __future__ import annotations

import numpy as np

from medssml.counterfactual.measure import Answers, Measure
from medssml.statistics.bootstrap import Array


class Sufficiency(Measure):
    """v({m}) - v(none)."""

    name = "sufficiency"
    title = "sufficiency"
    words = "Sufficiency: this modality alone, minus none."

    def __call__(self, answers: Answers) -> Array:
        """(N, M)."""
        alone = 1 << np.arange(answers.has.shape[1])
        return np.where(answers.has, answers.values[:, alone] - answers.values[:, :1], np.nan)
