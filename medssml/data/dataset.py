"""A row of the study table -> the tensors of what it has; an absent modality is an absent key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import Dataset, get_worker_info

from medssml.batch import Inputs
from medssml.data.collate import Sample
from medssml.data.epoch_order import Window
from medssml.manifest.columns import in_order
from medssml.manifest.manifest import Manifest
from medssml.randomness import draw_seed, hash64, study_key
from medssml.store.cache import Arrays, Cache, Entry
from medssml.store.engines import Recipe

if TYPE_CHECKING:
    from medssml.obstacles.base import Damage

#: (index, epoch, draw) of every study of a batch.
Plan = list[tuple[int, int, int]]


class Transform(Protocol):
    """What a dataset asks of a transform: a `medssml.transforms.Road` of MONAI's, or a class of your own.

    One that reads a CT is also handed what the table gives for a blank header: `prepare(source, given)`.
    """

    def prepare(self, source: Path | str) -> Arrays: ...

    def __call__(self, prepared: Arrays, seed: int | None = None) -> Inputs: ...

    def spec(self) -> dict[str, Any]: ...

    def fit_training(
        self, prepared: Iterable[Arrays], subjects: Sequence[str] | None = None
    ) -> Sequence[str] | None: ...


class StudyError(ValueError):
    """A file that fails while studies are being loaded: row, column, file and reason in one line."""


class StudyDataset(Dataset[Sample]):
    """Studies of a manifest, each modality through its transform.

    Args:
        manifest: which studies. All of them are items, also those without any modality.
        transforms: modality -> transform; a column without a transform is not read.
        cache: of prepared arrays.
        seed: of the augmentation.
        train: augment; False = what evaluation sees, the same every time.
    """

    #: Whether there is nothing that could still be made from files.
    all_prepared = False

    def __init__(
        self,
        manifest: Manifest,
        transforms: Mapping[str, Transform],
        cache: Cache,
        *,
        seed: int = 0,
        train: bool = False,
    ) -> None:
        self.manifest, self.transforms, self.cache = manifest, dict(transforms), cache
        self.seed, self.train = int(seed), train
        self.modalities = in_order(transforms)
        self.reading: torch.Tensor | None = None
        #: Looks at each study, each augmented by itself, where `train`; the first is the same for any number.
        self.views = 1
        #: What befalls the studies; their roads are those `from_loader`.
        self.damages: tuple[Damage, ...] = ()
        #: Which studies are fetched together; None where each has files of its own.
        self.window: Window | None = None
        self.recipes = {m: Recipe(m, _reads(self.transforms[m]), self.transforms[m].spec()) for m in self.modalities}
        self.given = {m: manifest.given(m) for m in self.modalities}
        self._keys: dict[tuple[int, str], str] = {}
        self._present = {
            m: manifest.present[:, manifest.modalities.index(m)] for m in self.modalities if m in manifest.modalities
        }
        self._subjects = [hash64(subject) - 2**63 for subject in manifest.subject_ids]

    def __len__(self) -> int:
        return len(self.manifest)

    def present(self, index: int) -> list[str]:
        """Modalities that the study at `index` has and that are read."""
        return [m for m, column in self._present.items() if column[index]]

    def __getitem__(self, where: int | tuple[int, int, int]) -> Sample:
        """The study at an index, or at (index, epoch, draw) as a sampler asks for it."""
        return self.item(*where) if isinstance(where, tuple) else self.item(int(where))

    def item(self, index: int, epoch: int = 0, draw: int = 0) -> Sample:
        """One study: study_id, subject, key, index, targets, content, views and one entry per modality that it has.

        study_id is what the study is called in whatever is written; what is drawn hangs on the id of the table, so that
        the numbers of a run do not depend on a key.

        Args:
            index: position in the manifest.
            epoch: another epoch, another augmentation, where `train`.
            draw: how often the study came before in this epoch.

        Raises:
            StudyError: a file that cannot be used.
        """
        study = str(self.manifest.study_ids[index])
        key = study_key(self.seed, epoch if self.train else 0, study, draw)
        code = str(self.manifest.study_codes[index])
        sample: Sample = {"study_id": code, "subject": self._subjects[index], "key": key, "content": {}}
        sample["targets"] = {task: float(values[index]) for task, values in self.manifest.targets.items()}
        sample["index"] = index
        self._announce(index)
        entries = {modality: self.prepared(index, modality) for modality in self.present(index)}
        sample["content"] = {modality: entry.content for modality, entry in entries.items()}
        arrays = {modality: self._damaged(entry.arrays, modality, study) for modality, entry in entries.items()}
        sample |= {modality: self._look(found, modality, key) for modality, found in arrays.items()}
        # Each further look has draws of its own, for whatever hangs on a study's key.
        sample["views"] = [
            {"key": draw_seed(key, "view", view)} | {m: self._look(found, m, key, view) for m, found in arrays.items()}
            for view in range(1, self.views if self.train else 1)
        ]
        return sample

    def _damaged(self, prepared: Arrays, modality: str, study: str) -> Arrays:
        """What is left of what was recorded, the same in every epoch."""
        for damage in self.damages:
            if damage.modality == modality:
                prepared = damage.damaged(prepared, study, _reads(self.transforms[modality]))
        return prepared

    def _look(self, prepared: Arrays, modality: str, key: int, view: int = 0) -> Inputs:
        """One look at what was prepared: of training, drawn by the study's key and the number of the view."""
        return self.transforms[modality](prepared, draw_seed(key, modality, view) if self.train else None)

    def key(self, index: int, modality: str) -> str:
        """Name of the cache entry of one modality of a study.

        Raises:
            OSError: no such file. ManifestError: the path leaves the root.
        """
        where = (index, modality)
        if where not in self._keys:
            spec, given = self.recipes[modality].spec, self.given[modality][index]
            spec = spec if given is None else {**spec, "given": given.identity()}
            self._keys[where] = self.cache.key(spec, self.source(index, modality))
        return self._keys[where]

    def source(self, index: int, modality: str) -> Path | str:
        """The file, or the text of a report, of one modality of a study.

        Raises:
            KeyError: the study has no such modality.
        """
        source = self.manifest.source_of(index, modality)
        if source is None:
            raise KeyError(f"row {self.manifest.row_number(index)} has no {modality!r}")
        return source

    def prepared(self, index: int, modality: str) -> Entry:
        """What the transform prepared, from the cache or made now.

        Raises:
            StudyError: the file cannot be used. OSError: the cache cannot be written.
        """
        key, about = self._checked_key(index, modality), self.recipes[modality].about
        return self.cache.get(key, lambda: self._make(index, modality), about)

    def arrays_of(self, indices: Iterable[int], modality: str) -> Iterator[Arrays]:
        """What the transform prepared of several studies, and damage leaves of it, one after the other.

        Raises:
            StudyError: a file cannot be used. OSError: the cache cannot be written.
        """
        studies = self.manifest.study_ids
        return (
            self._damaged(self.prepared(index, modality).arrays, modality, str(studies[index])) for index in indices
        )

    def look_ahead(self, plans: Iterable[Plan], held: int) -> Iterable[Plan]:
        """The same plans; here is where to begin to fetch what later ones ask for.

        Args:
            held: plans that may have been taken and not been read yet.
        """
        return plans

    def _checked_key(self, index: int, modality: str) -> str:
        try:
            return self.key(index, modality)
        except OSError as error:
            raise self.error(index, modality, str(error.strerror)) from error

    def _make(self, index: int, modality: str) -> Arrays:
        try:
            return self.recipes[modality].make(self.source(index, modality), self.given[modality][index])
        except (ValueError, KeyError, OSError, MemoryError) as error:
            raise self.error(index, modality, reason_of(error)) from error

    def error(self, index: int, modality: str, reason: str) -> StudyError:
        """The error that names row, column and file."""
        row = self.manifest.row_number(index)
        return StudyError(f"row {row}, column {modality!r}, file {self.cell(index, modality)!r}: {reason}")

    def cell(self, index: int, modality: str) -> str:
        """The file as the table names it; empty for an inline text."""
        table = self.manifest.table
        return str(table[modality].iloc[index]) if modality in table else ""

    def _announce(self, index: int) -> None:
        """Tells the loader what this worker reads, should it stall or be killed."""
        worker = get_worker_info()
        if self.reading is not None and worker is not None:
            self.reading[worker.id] = index


def _reads(transform: Transform) -> Any:
    """The part that reads files, where it can be had alone: what goes to the processes that prepare them."""
    return getattr(transform, "preparation", transform)


def reason_of(error: BaseException) -> str:
    """Why, without the path, which the row has already."""
    reason = getattr(error, "reason", None)
    return str(reason) if reason else f"{type(error).__name__}: {error}"
