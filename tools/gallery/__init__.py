"""The figures of docs/gallery, drawn from the simulated cohort when the documentation is built: name -> function."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from gallery import impact, missing, transforms

#: A page shows a figure by the line `<!-- figure: NAME -->`.
FIGURES: dict[str, Callable[[], Figure]] = {**transforms.FIGURES, **missing.FIGURES, **impact.FIGURES}
