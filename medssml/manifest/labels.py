"""Targets of the study table: what kind of task a `label_<task>` column is, and which of its cells are wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

KINDS = ("binary", "multiclass", "regression")
#: Whole numbers up to this are taken for classes where nobody says otherwise, above it for a number, such as an age; a
#: column of more different words is none of classes.
MOST_CLASSES = 20

#: (row, column, reason); row 1 is the header.
Fault = tuple[int | None, str | None, str]


@dataclass(frozen=True)
class Label:
    """What a task's target is.

    Args:
        kind: binary, multiclass or regression.
        n_classes: K, where the classes are 0 to K - 1; otherwise it follows from `classes`. 1 for a number.
        classes: the values that the table has for them, in the order of the logits; the last of two is the positive one.
        unit: of a number, as the table has it.

    Raises:
        ValueError: no such kind, or a class twice.
    """

    kind: str = "binary"
    n_classes: int = 2
    classes: tuple[str, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}; accepted: {', '.join(KINDS)}")
        counted = tuple(str(index) for index in range(2 if self.kind == "binary" else self.n_classes))
        classes = () if self.kind == "regression" else tuple(plain_class(c) for c in self.classes) or counted
        if len(set(classes)) < len(classes):
            raise ValueError(f"the classes {', '.join(classes)} name one twice; fix: name each once")
        if self.kind == "binary" and len(classes) != 2:
            raise ValueError(f"a binary task has 2 classes, not {len(classes)}: {', '.join(classes)}")
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "n_classes", len(classes) or 1)

    def values(self, cells: pd.Series) -> NDArray[np.float64]:
        """(n,) numbers, or places among the classes, of cells of the table; NaN where empty or neither."""
        if self.kind == "regression":
            numbers = pd.to_numeric(cells.replace("", np.nan), errors="coerce").to_numpy(dtype=np.float64)
            return np.where(np.isfinite(numbers), numbers, np.nan)
        place = {name: float(index) for index, name in enumerate(self.classes)}
        return np.array([place.get(plain_class(str(cell)), np.nan) for cell in cells], dtype=np.float64)

    def names(self, values: NDArray[np.float64]) -> NDArray[np.object_]:
        """(n,) the table's values of places among the classes (n,); None where NaN."""
        return np.array([self.classes[int(v)] if np.isfinite(v) else None for v in values], dtype=object)


def plain_class(cell: str) -> str:
    """A class as it is called everywhere: 1, 1.0 and 01 are one."""
    try:
        number = float(cell)
    except ValueError:
        return str(cell).strip()
    return str(int(number)) if np.isfinite(number) and number == int(number) else str(cell).strip()


def declared_labels(kind: Sequence[str], classes: Sequence[str]) -> dict[str, str | Label]:
    """Task -> what the flags say of it: TASK=regression, or TASK=regression:UNIT; and TASK=a,b,c, its classes in order.

    Raises:
        ValueError: a flag without a task or a value, or of no kind, or at odds with the other.
    """
    said: dict[str, str | Label] = {}
    for flag, given in (("kind", kind), ("classes", classes)):
        for text in given:
            task, mark, value = text.partition("=")
            if not (task and mark and value):
                raise ValueError(f"--{flag} {text!r} says nothing of a task; fix: --{flag} TASK={_EXAMPLE[flag]}")
            name, _, unit = value.partition(":")
            if flag == "kind":
                said[task] = Label("regression", unit=unit) if name == "regression" else _known_kind(name)
                continue
            names = tuple(part.strip() for part in value.split(","))
            found = "binary" if len(names) == 2 and said.get(task) != "multiclass" else "multiclass"
            if said.get(task, found) != found:
                raise ValueError(f"task {task!r} has classes and is no {_kind_of(said[task])}; fix: leave one flag out")
            said[task] = Label(found, classes=names)
    return said


_EXAMPLE = {"kind": "regression", "classes": "a,b,c"}


def _known_kind(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"a task is {', '.join(KINDS)}, not {name!r}")
    return name


def _kind_of(said: str | Label) -> str:
    return said if isinstance(said, str) else said.kind


def parse_labels(table: pd.DataFrame, declared: Mapping[str, str | Label]) -> tuple[dict[str, Label], list[Fault]]:
    """Kind of every label column, and (row, column, reason) of every cell that does not fit it.

    Args:
        declared: task -> its kind, or all of it, where the cells alone do not say it rightly.
    """
    labels: dict[str, Label] = {}
    problems: list[Fault] = []
    columns = [str(column) for column in table.columns if str(column).startswith("label_")]
    for task in declared:
        if f"label_{task}" not in columns:
            problems.append(
                (1, f"label_{task}", f"no such column, but task {task!r} is declared; fix: add or remove it")
            )
    for column in columns:
        task = column.removeprefix("label_")
        if not task:
            problems.append((1, column, "names no task; fix: rename it to label_ and the name of a task"))
            continue
        cells = table.loc[table[column] != "", column]
        label, faults = _read(cells, declared.get(task))
        problems += [(row, column, reason) for row, reason in faults]
        if label is not None:
            labels[task] = label
    return labels, problems


