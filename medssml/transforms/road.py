"""A modality's road from a file to the tensors that its encoder reads: a MONAI `Compose` of dictionary transforms.

The first step is a loader. What follows up to the first random step (MONAI's own rule, as in its CacheDataset), or the first
that learns from the training studies, is deterministic: it is done once, and the cache stores it. The rest is done whenever a
study is loaded; evaluation does it without what is random. Plain tensors leave the road, never a MetaTensor.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from monai.transforms import Compose
from monai.transforms import Transform as MonaiTransform
from monai.transforms.traits import RandomizableTrait

from medssml.batch import Inputs
from medssml.config import ConfigError, build, describe
from medssml.monai_names import NEED_GEOMETRY
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, Transform, library_version, notes_array
from medssml.transforms.keyed import Keyed
from medssml.transforms.loaders import Loader
from medssml.transforms.stored import packed, unpacked


class RoadError(ValueError):
    """A step that cannot be applied: which, of which modality, and why."""

    exit_code = 2


class Road(Transform):
    """One modality's road.

        Road("ct", [LoadCTd("ct", size=(72, 72, 72)), RandSpatialCropd("ct", (64, 64, 64), random_size=False)])

    Args:
        modality: the key of its steps.
        steps: MONAI dictionary transforms, a loader of `medssml.transforms` first; or a `Compose` of them.

    Raises:
        ValueError: another first step, or a step that needs the geometry of a volume where it is no longer known.
    """

    def __init__(self, modality: str, steps: Sequence[Any] | Compose) -> None:
        steps = list(steps.transforms if isinstance(steps, Compose) else steps)
        for step in steps:
            if not isinstance(step, MonaiTransform):
                raise ValueError(f"{type(step).__name__} is no transform of MONAI; fix: a dictionary transform")
        if not steps or not isinstance(steps[0], Loader) or tuple(steps[0].keys) != (modality,):
            raise ValueError(f"the road of {modality} begins with a loader of key {modality!r}, such as LoadCTd")
        self.modality, self.steps = modality, steps
        self.loader: Loader = steps[0]
        following = list(Compose(steps).flatten().transforms)[1:]
        self._divide(following, next((at for at, step in enumerate(following) if _ends_prefix(step)), len(following)))

    def from_loader(self) -> Road:
        """The same road, its steps shared, of which nothing is prepared but what the loader reads.

        For what changes a study as it was recorded: the steps behind the loader then see the change.

        Raises:
            ValueError: a step needs the geometry of the file, which is not kept.
        """
        other = copy.copy(self)
        other._divide(list(Compose(self.steps).flatten().transforms)[1:], 0)
        return other

    def _divide(self, steps: list[Any], first: int) -> None:
        """Into the `first` steps, which are prepared once, and what is done each time, in training and in evaluation."""
        prefix, rest = steps[:first], steps[first:]
        late = [type(step).__name__ for step in rest if type(step).__name__ in NEED_GEOMETRY]
        if late:
            raise ValueError(f"{late[0]} needs the geometry of the file; fix: put it before the first random transform")
        #: What reads a file; of a road whose prefix is the loader alone, it knows nothing of MONAI.
        self.preparation = Prefix(self.modality, self.loader, prefix) if prefix else self.loader.preparation
        self.training, self.evaluation = Compose(rest), Compose(_without_random(rest))
        self._seed = Keyed(self.training)
        self.libraries, self.takes_text = self.loader.preparation.libraries, self.loader.preparation.takes_text

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        return self.preparation.prepare(source, given)

    def held(self, name: str, value: Any) -> Source:
        return self.loader.preparation.held(name, value)

    def spec(self, name: str | None = None) -> dict[str, Any]:
        return self.preparation.spec(type(self.loader).__name__)

    def __call__(self, prepared: Prepared, seed: int | None = None) -> Inputs:
        """One study's tensors.

        Raises:
            RoadError: a step that cannot be applied.
        """
        chain = self.evaluation if seed is None else self.training
        if seed is not None:
            self._seed(seed)
        with tracked(False):
            return self._inputs(self._applied(chain.transforms, self._entries(prepared, chain.transforms)))

    def _entries(self, prepared: Prepared, following: Sequence[Any]) -> dict[str, Any]:
        if isinstance(self.preparation, Prefix):
            return unpacked(prepared)
        shared = bool(following) and getattr(following[0], "reads_only", False)
        return self.loader.entries(self.modality, prepared, shared)

    def _applied(self, steps: Iterable[Any], entries: Any) -> Any:
        """What `Compose` makes of the entries, step by step: it looks for pending lazy work between any two, of which there
        is none without meta data, and that takes as long as a small image."""
        for step in steps:
            try:
                entries = step(entries)
            except Exception as error:  # a step may be anybody's
                raise self._refused(step, error) from error
        return entries

    def _refused(self, step: Any, error: Exception) -> RoadError:
        if isinstance(error, RoadError):
            return error
        return RoadError(f"transforms.{self.modality}: {type(step).__name__}: {_reason(error)}")

    def _inputs(self, entries: Any) -> Inputs:
        value = entries[self.modality] if isinstance(entries, Mapping) else entries
        if isinstance(value, dict) and all(isinstance(part, torch.Tensor) for part in value.values()):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, torch.Tensor):
            return plain(value).to(torch.float32)
        raise RoadError(
            f"transforms.{self.modality}: the road ends in a {type(value).__name__}, expected a tensor; fix: its last step, "
            "such as Tokenized for a report, Standardised for a table, EEGInputsd for an EEG"
        )

    def fit_training(self, prepared: Iterable[Prepared], subjects: Sequence[str] | None = None) -> list[str]:
        """Lets each step that learns see the training studies as they come to it in evaluation."""
        said: list[str] = []
        steps = list(self.evaluation.transforms)
        learners = [place for place, step in enumerate(steps) if hasattr(step, "learn")]
        prepared = list(prepared) if len(learners) > 1 else prepared
        for place in learners:
            with tracked(False):
                rows = (self._applied(steps[:place], self._entries(entry, steps)) for entry in prepared)
                try:
                    said += steps[place].learn(rows, subjects)
                except ValueError as error:
                    raise self._refused(steps[place], error) from error
        return said

    def described(self) -> list[Any]:
        return [describe(step) for step in self.steps]


class Prefix(Preparation):
    """A loader and the deterministic steps behind it.

    Args:
        modality: their key. loader: reads the file. steps: MONAI transforms, which may use the geometry of the file.
    """

    def __init__(self, modality: str, loader: Loader, steps: Sequence[Any]) -> None:
        self.modality, self.loader, self.steps = modality, loader, Compose(list(steps))

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        with tracked(True):
            loaded = self.loader.load(self.modality, source, given)
            meta = getattr(loaded[self.modality], "meta", {})
            try:
                entries = self.steps(loaded)
            except RuntimeError as error:
                raise RoadError(f"transforms.{self.modality}: {_reason(error)}") from error
        return {**packed(entries), NOTES: notes_array(meta.get(NOTES, ()))}

    def spec(self, name: str | None = None) -> dict[str, Any]:
        spec = self.loader.preparation.spec(name)
        spec["versions"]["monai"] = library_version("monai")
        return {**spec, "then": [describe(step) for step in self.steps.transforms]}


def built_road(modality: str, part: Any, plugins: Collection[str] = (), at: str = "") -> Transform:
    """The road that a config states: a list of steps, or one class that is a road.

    Args:
        modality: its name. part: the nodes. plugins: packages that classes may come from. at: its key, for messages.

    Raises:
        ConfigError: no road.
    """
    if isinstance(part, Mapping):
        return build(part, Transform, plugins=plugins, at=at)  # type: ignore[no-any-return]
    try:
        return Road(modality, build(part, plugins=plugins, at=at))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"key {at or modality!r}: {error}") from error


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without MONAI's meta data."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


@contextmanager
def tracked(on: bool) -> Iterator[None]:
    """Inside, MONAI's transforms keep meta data, or do not: without it they take a third of the time."""
    before = get_track_meta()
    set_track_meta(on)
    try:
        yield
    finally:
        set_track_meta(before)


def _ends_prefix(step: Any) -> bool:
    return isinstance(step, RandomizableTrait) or hasattr(step, "learn")


def _without_random(steps: Iterable[Any]) -> list[Any]:
    """The steps that draw nothing; of a plain `Compose` inside, those of its own."""
    kept = []
    for step in steps:
        if type(step) is Compose:
            kept.append(Compose(_without_random(step.transforms), map_items=step.map_items))
        elif not isinstance(step, RandomizableTrait):
            kept.append(step)
    return kept


def _reason(error: BaseException) -> str:
    """What a step said, in one line; where a `Compose` was between, the step that it names as well."""
    steps = ""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        words = str(error).removeprefix("applying transform ").removeprefix("<").split(" ")[0].rpartition(".")[2]
        steps, error = f"{steps}{words}: ", error.__cause__
    return f"{steps}{' '.join(str(error).split()) or type(error).__name__}"
