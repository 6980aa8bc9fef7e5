"""How the report says things: names, numbers, intervals; and what it must not say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medssml.reports.results import Estimate

#: Words for the modalities that everybody spells in their own way.
WORDS = {
    "ct": "CT",
    "xray": "X-ray",
    "eeg": "EEG",
    "report": "report",
    "ecg": "ECG",
    "mri": "MRI",
    "labs": "laboratory",
    "table": "laboratory",
}
METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "ece": "calibration error",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "r2": "R²",
    "mae": "mean absolute error",
    "r@1": "first is right",
    "r@5": "right among first 5",
    "median_rank": "median rank",
}

#: What a paired difference is, by its interval.
BETTER, WORSE, EVEN = "better", "worse", "no difference shown"


def change(found: Estimate | None) -> str:
    """BETTER or WORSE where the whole interval of a difference lies on one side of 0, EVEN otherwise."""
    if found is None or found.low is None or found.high is None:
        return EVEN
    return BETTER if found.low > 0 else WORSE if found.high < 0 else EVEN


def modality(name: str) -> str:
    """The word for a modality."""
    return WORDS.get(name, name.replace("_", " "))


def members(subset: str) -> list[str]:
    """The modalities of a subset's name; none for ""."""
    return [name for name in subset.split("+") if name]


def subset(name: str) -> str:
    """ "ct+xray" as CT + X-ray."""
    return " + ".join(modality(part) for part in members(name)) or "nothing"


def direction(name: str) -> str:
    """ "ct->report" as CT → report."""
    return " → ".join(modality(part) for part in name.split("->"))


def metric(name: str) -> str:
    """The word for a metric."""
    return METRICS.get(name, name.replace("_", " "))


def figure(value: float | None, digits: int = 3) -> str:
    """A number of about 1 with `digits` after the point, a large one with fewer; a dash where there is none."""
    if value is None:
        return "–"
    value = round(value, digits) + 0.0  # + 0.0: no minus before a zero
    text = f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"
    return text.replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A change: +0.012."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def count(value: float | None) -> str:
    """How many; a dash where it is not known."""
    return "–" if value is None else f"{int(value):,}"


def interval(found: Estimate | None, digits: int = 3) -> str:
    """0.912 (0.874 to 0.941)."""
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return figure(found.value, digits)
    return f"{figure(found.value, digits)} ({figure(found.low, digits)} to {figure(found.high, digits)})"


def without_names(text: str, hidden: Sequence[str]) -> str:
    """`text` in which file names and study ids, and whatever else looks like a path, are left out."""
    for name in sorted((name for name in hidden if len(name) > 2), key=len, reverse=True):
        text = text.replace(name, "(file)")
    return re.sub(r"(?<!\w)(?:~|[A-Za-z]:)?(?:[/\\][\w.\-]+){2,}", "(path)", text)


def flattened(config: Any, key: str = "") -> list[tuple[str, str]]:
    """A config as (key, value) lines in its own order; what looks like a path is left out."""
    if isinstance(config, Mapping):
        return [
            line for name, value in config.items() for line in flattened(value, f"{key}.{name}" if key else str(name))
        ]
    if isinstance(config, list) and any(isinstance(value, (Mapping, list)) for value in config):
        return [line for i, value in enumerate(config) for line in flattened(value, f"{key}.{i}")]
    return [(key, _said(config))]


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_said(item) for item in value) + "]"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return "(path)" if isinstance(value, str) and ("/" in text or "\\" in text) else text
