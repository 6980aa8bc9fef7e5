"""From effects per study to effects overall: means with intervals over subjects and training seeds, and subgroups.

Per-study effects come as (S, N, ...) arrays, S models of the same studies. Each resample draws subjects, and with more
than one model also models: the interval then holds the spread between trainings, which one model cannot show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erfc

from medssml.statistics.bootstrap import MIN_SUBJECTS, Array, Interval, intervals, is_estimate, over_seeds, resample


@dataclass(frozen=True)
class Resampling:
    """How intervals are made. subjects: (N,) ids. n: resamples. seed: of them. level: coverage."""

    subjects: Array
    n: int = 1000
    seed: int = 0
    level: float = 0.95

    def within(self, rows: Array) -> Resampling:
        """The same for some of the studies."""
        return Resampling(self.subjects[rows], self.n, self.seed, self.level)


def mean_interval(values: Array, how: Resampling, *, shift: Array | None = None, size: bool = False) -> Interval:
    """The mean over studies and models of values (S, N), or of their sizes; studies with NaN in any model are left out.

    Args:
        values: (S, N).
        how: the resampling.
        shift: (S, N) by how much each value moves when v of the empty coalition is wrong by one standard error: it is a
            mean over reference studies, and what it is uncertain by is common to all studies.
        size: of |value|.
    """
    rows = np.flatnonzero(np.isfinite(values).all(axis=0))
    kept, some = values[:, rows], how.within(rows)
    moves = None if shift is None or not shift[:, rows].any() else shift[:, rows]
    rng = np.random.default_rng([how.seed, 4])

    def mean(weights: Array) -> Array:
        total = weights.sum(axis=1, keepdims=True)
        if moves is None or is_estimate(weights):
            return weights @ (np.abs(kept) if size else kept).T / total
        error = rng.standard_normal(len(weights))
        moved = kept[None] + error[:, None, None] * moves[None]
        return np.einsum("rn,rsn->rs", weights, np.abs(moved) if size else moved) / total

    statistic = over_seeds(mean, len(values), seed=how.seed)
    return intervals(statistic, some.subjects, n=how.n, seed=how.seed, level=how.level)[0]


def subgroup_summary(
    shapley: Array, groups: Mapping[str, Array], modalities: tuple[str, ...], how: Resampling
) -> dict[str, Any]:
    """Shapley values within each subgroup, and whether they differ from those of the other studies.

    Args:
        shapley: (S, N, M).
        groups: name of a grouping -> (N,) text; empty text = not known.
        modalities: names of the columns.
        how: the resampling.

    Returns:
        grouping -> group -> {"n", "modalities": modality -> {"shapley", "difference", "p", "p_holm"}}. `p` is two-sided,
        from the bootstrap's standard error; `p_holm` is corrected for all comparisons on the page (Holm 1979).
    """
    out: dict[str, Any] = {}
    tests: list[dict[str, Any]] = []
    for grouping, labels in groups.items():
        names = [name for name in np.unique(labels.astype(str)) if name]
        if len(names) < 2:
            continue
        found = {name: _one_group(shapley, labels.astype(str), name, modalities, how) for name in names}
        out[grouping] = {name: group for name, group in found.items() if group is not None}
        tests += [m for group in out[grouping].values() for m in group["modalities"].values() if "p" in m]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p
    return out


def _one_group(
    shapley: Array, labels: Array, name: str, modalities: tuple[str, ...], how: Resampling
) -> dict[str, Any] | None:
    inside = labels == name
    if len(np.unique(how.subjects[inside])) < MIN_SUBJECTS:
        return None
    out: dict[str, Any] = {"n": int(inside.sum()), "modalities": {}}
    for column, modality in enumerate(modalities):
        has = np.isfinite(shapley[:, :, column]).all(axis=0)
        if not (inside & has).any():
            continue
        rows = np.flatnonzero(inside & has)
        found: dict[str, Any] = {"shapley": mean_interval(shapley[:, rows, column], how.within(rows)).to_dict()}
        others = has & (labels != "") & ~inside
        if min(len(np.unique(how.subjects[group])) for group in (inside & has, others)) >= MIN_SUBJECTS:
            found |= _difference(shapley[:, :, column], inside, has & (labels != ""), how)
        out["modalities"][modality] = found
    return out


def _difference(values: Array, inside: Array, known: Array, how: Resampling) -> dict[str, Any]:
    """Mean inside the group minus mean outside of it, (S, N) values, with interval and p."""
    rows = np.flatnonzero(known)
    kept, member, some = values[:, rows], inside[rows], how.within(rows)

    def difference(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return _mean(weights * member, kept) - _mean(weights * ~member, kept)

    statistic = over_seeds(difference, len(values), seed=how.seed)
    drawn, _ = resample(statistic, some.subjects, n=how.n, seed=how.seed)
    found = intervals(statistic, some.subjects, n=how.n, seed=how.seed, level=how.level)[0]
    spread = float(drawn.std(ddof=1)) if len(drawn) > 1 else 0.0
    estimate = 0.0 if found.estimate is None else found.estimate
    p = float(erfc(abs(estimate) / spread / np.sqrt(2))) if spread > 0 else 1.0
    return {"difference": found.to_dict(), "p": p}


def _mean(weights: Array, values: Array) -> Array:
    return weights @ values.T / weights.sum(axis=1, keepdims=True)


def holm(p: list[float]) -> list[float]:
    """p values corrected by Holm's step-down procedure, which keeps the chance of any false finding at the level."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, p[index] * (len(p) - rank)))
        corrected[index] = running
    return [float(value) for value in corrected]
