"""Intervals: clusters, coverage, pairs, seeds, speed, and what happens where nothing is defined."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import norm

from medssml.statistics.bootstrap import (
    Interval,
    combine_seeds,
    draw_weights,
    intervals,
    paired_bootstrap,
    resample,
    seed_weights,
    subject_bootstrap,
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
        start = time.perf_counter()
        subject_bootstrap(auroc, y, score, np.arange(300), n=1000)
        spent.append(time.perf_counter() - start)
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
