"""Any table with one row per study, or per file: what its columns are is guessed, and the guess is shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from medssml.importers.account import LayoutError
from medssml.importers.columns import Classes, Guess, classes_of, guess_columns, sample_of
from medssml.importers.study import OFFICIAL, File, Layout, Options, Studies, Study, radiograph, sections, view_of
from medssml.importers.tree import Row, Tree, slashed
from medssml.manifest.identity_columns import identity_of
from medssml.readers.errors import ReadError
from medssml.readers.near_names import near_name
from medssml.readers.table import parse_table

_MODALITIES = ("ct", "xray", "eeg")
_VALUE = "table_"


class _Table(NamedTuple):
    """What is known of the table. columns: source column -> what it is. classes: of its label columns. words: cells of
    number columns that are left empty."""

    tree: Tree
    name: str
    columns: dict[str, Guess]
    classes: dict[str, Classes | None]
    words: dict[str, frozenset[str]]


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """The studies of a table; rows with the same study id are one study."""
    name = _table(tree)
    rows = list(tree.rows(name))
    if not rows:
        raise LayoutError(tree.root / name, "has no row", "give a table with a header and rows")
    sample = sample_of(rows, [column for column, _ in rows[0].items()])
    guesses = guess_columns(sample, options.columns, lambda cell: not _located(tree, cell)[1])
    guesses = [guess for guess in guesses if guess.ours != "split" or _is_split(tree, guess, rows)]
    for guess in guesses:
        tree.account.note(f"{guess.ours} <- {guess.source!r} ({guess.because})")
        carries = identity_of(guess.source, sample[guess.source]) if guess.ours in ("subject_id", "study_id") else None
        if carries is not None:
            fix = "put a pseudonym in its place, or give --hash-ids where results leave the site"
            tree.account.note(
                f"{guess.ours} holds {carries.kind}, as the {carries.because} of {guess.source!r} say; fix: {fix}"
            )
    subject = next((guess.source for guess in guesses if guess.ours == "subject_id"), None)
    if subject is None:
        known = ", ".join(column for column, _ in rows[0].items())
        raise LayoutError(
            tree.root / name,
            f"which column is the subject? None of {known} is called so",
            "--column subject_id=NAME; splits are by subject",
        )
    study_id = next((guess.source for guess in guesses if guess.ours == "study_id"), None)
    if study_id is None:
        tree.account.note(f"no column is the study: every row is one, called by {subject!r} and its number")
    classes = {g.source: _classes(tree, g, rows) for g in guesses if g.ours.startswith("label_")}
    named = {column: column for column, _ in rows[0].items() if column.startswith(_VALUE)}
    named |= {guess.source: guess.ours for guess in guesses if guess.ours.startswith(_VALUE)}
    words = {source: _words(tree, tree.root / name, source, ours, rows) for source, ours in named.items()}
    table = _Table(tree, name, {guess.source: guess for guess in guesses}, classes, words)
    studies = Studies()
    count: dict[str, int] = {}
    for row in rows:
        count[row[subject]] = count.get(row[subject], 0) + 1
        own = row[study_id] if study_id is not None else f"{row[subject]}_{count[row[subject]]}"
        _add_row(table, studies, row, row[subject], own)
    return studies.values()


def _table(tree: Tree) -> str:
    if tree.only:
        return tree.only
    tables = sorted(path.name for path in tree.root.iterdir() if re.search(r"\.(csv|tsv)(\.gz)?$", path.name.lower()))
    tables = [name for name in tables if name not in ("import_report.csv", "problems.csv")]
    if len(tables) != 1:
        found = ", ".join(tables) or "none"
        raise LayoutError(tree.root, f"holds {len(tables)} tables ({found})", "give the table itself as ROOT")
    return tables[0]


def _is_split(tree: Tree, guess: Guess, rows: list[Row]) -> bool:
    """Whether every cell names a split; a column that merely is called so is kept as it is."""
    words = {row[guess.source].lower() for row in rows} - {""}
    strange = sorted(words - set(OFFICIAL))
    if strange:
        tree.account.note(f"{guess.source!r} is no split: it holds {', '.join(strange[:5])}; kept as source_split")
    return not strange


def _classes(tree: Tree, guess: Guess, rows: list[Row]) -> Classes | None:
    classes = classes_of(guess.ours, [row[guess.source] for row in rows])
    if classes is None:
        tree.account.note(
            f"{guess.source!r} holds one word, more than 20, or lists of them, no classes: kept, no label"
        )
    elif classes.note:
        tree.account.note(classes.note)
    return classes


def _words(tree: Tree, file: Path, source: str, ours: str, rows: list[Row]) -> frozenset[str]:
    """The cells of a number column that become empty: those that mean "not measured", and those that are no number.

    Raises:
        LayoutError: most of the cells are no number.
    """
    cells = [cell for row in rows if (cell := row[source])]
    strange = sum(not _readable({"value": cell, "other": 0}) for cell in cells)
    if strange > len(cells) / 2:
        fix = "decimals need a point; a column of words can be a label: --column label_NAME=COLUMN"
        raise LayoutError(file, f"{source!r}: {strange:,} of {len(cells):,} cells are no number", fix)
    if strange:
        tree.account.note(f"{ours}: {strange:,} of {len(cells):,} cells are no number; left empty")
    return frozenset(cell for cell in set(cells) if not _readable({"value": cell}))


def _readable(values: dict[str, Any]) -> bool:
    """Whether the reader of a manifest's values takes them."""
    try:
        parse_table(json.dumps(values))
    except ReadError:
        return False
    return True


