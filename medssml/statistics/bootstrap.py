"""Confidence intervals by drawing subjects with replacement.

Studies of one person are not independent, so whole subjects are drawn. A resample is a row of weights, how often each
study was drawn, and a statistic maps weights (R, N) to values (R,) or (R, K): the data are sorted once, not R times.

Intervals are percentile intervals [1], widened for few subjects as Student's t is [2]. An interval has no width where
every resample agrees, such as at an AUROC of exactly 1; then `Interval.reason` says so.

[1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.
[2] Hesterberg, What teachers should know about the bootstrap, The American Statistician 69:371, 2015, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

Array = npt.NDArray[Any]
#: (R, N) weights -> (R,) or (R, K) values; NaN where a resample leaves the statistic undefined.
Statistic = Callable[[Array], Array]

MIN_SUBJECTS = 5
#: Rounds of redrawing resamples in which a statistic is undefined (one class only).
ROUNDS = 10
#: Weights held at once.
CHUNK = 2_000_000


class Metric(Protocol):
    """A metric over resamples: y (N,), score (N,) or (N, K), weights (R, N) -> (R,)."""

    def __call__(self, y: Array, score: Array, weights: Array, /) -> Array: ...


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; None where it is undefined, and then `reason` says why.

    Args:
        estimate: on all studies.
        ci_low: lower end of the interval.
        ci_high: upper end.
        n: studies behind the estimate.
        left_out: resamples that were redrawn because the statistic was undefined in them.
        reason: why a number is missing, or what limits the interval.
    """

    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    left_out: int = 0
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The contract's keys, and the others where there is something to say."""
        out: dict[str, Any] = {"estimate": self.estimate, "ci_low": self.ci_low, "ci_high": self.ci_high, "n": self.n}
        if self.left_out:
            out["left_out"] = self.left_out
        if self.reason is not None:
            out["reason"] = self.reason
        return out

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the interval; False where there is none."""
        return self.ci_low is not None and self.ci_high is not None and self.ci_low <= value <= self.ci_high


def subject_index(subjects: Array) -> tuple[Array, int]:
    """(N,) position of each study's subject among the distinct subjects, and their number."""
    distinct, index = np.unique(np.asarray(subjects), return_inverse=True)
    return index.reshape(-1), len(distinct)


