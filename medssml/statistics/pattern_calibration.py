"""Logits that are as sure as they are right, for every subset of modalities: temperature scaling with a temperature and an
offset per subset.

Of each study with known label and each subset s of what it has, the model's logit z says

    u = exp(a_s) z + b_s,    a_s = a + sum of a_m over m in s + a'_s,    b_s likewise,

fitted by maximum likelihood under a normal prior of variance 1 / PRIOR on every term: what a subset shares with others is
learned from all of them, and what few studies show stays near the model's own answer. All answers together weigh as much as
there are studies.
The slopes come from studies that the model has not learned from, on which alone it shows how sure it may be; the offsets,
which say how frequent a class is, from those it has learned from as well. Platt scaling and temperature scaling [1, 2] are
the case of one subset.

Then confidence is made monotone: a study seen with less must not be answered more surely, on average, than the same study
seen with more. Least changes to the mean confidence of each subset are found that leave every step down at least MARGIN, and
each slope is changed by as much as its subset needs. No order of studies within a subset changes, so no AUROC of a subset does.

[1] Platt, Probabilistic outputs for support vector machines, 1999.
[2] Guo et al., On calibration of modern neural networks, ICML 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize, nnls
from scipy.special import expit, logsumexp, softmax

from medssml.statistics.bootstrap import Array

#: Inverse variance of the prior of each term, so that one term alone changes a slope by a third, a logit by a third.
PRIOR = 10.0
#: By how much more sure answers must be with one modality more, on average.
MARGIN = 0.004
#: Factors within which a slope is changed for the sake of monotone confidence.
LEAST, MOST = 0.05, 20.0
#: A subset is changed by what all of its studies show, a step is seen on those that have both: so often it is looked again.
ROUNDS = 5
#: Changes of mean confidence that are none.
ENOUGH = 1e-6


class Answers(NamedTuple):
    """What a model says of N studies from every subset of M modalities.

    logits: (N, 2^M) of a binary task, or (N, 2^M, K); column s is the subset with bits s. y: (N,) class, NaN where unknown.
    present: (N, M) bool, what each study has. weight: (N,) of its label.
    """

    logits: Array
    y: Array
    present: Array
    weight: Array

    @property
    def known(self) -> Answers:
        """Those with a label that counts, and something to answer from."""
        rows = np.isfinite(self.y) & (self.weight > 0) & self.present.any(1)
        return Answers(*(part[rows] for part in self))


class PatternScaling(NamedTuple):
    """scale: (2^M,) of the logits of each subset. shift: (2^M, 1), or (2^M, K) of K classes."""

    scale: Array
    shift: Array

    def __call__(self, logits: Array) -> Array:
        """Calibrated logits, of the same shape."""
        if logits.ndim == 2:
            return logits * self.scale + self.shift[:, 0]
        return logits * self.scale[:, None] + self.shift


def fitted(held_out: Answers, learned: Answers | None = None, *, balanced: bool = False) -> PatternScaling:
    """Slopes from `held_out`, offsets from both; the answers themselves where neither has a label.

    Args:
        held_out: of studies that the model has not learned from. learned: of those that it has.
        balanced: classes count in each subset as if they were as frequent there as among all: what is there says nothing of
            the label. A subset in which a class is rare then counts as few studies as it tells of (Kish's effective number).
    """
    sets = [part.known for part in ([held_out] if learned is None else [held_out, learned])]
    modalities, classes = held_out.present.shape[1], held_out.logits.shape[2] if held_out.logits.ndim == 3 else 1
    frequency = _frequency(sets, max(2, classes)) if balanced else None
    pairs = [_Pairs.of(part, frequency) for part in sets]
    terms = _terms(np.arange(2**modalities), modalities)
    size = terms.shape[1]
    start = np.zeros((1 + classes) * size)
    first = _minimum(pairs[0], terms, classes, start, slopes=True)
    every = pairs[0] if learned is None else pairs[0].joined(pairs[1])
    both = np.concatenate([first[:size], _minimum(every, terms, classes, first, slopes=False)[size:]])
    return PatternScaling(np.exp(terms @ both[:size]), terms @ both[size:].reshape(size, classes))


def monotone(scaling: PatternScaling, studies: Sequence[Answers], margin: float = MARGIN) -> PatternScaling:
    """New ones, with slopes under which no study is answered more surely from less, on average; no label is needed.

    Args:
        studies: answers of the model to any studies.
        margin: see `MARGIN`.
    """
    scaling = PatternScaling(scaling.scale.copy(), scaling.shift.copy())
    answers = np.concatenate([part.logits for part in studies])
    present = np.concatenate([part.present for part in studies])
    full = present @ (1 << np.arange(present.shape[1]))
    steps = [step for step in _steps(present.shape[1]) if ((full & step[0]) == step[0]).any()]
    for _ in range(ROUNDS):
        logits, needed = scaling(answers), []
        for more, less in steps:
            rows = (full & more) == more
            needed.append(margin - (_confidence(logits[rows, more]) - _confidence(logits[rows, less])))
        changes = _least_changes(steps, np.array(needed), logits.shape[1])
        for subset in np.flatnonzero(np.abs(changes) > ENOUGH):
            factor = _factor(logits[(full & subset) == subset, subset], changes[subset])
            scaling.scale[subset] *= factor
            scaling.shift[subset] *= factor
    return scaling


class _Pairs(NamedTuple):
    """A row per study and subset of what it has. logits: (n,) or (n, K); subset, y, weight: (n,)."""

    logits: Array
    subset: Array
    y: Array
    weight: Array

    @classmethod
    def of(cls, answers: Answers, frequency: Array | None) -> _Pairs:
        """Of studies with labels. frequency: (K,) of the classes, to which they are balanced in each subset; None for not."""
        full = answers.present @ (1 << np.arange(answers.present.shape[1]))
        subsets = answers.logits.shape[1]
        found = [np.flatnonzero((full & subset) == subset) for subset in range(1, subsets)]
        rows = np.concatenate(found)
        subset = np.repeat(np.arange(1, subsets), [len(part) for part in found])
        # One divisor for all: that of each study would count less where more is there, which may say something of the label.
        weight = answers.weight[rows] * (answers.weight.sum() / max(answers.weight[rows].sum(), 1e-12))
        if frequency is not None:
            weight = _balanced(weight, subset, answers.y[rows].astype(int), frequency, subsets)
        return cls(answers.logits[rows, subset], subset, answers.y[rows], weight)

    def joined(self, other: _Pairs) -> _Pairs:
        return _Pairs(*(np.concatenate(both) for both in zip(self, other, strict=True)))


def _frequency(sets: Sequence[Answers], classes: int) -> Array:
    """(K,) of the classes among all studies, with one study of each more."""
    counts = sum(np.bincount(part.y.astype(int), part.weight, minlength=classes) for part in sets) + np.ones(classes)
    return np.asarray(counts / counts.sum())


def _balanced(weight: Array, subset: Array, y: Array, frequency: Array, subsets: int) -> Array:
    """(n,) the weights of pairs, with classes as frequent in each subset as `frequency` (K,) says; one study is added to each."""
    mass = np.zeros((subsets, len(frequency)))
    np.add.at(mass, (subset, y), weight)
    share = (mass + frequency) / (mass.sum(1, keepdims=True) + 1)
    found = weight * (frequency / share)[subset, y]
    total = np.bincount(subset, found, minlength=subsets)
    squares = np.bincount(subset, found**2 / weight, minlength=subsets)
    effective = np.divide(total, squares, out=np.zeros(subsets), where=squares > 0)
    return np.asarray(found * effective[subset])


def _terms(subsets: Array, modalities: int) -> Array:
    """(n, 1 + M + 2^M): what all subsets share, those with a modality share, and each has of its own."""
    members = (subsets[:, None] >> np.arange(modalities)) & 1
    return np.hstack([np.ones((len(subsets), 1)), members, np.eye(2**modalities)[subsets]])


def _minimum(pairs: _Pairs, terms: Array, classes: int, start: Array, *, slopes: bool) -> Array:
    """The posterior mode; without `slopes`, these stay at `start`."""
    if not len(pairs.y):
        return start
    size, z = terms.shape[1], pairs.logits.reshape(len(pairs.y), classes).astype(np.float64)
    truth = pairs.y[:, None] if classes == 1 else np.eye(classes)[pairs.y.astype(int)]

    def cost(theta: Array) -> tuple[float, Array]:
        scale, shift = np.exp(terms @ theta[:size]), terms @ theta[size:].reshape(size, classes)
        u = z * scale[pairs.subset, None] + shift[pairs.subset]
        log_normaliser = np.logaddexp(0, u) if classes == 1 else logsumexp(u, axis=1, keepdims=True)
        loss = float((pairs.weight * (log_normaliser[:, 0] - (truth * u).sum(1))).sum() + PRIOR / 2 * (theta**2).sum())
        error = pairs.weight[:, None] * ((expit(u) if classes == 1 else softmax(u, axis=1)) - truth)
        of_slopes = _per_subset((error * z).sum(1, keepdims=True), pairs.subset, len(terms))[:, 0] * scale
        of_offsets = terms.T @ _per_subset(error, pairs.subset, len(terms))
        gradient = np.concatenate([terms.T @ of_slopes, of_offsets.ravel()]) + PRIOR * theta
        gradient[:size] *= slopes
        return loss, gradient

    return np.asarray(minimize(cost, start, jac=True, method="L-BFGS-B").x)


def _per_subset(values: Array, subset: Array, subsets: int) -> Array:
    """(2^M, K) sums of the rows of each subset."""
    return np.stack([np.bincount(subset, column, minlength=subsets) for column in values.T], axis=1)


def _steps(modalities: int) -> list[tuple[int, int]]:
    """(a subset, the same without one modality), neither empty."""
    return [
        (more, more & ~(1 << place))
        for more in range(1, 2**modalities)
        for place in range(modalities)
        if more >> place & 1 and more & ~(1 << place)
    ]


def _confidence(logits: Array) -> float:
    """Mean probability of the likeliest class."""
    if logits.ndim == 1:
        return float(np.mean(1 / (1 + np.exp(-np.abs(logits)))))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return float(np.mean(1 / odds.sum(1)))


def _least_changes(steps: Sequence[tuple[int, int]], needed: Array, subsets: int) -> Array:
    """(2^M,) d of least square with d[more] - d[less] >= needed for every step (Lawson and Hanson's LDP)."""
    if (needed <= ENOUGH).all():
        return np.zeros(subsets)
    rows = np.zeros((len(steps), subsets))
    for row, (more, less) in enumerate(steps):
        rows[row, more], rows[row, less] = 1, -1
    system = np.vstack([rows.T, needed])
    dual, _ = nnls(system, np.eye(subsets + 1)[-1], maxiter=100 * len(steps))
    residual = system @ dual - np.eye(subsets + 1)[-1]
    return np.asarray(-residual[:-1] / residual[-1])


def _factor(logits: Array, change: float) -> float:
    """By what logits are multiplied so that their mean confidence changes by so much; 1 where none can be found."""

    def excess(log_factor: float) -> float:
        return _confidence(logits * np.exp(log_factor)) - wanted

    wanted = _confidence(logits) + change
    low, high = float(np.log(LEAST)), float(np.log(MOST))
    if excess(low) >= 0 or excess(high) <= 0:
        return 1.0
    return float(np.exp(brentq(excess, low, high)))
