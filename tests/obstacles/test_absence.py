"""Who loses what: rates in closed form, one modality always left, the same draws for a study wherever it stands."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.manifest.manifest import Manifest
from medssml.obstacles import (
    Absence,
    Absent,
    AbsentAgainstTraining,
    AbsentButOne,
    AbsentByCovariate,
    AbsentByLabel,
    AbsentBySite,
)
from tests.obstacles.cohorts import MODALITIES, cohort

STUDIES = cohort()
KINDS = (Absent, AbsentByCovariate, AbsentByLabel, AbsentButOne, AbsentBySite, AbsentAgainstTraining)
#: By whom draws are shared; by sites alone, a rate over studies says little.
INDEPENDENT = tuple(kind for kind in KINDS if kind is not AbsentBySite)


def fitted(kind: type[Absence], severity: float, studies: Manifest = STUDIES, **arguments: object) -> Absence:
    obstacle = kind(severity, **arguments)  # type: ignore[arg-type]
    obstacle.fit(studies)
    return obstacle


def binomial(n: int, p: float) -> float:
    """Five standard errors of a share of n draws."""
    return 5 * float(np.sqrt(p * (1 - p) / n))


@pytest.mark.parametrize("kind", INDEPENDENT)
@pytest.mark.parametrize("severity", [0.1, 0.5, 0.8])
def test_the_share_that_goes_is_what_was_asked_for(kind: type[Absence], severity: float) -> None:
    had, left = STUDIES.present, fitted(kind, severity).present(STUDIES)
    spare = (had.sum(1) - 1).clip(min=0).sum()
    share = (had & ~left).sum() / spare
    # Studies that keep one alone draw once for all that they have.
    assert share == pytest.approx(severity, abs=binomial(spare if kind is not AbsentButOne else len(had), severity))


def test_two_thirds_of_four_modalities_make_half_absent() -> None:
    studies = cohort(complete=True)
    left = fitted(Absent, 2 / 3, studies).present(studies)
    assert left.mean() == pytest.approx(0.5, abs=binomial(3 * len(studies), 2 / 3))


@pytest.mark.parametrize("kind", KINDS)
def test_no_study_loses_everything_and_none_gains_anything(kind: type[Absence]) -> None:
    had, left = STUDIES.present, fitted(kind, 1.0).present(STUDIES)
    assert (left.sum(1) == had.any(1)).all()
    assert not (left & ~had).any()


@pytest.mark.parametrize("kind", KINDS)
def test_at_severity_0_the_table_is_the_same_object(kind: type[Absence]) -> None:
    assert fitted(kind, 0.0).applied(STUDIES) is STUDIES


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_absent_stays_absent_at_a_larger_severity(kind: type[Absence]) -> None:
    obstacle = fitted(kind, 0.0)
    left = [obstacle.at(severity).present(STUDIES) for severity in (0.0, 0.2, 0.5, 0.9, 1.0)]
    assert all(not (more & ~less).any() for less, more in zip(left[:-1], left[1:], strict=True))
    assert left[-1].sum() < left[1].sum() < left[0].sum()


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_alone_and_in_another_order_loses_the_same(kind: type[Absence]) -> None:
    obstacle = fitted(kind, 0.5)
    left = obstacle.present(STUDIES)
    order = np.random.default_rng(1).permutation(len(STUDIES))
    assert (obstacle.present(STUDIES.filter(order)) == left[order]).all()
    for row in (0, 7, 123):
        assert (obstacle.present(STUDIES.filter(np.array([row])))[0] == left[row]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_draws_otherwise(kind: type[Absence]) -> None:
    assert (fitted(kind, 0.5).present(STUDIES) != fitted(kind, 0.5, seed=1).present(STUDIES)).any()


def test_at_random_depends_on_nothing() -> None:
    studies = cohort(complete=True)
    gone = ~fitted(Absent, 0.5, studies).present(studies)
    for known in (studies.targets["sick"] == 1, studies.splits == "train"):
        assert gone[known].mean() == pytest.approx(gone[~known].mean(), abs=2 * binomial(3 * known.sum(), 0.375))
    assert gone.mean(0) == pytest.approx([0.375] * 4, abs=binomial(len(studies), 0.375))


def test_by_label_the_sick_keep_more_and_flipped_they_keep_less() -> None:
    sick, well = STUDIES.targets["sick"] == 1, STUDIES.targets["sick"] == 0
    left = fitted(AbsentByLabel, 0.5, task="sick").present(STUDIES).sum(1) / STUDIES.present.sum(1).clip(min=1)
    turned = fitted(AbsentByLabel, 0.5, task="sick", flipped=True).present(STUDIES)
    turned_share = turned.sum(1) / STUDIES.present.sum(1).clip(min=1)
    assert left[sick].mean() > left[well].mean() + 0.2
    assert turned_share[sick].mean() < turned_share[well].mean() - 0.2


def test_the_odds_by_label_are_those_that_were_stated() -> None:
    """ln odds ratio between the classes = strength * their distance in standard deviations of the label."""
    studies = cohort(6000, complete=True)
    obstacle = fitted(AbsentByLabel, 0.5, studies, task="sick", strength=1.0)
    lost = (studies.present & ~obstacle.present(studies)).sum(1) / 3
    target = studies.targets["sick"]
    shares = [lost[target == level].mean() for level in (0, 1)]
    logits = np.log(shares) - np.log1p(-np.array(shares))
    assert logits[0] - logits[1] == pytest.approx(1 / np.nanstd(target), abs=0.25)


def test_by_covariate_modalities_lean_in_turns() -> None:
    studies = cohort(complete=True)
    age = studies.table["group_age"].astype(float).to_numpy()
    left = fitted(AbsentByCovariate, 0.5, studies, on="group_age").present(studies)
    old, young = left[age > np.median(age)].mean(0), left[age < np.median(age)].mean(0)
    assert (np.sign(old - young) == [-1, 1, -1, 1]).all()


def test_by_an_observed_modality_that_one_stays() -> None:
    left = fitted(AbsentByCovariate, 0.9, on="report").present(STUDIES)
    column = MODALITIES.index("report")
    assert (left[:, column] == STUDIES.present[:, column]).all()


def test_one_alone_is_all_or_nothing() -> None:
    had, left = STUDIES.present.sum(1), fitted(AbsentButOne, 0.4).present(STUDIES).sum(1)
    assert set(np.unique(left[had == 4])) == {1, 4}


def test_a_site_lacks_a_modality_as_a_whole() -> None:
    studies = cohort(complete=True)
    gone = ~fitted(AbsentBySite, 0.5, studies).present(studies)
    for site in set(studies.table["source"]):
        assert set(gone[(studies.table["source"] == site).to_numpy()].mean(0)) <= {0.0, 1.0}
    shares = [(~fitted(AbsentBySite, 0.5, studies, seed=seed).present(studies)).mean() for seed in range(20)]
    assert np.mean(shares) == pytest.approx(0.375, abs=5 * np.std(shares) / np.sqrt(20))


def test_against_training_what_was_there_most_is_there_least() -> None:
    obstacle = fitted(AbsentAgainstTraining, 0.5)
    had, left = STUDIES.present, obstacle.present(STUDIES)
    lost = (had & ~left).sum(0) / had.sum(0)
    assert (np.argsort(had[STUDIES.splits == "train"].mean(0)) == np.argsort(lost)).all()


def test_only_the_modalities_that_may_go_do() -> None:
    left = fitted(Absent, 1.0, modalities=["ct"]).present(STUDIES)
    alone = STUDIES.present[:, 0] & (STUDIES.present.sum(1) == 1)
    assert (left[:, 1:] == STUDIES.present[:, 1:]).all()
    assert (left[:, 0] == alone).all()


def test_the_table_that_is_left_says_who_has_what() -> None:
    obstacle = fitted(Absent, 0.5)
    applied = obstacle.applied(STUDIES)
    assert (applied.present == obstacle.present(STUDIES)).all()
    assert applied.table.drop(columns=list(MODALITIES)).equals(STUDIES.table.drop(columns=list(MODALITIES)))


def test_what_it_depends_on_must_be_there() -> None:
    with pytest.raises(ValueError, match="no label_cough in the table; fix"):
        fitted(AbsentByLabel, 0.5, task="cough")
    with pytest.raises(ValueError, match="has two values; fix"):
        fitted(AbsentByCovariate, 0.5, on="group_height")
    with pytest.raises(ValueError, match="fit\\(studies\\) first"):
        Absent(0.5).present(STUDIES)
    with pytest.raises(ValueError, match="severity of absent is 1.2; fix"):
        Absent(1.2)
