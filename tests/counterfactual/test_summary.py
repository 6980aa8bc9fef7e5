"""From numbers of studies to numbers overall: means, what they are uncertain by, subgroups and their correction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from medssml.counterfactual.summary import Resampling, holm, mean_interval, subgroup_summary
from medssml.statistics.bootstrap import intervals

RNG = np.random.default_rng(0)


def test_some_studies_keep_their_settings() -> None:
    how = Resampling(np.array([5, 6, 7]), 80, 3, 0.9)
    some = how.within(np.array([False, True, True]))
    assert some.subjects.tolist() == [6, 7] and (some.n, some.seed, some.level) == (80, 3, 0.9)
    default = Resampling(np.arange(3))
    assert (default.n, default.seed, default.level) == (1000, 0, 0.95)


def test_the_mean_of_one_model_is_that_of_the_bootstrap() -> None:
    values = RNG.normal(size=(1, 40))
    how = Resampling(np.arange(40) // 2, 90, 3, 0.8)

    def mean(weights: np.ndarray) -> np.ndarray:
        return weights @ values[0] / weights.sum(axis=1)

    assert mean_interval(values, how) == intervals(mean, how.subjects, n=90, seed=3, level=0.8)[0]
    size = mean_interval(values, how, size=True)
    assert size == mean_interval(np.abs(values), how) and size.estimate == pytest.approx(np.abs(values).mean())


def test_a_study_that_any_model_leaves_open_is_left_out() -> None:
    values = np.array([[1.0, 2.0, np.nan, 4.0], [3.0, np.nan, 1.0, 8.0]])
    found = mean_interval(values, Resampling(np.arange(4)))
    assert found.estimate == pytest.approx((1 + 4 + 3 + 8) / 4) and found.n == 2


def test_an_error_that_all_studies_share_widens_by_its_own_width_and_moves_no_estimate() -> None:
    values, subjects = np.full((1, 50), 0.3), np.arange(50)
    still = mean_interval(values, Resampling(subjects, 400))
    assert still.ci_low == pytest.approx(0.3) == still.ci_high
    shift = np.full((1, 50), 0.05)
    found = mean_interval(values, Resampling(subjects, 4000), shift=shift)
    assert found.estimate == pytest.approx(0.3)
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(1.96 * 0.05, rel=0.1)
    assert (found.ci_high + found.ci_low) / 2 == pytest.approx(0.3, abs=0.005)
    assert mean_interval(values, Resampling(subjects, 400), shift=np.zeros((1, 50))) == still
    # Where the values have both signs, a common shift moves no size to first order.
    mixed = np.where(subjects % 2 == 0, 0.3, -0.3)[None]
    mean = mean_interval(mixed, Resampling(subjects, 2000), shift=shift)
    size = mean_interval(mixed, Resampling(subjects, 2000), shift=shift, size=True)
    assert size.ci_high - size.ci_low < 0.3 * (mean.ci_high - mean.ci_low)
    open_ones = np.where(subjects < 10, np.nan, 0.3)[None]
    assert (
        mean_interval(open_ones, Resampling(subjects, 400), shift=np.where(subjects < 10, np.nan, 0.05)[None]).n == 40
    )


def test_holm_steps_down() -> None:
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.01, 0.01, 0.5]) == pytest.approx([0.03, 0.03, 0.5])
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04]), "never below that of a smaller p"


def cohort(n: int = 60) -> tuple[np.ndarray, np.ndarray, Resampling]:
    shapley = RNG.normal(size=(1, n, 2)) * 0.1
    labels = np.array((["F", "M", ""] * n)[:n], dtype=object)
    shapley[0, labels == "F", 0] += 1.0
    return shapley, labels, Resampling(np.arange(n), 300)


def test_a_subgroup_is_compared_with_the_others_that_are_known() -> None:
    shapley, labels, how = cohort()
    found = subgroup_summary(shapley, {"sex": labels}, ("ct", "eeg"), how)
    assert list(found) == ["sex"] and list(found["sex"]) == ["F", "M"]
    female = found["sex"]["F"]
    assert female["n"] == 20 and list(female["modalities"]) == ["ct", "eeg"]
    ct = female["modalities"]["ct"]
    inside, outside = shapley[0, labels == "F", 0], shapley[0, labels == "M", 0]
    assert ct["shapley"]["estimate"] == pytest.approx(inside.mean()) and ct["shapley"]["n"] == 20
    assert ct["difference"]["estimate"] == pytest.approx(inside.mean() - outside.mean())
    assert ct["difference"]["n"] == 40, "who is of neither group is no other"
    error = np.sqrt(inside.var() / 20 + outside.var() / 20)
    assert ct["p"] < 1e-6 and ct["difference"]["ci_low"] > 0
    eeg = female["modalities"]["eeg"]
    gap = eeg["difference"]["estimate"]
    error = np.sqrt(shapley[0, labels == "F", 1].var() / 20 + shapley[0, labels == "M", 1].var() / 20)
    assert eeg["p"] == pytest.approx(2 * norm.sf(abs(gap) / error), abs=0.08)
    tests = [m for group in found["sex"].values() for m in group["modalities"].values()]
    assert [m["p_holm"] for m in tests] == pytest.approx(holm([m["p"] for m in tests]))


def test_groupings_and_groups_that_say_nothing_are_left_out() -> None:
    shapley, _, how = cohort()
    one = np.full(60, "same", dtype=object)
    few = np.array(["a"] * 4 + ["b"] * 56, dtype=object)
    found = subgroup_summary(shapley, {"one": one, "few": few}, ("ct", "eeg"), how)
    assert list(found) == ["few"] and list(found["few"]) == ["b"]
    # Four others are too few to compare with.
    assert set(found["few"]["b"]["modalities"]["ct"]) == {"shapley"}
    five = np.array(["a"] * 5 + ["b"] * 55, dtype=object)
    enough = subgroup_summary(shapley, {"five": five}, ("ct", "eeg"), how)["five"]
    assert list(enough) == ["a", "b"]
    assert set(enough["a"]["modalities"]["ct"]) == {"shapley", "difference", "p", "p_holm"}
    # Five studies of four people are four.
    people = Resampling(np.r_[0, 0, np.arange(2, 60)], 300)
    assert list(subgroup_summary(shapley, {"five": five}, ("ct", "eeg"), people)["five"]) == ["b"]


def test_a_modality_that_a_group_lacks_is_not_named_in_it() -> None:
    shapley, labels, how = cohort()
    shapley[0, labels == "F", 1] = np.nan
    found = subgroup_summary(shapley, {"sex": labels}, ("ct", "eeg"), how)["sex"]
    assert list(found["F"]["modalities"]) == ["ct"] and list(found["M"]["modalities"]) == ["ct", "eeg"]
    assert set(found["M"]["modalities"]["eeg"]) == {"shapley"}, "nobody else has it to compare with"
    mirrored = subgroup_summary(shapley[:, :, ::-1], {"sex": labels}, ("eeg", "ct"), how)["sex"]
    assert list(mirrored["F"]["modalities"]) == ["ct"], "one that comes after it is still named"


def test_groups_without_any_spread_do_not_differ() -> None:
    labels = np.array(["a", "b"] * 10, dtype=object)
    found = subgroup_summary(np.ones((1, 20, 1)), {"g": labels}, ("ct",), Resampling(np.arange(20), 50))
    ct = found["g"]["a"]["modalities"]["ct"]
    assert ct["difference"]["estimate"] == 0 and ct["p"] == 1.0 == ct["p_holm"]
