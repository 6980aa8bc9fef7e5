"""Several linear readouts as one: each fitted on its own part of what is known, weighed by what it says of held-out studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from medssml.evaluation.probes import Readout, held_out_logits, linear_readout
from medssml.statistics.bootstrap import Array

#: Penalties of the weights, which a standardised answer has: a prior worth one study, and one that sets small ones to 0.
RIDGE, LASSO = 1.0, 0.2


class Part(NamedTuple):
    """What one readout sees. x: (r, D) vectors. study: (r,) the study of each row. own: (r,) bool, the rows whose answer is
    the part's answer for their study; the others are there to learn from. block: as of `linear_readout`."""

    x: Array
    study: Array
    own: Array
    block: int = 0


class Stack(NamedTuple):
    """readouts: part -> its map, whose logits add up; a part that could not be fitted is not in it. bias: (K,) besides.
    weights: part -> what it counts, 0 or more, in standard deviations of its answer."""

    readouts: dict[str, Readout]
    bias: Array
    weights: dict[str, float]


def stacked_readouts(
    parts: Mapping[str, Part],
    y: Array,
    subjects: Array,
    *,
    kind: str = "binary",
    classes: int = 2,
    seed: int = 0,
    weights: Array | None = None,
    alone: Mapping[str, Array] | None = None,
) -> Stack | str:
    """Linear readouts of each part, summed with weights of at least 0 that fit what each says of subjects it has not seen.

        logits = bias + sum over parts p of a_p f_p(x_p),   a = argmin of the loss of the held-out answers, a >= 0

    Stacked regressions (Breiman 1996; Wolpert 1992), where weights of at least 0 are what makes it work. The parts are the
    modalities, each by itself: with few labels one regression on all of them at once learns from the noise of those that
    say nothing, while the held-out answer of such a one is worth nothing and gets no weight. A study adds 0 for a part
    that it lacks, and every part is centred, so that a lack says nothing.

    Args:
        parts: name -> what is known.
        y: (n,) targets of the studies, NaN where unlabelled.
        subjects: (n,) ids: nobody is in two folds.
        kind: binary, multiclass or regression.
        classes: K of a multiclass task.
        seed: of the folds.
        weights: (n,) of the studies, above 0, where parts are summed; None for 1 each.
        alone: part -> (n,) of the studies in its own fit and mean; `weights` for one that is not named.

    Returns:
        the readouts, or why there are none.
    """
    fitted: dict[str, tuple[Readout, Array]] = {}
    reason = "no part"
    for name, part in parts.items():
        own = (alone or {}).get(name, weights)
        target, group, counts = y[part.study], subjects[part.study], None if own is None else own[part.study]
        found = linear_readout(
            part.x, target, group, kind=kind, classes=classes, seed=seed, weights=counts, block=part.block
        )
        if isinstance(found, str):
            reason = found
            continue
        answers = held_out_logits(
            part.x, target, group, found.setting["C"], kind=kind, classes=classes, seed=seed, weights=counts,
            block=part.block,
        )  # fmt: skip
        fitted[name] = _centred(found, answers, part, y, counts)
    known = np.flatnonzero(np.isfinite(y))
    if not fitted:
        return reason
    answers = np.stack([answer[known] for _, answer in fitted.values()])
    spread = np.sqrt((answers**2).mean(axis=(1, 2))) + 1e-9
    counted = None if weights is None else weights[known]
    weight, bias = fitted_weights(answers / spread[:, None, None], y[known], kind, counted)
    readouts = {
        name: replace(readout, weight=readout.weight * a, bias=readout.bias * a)
        for (name, (readout, _)), a in zip(fitted.items(), weight / spread, strict=True)
    }
    return Stack(readouts, bias, dict(zip(fitted, map(float, weight), strict=True)))


def _centred(readout: Readout, answers: Array, part: Part, y: Array, weights: Array | None) -> tuple[Readout, Array]:
    """The readout with a mean answer of 0 over its labelled studies; and (n, K) its held-out answers, 0 where it has none."""
    asked = part.own & np.isfinite(y[part.study]) & np.isfinite(answers).all(axis=1)
    out = np.zeros((len(y), answers.shape[1]))
    counts = None if weights is None else weights[asked]
    out[part.study[asked]] = answers[asked] - np.average(answers[asked], axis=0, weights=counts)
    mean = np.average(part.x[asked] @ readout.weight.T + readout.bias, axis=0, weights=counts)
    return replace(readout, bias=readout.bias - mean), out


def fitted_weights(answers: Array, y: Array, kind: str, studies: Array | None = None) -> tuple[Array, Array]:
    """(P,) weights of at least 0 and (K,) bias that fit answers (P, n, K), each of standard deviation 1, to y (n,).

    Args:
        studies: (n,) weights of the studies; None for 1 each.
    """
    parts, n, size = answers.shape
    share = np.full(n, 1 / n) if studies is None else studies / studies.sum()

    def objective(at: Array) -> tuple[float, Array]:
        weight = at[:parts]
        loss, slope = _loss(np.tensordot(weight, answers, 1) + at[parts:], y, kind, share)
        penalty = RIDGE * (weight**2).sum() / n + LASSO * weight.sum() / np.sqrt(n)
        by_weight = np.tensordot(answers, slope, 2) + 2 * RIDGE * weight / n + LASSO / np.sqrt(n)
        return loss + penalty, np.concatenate([by_weight, slope.sum(axis=0)])

    bounds = [(0.0, None)] * parts + [(None, None)] * size
    found = minimize(objective, np.r_[np.full(parts, 0.3), np.zeros(size)], jac=True, bounds=bounds).x
    return found[:parts], found[parts:]


def _loss(logits: Array, y: Array, kind: str, share: Array) -> tuple[float, Array]:
    """Mean loss over n studies, each with its share (n,) of it, and its slope (n, K): cross-entropy, or the squared error in
    variances of y."""
    if kind == "regression":
        error, scale = logits[:, 0] - y, max(float(y.var()), 1e-12)
        return float((share * error**2).sum() / (2 * scale)), (share * error)[:, None] / scale
    if kind == "multiclass":
        chosen = np.eye(logits.shape[1])[y.astype(int)]
        loss = -(share[:, None] * chosen * log_softmax(logits, axis=1)).sum()
        return float(loss), share[:, None] * (softmax(logits, axis=1) - chosen)
    z = logits[:, 0]
    slope = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - y
    return float((share * (np.logaddexp(0, z) - y * z)).sum()), (share * slope)[:, None]
