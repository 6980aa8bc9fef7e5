"""Batches from any point of a run to its end, one epoch after the other, as one iterable.

Lightning sees one long epoch. So a resume does not go through its loop counters, and the edge of an epoch is no special
case: where a run stands is one number, the batches it has taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from medssml.batch import Batch


class TrainLoader(Protocol):
    """What training asks of a loader: epochs of a fixed length, and that it can start anywhere.

    The state {"epoch": e, "batch": b} means that `take()` gives batch b of epoch e next.
    """

    def __len__(self) -> int: ...

    def take(self) -> Batch: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Portion(NamedTuple):
    """One batch of a step of the optimiser, and with it all batches of that step.

    place: which of `group` it is.
    """

    place: int
    group: tuple[Batch, ...]

    @property
    def batch(self) -> Batch:
        """The batch itself."""
        return self.group[self.place]


class Stream:
    """The batches `first` .. `last` - 1 of a run, as `Portion`s: those of one step are taken together.

    Args:
        loader: of the training studies.
        per_epoch: batches taken of each epoch, at most the loader's length.
        accumulate: batches per step of the optimiser.
    """

    def __init__(self, loader: TrainLoader, *, first: int, last: int, per_epoch: int, accumulate: int = 1) -> None:
        self.loader = loader
        self.first = first
        self.last = last
        self.per_epoch = per_epoch
        self.accumulate = accumulate

    def __iter__(self) -> Iterator[Portion]:
        batches = self._batches()
        for _ in range(self.first, self.last, self.accumulate):
            group = tuple(next(batches) for _ in range(self.accumulate))
            yield from (Portion(place, group) for place in range(self.accumulate))

    def _batches(self) -> Iterator[Batch]:
        for position in range(self.first, self.last):
            epoch, place = divmod(position, self.per_epoch)
            # Elsewhere the loader goes on by itself, and its processes may read ahead.
            if position == self.first or (place == 0 and self.per_epoch < len(self.loader)):
                self.loader.load_state_dict({"epoch": epoch, "batch": place})
            yield self.loader.take()
