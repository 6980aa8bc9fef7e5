"""What a measure of impact is: a question to a model's answers, and how the answer is written down and explained.

A `Measure` says a number about every study and modality (or pair of them); its mean over the studies, with an interval
over subjects and trainings, is the result. A `CohortMeasure` says a number about all studies at once, such as an AUROC.
One file in `medssml.counterfactual.measures` and a line in its `__init__` is a further measure: impact.json, impact.csv,
the page and the comparison with a known truth loop over them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar, NamedTuple

import numpy as np

from medssml.counterfactual.shapley import efficiency_gap, shapley
from medssml.counterfactual.summary import Resampling, mean_interval
from medssml.counterfactual.values import Value
from medssml.statistics.bootstrap import Array, Interval, intervals, over_seeds

#: What a measure may ask of `Answers`, by the name of the field.
VALUES, SWAPPED, SCORES = "values", "swapped", "scores"


@dataclass(frozen=True)
class Answers:
    """One model's answers to N studies under every intervention.

    Args:
        value: the value function.
        has: (N, M) bool, the modalities of each study.
        values: v(S), (N, 2^M); a study that lacks a part of S has v of what it has of it.
        empty_error: (N,) standard error of v of the empty coalition where it is a mean over reference studies, else 0;
            negative where the value falls as the mean rises.
        swapped: (N, M, D) value of the study with a modality of each of D other subjects; NaN where it lacks the modality
            or nobody else has it.
        scores: (N, 2^M) or (N, 2^M, K) probabilities for every subset, in the units of a metric.
        y: (N,) targets, NaN where unlabelled.
    """

    value: Value
    has: Array
    values: Array
    empty_error: Array
    swapped: Array
    scores: Array
    y: Array

    @property
    def factual(self) -> Array:
        """(N,) v(P), P being what the study has."""
        return np.asarray(self.values[:, -1])

    @property
    def gap(self) -> float:
        """Largest failure of the Shapley values to add up."""
        return efficiency_gap(self.values, shapley(self.values))

    @property
    def complete(self) -> Array:
        """(N,) bool: studies with every modality that any of them has."""
        return np.asarray(self.has[:, self.has.any(axis=0)].all(axis=1))

    def within(self, studies: Array) -> Answers:
        """The same of some studies, (N,) bool or positions."""
        value = replace(self.value, category=self.value.category[studies])
        rest = (getattr(self, name)[studies] for name in ("has", "values", "empty_error", "swapped", "scores", "y"))
        return Answers(value, *rest)

    def with_larger_empty(self) -> Answers:
        """The same, had v of nothing been one standard error larger."""
        masks = np.arange(self.values.shape[1])
        own = self.has @ (1 << np.arange(self.has.shape[1]))
        nothing = (masks[None, :] & own[:, None]) == 0
        return replace(self, values=np.where(nothing, self.values + self.empty_error[:, None], self.values))


class Finding(NamedTuple):
    """One number of impact.json. quantity: what. of: modality, pair or key. place: the keys that lead to it."""

    quantity: str
    of: str
    place: tuple[str, ...]
    interval: Interval


class Measure(ABC):
    """A number about every study and modality, or pair of modalities.

    name: in impact.json and impact.csv. title: its heading on the page; size_title: that of its mean size, where the page
    shows it. words: a sentence that explains it. asks: the fields of `Answers` that it reads.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    size_title: ClassVar[str] = ""
    words: ClassVar[str]
    asks: ClassVar[frozenset[str]] = frozenset({VALUES})

    @abstractmethod
    def __call__(self, answers: Answers) -> Array:
        """(N, M), or (N, M, M) for pairs; NaN where a study lacks the modality, or one of the pair."""

    def columns(self, answers: Sequence[Answers]) -> dict[str, Array]:
        """Columns of impact.csv, (N, M) each: by default the mean over the models; none for pairs."""
        mean = np.mean([self(of_model) for of_model in answers], axis=0)
        return {self.name: mean} if mean.ndim == 2 else {}

    def further(self, answers: Sequence[Answers], column: int) -> dict[str, Any]:
        """What else impact.json says of a modality."""
        return {}

    @property
    def headings(self) -> dict[str, str]:
        """Quantity -> heading, in the order of the page."""
        size = {f"{self.name}_abs": self.size_title} if self.size_title else {}
        return size | {self.name: self.title}

    def findings(self, answers: Sequence[Answers], modalities: tuple[str, ...], how: Resampling) -> list[Finding]:
        """The mean and the mean size over the studies, of every modality or pair that some study has."""
        values = np.stack([self(of_model) for of_model in answers])
        shift = np.stack([self(of_model.with_larger_empty()) for of_model in answers]) - values
        found = []
        for of, mean_at, size_at, index in self._places(modalities, pairs=values.ndim == 4):
            at: Any = (slice(None), slice(None), *index)
            own, moves = values[at], shift[at]
            if np.isfinite(own[0]).any():
                mean, size = (mean_interval(own, how, shift=moves, size=size) for size in (False, True))
                found += [Finding(self.name, of, mean_at, mean), Finding(f"{self.name}_abs", of, size_at, size)]
        return found

    def _places(
        self, modalities: tuple[str, ...], *, pairs: bool
    ) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], tuple[int, ...]]]:
        """Name, place of the mean, place of the mean size, and index of every modality or pair."""
        if pairs:
            for i, j in combinations(range(len(modalities)), 2):
                pair = f"{modalities[i]},{modalities[j]}"
                yield pair, (self.name, pair), (self.name, pair, "mean_abs"), (i, j)
            return
        for column, name in enumerate(modalities):
            yield name, ("modalities", name, self.name), ("modalities", name, f"{self.name}_abs"), (column,)


