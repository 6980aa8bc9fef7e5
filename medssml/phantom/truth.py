"""What follows from the causal model: the Bayes posterior, the best AUROC and the true Shapley split of every subset.

Given the evidence that a subset of modalities shows, a finding's posterior is Gaussian (precision 1 plus the sum of
1 / sd^2), times the probability of the report's grade where there is a report. A label's posterior is therefore a
closed form, or one integral over one finding, which is computed by the trapezoid rule (error below 1e-9). Only the
AUROC needs Monte Carlo; its standard error is given beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import chain, combinations
from math import factorial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtr

from medssml.phantom.causes import GRADE_EDGES, MENTIONED, MODALITIES, STRENGTH, TASKS, Array, Task, grade, population

CHUNK = 2048  # studies per quadrature block: it stays in the cache
REACH = 7.0  # of the quadrature, in standard deviations of a finding
PARTS = 20  # of a Monte Carlo population, for the standard error


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    estimate: float
    se: float


class Belief(NamedTuple):
    """What is known of one finding: N(mean, variance), times the probability of the report's grade if there is one.

    mean: (n,). variance: one number, the same for all studies. grade: (n,) or None. finding: its name.
    """

    finding: str
    mean: Array
    variance: float
    grade: np.ndarray | None


def subsets(modalities: Iterable[str] = MODALITIES) -> tuple[str, ...]:
    """The names of all subsets, smallest first; "" is the empty one, "ct+eeg" two modalities in column order."""
    names = tuple(modalities)
    return tuple("+".join(part) for size in range(len(names) + 1) for part in combinations(names, size))


def members(subset: str) -> tuple[str, ...]:
    """The modalities of a subset's name. Raises KeyError for a modality that the phantom does not have."""
    names = tuple(subset.split("+")) if subset else ()
    unknown = [name for name in names if name not in MODALITIES]
    if unknown:
        raise KeyError(f"subset {subset!r} names {unknown}; the phantom's modalities are {list(MODALITIES)}")
    return names


def informative(task: str) -> tuple[str, ...]:
    """The modalities that show a finding of `task`; all others are pure noise to it."""
    findings = _task(task).findings
    return tuple(m for m in MODALITIES if any(finding in STRENGTH[m] for finding in findings))


def posterior(evidence_table: pd.DataFrame, task: str, subset: str) -> Array:
    """P(label = 1 | what the modalities of `subset` show), for each study: the best prediction there is.

    Args:
        evidence_table: columns `evidence_<modality>_<finding>`, as in truth.csv; the report's evidence counts only by
            its grade.
        task: a name of `TASKS`, without "label_".
        subset: modalities joined by "+", "" for none.

    Returns:
        (n,) probabilities. The missingness of the other modalities is not taken as evidence.
    """
    spec = _task(task)
    beliefs = [_belief(evidence_table, finding, members(subset)) for finding in spec.findings]
    if len(beliefs) == 1:
        return _posterior_of_one(beliefs[0], spec.threshold, spec.noise)
    return _posterior_of_two(beliefs[0], beliefs[1], spec.threshold, spec.noise, spec.shift)


def stated(evidence_table: pd.DataFrame, finding: str, subset: str) -> Array:
    """P(a report states the finding as at least possible | what the modalities of `subset` show), for each study.

    The best that a writer of reports can know. A report in the subset counts for nothing: it is what is to be written.

    Args:
        evidence_table: as of `posterior`. finding: one that reports grade. subset: modalities joined by "+".

    Returns:
        (n,) probabilities.
    """
    shown = tuple(modality for modality in members(subset) if modality != "report")
    belief, noise = _belief(evidence_table, finding, shown), STRENGTH["report"][finding]
    return ndtr((belief.mean - GRADE_EDGES[finding][MENTIONED - 1]) / np.sqrt(belief.variance + noise**2))


