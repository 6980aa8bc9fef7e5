"""The studies of a manifest as a saved model sees them: prepared, those with failing files left out, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssml.data.loader import EvalLoader
from medssml.data.prepare import prepare_all, usable
from medssml.data.shard_dataset import Shards, open_dataset
from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import Problem
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array
from medssml.store.cache import Cache

BATCH = 32


@dataclass(frozen=True)
class Cohort:
    """Studies that a model can be asked about.

    Args:
        manifest: those with a modality that the model reads, and without a failing file.
        transforms: modality -> transform of the model.
        cache: of prepared arrays, or the shards that hold them.
        problems: files that failed; their studies are left out.
        empty: studies left out because they have nothing that the model reads.
        num_workers: loader processes.
    """

    manifest: Manifest
    transforms: Mapping[str, Any]
    cache: Cache | Shards
    problems: tuple[Problem, ...]
    empty: int
    num_workers: int = 0

    def batches(self, studies: Manifest | None = None, batch_size: int = BATCH) -> EvalLoader:
        """Batches of some of the studies, or of all, in the order of the table."""
        table = self.manifest if studies is None else studies
        dataset = open_dataset(table, self.transforms, self.cache)
        return EvalLoader(dataset, batch_size, tasks=tuple(table.tasks), num_workers=self.num_workers)

    def encode(
        self, model: MultimodalModel, studies: Manifest | None = None, device: str | torch.device = "cpu"
    ) -> EncodedStudies:
        """Some of the studies, or all, behind the model's encoders."""
        return encode_studies(model, self.batches(studies), device)

    def parts(self, size: int = 1024) -> Iterator[Manifest]:
        """The studies, some at a time: for tables that are too long to be held encoded at once."""
        for start in range(0, len(self.manifest), size):
            yield self.manifest.filter(np.arange(start, min(start + size, len(self.manifest))))

    def groups(self, studies: Manifest) -> dict[str, Array]:
        """name -> (N,) text of every `group_<name>` column; "" where not known."""
        names = [str(c) for c in studies.table.columns if str(c).startswith("group_")]
        return {name: studies.table[name].to_numpy(dtype=object) for name in names}


def open_cohort(
    manifest: Manifest,
    transforms: Mapping[str, Any],
    cache: str | Path | Cache | Shards | None,
    *,
    num_workers: int = 0,
    prepare_workers: int = 2,
) -> Cohort:
    """Prepares the studies, and leaves out those that cannot be used.

    Args:
        manifest: all studies, or those of a split.
        transforms: modality -> transform, as the model was saved with.
        cache: folder of prepared arrays, or the shards that hold them; None keeps nothing.
        num_workers: loader processes.
        prepare_workers: processes that prepare files.

    Raises:
        OSError: the cache cannot be written.
    """
    store = cache if isinstance(cache, (Cache, Shards)) else Cache(None if cache is None else Path(cache))
    dataset = open_dataset(manifest, transforms, store)
    problems = prepare_all(dataset, workers=prepare_workers)
    accepted, empty = usable(dataset, problems)
    return Cohort(manifest.filter(accepted), transforms, store, tuple(problems), empty, num_workers)
