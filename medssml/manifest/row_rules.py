"""Integrity of the rows of a study table: ids, splits, and paths that stay inside the data root."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

from medssml.manifest.splits import SPLITS, assign_splits
from medssml.manifest.subject_ids import float_twins, id_mangled
from medssml.readers.errors import ReadError
from medssml.readers.table import parse_table

#: (row, column, what is wrong); row 1 is the header.
RowProblem = tuple[int | None, str | None, str]

#: A column of this prefix holds a number of the modality `table`: the values of a study without a file for them.
INLINE_VALUE = "table_"
#: What spreadsheets and statistics programs write into an empty cell; ids are never read this way.
EMPTY = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"})


def cleaned(table: pd.DataFrame, modalities: tuple[str, ...]) -> pd.DataFrame:
    """Cells without outer blanks; where no id can stand, the many spellings of nothing become the empty text."""
    table = table.copy()
    for column in table.columns:
        cells = table[column].astype(str).str.strip()
        known = (
            column in modalities
            or column in ("split", "report_text")
            or column.startswith(("label_", "group_", INLINE_VALUE))
        )
        table[column] = cells.where(~cells.isin(EMPTY), "").astype(object) if known else cells.astype(object)
    return table


def id_problems(table: pd.DataFrame) -> list[RowProblem]:
    """Ids that are empty, mangled or twice there, also as 7 and 7.0; rows with both a report file and a report text."""
    problems: list[RowProblem] = []
    for column in ("subject_id", "study_id"):
        for row, cell in table[column].items():
            if not cell:
                problems.append((int(str(row)), column, "is empty; fix: give every row an id"))
            elif id_mangled(cell):
                reason = f"{cell!r} was mangled by a spreadsheet or rounded, several people may have it; fix: format ids as text"
                problems.append((int(str(row)), column, reason))
        problems += [(row, column, reason) for row, reason in float_twins(table[column])]
    ids = table["study_id"]
    first = {study: row for row, study in reversed(list(ids.items()))}
    for row, study in ids[ids.duplicated() & (ids != "")].items():
        reason = f"study {study!r} is already in row {first[study]}; fix: a study has one row"
        problems.append((int(str(row)), "study_id", reason))
    if "report_text" in table and "report" in table:
        for row in table.index[(table["report_text"] != "") & (table["report"] != "")]:
            problems.append((int(row), "report_text", "the row also names a report file; fix: keep one of the two"))
    return problems


def value_problems(table: pd.DataFrame) -> list[RowProblem]:
    """Cells of inline values that are no number; rows with both a table file and values."""
    problems: list[RowProblem] = []
    for column in (str(c) for c in table.columns if str(c).startswith(INLINE_VALUE)):
        name = column.removeprefix(INLINE_VALUE)
        for row, cell in table.loc[table[column] != "", column].items():
            try:
                parse_table(json.dumps({name: cell}))
            except ReadError as error:
                problems.append((int(str(row)), column, f"{error.reason}; fix: {error.fix}"))
            if "table" in table and table.at[row, "table"]:
                reason = "the row also names a file of values; fix: keep one of the two"
                problems.append((int(str(row)), column, reason))
    return problems


def path_problems(
    table: pd.DataFrame, modalities: tuple[str, ...], root: Path, allow_outside: bool
) -> list[RowProblem]:
    """Paths that leave `root`; none where that is allowed."""
    if allow_outside:
        return []
    seen: dict[str, str] = {}
    problems: list[RowProblem] = []
    for modality in (m for m in modalities if m in table):
        for row, cell in table[modality].items():
            reason = leaves(root, cell, seen) if cell else None
            if reason:
                problems.append((int(str(row)), modality, reason))
    return problems


def leaves(root: Path, cell: str, seen: dict[str, str]) -> str | None:
    """Why `cell` leaves `root`, or None. `seen` remembers where folders really are: a table names few of them."""
    fix = "fix: use a path inside the data root, or allow it with --allow-outside"
    if os.path.isabs(cell) or "\0" in cell:
        return f"{cell!r} is an absolute path; {fix}"
    if os.path.normpath(cell).split(os.sep)[0] == "..":
        return f"{cell!r} leaves the data root; {fix}"
    full = os.path.join(root, cell)
    base, folder = _really(os.fspath(root), seen), _really(os.path.dirname(full), seen)
    target = os.path.realpath(full) if os.path.islink(full) else os.path.join(folder, os.path.basename(full))
    if os.path.commonpath([base, target]) != base:
        return f"{cell!r} is a link that leaves the data root; {fix}"
    return None


def _really(folder: str, seen: dict[str, str]) -> str:
    """`folder` without links; asked of the disk once."""
    if folder not in seen:
        seen[folder] = os.path.realpath(folder)
    return seen[folder]


def fill_splits(table: pd.DataFrame, seed: int) -> tuple[bool, list[RowProblem]]:
    """Writes a split by hash where the table has none; returns whether it had one, and what is wrong with it."""
    if "split" not in table or bool((table["split"] == "").all()):
        table["split"] = assign_splits(list(table["subject_id"]), seed=seed)
        return False, []
    return True, split_problems(table)


def split_problems(table: pd.DataFrame) -> list[RowProblem]:
    """Cells that name no split, and subjects in two splits."""
    problems: list[RowProblem] = []
    first: dict[str, tuple[str, int]] = {}
    for row, subject, split in zip(table.index, table["subject_id"], table["split"], strict=True):
        if split not in SPLITS:
            said = f"{split!r} is no split" if split else "is empty while other rows have a split"
            problems.append((int(row), "split", f"{said}; fix: write train, val or test"))
            continue
        other, where = first.setdefault(subject, (split, int(row)))
        if other != split:
            reason = (
                f"subject {subject!r} is in {split!r} here and in {other!r} in row {where}; fix: one split per subject"
            )
            problems.append((int(row), "split", reason))
    return problems
