"""Batches from any point of a run to its end, one epoch after the other, as one iterable.

Lightning sees one long epoch. So a resume does not go through its loop counters, and the edge of an epoch is no special
case: where a run stands is one number, the batches it has taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from medssml.batch import Batch


class TrainLoader(Protocol):
    """What training asks of a loader: epochs of a fixed length, and that it can start anywhere.

    The state {"epoch": e, "batch": b} means that `take()` gives batch b of epoch e next.
    """

    def __len__(self) -> int: ...

    def take(self) -> Batch: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stream:
    """The batches `first` .. `last` - 1 of a run.

    Args:
        loader: of the training studies.
        per_epoch: batches taken of each epoch, at most the loader's length.
    """

    def __init__(self, loader: TrainLoader, *, first: int, last: int, per_epoch: int) -> None:
        self.loader = loader
        self.first = first
        self.last = last
        self.per_epoch = per_epoch

    def __iter__(self) -> Iterator[Batch]:
        for position in range(self.first, self.last):
            epoch, place = divmod(position, self.per_epoch)
            # Elsewhere the loader goes on by itself, and its processes may read ahead.
            if position == self.first or (place == 0 and self.per_epoch < len(self.loader)):
                self.loader.load_state_dict({"epoch": epoch, "batch": place})
            yield self.loader.take()
