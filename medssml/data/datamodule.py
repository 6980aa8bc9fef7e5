"""A manifest and its transforms as a LightningDataModule: prepared, quarantined, split, loaded, resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L

from medssml.data.dataset import Transform
from medssml.data.loader import EvalLoader, TrainLoader
from medssml.data.prepare import fit_training
from medssml.data.prepared_studies import PreparedStudies, prepare_studies
from medssml.data.shard_dataset import Shards
from medssml.manifest.columns import in_order
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import Problem
from medssml.manifest.quarantine import Allowance
from medssml.obstacles.base import Damage, why_not_on
from medssml.store.cache import Cache

#: MiB that prepared studies may take where they have no folder.
_MEMORY_MB = 2048.0


class StudyDataModule(L.LightningDataModule):
    """Batches of studies.

    `prepare()` comes first, by itself where Lightning drives: it fills the cache, lists the studies whose files fail,
    leaves them out, and lets the transforms learn from the training split (a vocabulary, whose size a model needs).

    Args:
        manifest: all studies; only those with at least one modality of `transforms` are loaded.
        transforms: modality -> transform.
        batch_size: studies per training step over all ranks.
        eval_batch_size: studies per evaluation batch; default: `batch_size`.
        num_workers: loader processes.
        seed: of order and augmentation.
        cache_dir: folder of prepared studies, or a `Cache`; None keeps them in memory, as far as 2 GiB go. `Shards`, with the
            manifest of their index: all is prepared.
        tasks: targets in the batches; default: all of the manifest.
        balance: "modality" (patterns of presence) or a column such as "source": rare groups are shown more often.
        balance_power: 0 = all groups alike, 1 = as they are.
        prepare_workers: processes that prepare files.
        quarantine_limit: share of the studies that may fail before `excess` says so, beside the few of `Allowance`.
        timeout_s: s after which a silent loader process is taken for stalled.
        damages: what befalls the studies of training and validation, fitted; those of the test stay as they are.

    Raises:
        KeyError: a task that the manifest does not have, or no column to balance by. ValueError: a damage that cannot be done.
    """

    def __init__(
        self,
        manifest: Manifest,
        transforms: Mapping[str, Transform],
        *,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | Path | Cache | Shards | None = None,
        tasks: Sequence[str] | None = None,
        balance: str | None = None,
        balance_power: float = 0.5,
        prepare_workers: int = 2,
        quarantine_limit: float = Allowance.share,
        timeout_s: float = 300.0,
        damages: Sequence[Damage] = (),
    ) -> None:
        super().__init__()
        self.transforms = dict(transforms)
        self.damages = tuple(damages)
        #: Where what is prepared lies.
        self.store = _store(cache_dir)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.seed, self.timeout_s = num_workers, seed, timeout_s
        self.balance, self.balance_power = balance, balance_power
        self.prepare_workers, self.quarantine_limit = prepare_workers, quarantine_limit
        self.tasks = tuple(manifest.tasks if tasks is None else tasks)
        unknown = set(self.tasks) - set(manifest.tasks)
        if unknown:
            raise KeyError(f"no label column for {sorted(unknown)}; the manifest has {sorted(manifest.tasks)}")
        if balance not in (None, "modality") and balance not in manifest.table:
            raise KeyError(f"balance is {balance!r}, expected 'modality' or a column of the manifest")
        self._roads = _damaged_roads(self.transforms, self.damages, self.store)
        #: Studies as they came; `manifest` holds those that are loaded, once prepared.
        self.all_studies = manifest
        #: What the transforms say to whoever trains.
        self.remarks: list[str] = []
        #: Looks at each training study in a batch; see `StudyDataset.views`.
        self.views = 1
        self._studies: PreparedStudies | None = None
        self._train: TrainLoader | None = None
        self._resume: dict[str, Any] | None = None

    @property
    def studies(self) -> PreparedStudies:
        """The studies that are loaded, prepared when first asked for; the transforms have learned from those of training.

        Raises:
            OSError: the cache cannot be written.
        """
        if self._studies is None:
            studies = prepare_studies(
                self.all_studies,
                self._roads,
                self.store,
                prepare_workers=self.prepare_workers,
                num_workers=self.num_workers,
                seed=self.seed,
                timeout_s=self.timeout_s,
            )
            self._studies = replace(studies, damages=self.damages)
            self.remarks = fit_training(self._studies.dataset())
        return self._studies

    def reseed(self, seed: int) -> None:
        """The same studies for another training: order and augmentation are drawn from `seed`, nothing is prepared again."""
        self.seed = seed
        self._train = None
        if self._studies is not None:
            self._studies = replace(self._studies, seed=seed)

    @property
    def manifest(self) -> Manifest:
        """The studies that are loaded: those with a modality and without a failing file."""
        return self.studies.manifest

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in the order of `Batch.present`."""
        return in_order(self.transforms)

    @property
    def excess(self) -> str | None:
        """What to say where more studies were quarantined than the limit allows; None where not."""
        return Allowance(self.quarantine_limit).excess(self.studies.quarantined, self.studies.asked)

    def prepare(self) -> list[Problem]:
        """Fills the cache and lets the transforms learn, once; returns the files that fail.

        Raises:
            OSError: the cache cannot be written.
        """
        return list(self.studies.problems)

    def prepare_data(self) -> None:
        """Lightning's hook, on one process."""
        self.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Lightning's hook, on every process: finds the cache filled."""
        self.prepare()

    def train_dataloader(self) -> TrainLoader:
        """The training loader; goes on where a loaded checkpoint stopped."""
        train = self.manifest.split("train")
        dataset = self.studies.dataset(train, train=True)
        dataset.views = self.views
        self._train = TrainLoader(
            dataset,
            self.batch_size,
            tasks=self.tasks,
            seed=self.seed,
            groups=self._groups(train),
            balance_power=self.balance_power,
            num_workers=self.num_workers,
            timeout_s=self.timeout_s,
        )
        if self._resume is not None:
            self._train.load_state_dict(self._resume)
            self._resume = None
        return self._train

    def val_dataloader(self) -> EvalLoader:
        """The validation studies, in their order, spread over the ranks."""
        return self.loader("val", spread=True)

    def test_dataloader(self) -> EvalLoader:
        """The test studies, in their order, all of them on every rank."""
        return self.loader("test")

    def loader(self, split: str | None, *, batch_size: int | None = None, spread: bool = False) -> EvalLoader:
        """All studies of a split (None = all splits, undamaged) once, in the order of the manifest, nothing drawn."""
        chosen = self.manifest if split is None else self.manifest.split(split)
        size = batch_size or self.eval_batch_size
        studies = self.studies if split in ("train", "val") else replace(self.studies, damages=())
        return studies.batches(chosen, size, tasks=self.tasks, spread=spread)

    def batches(self, split: str | None, *, batch_size: int | None = None) -> EvalLoader:
        """As `loader`: an iterable of batches for evaluation without Lightning."""
        return self.loader(split, batch_size=batch_size)

    def _groups(self, manifest: Manifest) -> list[str] | None:
        if self.balance is None:
            return None
        if self.balance == "modality":
            dataset = self.studies.dataset(manifest)
            return ["+".join(dataset.present(index)) for index in range(len(manifest))]
        return [str(cell) for cell in manifest.table[self.balance]]

    def state_dict(self) -> dict[str, Any]:
        """Position of the training loader."""
        return {} if self._train is None else {"train": self._train.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Position to go on from, kept until the training loader is asked for."""
        self._resume = state_dict.get("train")
        if self._train is not None and self._resume is not None:
            self._train.load_state_dict(self._resume)

    def teardown(self, stage: str | None = None) -> None:
        """Ends the loader processes."""
        if self._train is not None:
            self._train.close()


def _damaged_roads(
    transforms: Mapping[str, Transform], damages: Sequence[Damage], store: Cache | Shards
) -> dict[str, Any]:
    """The roads, those of damaged modalities from their loaders on, so that all steps see the damage.

    Raises:
        ValueError: the modality is not read, its road takes the damage away, or the studies are prepared already.
    """
    if damages and isinstance(store, Shards):
        raise ValueError("data.obstacles damages studies as they were recorded, and shards hold none; fix: --manifest")
    roads: dict[str, Any] = dict(transforms)
    for damage in damages:
        road: Any = transforms.get(damage.modality)
        reason = f"no study has {damage.modality}" if road is None else why_not_on(road, damage)
        if reason is not None:
            raise ValueError(f"data.obstacles: {damage.name} can change nothing: {reason}; fix: leave it out")
        roads[damage.modality] = road.from_loader()
    return roads


def _store(given: str | Path | Cache | Shards | None) -> Cache | Shards:
    """As given; training comes back to every study, so without a folder they are kept in memory."""
    return given if isinstance(given, (Cache, Shards)) else Cache(given, memory_mb=0.0 if given else _MEMORY_MB)
