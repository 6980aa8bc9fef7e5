"""What changes when a modality is another subject's: no absence is involved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medssml.counterfactual.measure import SWAPPED, Answers, Measure
from medssml.statistics.bootstrap import Array


class Swap(Measure):
    """Mean over other subjects' m of v(P) - v(P with that m)."""

    name = "swap"
    title = "swap"
    words = "Swap: the prediction, minus that with another subject's modality."
    asks = frozenset({SWAPPED})

    def __call__(self, answers: Answers) -> Array:
        """(N, M); NaN also where nobody else has the modality."""
        return self.changes(answers).mean(axis=-1)

    def changes(self, answers: Answers) -> Array:
        """(N, M, D) what each donor's modality changes."""
        return answers.factual[:, None, None] - answers.swapped

    def columns(self, answers: Sequence[Answers]) -> dict[str, Array]:
        """The mean over the donors and the middle 95 % over them, averaged over the models."""
        changes = np.stack([self.changes(of_model) for of_model in answers])
        low, high = np.quantile(changes, [0.025, 0.975], axis=-1).mean(axis=1)
        return {"swap": changes.mean(axis=(0, -1)), "swap_low": low, "swap_high": high}

    def further(self, answers: Sequence[Answers], column: int) -> dict[str, Any]:
        """The standard error of the mean swap that is due to the finite number of donors."""
        changes = np.stack([self.changes(of_model)[:, column] for of_model in answers])
        draws = changes.shape[-1]
        if draws < 2:
            return {"swap_error": None}
        errors = changes.std(axis=-1, ddof=1) / np.sqrt(draws)
        known = errors[np.isfinite(errors)]
        return {"swap_error": float(np.sqrt((known**2).sum()) / len(known)) if len(known) else None}
