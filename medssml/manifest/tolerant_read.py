"""The study table with its refusals as problems, so that the files of the other rows can be checked as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from medssml.manifest.labels import Label
from medssml.manifest.levels import fix_of
from medssml.manifest.manifest import Manifest, ManifestError
from medssml.manifest.problems import Problem
from medssml.manifest.table_text import read_raw

Refusal = tuple[int | None, str | None, str]


class Studies(NamedTuple):
    """manifest: the rows that can be read at all, None where the table is refused as a whole. rows: all of them."""

    manifest: Manifest | None
    problems: list[Problem]
    rows: int


def read_studies(
    path: str | Path,
    data_root: str | Path | None = None,
    modalities: Sequence[str] | None = None,
    *,
    allow_outside: bool = False,
    tasks: Mapping[str, str | Label] | None = None,
) -> Studies:
    """The table in `path` with its refusals as problems, so that the files of the other rows can be checked as well.

    Args:
        path, data_root, modalities, allow_outside, tasks: as `Manifest.read`.
    """
    try:
        raw = read_raw(path)
    except ManifestError as error:
        return Studies(None, [_refusal(*problem) for problem in error.problems], 0)
    try:
        manifest = Manifest.read(raw, data_root, modalities, allow_outside, tasks)
        return Studies(manifest, _told(manifest.saved), manifest.rows)
    except ManifestError as error:
        refusals = error.problems
    root = Path(data_root) if data_root is not None else raw.path.parent
    studies = _sound_rows(raw.cells, refusals, root, modalities, allow_outside, tasks)
    return studies._replace(problems=studies.problems + _told(raw.saved))


def _told(saved: Iterable[str]) -> list[Problem]:
    """How the table was saved, as lines of its own."""
    return [Problem(0, "", "", "", "saved", line, fix_of("saved")) for line in saved]


def _sound_rows(
    table: pd.DataFrame,
    refusals: list[Refusal],
    root: Path,
    modalities: Sequence[str] | None,
    allow_outside: bool,
    tasks: Mapping[str, str | Label] | None,
) -> Studies:
    """The manifest of the rows that are left when the refused ones are dropped, which may show further refusals."""
    studies = {int(str(row)): str(study) for row, study in table.get("study_id", pd.Series(dtype=object)).items()}
    problems: list[Problem] = []
    rest = table
    while refusals:
        problems += [_refusal(*refusal, study=studies.get(refusal[0] or 0, "")) for refusal in refusals]
        rows = {row for row, _, _ in refusals}
        if not rows <= set(rest.index):
            return Studies(None, problems, len(table))
        rest = rest.drop(index=sorted(row for row in rows if row is not None))
        if rest.empty:
            return Studies(None, problems, len(table))
        try:
            manifest = Manifest.from_table(rest, root, modalities, tasks, allow_outside=allow_outside)
        except ManifestError as error:
            # rows of `rest` are numbered anew
            refusals = [
                (int(rest.index[row - 2]) if row is not None and row > 1 else row, column, reason)
                for row, column, reason in error.problems
            ]
        else:
            rest = manifest.table.set_axis(rest.index, axis=0)
            return Studies(replace(manifest, table=rest), problems, len(table))
    return Studies(None, problems, len(table))


def _refusal(row: int | None, column: str | None, reason: str, study: str = "") -> Problem:
    problem, _, fix = reason.partition("; fix: ")
    return Problem(row or 0, study, column or "", "", "table", problem, fix or "correct the table")
