"""What an importer returns: studies with their files, in the words of the source; how they become rows comes later."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from medssml.importers.tree import Tree

MOST_LOST = 0.1
"""Share of the rows of a table, or of the files, that an import may lose; `--max-lost` changes it."""

OFFICIAL = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "eval": "test",
}
"""How datasets name their splits -> train, val, test."""


@dataclass(frozen=True)
class Options:
    """What the user may ask of an importer.

    Args:
        rows: "study": one row per study, further files in `other_files`; "file": one row per file.
        uncertain: what a label "uncertain" becomes. unmentioned: what a label that the report does not mention becomes.
        val_fraction: share of the training subjects that validate, where the official split has no validation part.
        columns: manifest column -> source column, for tables whose columns are guessed.
        reports: a table or FHIR export with reports to join to images.
        write_into: folder for files that have to be written: links to slices of mixed folders, converted volumes.
        min_slices: a CT series with fewer is a localizer.
        lab_days: most days that a laboratory value may be older than the report of its study.
        max_lost: share of the rows of a table, or of the files, that may be lost; 1 accepts any loss, whole tables too.
    """

    rows: Literal["study", "file"] = "study"
    uncertain: Literal["empty", "negative", "positive"] = "empty"
    unmentioned: Literal["empty", "negative"] = "empty"
    val_fraction: float = 0.1
    columns: Mapping[str, str] = field(default_factory=dict)
    reports: Path | None = None
    write_into: Path | None = None
    min_slices: int = 8
    lab_days: float = 7.0
    max_lost: float = MOST_LOST


class File(NamedTuple):
    """One file of a study.

    path: relative to the root. rank: the least goes into the manifest's column first. view: of a radiograph.
    row: its row in the account; None where no table names it. name: what tells it from the study's others.
    members: the files themselves where `path` is a folder. series: the SeriesInstanceUID, where the folder holds others.
    """

    path: str
    rank: float = 0.0
    view: str = ""
    row: int | None = None
    name: str = ""
    members: tuple[str, ...] = ()
    series: str = ""

    def cells(self, column: str) -> dict[str, str]:
        """What a manifest says of the file in `column`."""
        return {column: self.path} | ({f"{column}_series": self.series} if self.series else {})


@dataclass(slots=True)
class Study:
    """One study.

    files: modality (ct, xray, eeg) -> its files. rows: (row in the account, manifest column) of tables that describe it.
    sources: (path, manifest column) of other files that do. columns: label_*, group_* and others, among them
    `events`, a file beside a recording. split: as the source names it.
    """

    subject_id: str
    study_id: str
    split: str = ""
    files: dict[str, list[File]] = field(default_factory=dict)
    report: str = ""
    report_text: str = ""
    rows: list[tuple[int, str]] = field(default_factory=list)
    sources: list[tuple[str, str]] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether there is anything to learn from without a file: a report, or values of a table."""
        values = any(name == "table" or name.startswith("table_") for name, cell in self.columns.items() if cell)
        return bool(self.report or self.report_text or values)

    def add(self, modality: str, file: File) -> None:
        """One file more."""
        self.files.setdefault(modality, []).append(file)


@dataclass(frozen=True)
class Layout:
    """One published layout.

    Args:
        name: on the command line. title: for people.
        expects: what lies in the root, in one line.
        read: the studies of a tree.
        data: endings of the files that are accounted for; none where a table says all.
        aliases: other names. takes_file: the root may be a file.
    """

    name: str
    title: str
    expects: str
    read: Callable[[Tree, Options], Iterable[Study]]
    data: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    takes_file: bool = False


class Studies(dict[str, Study]):
    """Studies by id, in the order in which they were first named."""

    def of(self, subject_id: str, study_id: str) -> Study:
        """The study with this id, made when it is first asked for."""
        study = self.get(study_id)
        if study is None:
            study = self[study_id] = Study(subject_id, study_id)
        return study


def slug(name: str) -> str:
    """A name as a column: lower case, words joined by underscores.

    >>> slug("Pleural Effusion"), slug("Lung Opacity (any)"), slug("Ground-Glass")
    ('pleural_effusion', 'lung_opacity_any', 'ground_glass')
    """
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")


def sections(**texts: str) -> str:
    """A report from its sections, each under its heading; "" where all are empty.

    >>> sections(findings="Clear lungs.", impression="Normal.")
    'FINDINGS: Clear lungs.\\nIMPRESSION: Normal.'
    """
    return "\n".join(f"{name.upper()}: {text.strip()}" for name, text in texts.items() if text.strip())


_VIEWS = {
    "pa": "PA",
    "ap": "AP",
    "frontal": "frontal",
    "posteroanterior": "PA",
    "anteroposterior": "AP",
    "lateral": "lateral",
    "lat": "lateral",
    "l": "lateral",
    "ll": "lateral",
    "rl": "lateral",
    "lld": "decubitus",
    "rld": "decubitus",
}
_RANK = {"PA": 0.0, "frontal": 1.0, "AP": 2.0, "": 3.0, "lateral": 4.0}


def view_of(text: str) -> str:
    """PA, AP, frontal, lateral, decubitus, "" (not stated), or "other", from what a dataset calls a view.

    >>> [view_of(v) for v in ("PA", "AP_horizontal", "LL", "Lateral", "AP RLD", "", "SWIMMERS")]
    ['PA', 'AP', 'lateral', 'lateral', 'decubitus', '', 'other']
    """
    words = re.findall(r"[a-z]+", text.lower())
    if not words:
        return ""
    views = [_VIEWS[word] for word in words if word in _VIEWS]
    if "decubitus" in views or "decubitus" in words:
        return "decubitus"
    if "lateral" in views:
        return "lateral"
    if "axial" in words or "lordotic" in words or not views:
        return "other"
    return views[0]


def radiograph(path: str, view: str = "", row: int | None = None, name: str = "") -> File:
    """A radiograph, ranked by its view: PA before AP before what is not stated; laterals and odd views last."""
    return File(path, _RANK.get(view, 5.0), view, row, name or Path(path).stem)
