"""Batches whose order is a function of seed and step, so that training stops and goes on without a trace.

The position is one number, the batches handed over so far; epoch and place follow from it. It is looked at when the
first batch of an epoch is asked for, not when `iter` is called: Lightning calls `iter` before it restores anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from medssml.batch import Batch
from medssml.data.collate import collate
from medssml.data.dataset import Plan, StudyDataset
from medssml.data.epoch_order import Order, Window, balanced, gathered, shuffled

#: Batches that each loader process has before it, the one that it is at included.
_READ_AHEAD = 2


class LoaderStalled(RuntimeError):
    """A loader process died or took too long; names what it was reading."""


class _Batches:
    """What both loaders share: a `DataLoader` over lists of (index, epoch, draw), in one process or several."""

    def __init__(self, dataset: StudyDataset, tasks: Sequence[str], num_workers: int, timeout_s: float) -> None:
        self.dataset, self.tasks = dataset, tuple(tasks)
        self.num_workers, self.timeout_s = int(num_workers), float(timeout_s)

    def _stream(self, plans: Any) -> Iterator[Batch]:
        if self.num_workers:
            self.dataset.reading = torch.full((self.num_workers,), -1, dtype=torch.int64).share_memory_()
        loader = DataLoader(
            self.dataset,
            batch_sampler=self.dataset.look_ahead(plans, _READ_AHEAD * self.num_workers + 1),
            num_workers=self.num_workers,
            prefetch_factor=_READ_AHEAD if self.num_workers else None,
            collate_fn=partial(collate, modalities=self.dataset.modalities, tasks=self.tasks),
            worker_init_fn=_one_thread,
            timeout=self.timeout_s if self.num_workers else 0,
            # A generator of its own: the global one must not notice how often a loader was started.
            generator=torch.Generator(),
        )
        return iter(loader)

    def _take(self, stream: Iterator[Batch]) -> Batch:
        try:
            return next(stream)
        except RuntimeError as error:
            if "DataLoader" not in str(error) or self.dataset.reading is None:
                raise
            raise LoaderStalled(f"{self._suspects()}: {str(error).splitlines()[0]}") from error

    def _suspects(self) -> str:
        manifest = self.dataset.manifest
        rows = (
            sorted({int(index) for index in self.dataset.reading if index >= 0})
            if self.dataset.reading is not None
            else []
        )
        named = [
            f"row {manifest.row_number(index)} ({', '.join(self.dataset.cell(index, m) for m in self.dataset.present(index))})"
            for index in rows
        ]
        return (
            f"a loader process died or took more than {self.timeout_s:g} s; being read: {'; '.join(named) or 'nothing'}"
        )


class _Plan:
    """Which studies a step shows. Knows nothing of the loader: a loader process that is no longer needed then ends at
    once, and not when the garbage collector finds a circle."""

    def __init__(
        self,
        studies: int,
        batch_size: int,
        seed: int,
        groups: Sequence[str] | None,
        power: float,
        window: Window | None = None,
    ) -> None:
        self.studies, self.batch_size, self.seed = studies, batch_size, seed
        self.groups, self.power, self.window = groups, power, window
        self._orders: dict[int, Order] = {}

    @property
    def batches(self) -> int:
        """Of one epoch."""
        return self.studies // self.batch_size

    def at(self, step: int) -> Plan:
        """(index, epoch, draw) of every study of this rank's part of a batch."""
        epoch, place = divmod(step, self.batches)
        order = self._order(epoch)
        rank, ranks = _rank()
        part = self.batch_size // ranks
        start = place * self.batch_size + rank * part
        return [(int(order.rows[row]), epoch, int(order.draw[row])) for row in range(start, start + part)]

    def _order(self, epoch: int) -> Order:
        if epoch not in self._orders:
            made = (
                shuffled(self.studies, self.seed, epoch)
                if self.groups is None
                else balanced(self.groups, self.seed, epoch, self.power)
            )
            if self.window is not None:
                made = gathered(made, self.window, self.seed, epoch)
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1} | {epoch: made}
        return self._orders[epoch]

    def endless(self, step: int) -> Iterator[Plan]:
        """Plans from a step on, without end: loader processes read ahead over the edge of an epoch."""
        while True:
            yield self.at(step)
            step += 1