def _add_row(table: _Table, studies: Studies, row: Row, subject: str, own: str) -> None:
    tree = table.tree
    if not subject or not own:
        tree.account.leave_out(row.id, "no subject" if not subject else "no study id")
        return
    study = studies.of(subject, own)
    if study.subject_id != subject:
        reason = f"study {own} is of another subject in an earlier row"
        tree.account.leave_out(row.id, reason, study_id=own)
        return
    before = sum(map(len, study.files.values()))
    parts: dict[str, str] = {}
    for column, cell in row.items():
        guess = table.columns.get(column)
        if cell in table.words.get(column, ()):
            continue
        if guess is None or not cell:
            if cell:
                study.columns.setdefault("source_split" if column == "split" else column, cell)
        elif guess.ours in (*_MODALITIES, "report", "xray_lateral"):
            _add_file(table, study, row, guess, cell)
        elif guess.ours.startswith("section_"):
            parts[guess.ours.removeprefix("section_")] = cell
        elif guess.ours.startswith("label_"):
            _add_label(study, guess, cell, table.classes[guess.source])
        elif guess.ours == "split":
            study.split = study.split or cell
        elif guess.ours == "report_text":
            study.report_text = study.report_text or cell
        elif guess.ours == "group_view" and any(g.ours.startswith("xray") for g in table.columns.values()):
            continue  # each file has its own; the row of the manifest takes that of its xray
        elif guess.ours not in ("subject_id", "study_id"):
            study.columns.setdefault(guess.ours, cell)
    study.report_text = study.report_text or sections(**parts)
    if sum(map(len, study.files.values())) == before:
        study.rows.append((row.id, "columns"))


def _add_file(table: _Table, study: Study, row: Row, guess: Guess, cell: str) -> None:
    """A file of the study; one that is not there is accounted for."""
    path, reason = _located(table.tree, cell)
    if reason:
        table.tree.account.file(cell, reason, (table.name, row.number), guess.ours)
        # for where the row gives nothing else: it is left out for this, and not for what follows from it
        table.tree.account.leave_out(row.id, f"{guess.ours}: {reason}", cell, study.study_id)
        return
    if guess.ours == "report":
        study.report = study.report or path
        return
    modality = guess.ours.split("_")[0]
    if any(file.path == path for file in study.files.get(modality, [])):
        return
    if modality == "xray":
        said = view_of(guess.source)
        view = "lateral" if guess.ours == "xray_lateral" else said if said in ("lateral", "PA", "AP", "frontal") else ""
        stated = next((view_of(cell) for column, cell in row.items() if _is_view(column)), "")
        study.add("xray", radiograph(path, view or stated, row.id))
    else:
        study.add(modality, File(path, row=row.id))


def _is_view(column: str) -> bool:
    return re.sub(r"\W|_", "", column.lower()) in ("view", "viewposition", "projection", "groupview", "frontallateral")


def _located(tree: Tree, cell: str) -> tuple[str, str]:
    """A path relative to the root, or why there is none."""
    path = slashed(cell)
    if os.path.isabs(path):
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(tree.root)).replace(os.sep, "/")
        if inside.split("/")[0] != "..":
            path = inside
        elif not os.path.exists(path):
            near = near_name(tree.root / path.lstrip("/"))
            return "", f"no such file on this machine{near and f'; {near}'}"
        elif not tree.allow_outside:
            return "", "outside the root; fix: --allow-outside"
    elif os.path.normpath(path).split(os.sep)[0] == ".." and not tree.allow_outside:
        return "", "outside the root; fix: --allow-outside"
    if (tree.root / path).exists():
        return path, ""
    near = near_name(tree.root / path)
    return "", f"no such file{near and f'; {near}'}"


def _add_label(study: Study, guess: Guess, cell: str, classes: Classes | None) -> None:
    if classes is None:
        study.columns.setdefault(guess.source, cell)
    elif cell in classes.numbers:
        study.columns.setdefault(guess.ours, classes.numbers[cell])


LAYOUTS = (
    Layout(
        "csv", "a table", "a .csv or .tsv with a column for the subject", read, (), ("table", "tsv"), takes_file=True
    ),
)
