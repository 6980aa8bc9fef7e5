"""How often modalities are absent, beside iMML's Amputer: at the severities of docs/obstacles.md the rates are the same.

The Amputer (imml 0.6.0, `imml.ampute.Amputer(p, mechanism)`) makes a share p of complete samples incomplete:

    mem     each of them keeps one of M modalities, as many each: a modality is absent with p (M - 1) / M
    mcar    each of them keeps any set of modalities that is neither none nor all: with p / 2
    mnar    k of 1 to M - 1 are absent, k drawn evenly, and which ones is drawn once for each k: with p / 2 on average
    pm      where one modality is incomplete: that one with p, the others never
"""

from __future__ import annotations

import numpy as np
import pytest

from medssml.obstacles import Absence, Absent, AbsentButOne, AbsentByLabel
from tests.obstacles.cohorts import MODALITIES, cohort

STUDIES = cohort(4000, complete=True)
M = len(MODALITIES)
#: (mechanism, p) -> mean share of absent modalities, of 10 runs on 20,000 samples of four modalities each.
RECORDED = {
    ("mem", 0.4): 0.300, ("mem", 0.8): 0.600, ("mcar", 0.4): 0.2004, ("mcar", 0.8): 0.4003, ("mnar", 0.4): 0.2002,
    ("mnar", 0.8): 0.4002,
}  # fmt: skip


def absent(obstacle: Absence) -> np.ndarray:
    """(N, M) what went."""
    obstacle.fit(STUDIES)
    return ~obstacle.present(STUDIES)


def alike(share: float, expected: float, n: int = len(STUDIES)) -> bool:
    return abs(share - expected) < 4 * np.sqrt(0.25 / n)


@pytest.mark.parametrize("mechanism, p", RECORDED)
def test_the_mean_rate_is_that_of_the_amputer(mechanism: str, p: float) -> None:
    """One alone: severity p. At random and by label: severity p M / (2 (M - 1))."""
    kind = {"mem": AbsentButOne, "mcar": Absent, "mnar": AbsentByLabel}[mechanism]
    gone = absent(kind(p if mechanism == "mem" else p * M / (2 * (M - 1))))
    formula = p * (M - 1) / M if mechanism == "mem" else p / 2
    assert alike(gone.mean(), formula, gone.size)
    assert alike(gone.mean(), RECORDED[mechanism, p], gone.size)
    assert all(alike(share, formula) for share in gone.mean(0)), "no modality more often than another"
    assert not gone.all(1).any()


@pytest.mark.parametrize("p", [0.4, 0.8])
def test_one_alone_is_mutually_exclusive_missingness(p: float) -> None:
    """The same studies are incomplete, as many, and each keeps one, drawn evenly."""
    left = ~absent(AbsentButOne(p))
    incomplete = ~left.all(1)
    assert alike(incomplete.mean(), p) and set(left[incomplete].sum(1)) == {1}
    assert all(alike(share, 1 / M, incomplete.sum()) for share in left[incomplete].mean(0))


@pytest.mark.parametrize("p", [0.4, 0.8])
def test_one_named_modality_is_partially_missing(p: float) -> None:
    gone = absent(Absent(p, modalities=["eeg"])).mean(0)
    assert alike(gone[MODALITIES.index("eeg")], p) and gone.sum() == gone[MODALITIES.index("eeg")]
