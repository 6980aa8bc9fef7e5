"""Batches from any point of a run to its end, one epoch after the other, as one iterable.

Lightning sees one long epoch. So a resume does not go through its loop counters, and the edge of an epoch is no special
case: where a run stands is one number, the batches it has taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from medssml.batch import Batch


class TrainLoader(Protocol):
    """What training asks of a loader: a fixed length, and that it can start anywhere.

    The state is {"epoch": e, "batch": b}: the next `iter()` yields the batches b, b + 1, ... of epoch e, and the one
    after that those of epoch e + 1 from its first.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stream:
    """The batches `first` .. `last` - 1 of a run.

    Args:
        loader: yields an epoch at a time.
        per_epoch: batches taken of each epoch, at most the loader's length.
    """

    def __init__(self, loader: TrainLoader, *, first: int, last: int, per_epoch: int) -> None:
        self.loader = loader
        self.first = first
        self.last = last
        self.per_epoch = per_epoch

    def __iter__(self) -> Iterator[Batch]:
        position = self.first
        while position < self.last:
            epoch, batch = divmod(position, self.per_epoch)
            self.loader.load_state_dict({"epoch": epoch, "batch": batch})
            count = min(self.per_epoch - batch, self.last - position)
            before = position
            for item in islice(iter(self.loader), count):
                position += 1
                yield item
            if position - before < count:
                raise RuntimeError(
                    f"the loader gave {position - before} of {count} batches of epoch {epoch}: its length is "
                    f"{len(self.loader)}; fix: a loader whose epochs all have that length"
                )
