"""Studies that can be loaded: prepared, those with failing files left out, in batches. Training and evaluation begin here."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssml.data.dataset import StudyDataset, Transform
from medssml.data.loader import EvalLoader
from medssml.data.prepare import nothing_to_read, prepare_all, usable
from medssml.data.shard_dataset import Shards, open_dataset
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import Problem
from medssml.store.cache import Cache

if TYPE_CHECKING:
    from medssml.obstacles.base import Damage

_log = logging.getLogger(__name__)
BATCH = 32


@dataclass(frozen=True)
class PreparedStudies:
    """Studies behind the part of their transforms that never changes.

    Args:
        manifest: those with a modality of `transforms`, and without a failing file.
        transforms: modality -> transform.
        store: where what is prepared lies: a cache, or shards.
        problems: files that failed; their studies are left out.
        empty: studies left out because they have nothing that is read.
        asked: studies before any was left out.
        num_workers: loader processes.
        seed: of what training draws.
        timeout_s: s after which a silent loader process is taken for stalled.
        nothing: a line for each of the `empty` ones.
        damages: what befalls the studies; the roads of their modalities are those `from_loader`.
    """

    manifest: Manifest
    transforms: Mapping[str, Transform]
    store: Cache | Shards
    problems: tuple[Problem, ...]
    empty: int
    asked: int
    num_workers: int = 0
    seed: int = 0
    timeout_s: float = 300.0
    nothing: tuple[Problem, ...] = ()
    damages: tuple[Damage, ...] = ()

    @property
    def quarantined(self) -> int:
        """Studies left out because a file of theirs fails."""
        return len({problem.row for problem in self.problems})

    def dataset(self, studies: Manifest | None = None, *, train: bool = False) -> StudyDataset:
        """Some of the studies, or all; augmented where `train`."""
        table = self.manifest if studies is None else studies
        opened = open_dataset(table, self.transforms, self.store, seed=self.seed, train=train)
        opened.damages = self.damages
        return opened

    def batches(
        self,
        studies: Manifest | None = None,
        batch_size: int = BATCH,
        *,
        tasks: Sequence[str] | None = None,
        spread: bool = False,
    ) -> EvalLoader:
        """Some of the studies, or all, once, in the order of the table, nothing drawn.

        Args:
            studies: of `manifest`.
            batch_size: studies per batch.
            tasks: targets in the batches; default: all of the manifest.
            spread: each rank gets a part of every batch.
        """
        return EvalLoader(
            self.dataset(studies),
            batch_size,
            tasks=tuple(self.manifest.tasks if tasks is None else tasks),
            spread=spread,
            num_workers=self.num_workers,
            timeout_s=self.timeout_s,
        )

    def parts(self, size: int = 1024) -> Iterator[Manifest]:
        """The studies, some at a time: for tables that are too long to be held encoded at once."""
        for start in range(0, len(self.manifest), size):
            yield self.manifest.filter(np.arange(start, min(start + size, len(self.manifest))))


def prepare_studies(
    manifest: Manifest,
    transforms: Mapping[str, Transform],
    store: str | Path | Cache | Shards | None,
    *,
    prepare_workers: int = 2,
    num_workers: int = 0,
    seed: int = 0,
    timeout_s: float = 300.0,
) -> PreparedStudies:
    """Fills the cache, and leaves out the studies that cannot be used.

    Args:
        manifest: all studies, or those of a split.
        transforms: modality -> transform.
        store: folder of prepared studies, a cache, or the shards that hold them; None keeps nothing.
        prepare_workers: processes that prepare files.
        num_workers, seed, timeout_s: as `PreparedStudies`.

    Raises:
        OSError: the cache cannot be written.
    """
    kept = store if isinstance(store, (Cache, Shards)) else Cache(store)
    dataset = open_dataset(manifest, transforms, kept)
    problems = prepare_all(dataset, workers=prepare_workers)
    accepted, empty = usable(dataset, problems)
    found = PreparedStudies(
        manifest.filter(accepted),
        transforms,
        kept,
        tuple(problems),
        empty,
        len(manifest),
        num_workers,
        seed,
        timeout_s,
        tuple(nothing_to_read(dataset)),
    )
    _log.info(
        "%d studies: %d accepted, %d quarantined, %d without any modality",
        found.asked,
        len(found.manifest),
        found.quarantined,
        empty,
    )
    return found
