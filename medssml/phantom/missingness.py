"""Which modalities a study lacks: completely at random, by what is observed, or by the findings themselves.

    logit P(modality m is absent) = c + what the mechanism depends on

with one c for all, found so that the chosen share of all modalities is absent. A study that would have nothing keeps
one modality, drawn evenly.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from medssml.phantom.causes import FINDINGS, MODALITIES, Array, population

Mechanism = Literal["mcar", "mar", "mnar"]

DEPENDS_ON: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "mcar": {modality: {} for modality in MODALITIES},
    "mar": {
        "ct": {"age": 0.9, "scanner": -0.6},
        "xray": {"age": -0.9, "sex": 0.6},
        "eeg": {"age": 0.7, "sex": -0.6},
        "report": {"age": -0.5, "scanner": 0.8},
    },
    "mnar": {
        "ct": {"nodule": -1.2},
        "xray": {"cardiomegaly": -1.2},
        "eeg": {"epileptiform": -1.2},
        "report": {"effusion": -1.2},
    },
}
"""Mechanism -> modality -> what raises the logit of its absence, per standard unit: age in SDs, sex +-1 (woman +1),
scanner +-1 (B +1), findings in standard units: the sicker the patient, the more is recorded."""


def check_rate(missing: float, mechanism: str) -> None:
    """Raises ValueError where no cohort can have this share of absent modalities."""
    if mechanism not in get_args(Mechanism):
        raise ValueError(f"mechanism is {mechanism!r}; fix: one of {list(get_args(Mechanism))}")
    if not 0 <= missing <= 0.7:
        raise ValueError(
            f"missing is {missing}, expected 0 to 0.7 of all modalities, because every study keeps at least one of four; "
            "fix: a smaller share"
        )


def presence(people: pd.DataFrame, uniforms: Array, missing: float, mechanism: Mechanism) -> np.ndarray:
    """Which modalities each study has.

    Args:
        people: columns age, female, scanner_b, latent_<finding>; one row per study.
        uniforms: (n, 5) in [0, 1): one per modality, one for the modality that is kept where nothing would be.
        missing: share of all modalities that is absent on average, 0 to 0.7.
        mechanism: what absence depends on.

    Returns:
        (n, 4) bool, columns as in MODALITIES; every row has at least one True.
    """
    check_rate(missing, mechanism)
    if missing == 0:
        return np.ones((len(people), len(MODALITIES)), bool)
    present = uniforms[:, :4] >= expit(_intercept(missing, mechanism) + _leaning(people, mechanism))
    empty = np.flatnonzero(~present.any(1))
    present[empty, (uniforms[empty, 4] * len(MODALITIES)).astype(int)] = True
    return present


def _leaning(people: pd.DataFrame, mechanism: str) -> Array:
    """(n, 4) logit of absence without its constant."""
    known = {
        "age": (people["age"].to_numpy(float) - 62) / 14,
        "sex": np.where(people["female"], 1.0, -1.0),
        "scanner": np.where(people["scanner_b"], 1.0, -1.0),
    }
    known |= {finding: people[f"latent_{finding}"].to_numpy(float) for finding in FINDINGS}
    columns = []
    for modality in MODALITIES:
        effects = DEPENDS_ON[mechanism][modality].items()
        columns.append(sum((size * known[name] for name, size in effects), np.zeros(len(people))))
    return np.stack(columns, 1)


@lru_cache(maxsize=32)
def _intercept(missing: float, mechanism: str) -> float:
    """The constant at which the share of absent modalities is `missing`, over a fixed large population."""
    leaning = _leaning(population(20_000, seed=1), mechanism)

    def excess(constant: float) -> float:
        absent = expit(constant + leaning)
        return float((absent.mean(1) - absent.prod(1) / len(MODALITIES)).mean()) - missing

    return float(brentq(excess, -30.0, 30.0))
