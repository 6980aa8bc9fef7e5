"""What a transfer is worth: the same student with and without it, on the same studies, over several seeds; and the gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssml.evaluation.paired_runs import METRIC
from medssml.statistics.bootstrap import Array, Interval, Statistic, intervals, over_seeds
from medssml.statistics.metrics import metrics_of, why_undefined


@dataclass(frozen=True)
class Answers:
    """What S pairs of students answer for N studies of one task.

    Args:
        kind: binary, multiclass or regression.
        y: (N,) targets, NaN where unlabelled.
        subjects: (N,) ids; equal ids are one person.
        without, transfer: (S, N) or (S, N, K) answers of the student alone, and of the one that was taught; row s of both
            began with the same weights.
    """

    kind: str
    y: Array
    subjects: Array
    without: Array
    transfer: Array

    def __post_init__(self) -> None:
        if self.without.shape != self.transfer.shape or self.without.shape[1] != len(self.y):
            raise ValueError(
                f"answers {self.without.shape} without and {self.transfer.shape} with transfer of {len(self.y)} studies; "
                f"fix: both of the same seeds and studies"
            )

    @property
    def known(self) -> Array:
        """(N,) bool, the labelled studies."""
        return np.isfinite(self.y)

    @property
    def reason(self) -> str | None:
        """Why no gain can be defined, or None."""
        return why_undefined(self.kind, self.y[self.known])

    def metric(self, weights: Array, answers: Array) -> Array:
        """(R, S) the metric of each seed's answers (S, N, ...) under weights (R, N) of all studies."""
        of, known = metrics_of(self.kind)[METRIC[self.kind]], self.known
        return np.stack([of(self.y[known], one[known], weights[:, known]) for one in answers], axis=1)

    def gain(self, weights: Array) -> Array:
        """(R, S) what transfer adds to each seed's student."""
        return self.metric(weights, self.transfer) - self.metric(weights, self.without)


@dataclass(frozen=True)
class Gate:
    """Whether the student that was taught is kept. gain: mean over tasks and seeds, on validation studies."""

    kept: bool
    gain: Interval
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As transfer_gain.json has it."""
        return {"kept": self.kept, "gain": self.gain.to_dict(), "reason": self.reason}


def gate(tasks: Mapping[str, Answers], *, n: int = 1000, seed: int = 0) -> Gate:
    """Keeps a transfer whose gain on the validation studies is above 0 with its whole 95 % interval.

    The mean over tasks is judged, as one model is kept for all of them; seeds are drawn as well as subjects. A transfer that
    adds nothing passes in at most one of 40 times.

    Args:
        tasks: the answers for validation studies, all of the same studies. n: resamples. seed: of them.
    """
    judged = {name: answers for name, answers in tasks.items() if answers.reason is None}
    if not judged:
        reasons = "; ".join(f"{name}: {answers.reason}" for name, answers in tasks.items())
        nothing = Interval(None, None, None, 0, reason=reasons)
        return Gate(False, nothing, f"the validation studies cannot judge it ({reasons}): the student alone is kept")
    first = next(iter(judged.values()))

    def mean_of_tasks(weights: Array) -> Array:
        return np.mean([answers.gain(weights) for answers in judged.values()], axis=0)

    labelled = int(np.any([answers.known for answers in judged.values()], axis=0).sum())
    found = _over_seeds(mean_of_tasks, first, n, seed, labelled)
    if found.ci_low is None:
        return Gate(False, found, f"no interval of the gain ({found.reason}): the student alone is kept")
    if found.ci_low > 0:
        return Gate(
            True, found, "the gain on validation studies is above 0 with its whole interval: the transfer is kept"
        )
    return Gate(False, found, "the gain on validation studies is not surely above 0: the student alone is kept")


def gains(tasks: Mapping[str, Answers], *, n: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Task -> the metric without and with transfer and its gain, over all seeds and for each, with intervals.

    A resample of subjects applies to both students of every seed. The interval over all seeds draws seeds, too, unless there
    is one only.

    Args:
        tasks: the answers for test studies. n: resamples. seed: of them.

    Returns:
        task -> {"kind", "metric", "n", "positives", "without", "transfer", "gain", "seeds": [{"without", "transfer", "gain"}]};
        {"reason"} in the place of the numbers where none is defined.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, one in tasks.items():
        entry: dict[str, Any] = {"kind": one.kind, "metric": METRIC[one.kind], "n": int(one.known.sum())}
        entry["positives"] = int((one.y == 1).sum()) if one.kind == "binary" else None
        if one.reason is not None:
            found[name] = {**entry, "reason": one.reason}
            continue
        parts: dict[str, Statistic] = {
            "without": lambda weights, one=one: one.metric(weights, one.without),  # type: ignore[misc]
            "transfer": lambda weights, one=one: one.metric(weights, one.transfer),  # type: ignore[misc]
            "gain": one.gain,
        }
        for part, statistic in parts.items():
            entry[part] = _over_seeds(statistic, one, n, seed, entry["n"]).to_dict()
        each = {p: intervals(s, one.subjects, n=n, seed=seed, studies=entry["n"]) for p, s in parts.items()}
        entry["seeds"] = [{part: each[part][place].to_dict() for part in parts} for place in range(len(one.without))]
        found[name] = entry
    return found


def _over_seeds(values: Statistic, answers: Answers, n: int, seed: int, studies: int) -> Interval:
    statistic = over_seeds(values, len(answers.without), seed=seed)
    return intervals(statistic, answers.subjects, n=n, seed=seed, studies=studies)[0]