def draw_weights(subjects: Array, n: int, rng: np.random.Generator) -> Iterator[Array]:
    """Weights (R, N) of `n` resamples of whole subjects, in chunks."""
    index, groups = subject_index(subjects)
    step = max(1, CHUNK // max(1, len(index)))
    for start in range(0, n, step):
        rows = min(step, n - start)
        drawn = rng.integers(0, groups, size=(rows, groups)) + groups * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
        yield counts.astype(np.float64)[:, index]


@lru_cache(maxsize=8)
def _one_draw(index: bytes, n: int, seed: int) -> tuple[Array, np.random.Generator]:
    """The weights of n resamples that fit into one chunk, and the generator as it is after them; nobody changes them.

    A page asks for hundreds of intervals over the same subjects, and drawing took a fifth of its time.
    """
    rng = np.random.default_rng(seed)
    weights = np.concatenate(list(draw_weights(np.frombuffer(index, dtype=np.int64), n, rng)))
    weights.flags.writeable = False
    return weights, rng


def _drawn(subjects: Array, n: int, seed: int) -> tuple[Iterable[Array], np.random.Generator]:
    """Weights of `n` resamples, in chunks, and the generator that draws on where some have to be drawn again."""
    index, _ = subject_index(subjects)
    if n * len(index) > CHUNK:
        rng = np.random.default_rng(seed)
        return draw_weights(index, n, rng), rng
    weights, after = _one_draw(index.astype(np.int64).tobytes(), n, seed)
    return [weights], deepcopy(after)


def resample(statistic: Statistic, subjects: Array, *, n: int = 1000, seed: int = 0) -> tuple[Array, int]:
    """The statistic in `n` resamples of the subjects in which it is defined.

    Returns:
        values (n', K), n' < n only where nearly every resample is undefined; the number of resamples that were redrawn.
    """
    chunks, rng = _drawn(subjects, n, seed)
    kept: list[Array] = []
    missing, left_out = n, 0
    for _ in range(ROUNDS):
        for weights in chunks:
            values = np.asarray(statistic(weights), dtype=np.float64).reshape(len(weights), -1)
            defined = np.isfinite(values).all(axis=1)
            kept.append(values[defined])
            left_out += int((~defined).sum())
        missing = n - sum(len(values) for values in kept)
        if missing == 0:
            break
        chunks = draw_weights(subjects, missing, rng)
    return np.concatenate(kept), left_out


def intervals(
    statistic: Statistic,
    subjects: Array,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    studies: int | None = None,
) -> list[Interval]:
    """One interval for each of the K values of `statistic`, all from the same resamples.

    Args:
        statistic: weights (R, N) -> (R,) or (R, K).
        subjects: (N,) ids; equal ids are one person.
        n: resamples.
        seed: of the resamples.
        level: coverage.
        studies: what to report as `n`; default N.

    Returns:
        K intervals.
    """
    subjects = np.asarray(subjects)
    count = len(subjects) if studies is None else studies
    if len(subjects) == 0:
        return [Interval(None, None, None, 0, reason="no study")]
    estimates = np.asarray(statistic(np.ones((1, len(subjects)))), dtype=np.float64).reshape(-1)
    people = len(np.unique(subjects))
    if people < MIN_SUBJECTS:
        reason = f"{people} subjects: no interval below {MIN_SUBJECTS}"
        return [Interval(_number(e), None, None, count, reason=reason) for e in estimates]
    if not np.isfinite(estimates).all() and len(estimates) == 1:
        return [Interval(None, None, None, count, reason="undefined on these studies")]
    values, left_out = resample(statistic, subjects, n=n, seed=seed)
    if len(values) < n / 2:
        reason = f"undefined in {left_out} of {left_out + len(values)} resamples"
        return [Interval(_number(e), None, None, count, left_out, reason) for e in estimates]
    tail = tail_of(level, people)
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return [
        Interval(_number(e), float(lo), float(hi), count, left_out, "every resample agrees" if lo == hi else None)
        for e, lo, hi in zip(estimates, low, high, strict=True)
    ]


@lru_cache(maxsize=4096)
def tail_of(level: float, subjects: int) -> float:
    """The quantile at which a percentile interval of few subjects ends, so that it covers as Student's t does [2]."""
    t = stdtrit(subjects - 1, (1 + level) / 2)
    return float(ndtr(-t * np.sqrt(subjects / (subjects - 1))))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def subject_bootstrap(
    metric: Metric, y: Array, score: Array, subjects: Array, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """A metric with its interval.

    Args:
        metric: of `medssml.statistics.metrics`, or any function of that signature.
        y: (N,) targets without NaN.
        score: (N,) or (N, K) predictions.
        subjects: (N,) ids; equal ids are one person.
        n: resamples.
        seed: of the resamples.
        level: coverage.
    """
    y, score = np.asarray(y), np.asarray(score)
    return intervals(lambda weights: metric(y, score, weights), subjects, n=n, seed=seed, level=level)[0]


def paired_bootstrap(
    metric: Metric,
    y: Array,
    score: Array,
    other: Array,
    subjects: Array,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """metric(score) - metric(other) on the same studies; each resample applies to both."""
    y, score, other = np.asarray(y), np.asarray(score), np.asarray(other)

    def difference(weights: Array) -> Array:
        return metric(y, score, weights) - metric(y, other, weights)

    return intervals(difference, subjects, n=n, seed=seed, level=level)[0]


def seed_weights(rows: int, seeds: int, rng: np.random.Generator) -> Array:
    """(R, S) weights of a resample of S training seeds; each row sums to 1.

    S - 1 of the S seeds are drawn with replacement: then the variance of a mean over few seeds is neither under- nor
    over-stated (Rao and Wu, JASA 83:231, 1988; drawing S of S would understate it by (S - 1) / S).
    """
    if seeds == 1:
        return np.ones((rows, 1))
    drawn = rng.integers(0, seeds, size=(rows, seeds - 1))
    return np.stack([(drawn == s).sum(axis=1) for s in range(seeds)], axis=1) / (seeds - 1)


def is_estimate(weights: Array) -> bool:
    """Whether these weights (R, N) ask for the estimate, all studies once, and not for a resample."""
    return len(weights) == 1 and bool((weights == 1).all())


def over_seeds(values: Callable[[Array], Array], seeds: int, *, seed: int, two_level: bool = True) -> Statistic:
    """The mean over training seeds of a statistic, as a statistic.

    Args:
        values: weights (R, N) -> (R, S) or (R, S, K): the statistic of each seed's model.
        seeds: S.
        seed: of the draws of seeds.
        two_level: draw the seeds as well as the subjects: the interval then holds the spread between trainings.
    """
    rng = np.random.default_rng([seed, 1])

    def mean(weights: Array) -> Array:
        per_seed = np.asarray(values(weights))
        if not two_level or is_estimate(weights):
            return per_seed.mean(axis=1)
        chosen = seed_weights(len(weights), seeds, rng)
        return np.einsum("rs...,rs->r...", per_seed, chosen)

    return mean


def combine_seeds(
    metric: Metric,
    y: Array,
    scores: Array,
    subjects: Array,
    *,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    two_level: bool = True,
) -> Interval:
    """The metric averaged over models of several training seeds; a resample of subjects applies to all of them.

    Args:
        metric: as in `subject_bootstrap`.
        y: (N,) targets.
        scores: (S, N) or (S, N, K): each seed's predictions of the same studies.
        subjects: (N,) ids.
        n: resamples.
        seed: of the resamples.
        level: coverage.
        two_level: resample the seeds too.
    """
    y, scores = np.asarray(y), np.asarray(scores)

    def per_seed(weights: Array) -> Array:
        return np.stack([metric(y, score, weights) for score in scores], axis=1)

    statistic = over_seeds(per_seed, len(scores), seed=seed, two_level=two_level)
    return intervals(statistic, subjects, n=n, seed=seed, level=level)[0]