class TrainLoader(_Batches):
    """Shuffled batches without end, cut into epochs.

    Args:
        dataset: with `train=True`; studies without any modality must have been left out.
        batch_size: studies of one step over all ranks; each rank gets a contiguous part. At most the number of studies.
        tasks: names of the targets.
        seed: of the order.
        groups: (n,) group of every study, for balanced sampling; None = every study once per epoch.
        balance_power: see `balanced`.
        num_workers: loader processes; the batches are the same for any number.
        timeout_s: s after which a silent loader process is taken for stalled.

    Raises:
        ValueError: no studies, or a batch that cannot be divided among the ranks.
    """

    def __init__(
        self,
        dataset: StudyDataset,
        batch_size: int,
        *,
        tasks: Sequence[str] = (),
        seed: int = 0,
        groups: Sequence[str] | None = None,
        balance_power: float = 0.5,
        num_workers: int = 0,
        timeout_s: float = 300.0,
    ) -> None:
        super().__init__(dataset, tasks, num_workers, timeout_s)
        if len(dataset) == 0:
            raise ValueError("no study to train on; check the split column and the quarantined rows")
        ranks = _rank()[1]
        self.batch_size = min(int(batch_size), len(dataset) // ranks * ranks)
        if self.batch_size < 1 or self.batch_size % ranks:
            raise ValueError(f"batch_size {batch_size} of {len(dataset)} studies cannot be divided among {ranks} ranks")
        self.seed = int(seed)
        self._plan = _Plan(len(dataset), self.batch_size, self.seed, groups, float(balance_power), dataset.window)
        self.step = 0
        self._open: tuple[int, Iterator[Batch]] | None = None

    def __len__(self) -> int:
        """Batches of one epoch; studies that do not fill a batch wait for the next epoch's order."""
        return self._plan.batches

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self.step // len(self)

    def set_epoch(self, epoch: int) -> None:
        """Goes on to the start of `epoch`; an epoch that has begun, or is over, is not begun again."""
        if epoch > self.epoch:
            self.step = epoch * len(self)

    def __iter__(self) -> Iterator[Batch]:
        return _Epoch(self)

    def take(self) -> Batch:
        """The next batch, whichever epoch it belongs to.

        Raises:
            StudyError: a file that cannot be used. LoaderStalled: a process died or stalled.
        """
        if self._open is None or self._open[0] != self.step:
            self._open = None  # ends the processes that read elsewhere, before others start
            self._open = (self.step, self._stream(self._plan.endless(self.step)))
        batch = self._take(self._open[1])
        self.step += 1
        self._open = (self.step, self._open[1])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, the epoch and the batch of it that comes next, and what it must be resumed with."""
        epoch, batch = divmod(self.step, len(self))
        return {"epoch": epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next batch is `state["batch"]` of `state["epoch"]`.

        Raises:
            ValueError: the state belongs to other studies, another batch size or another seed.
        """
        for name, value in self._identity().items():
            if state.get(name, value) != value:
                what = "the training studies" if name == "studies" else name
                raise ValueError(
                    f"the checkpoint was made with {what} {state[name]!r}, now {value!r}; fix: use the same manifest and "
                    "config, or start over with --fresh"
                )
        self.step = int(state["epoch"]) * len(self) + int(state["batch"])

    def _identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b("\n".join(self.dataset.manifest.study_ids).encode(), digest_size=8)
        identity: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size}
        window = self.dataset.window
        if window is not None:
            # The order follows from which studies lie together as well.
            digest.update(window.shard.tobytes())
            identity["shards.window"] = window.width
        return {**identity, "studies": digest.hexdigest()}

    def close(self) -> None:
        """Ends the loader processes."""
        self._open = None


class _Epoch:
    """The rest of the epoch that the loader is in when the first batch is asked for."""

    def __init__(self, loader: TrainLoader) -> None:
        self.loader = loader
        self.end: int | None = None

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Batch:
        if self.end is None:
            self.end = (self.loader.epoch + 1) * len(self.loader)
        if self.loader.step >= self.end:
            raise StopIteration
        return self.loader.take()


class EvalLoader(_Batches):
    """All studies once, in the order of the table, nothing drawn.

    Args:
        dataset: with `train=False`.
        batch_size: studies per batch; the last may be smaller.
        tasks: names of the targets.
        spread: each rank gets a contiguous part of every batch; of a last batch that cannot be divided, the rest of
            fewer studies than ranks is left out. False = every rank sees all.
        num_workers, timeout_s: as `TrainLoader`.
    """

    def __init__(
        self,
        dataset: StudyDataset,
        batch_size: int,
        *,
        tasks: Sequence[str] = (),
        spread: bool = False,
        num_workers: int = 0,
        timeout_s: float = 300.0,
    ) -> None:
        super().__init__(dataset, tasks, num_workers, timeout_s)
        self.batch_size, self.spread = int(batch_size), spread

    def __len__(self) -> int:
        return len(self._plans())

    def __iter__(self) -> Iterator[Batch]:
        stream = self._stream(self._plans())
        for _ in range(len(self)):
            yield self._take(stream)

    def _plans(self) -> list[Plan]:
        rank, ranks = _rank() if self.spread else (0, 1)
        plans = []
        for start in range(0, len(self.dataset), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(self.dataset)))
            part = len(rows) // ranks
            plans.append([(int(row), 0, 0) for row in rows[rank * part : (rank + 1) * part]])
        return [plan for plan in plans if plan]


def _rank() -> tuple[int, int]:
    """(rank, number of ranks) of this process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _one_thread(worker: int) -> None:
    """Two threads inside a loader process cost eight times as much."""
    torch.set_num_threads(1)