def posteriors(evidence_table: pd.DataFrame, task: str, modalities: Iterable[str] = MODALITIES) -> dict[str, Array]:
    """`posterior` of every subset; subsets that differ in uninformative modalities only are computed once."""
    useful = informative(task)
    known: dict[str, Array] = {}
    for subset in subsets(useful):
        known[subset] = posterior(evidence_table, task, subset)
    return {s: known["+".join(m for m in members(s) if m in useful)] for s in subsets(modalities)}


def _task(task: str) -> Task:
    if task not in TASKS:
        raise KeyError(f"no task {task!r}; the phantom's tasks are {list(TASKS)}")
    return TASKS[task]


def _belief(table: pd.DataFrame, finding: str, modalities: tuple[str, ...]) -> Belief:
    """Precision-weighted mean of the prior and the continuous evidence; the report's grade is kept apart."""
    precision, weighted = 1.0, np.zeros(len(table))
    for modality in modalities:
        if modality == "report" or finding not in STRENGTH[modality]:
            continue
        weight = STRENGTH[modality][finding] ** -2
        precision += weight
        weighted += weight * table[f"evidence_{modality}_{finding}"].to_numpy(float)
    shown = "report" in modalities and finding in STRENGTH["report"]
    grades = grade(finding, table[f"evidence_report_{finding}"].to_numpy(float)) if shown else None
    return Belief(finding, weighted / precision, 1 / precision, grades)


def _posterior_of_one(belief: Belief, threshold: float, noise: float) -> Array:
    """P(z + noise * N(0, 1) > threshold)."""
    if belief.grade is None:
        return ndtr((belief.mean - threshold) / np.sqrt(belief.variance + noise**2))
    nodes = _nodes(belief, noise)
    return _expect(lambda rows: ndtr((nodes - threshold) / noise)[None], belief, nodes)


def _posterior_of_two(first: Belief, second: Belief, threshold: float, noise: float, shift: float) -> Array:
    """P((z_1 + shift)(z_2 + shift) + noise * N(0, 1) > threshold): normal in z_1 given z_2, integrated over z_2."""
    if first.grade is not None:
        raise ValueError(f"the first finding of an interaction, {first.finding!r}, must not be shown by the report")
    nodes = _nodes(second, noise)
    slope = nodes + shift
    scale = 1 / np.sqrt(slope**2 * first.variance + noise**2)

    def positive(rows: slice) -> Array:
        return ndtr((first.mean[rows, None] + shift) * (slope * scale) - threshold * scale)

    return _expect(positive, second, nodes)


def _nodes(belief: Belief, noise: float) -> Array:
    """Nodes of the trapezoid rule over a finding, (k,): 0.8 of the narrowest feature apart, error below 1e-12."""
    step = 0.8 * min(np.sqrt(belief.variance), noise, 0.25)
    return np.linspace(-REACH, REACH, int(np.ceil(2 * REACH / step)) + 1)


def _expect(positive: Callable[[slice], Array], belief: Belief, nodes: Array) -> Array:
    """E[positive] under a belief; `positive` maps rows to their values at the nodes, (rows or 1, k)."""
    out = np.empty(len(belief.mean))
    likelihood = None if belief.grade is None else _grade_probability(belief.finding, nodes)
    for start in range(0, len(out), CHUNK):
        rows = slice(start, start + CHUNK)
        mass = nodes - belief.mean[rows, None]
        np.square(mass, out=mass)
        mass *= -0.5 / belief.variance
        np.exp(mass, out=mass)
        if likelihood is not None and belief.grade is not None:
            mass *= likelihood[belief.grade[rows]]
        out[rows] = (positive(rows) * mass).sum(1) / mass.sum(1)
    return out


def _grade_probability(finding: str, z: Array) -> Array:
    """P(the report's grade | z), (grades, k) at z (k,)."""
    edges = np.array([-np.inf, *GRADE_EDGES[finding], np.inf])[:, None]
    below = ndtr((edges - z) / STRENGTH["report"][finding])
    return np.diff(below, axis=0)


