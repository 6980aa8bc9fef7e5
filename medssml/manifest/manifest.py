"""The study table: one row is one study, any modality may be absent; faults are refused with row and column."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from medssml.files import write_csv
from medssml.manifest.columns import check_columns, inline_columns, modality_columns
from medssml.manifest.labels import Label, parse_labels
from medssml.manifest.refusal import ManifestError, refuse
from medssml.manifest.row_rules import (
    INLINE_VALUE,
    cleaned,
    fill_splits,
    id_problems,
    leaves,
    path_problems,
    split_problems,
    value_problems,
)
from medssml.manifest.splits import SPLITS
from medssml.manifest.stated_header import given_of, given_problems
from medssml.manifest.table_text import RawTable, read_raw
from medssml.privacy import Pseudonyms
from medssml.readers.nifti import Given

__all__ = ["Label", "Manifest", "ManifestError"]

Source = Path | str


@dataclass(frozen=True, eq=False)
class Manifest:
    """Studies and where their files lie.

    Args:
        table: all columns as text, empty where there is nothing; the index is the row in the file, the header being row 1.
        modalities: names in the order ct, xray, eeg, report, table, then others.
        tasks: name -> kind of every `label_<name>` column.
        root: the folder that paths are relative to.
        sha256: of the file that was read.
        official_split: False where the file had none and a hash of the subject decided.
        allow_outside: paths may leave `root`.
        ids: what studies and subjects are called in whatever is written.
        saved: what was unlike a table in UTF-8 with commas and the known names of columns, one line each.
    """

    table: pd.DataFrame
    modalities: tuple[str, ...]
    tasks: dict[str, Label]
    root: Path
    sha256: str
    official_split: bool = True
    allow_outside: bool = False
    ids: Pseudonyms = Pseudonyms()
    saved: tuple[str, ...] = ()
    _folders: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls,
        path: str | Path | RawTable,
        data_root: str | Path | None = None,
        modalities: Sequence[str] | None = None,
        allow_outside: bool = False,
        tasks: Mapping[str, str | Label] | None = None,
        split_seed: int = 0,
        ids: Pseudonyms | None = None,
        labels: bool = True,
    ) -> Manifest:
        """The studies in `path`, a CSV or Parquet file.

        Args:
            path: the table, or what `read_raw` has read of it.
            data_root: what file names are relative to; default: the table's folder.
            modalities: columns that hold files; default: those of ct, xray, eeg, report, table that the table has.
            allow_outside: accept paths that leave the root.
            tasks: task -> "binary", "multiclass" or "regression", or a `Label`, where the cells alone do not say it rightly.
            split_seed: of the hash that splits subjects where the table has no split.
            ids: what studies and subjects are called in whatever is written; as the table does by default.
            labels: False where no label is needed: the table then has no task, whatever its label columns hold.

        Raises:
            ManifestError: with row and column of every problem.
        """
        raw = path if isinstance(path, RawTable) else read_raw(path)
        root = Path(data_root) if data_root is not None else raw.path.parent
        read = cls._checked(
            raw.path,
            raw.cells,
            root,
            modalities,
            allow_outside,
            (tasks or {}) if labels else None,
            split_seed,
            raw.content,
        )
        read = replace(read, saved=raw.saved)
        return read if ids is None else replace(read, ids=ids)

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        root: str | Path,
        modalities: Sequence[str] | None = None,
        tasks: Mapping[str, str | Label] | None = None,
        **options: bool,
    ) -> Manifest:
        """The same checks for a table in memory; cells are turned into text.

        Raises:
            ManifestError: as `read`.
        """
        text = table.astype(object).where(table.notna(), "").map(str)
        text.index = pd.RangeIndex(2, len(text) + 2)
        content = text.to_csv(index=False).encode()
        outside = options.get("allow_outside", False)
        return cls._checked(Path("table"), text, Path(root), modalities, outside, tasks or {}, 0, content)

    @classmethod
    def _checked(
        cls,
        path: Path,
        table: pd.DataFrame,
        root: Path,
        modalities: Sequence[str] | None,
        allow_outside: bool,
        tasks: Mapping[str, str | Label] | None,
        split_seed: int,
        content: bytes,
    ) -> Manifest:
        check_columns(path, list(table.columns), modalities)
        names = modality_columns(table, modalities)
        table = cleaned(table, names)
        problems = id_problems(table) + path_problems(table, names, root, allow_outside)
        problems += value_problems(table) + given_problems(table, names)
        official, split_problems = fill_splits(table, split_seed)
        labels, label_problems = ({}, []) if tasks is None else parse_labels(table, tasks)
        problems += split_problems + label_problems
        if problems:
            raise ManifestError(path, sorted(problems, key=lambda problem: problem[0] or 0))
        digest = hashlib.sha256(content).hexdigest()
        return cls(table, names, labels, root, digest, official, allow_outside)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> int:
        """Number of studies."""
        return len(self.table)

    @cached_property
    def subject_ids(self) -> NDArray[np.object_]:
        """(n,) text."""
        return self.table["subject_id"].to_numpy(dtype=object)

    @cached_property
    def study_ids(self) -> NDArray[np.object_]:
        """(n,) text."""
        return self.table["study_id"].to_numpy(dtype=object)

    @cached_property
    def study_codes(self) -> NDArray[np.object_]:
        """(n,) what the studies are called in whatever is written."""
        return np.array([self.ids.study(study) for study in self.study_ids], dtype=object)

    @cached_property
    def subject_codes(self) -> NDArray[np.object_]:
        """(n,) what the subjects are called in whatever is written."""
        return np.array([self.ids.subject(subject) for subject in self.subject_ids], dtype=object)

    @cached_property
    def splits(self) -> NDArray[np.object_]:
        """(n,) "train", "val" or "test"."""
        return self.table["split"].to_numpy(dtype=object)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(n, M) bool, whether a study has a modality."""
        columns = [(self.table[m] != "") if m in self.table else np.zeros(len(self), bool) for m in self.modalities]
        present = (
            np.stack([np.asarray(column, dtype=bool) for column in columns], axis=1)
            if columns
            else np.zeros((len(self), 0), bool)
        )
        for column, modality in enumerate(self.modalities):
            inline = inline_columns(modality, self.table.columns)
            present[:, column] |= (self.table[inline] != "").to_numpy().any(axis=1)
        return present

    @cached_property
    def targets(self) -> dict[str, NDArray[np.float64]]:
        """task -> (n,) float, NaN where unlabelled; a class is its place among the task's classes."""
        return {task: label.values(self.table[f"label_{task}"]) for task, label in self.tasks.items()}

    @property
    def groups(self) -> dict[str, NDArray[np.object_]]:
        """name -> (n,) text of every `group_<name>` column; "" where not known."""
        names = [str(column) for column in self.table if str(column).startswith("group_")]
        return {name: self.table[name].to_numpy(dtype=object) for name in names}

    def row_number(self, position: int) -> int:
        """Row in the file of the study at `position`; the header is row 1."""
        return int(self.table.index[position])

    def path_of(self, position: int, modality: str) -> Path | None:
        """The file of one modality of the study at `position`; None where the study has no such file.

        Raises:
            KeyError: no such modality. ManifestError: the path leaves the root.
        """
        if modality not in self.modalities:
            raise KeyError(f"no modality {modality!r} in this manifest; known: {list(self.modalities)}")
        cell = self.table[modality].iloc[position] if modality in self.table else ""
        if not cell:
            return None
        reason = None if self.allow_outside else leaves(self.root, cell, self._folders)
        if reason:
            raise refuse(self.root, self.row_number(position), modality, reason)
        return self.root / cell

    def paths(self, modality: str) -> list[Path | None]:
        """(n,) what `path_of` says of every study: a table of 10,000 rows is looked through once.

        Raises:
            KeyError: no such modality. ManifestError: a path leaves the root.
        """
        if modality not in self.table:
            return [self.path_of(position, modality) for position in range(len(self))]
        found: list[Path | None] = []
        for row, cell in zip(self.table.index, self.table[modality], strict=True):
            reason = None if self.allow_outside or not cell else leaves(self.root, cell, self._folders)
            if reason:
                raise refuse(self.root, int(row), modality, reason)
            found.append(self.root / cell if cell else None)
        return found

    def given(self, modality: str) -> list[Given | None]:
        """(n,) what the table says of the volumes of `modality` where their headers are blank; None where nothing."""
        return given_of(self.table, modality)

    def source_of(self, position: int, modality: str) -> Source | None:
        """What a transform prepares: the file, or the inline text of a report or a table; None where absent."""
        path = self.path_of(position, modality)
        return self._inline(position, modality) if path is None else path

    def to_datalist(self, *modalities: str) -> list[dict[str, Any]]:
        """The studies as MONAI's list of dicts, for `monai.data.Dataset` and the loaders of `medssml.transforms`.

        Args:
            modalities: names; none = all of the manifest.

        Returns:
            per study: study_id and subject_id, as they are called in whatever is written; each modality that it has, a `Path`
            for a file and a str for a text; `<modality>_given` where the table completes a header; `label_<task>` where known.

        Raises:
            KeyError: no such modality. ManifestError: a path leaves the root.
        """
        names = modalities or self.modalities
        sources = {name: self._sources(name) for name in names}
        given = {name: self.given(name) for name in names}
        entries: list[dict[str, Any]] = []
        for row, (study, subject) in enumerate(zip(self.study_codes, self.subject_codes, strict=True)):
            entry: dict[str, Any] = {"study_id": str(study), "subject_id": str(subject)}
            for name in names:
                if sources[name][row] is not None:
                    entry[name] = sources[name][row]
                    entry |= {f"{name}_given": given[name][row]} if given[name][row] is not None else {}
            known = {task: float(values[row]) for task, values in self.targets.items() if not np.isnan(values[row])}
            entries.append({**entry, **{f"label_{task}": value for task, value in known.items()}})
        return entries

    def _sources(self, modality: str) -> list[Source | None]:
        return [self._inline(row, modality) if path is None else path for row, path in enumerate(self.paths(modality))]

    def _inline(self, position: int, modality: str) -> str | None:
        """The text of a report, or the values of a table as the text of one, that stand in the row itself."""
        cells = self.table[inline_columns(modality, self.table.columns)].iloc[position]
        if modality != "table":
            return cells.iloc[0] or None if len(cells) else None
        values = {str(name).removeprefix(INLINE_VALUE): cell for name, cell in cells.items() if cell}
        return json.dumps(values) if values else None

    def filter(self, mask: ArrayLike) -> Manifest:
        """The studies where `mask`, (n,) bool, is True, or those at the positions `mask`; kinds of tasks stay."""
        return replace(self, table=self.table.iloc[_positions(mask, len(self))])

    def split(self, name: str) -> Manifest:
        """The studies of one split.

        Raises:
            ValueError: no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}; splits are {', '.join(SPLITS)}")
        return self.filter(self.splits == name)

    def with_splits(self, splits: Sequence[str]) -> Manifest:
        """The same studies, split otherwise, as `fold_splits` does.

        Raises:
            ManifestError: unknown split, or a subject in two splits.
        """
        table = self.table.assign(split=list(splits))
        problems = split_problems(table)
        if problems:
            raise ManifestError("splits", problems)
        return replace(self, table=table)

    def labelled(self, *tasks: str) -> Manifest:
        """The studies that have a target of at least one of `tasks`."""
        known = np.zeros(len(self), bool)
        for task in tasks:
            if task not in self.targets:
                raise KeyError(f"no task {task!r} in this manifest; known: {list(self.tasks)}")
            known |= ~np.isnan(self.targets[task])
        return self.filter(known)

    def coverage(self) -> dict[str, dict[str, int]]:
        """Studies per pattern of modalities: {"all": {"ct+report": 603, "": 4, ...}, "train": ..., "val": ..., "test": ...}."""
        names = np.array(
            ["+".join(m for m, has in zip(self.modalities, row, strict=True) if has) for row in self.present], object
        )
        counted = {"all": names} | {split: names[self.splits == split] for split in SPLITS}
        return {
            name: {str(k): int(v) for k, v in pd.Series(part, dtype=object).value_counts().items()}
            for name, part in counted.items()
        }

    def write(self, path: str | Path) -> Path:
        """Writes the table as CSV, whole or not at all; file names stay relative to `root` (give it as `data_root`)."""
        return write_csv(path, self.table)


def _positions(mask: ArrayLike, n: int) -> NDArray[np.int64]:
    array = np.asarray(mask)
    if array.dtype == bool:
        if array.shape != (n,):
            raise ValueError(f"the mask has shape {array.shape}, expected ({n},), one value per study")
        return np.flatnonzero(array)
    return array.astype(np.int64)
