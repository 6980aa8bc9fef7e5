"""Columns beside a CT column: `ct_spacing`, `ct_slope`, `ct_intercept` complete a blank header, `ct_series` names a series.

The first three fill what a NIfTI file does not state; where the file states it as well, the two must agree, else it is
refused. The last says which series is meant where a DICOM folder holds several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

import pandas as pd

from medssml.manifest.row_rules import EMPTY, RowProblem
from medssml.readers import modality_kind
from medssml.readers.geometry import SPACING_MM
from medssml.readers.nifti import Given

_ENDINGS = ("spacing", "slope", "intercept", "series")
#: A unique identifier has digits and points; some that de-identification leaves have letters.
_UID = re.compile(r"[\w.-]{1,64}")
#: Between the numbers of a spacing: blanks, commas, semicolons, x, and the brackets of a list.
_BETWEEN = re.compile(r"[\s,;x×\[\]()]+")


def given_columns(modalities: Iterable[str]) -> tuple[str, ...]:
    """Names of the columns that may stand beside a modality that is a CT."""
    return tuple(f"{modality}_{ending}" for modality in modalities if _is_ct(modality) for ending in _ENDINGS)


def given_of(table: pd.DataFrame, modality: str) -> list[Given | None]:
    """(n,) what the table says of the volumes of `modality`; None where it says nothing.

    Raises:
        ValueError: a cell that `given_problems` names.
    """
    columns = [f"{modality}_{ending}" for ending in _ENDINGS]
    if not _is_ct(modality) or not any(column in table for column in columns):
        return [None] * len(table)
    cells = [table[column].tolist() if column in table else [""] * len(table) for column in columns]
    found = [Given(_spacing(a), _number(b), _number(c), _uid(d)) for a, b, c, d in zip(*cells, strict=True)]
    return [None if given == Given() else given for given in found]


def given_problems(table: pd.DataFrame, modalities: Iterable[str]) -> list[RowProblem]:
    """Cells that are no spacing, slope, intercept or series."""
    problems: list[RowProblem] = []
    for column in (name for name in given_columns(modalities) if name in table):
        read = _READ[column.rpartition("_")[2]]
        for row, cell in table[column].items():
            try:
                value = read(cell)
                if column.endswith("_slope") and value == 0:
                    raise ValueError("0 would make every voxel the same; fix: write HU per stored value, such as 1")
            except ValueError as error:
                problems.append((int(str(row)), column, f"{cell!r}: {error}"))
    return problems


def _is_ct(modality: str) -> bool:
    try:
        return modality_kind(modality) == "ct"
    except KeyError:
        return False


def _spacing(cell: str) -> tuple[float, float, float] | None:
    """Three lengths in mm, along the axes of the file."""
    if cell in EMPTY:
        return None
    fix = "fix: write three lengths in mm, as in 0.7 0.7 1.5"
    try:
        values = [float(part) for part in _BETWEEN.split(cell) if part]
    except ValueError:
        raise ValueError(f"holds what is no number; {fix}") from None
    if len(values) != 3:
        raise ValueError(f"holds {len(values)} numbers, expected 3; {fix}")
    low, high = SPACING_MM
    if not all(low <= value <= high for value in values):
        raise ValueError(f"voxels measure {low:g} to {high:g} mm; {fix}")
    return values[0], values[1], values[2]


def _number(cell: str) -> float | None:
    if cell in EMPTY:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("is no number; fix: write one, or leave the cell empty")
    return value


def _uid(cell: str) -> str | None:
    if cell in EMPTY:
        return None
    if not _UID.fullmatch(cell):
        raise ValueError("is no SeriesInstanceUID; fix: write it as text, digits and points, or leave the cell empty")
    return cell


_READ: dict[str, Callable[[str], object]] = {
    "spacing": _spacing,
    "slope": _number,
    "intercept": _number,
    "series": _uid,
}