def soft_auroc(probability: Array) -> float:
    """The AUROC expected of ranking by calibrated probabilities (n,): P(p_i > p_j | y_i = 1, y_j = 0), y ~ p.

    Study i counts as a positive with weight p_i and as a negative with weight 1 - p_i; ties count one half.
    """
    values, index = np.unique(probability, return_inverse=True)
    positive = np.bincount(index, probability, len(values))
    negative = np.bincount(index, 1 - probability, len(values))
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))


def bayes_auroc(task: str, subset: str, n: int = 40_000, seed: int = 0) -> Estimate:
    """The best AUROC that any model can reach from `subset`, in the population with nothing missing.

    Monte Carlo over n studies, of which the exact posteriors are ranked (`soft_auroc`: labels are not drawn, which
    lowers the variance); the standard error is that of PARTS equal parts. The same draws serve every subset.
    """
    useful = informative(task)
    return _bayes_auroc(task, "+".join(m for m in members(subset) if m in useful), n, seed)


@lru_cache(maxsize=512)
def _bayes_auroc(task: str, subset: str, n: int, seed: int) -> Estimate:
    if not subset:
        return Estimate(0.5, 0.0)
    probability = _population_posterior(task, subset, n, seed)
    return Estimate(soft_auroc(probability), _standard_error(_auroc_parts(task, subset, n, seed)))


def shapley_auroc(task: str, n: int = 40_000, seed: int = 0) -> tuple[dict[str, float], dict[str, float]]:
    """Shapley split of the Bayes AUROC (0.5 for the empty subset) among all modalities, and its standard errors."""
    split = shapley({subset: bayes_auroc(task, subset, n, seed).estimate for subset in subsets()})
    useful = informative(task)
    parts = shapley({s: _auroc_parts(task, "+".join(m for m in members(s) if m in useful), n, seed) for s in subsets()})
    return split, {modality: _standard_error(phi) for modality, phi in parts.items()}


def _auroc_parts(task: str, subset: str, n: int, seed: int) -> Array:
    """The AUROC in each of PARTS equal parts of the population, (PARTS,)."""
    if not subset:
        return np.full(PARTS, 0.5)
    return np.array([soft_auroc(part) for part in np.array_split(_population_posterior(task, subset, n, seed), PARTS)])


def _standard_error(parts: Array) -> float:
    return float(np.std(parts, ddof=1) / np.sqrt(len(parts)))


def population_posteriors(task: str, n: int = 40_000, seed: int = 0) -> dict[str, Array]:
    """Every subset's posterior (n,) in the population that `bayes_auroc` ranks."""
    useful = informative(task)
    return {s: _population_posterior(task, "+".join(m for m in members(s) if m in useful), n, seed) for s in subsets()}


@lru_cache(maxsize=64)
def _population_posterior(task: str, subset: str, n: int, seed: int) -> Array:
    return posterior(_population(n, seed), task, subset)


@lru_cache(maxsize=2)
def _population(n: int, seed: int) -> pd.DataFrame:
    return population(n, seed)


def shapley(
    values: Mapping[str, float] | Mapping[str, Array], modalities: Iterable[str] = MODALITIES
) -> dict[str, Any]:
    """Exact Shapley split of a game given as subset name -> value (a number, or one per study (n,)).

    Returns:
        modality -> phi; the sum over modalities is values[all] - values[""].
    """
    players = tuple(modalities)
    total = len(players)
    split = {}
    for player in players:
        others = [p for p in players if p != player]
        parts = chain.from_iterable(combinations(others, size) for size in range(total))
        phi: Any = 0.0
        for part in parts:
            weight = factorial(len(part)) * factorial(total - len(part) - 1) / factorial(total)
            joined = "+".join(p for p in players if p in part or p == player)
            phi = phi + weight * (values[joined] - values["+".join(part)])
        split[player] = phi
    return split