class Question(NamedTuple):
    """What a `CohortMeasure` asks of some studies, as K numbers.

    quantity: what they are. of: K names. places: K lists of keys of impact.json. studies: (N,) bool. statistic: answers of
    these n studies and weights (R, n) -> (R,) or (R, K). reason: why the labels do not allow it, or None.
    """

    quantity: str
    of: tuple[str, ...]
    places: tuple[tuple[str, ...], ...]
    studies: Array
    statistic: Callable[[Answers, Array], Array]
    reason: str | None = None


class CohortMeasure(ABC):
    """A number about all studies at once, such as a metric, which is no mean over studies.

    name, title, words, asks: as those of `Measure`; a title only where it belongs to a modality.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    words: ClassVar[str]
    asks: ClassVar[frozenset[str]] = frozenset({SCORES})

    @abstractmethod
    def questions(self, answers: Answers, modalities: tuple[str, ...]) -> Iterator[Question]:
        """What is asked, and of which studies."""

    @property
    def headings(self) -> dict[str, str]:
        """Quantity -> heading on the page."""
        return {self.name: self.title} if self.title else {}

    def findings(self, answers: Sequence[Answers], modalities: tuple[str, ...], how: Resampling) -> list[Finding]:
        """Every number that is asked for, averaged over the models; a reason in place of one that is not defined."""
        found = []
        for question in self.questions(answers[0], modalities):
            numbers = zip(question.of, question.places, _answered(question, answers, how), strict=True)
            found += [Finding(question.quantity, of, place, interval) for of, place, interval in numbers]
        return found


def _answered(question: Question, answers: Sequence[Answers], how: Resampling) -> list[Interval]:
    rows = np.flatnonzero(question.studies)
    if question.reason is not None:
        return [Interval(None, None, None, len(rows), reason=question.reason)] * len(question.of)
    inside, some = [of_model.within(rows) for of_model in answers], how.within(rows)

    def per_model(weights: Array) -> Array:
        return np.stack([question.statistic(of_model, weights) for of_model in inside], axis=1)

    statistic = over_seeds(per_model, len(inside), seed=how.seed)
    return intervals(statistic, some.subjects, n=how.n, seed=how.seed, level=how.level)
