"""Intervals: clusters, coverage, pairs, seeds, speed, and what happens where nothing is defined."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm

from medssml.statistics import bootstrap
from medssml.statistics.bootstrap import (
    Interval,
    combine_seeds,
    draw_weights,
    intervals,
    is_estimate,
    over_seeds,
    paired_bootstrap,
    resample,
    seed_weights,
    subject_bootstrap,
    subject_index,
    tail_of,
)
from medssml.statistics.metrics import auroc, mae


def mean_of(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_whole_subjects_are_drawn() -> None:
    subjects = np.array([7, 3, 7, 9, 3])
    weights = np.concatenate(list(draw_weights(subjects, 50, np.random.default_rng(0))))
    assert weights.shape == (50, 5)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), np.full(50, 3))


def test_interval_of_a_mean_matches_its_standard_error_by_subject() -> None:
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(200), 5)
    values = rng.normal(size=200)[subjects] + 0.1 * rng.normal(size=1000)
    found = intervals(mean_of(values), subjects, n=2000)[0]
    per_subject = values.reshape(200, 5).mean(axis=1)
    expected = 1.96 * per_subject.std(ddof=1) / np.sqrt(200)
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(expected, rel=0.1)
    naive = intervals(mean_of(values), np.arange(1000), n=2000)[0]
    assert naive.ci_high - naive.ci_low < 0.6 * (found.ci_high - found.ci_low)


@pytest.mark.parametrize(("people", "quantile"), [(5, 2.776445), (6, 2.570582), (10, 2.262157), (100, 1.984217)])
def test_few_subjects_widen_the_interval_as_students_t_does(people: int, quantile: float) -> None:
    # The published 97.5 % points of t; a percentile interval is too narrow by sqrt((n - 1) / n), too.
    tail = norm.cdf(-quantile * np.sqrt(people / (people - 1)))
    assert tail_of(0.95, people) == pytest.approx(tail, rel=1e-4)
    values = np.random.default_rng(0).normal(size=people)
    found = intervals(mean_of(values), np.arange(people), n=2000)[0]
    drawn, _ = resample(mean_of(values), np.arange(people), n=2000)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.quantile(drawn, [tail, 1 - tail])), rel=1e-3)


def test_of_many_subjects_the_percentiles_are_those_of_the_level() -> None:
    assert tail_of(0.95, 10**6) == pytest.approx(0.025, rel=1e-4) and tail_of(0.8, 10**6) == pytest.approx(
        0.1, rel=1e-4
    )


def test_interval_of_an_auroc_covers_the_truth_at_its_nominal_rate() -> None:
    rng = np.random.default_rng(5)
    truth, held = 0.7602, 0  # Phi(1 / sqrt 2)
    for replicate in range(200):
        y = np.r_[np.zeros(60), np.ones(60)]
        found = subject_bootstrap(auroc, y, y + rng.normal(size=120), np.arange(120), n=300, seed=replicate)
        held += found.holds(truth)
    assert 0.90 <= held / 200 <= 0.99


def test_a_thousand_auroc_resamples_of_300_studies_are_fast() -> None:
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 300).astype(float), rng.random(300)
    spent = []
    for _ in range(5):
        start = time.process_time()
        subject_bootstrap(auroc, y, score, np.arange(300), n=1000)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.05


def test_one_class_resamples_are_redrawn_and_counted() -> None:
    y = np.r_[np.ones(2), np.zeros(10)]
    found = subject_bootstrap(auroc, y, np.arange(12.0), np.arange(12), n=200)
    assert found.left_out > 0 and found.ci_low is not None
    assert found.to_dict()["left_out"] == found.left_out


def test_too_few_subjects_give_an_estimate_and_a_reason() -> None:
    found = subject_bootstrap(auroc, np.array([0, 1, 1.0]), np.array([0.1, 0.2, 0.3]), np.arange(3))
    assert found.estimate == 1 and found.ci_low is None and "3 subjects" in str(found.reason)
    empty = subject_bootstrap(auroc, np.zeros(0), np.zeros(0), np.zeros(0))
    assert empty == Interval(None, None, None, 0, reason="no study")


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    y, score = rng.integers(0, 2, 50).astype(float), rng.random(50)
    first, second = (subject_bootstrap(auroc, y, score, np.arange(50), n=100, seed=4) for _ in range(2))
    assert first == second
    assert subject_bootstrap(auroc, y, score, np.arange(50), n=100, seed=5) != first


def test_a_pair_of_models_is_compared_on_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200).astype(float)
    shared = y + rng.normal(size=200)
    close = shared + 0.05 * rng.normal(size=200)
    assert paired_bootstrap(auroc, y, shared, shared, np.arange(200), n=100).holds(0)
    paired = paired_bootstrap(auroc, y, shared, close, np.arange(200), n=300)
    alone = subject_bootstrap(auroc, y, shared, np.arange(200), n=300)
    assert paired.ci_high - paired.ci_low < 0.5 * (alone.ci_high - alone.ci_low)


def test_seed_weights_state_the_variance_of_a_mean_over_seeds() -> None:
    values = np.array([0.70, 0.74, 0.81])
    drawn = seed_weights(200_000, 3, np.random.default_rng(0)) @ values
    assert drawn.mean() == pytest.approx(values.mean(), abs=1e-3)
    assert drawn.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.02)
    np.testing.assert_array_equal(seed_weights(4, 1, np.random.default_rng(0)), np.ones((4, 1)))


def test_combined_seeds_average_the_metric_and_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400).astype(float)
    noise = rng.normal(size=400)
    scores = np.stack([y * effect + noise for effect in (0.5, 1.5, 3.0)])
    both = combine_seeds(auroc, y, scores, np.arange(400), n=400)
    subjects_only = combine_seeds(auroc, y, scores, np.arange(400), n=400, two_level=False)
    expected = np.mean([auroc(y, s, np.ones((1, 400)))[0] for s in scores])
    assert both.estimate == pytest.approx(expected) == subjects_only.estimate
    assert both.ci_high - both.ci_low > 2 * (subjects_only.ci_high - subjects_only.ci_low)
    assert combine_seeds(mae, y, scores[:1], np.arange(400), n=50).n == 400


def test_an_interval_as_the_result_files_have_it() -> None:
    assert Interval(0.5, 0.4, 0.6, 9).to_dict() == {"estimate": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 9}
    told = Interval(None, None, None, 3, left_out=2, reason="why").to_dict()
    assert told == {"estimate": None, "ci_low": None, "ci_high": None, "n": 3, "left_out": 2, "reason": "why"}
    ends = Interval(0.5, 0.4, 0.6, 9)
    assert ends.holds(0.4) and ends.holds(0.6) and not ends.holds(0.39) and not ends.holds(0.61)
    assert not Interval(0.5, None, None, 9).holds(0.5)
    assert not Interval(0.5, None, 0.6, 9).holds(0.5) and not Interval(0.5, 0.4, None, 9).holds(0.5)


@pytest.mark.parametrize("chunk", [1, 11, 25, 10**6])
def test_the_draws_do_not_depend_on_how_many_are_held_at_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = np.array(["b", "a", "b", "c", "a"])
    whole = np.concatenate(list(draw_weights(subjects, 23, np.random.default_rng(3))))
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    parts = list(draw_weights(subjects, 23, np.random.default_rng(3)))
    assert all(1 <= len(part) <= max(1, chunk // 5) for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    # Each draw of three subjects is as likely as any other: on average everybody comes once.
    many = np.concatenate(list(draw_weights(subjects, 3000, np.random.default_rng(0))))
    np.testing.assert_allclose(many.mean(axis=0), 1, atol=0.06)
    assert set(np.unique(many)) == {0, 1, 2, 3}


def test_the_subjects_are_numbered_from_zero() -> None:
    index, count = subject_index(np.array(["b", "a", "b"]))
    assert index.tolist() == [1, 0, 1] and count == 2


def test_undefined_resamples_are_drawn_again_and_after_ten_rounds_given_up() -> None:
    def where_first_is_drawn(weights: np.ndarray) -> np.ndarray:
        return np.where(weights[:, 0] > 0, weights[:, 0], np.nan)

    values, left_out = resample(where_first_is_drawn, np.arange(6), n=400)
    assert values.shape == (400, 1) and (values > 0).all()
    # The first of six is missing in (5/6)^6 of the draws.
    assert left_out / (400 + left_out) == pytest.approx((5 / 6) ** 6, abs=0.06)

    values, left_out = resample(lambda weights: np.full(len(weights), np.nan), np.arange(6), n=40)
    assert values.shape == (0, 1) and left_out == 400
    two = resample(lambda weights: np.stack([weights[:, 0], np.full(len(weights), np.inf)], 1), np.arange(6), n=4)
    assert two[0].shape == (0, 2), "all values of a resample have to be finite"


def test_what_an_interval_says_where_it_cannot_be_had() -> None:
    def rare(weights: np.ndarray) -> np.ndarray:
        return np.full(len(weights), 0.7 if is_estimate(weights) else np.nan)

    found = intervals(rare, np.arange(8), n=50)[0]
    assert found.estimate == 0.7 and found.ci_low is None and found.ci_high is None and found.n == 8
    assert found.left_out == 500 and found.reason == "undefined in 500 of 500 resamples"
    nothing = intervals(lambda weights: np.full(len(weights), np.nan), np.arange(8), n=50)
    assert nothing == [Interval(None, None, None, 8, reason="undefined on these studies")]
    constant = intervals(lambda weights: np.ones(len(weights)), np.arange(8), n=50)
    assert constant == [Interval(1.0, 1.0, 1.0, 8, reason="every resample agrees")]
    few = intervals(lambda weights: np.ones((len(weights), 2)), np.array([1, 2, 3, 4, 4, 4]), n=50, studies=99)
    assert few == [Interval(1.0, None, None, 99, reason="4 subjects: no interval below 5")] * 2
    enough = intervals(mean_of(np.arange(5.0)), np.arange(5), n=50)
    assert enough[0].ci_low is not None and enough[0].reason is None
    partly = intervals(lambda weights: np.stack([weights[:, 0], weights[:, 0] * np.nan], 1), np.arange(5), n=20)
    assert partly[0].estimate == 1 and partly[1].estimate is None


def test_half_of_the_resamples_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ROUNDS", 1)

    def of(defined: int):
        def statistic(weights: np.ndarray) -> np.ndarray:
            known = (np.arange(len(weights)) < defined) | bootstrap.is_estimate(weights)
            return np.where(known, weights[:, 0] + np.arange(len(weights)), np.nan)

        return intervals(statistic, np.arange(8), n=50)[0]

    assert of(25).ci_low is not None and of(25).left_out == 25
    assert of(24).ci_low is None and of(24).reason == "undefined in 26 of 50 resamples"


def test_values_of_one_statistic_come_from_the_same_resamples() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    both = intervals(lambda w: w @ values / w.sum(axis=1, keepdims=True), np.arange(30), n=100, seed=2, level=0.8)
    alone = intervals(mean_of(values[:, 1]), np.arange(30), n=100, seed=2, level=0.8)
    assert [found.estimate for found in both] == pytest.approx(values.mean(axis=0))
    assert (both[1].ci_low, both[1].ci_high) == pytest.approx((alone[0].ci_low, alone[0].ci_high))
    wide = intervals(mean_of(values[:, 1]), np.arange(30), n=100, seed=2)[0]
    assert wide.ci_low < alone[0].ci_low and wide.ci_high > alone[0].ci_high


@pytest.mark.parametrize("make", [subject_bootstrap, paired_bootstrap, combine_seeds])
def test_level_seed_and_number_of_resamples_arrive(make) -> None:
    rng = np.random.default_rng(1)
    y, score = rng.normal(size=40), rng.normal(size=40)
    arguments = {
        subject_bootstrap: (mae, y, score, np.arange(40)),
        paired_bootstrap: (mae, y, score, np.zeros(40), np.arange(40)),
        combine_seeds: (mae, y, score[None], np.arange(40)),
    }[make]
    statistic = {
        subject_bootstrap: lambda w: mae(y, score, w),
        paired_bootstrap: lambda w: mae(y, score, w) - mae(y, np.zeros(40), w),
        combine_seeds: lambda w: mae(y, score, w),
    }[make]
    assert make(*arguments, n=60, seed=3, level=0.5) == intervals(statistic, np.arange(40), n=60, seed=3, level=0.5)[0]
    assert make(*arguments) == intervals(statistic, np.arange(40), n=1000, seed=0, level=0.95)[0]
    lists = [a.tolist() if isinstance(a, np.ndarray) else a for a in arguments]
    assert make(*lists, n=60) == make(*arguments, n=60)


def test_over_seeds_weighs_the_models_of_each_resample_and_not_those_of_the_estimate() -> None:
    values = np.array([1.0, 2.0, 6.0])
    mean = over_seeds(lambda weights: np.tile(values, (len(weights), 1)), 3, seed=0)
    assert mean(np.ones((1, 4))).tolist() == [3.0]
    drawn = mean(np.zeros((500, 4)))
    # Two of three seeds are drawn: the mean of a pair, with replacement.
    assert set(np.round(drawn, 9)) == {1.0, 1.5, 3.5, 2.0, 4.0, 6.0}
    one_level = over_seeds(lambda weights: np.tile(values, (len(weights), 1)), 3, seed=0, two_level=False)
    assert set(one_level(np.zeros((5, 4)))) == {3.0}
    several = over_seeds(lambda weights: np.tile(np.stack([values, -values], 1), (len(weights), 1, 1)), 3, seed=0)
    np.testing.assert_allclose(several(np.zeros((50, 4))).sum(axis=1), 0, atol=1e-12)
    again = over_seeds(lambda weights: np.tile(values, (len(weights), 1)), 3, seed=0)
    np.testing.assert_array_equal(again(np.zeros((500, 4))), drawn)
    other = over_seeds(lambda weights: np.tile(values, (len(weights), 1)), 3, seed=1)
    assert not np.array_equal(other(np.zeros((500, 4))), drawn)


def test_the_estimate_is_asked_for_by_one_row_of_ones() -> None:
    assert is_estimate(np.ones((1, 3)))
    assert not is_estimate(np.ones((2, 3))) and not is_estimate(np.array([[1.0, 2.0, 0.0]]))


def test_what_was_drawn_before_is_what_would_be_drawn_anew_those_of_a_second_round_included() -> None:
    rng = np.random.default_rng(1)
    subjects, x = rng.integers(0, 6, 40), rng.normal(size=40)
    rare = np.arange(40) < 2

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (weights * rare) @ x / (weights * rare).sum(axis=1)  # NaN where neither of the two is drawn

    def plainly(seed: int) -> np.ndarray:
        draw, kept = np.random.default_rng(seed), np.empty(0)
        while len(kept) < 200:
            values = statistic(np.concatenate(list(draw_weights(subjects, 200 - len(kept), draw))))
            kept = np.concatenate([kept, values[np.isfinite(values)]])
        return kept

    for _ in range(2):
        for seed in (0, 5):
            values, left_out = resample(statistic, subjects, n=200, seed=seed)
            assert left_out > 0 and np.array_equal(values[:, 0], plainly(seed))

    def careless(weights: np.ndarray) -> np.ndarray:
        weights *= 0
        return weights.sum(axis=1)

    with pytest.raises(ValueError, match="read-only"):
        resample(careless, subjects, n=200)
