"""Targets of the study table: what kind of task a `label_<task>` column is, and which of its cells are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KINDS = ("binary", "multiclass", "regression")
#: More classes than this in a column that nobody declared is taken for a number, such as an age.
MOST_CLASSES = 20


@dataclass(frozen=True)
class Label:
    """What a task's target is. kind: binary, multiclass or regression. n_classes: 2, K, or 1 for a number."""

    kind: str
    n_classes: int


def parse_labels(
    table: pd.DataFrame, declared: Mapping[str, str]
) -> tuple[dict[str, Label], list[tuple[int | None, str | None, str]]]:
    """Kind of every label column, and (row, column, reason) of every cell that does not fit it."""
    labels: dict[str, Label] = {}
    problems: list[tuple[int | None, str | None, str]] = []
    columns = [str(column) for column in table.columns if str(column).startswith("label_")]
    for task in declared:
        if f"label_{task}" not in columns:
            problems.append(
                (1, f"label_{task}", f"no such column, but task {task!r} is declared; fix: add or remove it")
            )
    for column in columns:
        task = column.removeprefix("label_")
        cells = table.loc[table[column] != "", column]
        values, wrong = _numbers(cells)
        problems += [
            (row, column, f"{cell!r} is no finite number; fix: write a number or leave it empty") for row, cell in wrong
        ]
        if wrong:
            continue
        label, reason = _kind(values, declared.get(task))
        bad = [] if reason is None else [int(str(row)) for row in cells.index[~_fits(values, label)]]
        problems += [(row, column, f"{table.loc[row, column]!r} does not fit: {reason}") for row in bad]
        labels[task] = label
    return labels, problems


def _numbers(cells: pd.Series) -> tuple[NDArray[np.float64], list[tuple[int, str]]]:
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values)
    return values, [(int(str(row)), str(cell)) for row, cell in cells[wrong].items()]


def _kind(values: NDArray[np.float64], declared: str | None) -> tuple[Label, str | None]:
    """The label and, where cells may be at odds with it, what the cells should be."""
    whole = bool((values == np.round(values)).all())
    top = int(values.max()) if len(values) and whole else 0
    if declared is not None and declared not in KINDS:
        raise ValueError(f"a task is {', '.join(KINDS)}, not {declared!r}")
    if declared == "binary":
        return Label("binary", 2), "a binary target is 0 or 1; fix: empty the cell for 'unknown'"
    if declared == "multiclass":
        return Label("multiclass", max(top + 1, 2)), "a class is a whole number from 0; fix: number the classes from 0"
    if declared == "regression" or not whole:
        return Label("regression", 1), None
    if set(np.unique(values)) == {-1.0, 0.0, 1.0} or set(np.unique(values)) in ({-1.0, 0.0}, {-1.0, 1.0}):
        return Label(
            "binary", 2
        ), "-1 is neither class; fix: empty the cell for 'uncertain', or declare the task's kind"
    if values.min(initial=0) < 0 or top >= MOST_CLASSES:
        return Label("regression", 1), None
    return (Label("binary", 2) if top <= 1 else Label("multiclass", top + 1)), None


def _fits(values: NDArray[np.float64], label: Label) -> NDArray[np.bool_]:
    return (values == np.round(values)) & (values >= 0) & (values < label.n_classes)