def _read(cells: pd.Series, said: str | Label | None) -> tuple[Label | None, list[tuple[int, str]]]:
    """The label of one column, or None where that cannot be told, and what is wrong with which rows."""
    if isinstance(said, Label):
        return said, _misfits(cells, said, f"the classes are {', '.join(said.classes)}; fix: {_EMPTY_OR_TRAIN}")
    if said == "binary":
        label = Label("binary")
        return label, _misfits(
            cells, label, f"a binary target is 0 or 1; fix: {_EMPTY}, or --classes {_task(cells)}=no,yes"
        )
    if said == "regression":
        return Label("regression"), _misfits(cells, Label("regression"), "")
    if said is not None:
        return Label(_known_kind(said), classes=_in_order(cells)), []
    return _inferred(cells)


_EMPTY = "empty the cell for 'unknown'"
_EMPTY_OR_TRAIN = "empty the cell, or train with this class"


def _misfits(cells: pd.Series, label: Label, reason: str) -> list[tuple[int, str]]:
    wrong = cells[np.isnan(label.values(cells))]
    if label.kind == "regression":
        return [(_row(row), f"{cell!r} is no finite number; fix: {_NUMBER}") for row, cell in wrong.items()]
    return [(_row(row), f"{cell!r} does not fit: {reason}") for row, cell in wrong.items()]


_NUMBER = "write a number or leave it empty"


#: What stands beside 0 and 1 for "not known": -1 of CheXpert, and the codes of surveys.
_NO_CLASS = re.compile(r"-1|-9+|-8+|99+|88+")


def _row(row: object) -> int:
    return int(str(row))


def _task(cells: pd.Series) -> str:
    return str(cells.name).removeprefix("label_")


def _inferred(cells: pd.Series) -> tuple[Label | None, list[tuple[int, str]]]:
    """What the cells say by themselves: classes are the values that occur."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    wrong = cells[~np.isfinite(values)]
    meant_as_numbers = np.isinf(values).any() or cells.str.fullmatch(r"[-+]?\d*[.,]\d+").any()
    if len(wrong) and len(wrong) == len(cells) and not meant_as_numbers:
        return _of_words(cells)
    if len(wrong):
        fix = f"{_NUMBER}, or say --classes {_task(cells)}=a,b,c"
        return None, [(_row(row), f"{cell!r} is no finite number; fix: {fix}") for row, cell in wrong.items()]
    if not bool((values == np.round(values)).all()):
        return Label("regression"), []
    found = {float(value) for value in values}
    beside = [f"{value:.0f}" for value in found - {0.0, 1.0}]
    if len(beside) == 1 and len(found) > 1 and _NO_CLASS.fullmatch(beside[0]):
        name = _task(cells)
        fix = f"empty the cell for 'uncertain', or say --classes {name}={beside[0]},0,1 or --kind {name}=regression"
        reason = f"does not fit: {beside[0]} is neither class; fix: {fix}"
        return Label("binary"), [(_row(row), f"{c!r} {reason}") for row, c in cells[~np.isin(values, (0, 1))].items()]
    if found and (min(found) < 0 or max(found) >= MOST_CLASSES):
        return Label("regression"), []
    if found <= {0.0, 1.0}:
        return Label("binary"), []
    return _of_classes(cells), []


def _of_words(cells: pd.Series) -> tuple[Label | None, list[tuple[int, str]]]:
    names = _in_order(cells)
    if len(names) > MOST_CLASSES:
        reason = (
            f"{len(names)} different texts are no classes; fix: rename the column without label_, or make it numbers"
        )
        return None, [(1, reason)]
    spelt: dict[str, str] = {}
    for name in names:
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            return None, [(1, f"{other!r} and {name!r} differ in capitals alone; fix: write one of them")]
    return _of_classes(cells), []


def _of_classes(cells: pd.Series) -> Label:
    names = _in_order(cells)
    return Label("binary" if len(names) == 2 else "multiclass", classes=names)


def _in_order(cells: pd.Series) -> tuple[str, ...]:
    """The different values: numbers by size, then words by the alphabet."""
    return tuple(sorted({plain_class(str(cell)) for cell in cells}, key=_by_size))


def _by_size(name: str) -> tuple[bool, float, str]:
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name
