"""Numbers of a cohort's files: how they are spread, and in which of them one source differs from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medssml.checks.inspection import Inspection
from medssml.checks.limits import Limits
from medssml.manifest.manifest import Manifest

#: Columns that say where a study comes from, the first that is there being used.
SOURCES = ("source", "site", "hospital", "center", "centre", "institution", "scanner")
_MOST_SOURCES = 50


class Property(NamedTuple):
    """One number of every file of a modality. positions: (n,) rows of the studies. values: (n,)."""

    modality: str
    name: str
    positions: NDArray[np.int64]
    values: NDArray[np.float64]


class Difference(NamedTuple):
    """A property whose values in one source differ from those in the others.

    delta: Cliff's delta, P(here > elsewhere) - P(here < elsewhere), from -1 to 1; +-1 is no overlap.
    """

    modality: str
    name: str
    source: str
    files: int
    median: float
    elsewhere: float
    delta: float


def properties(files: Mapping[tuple[int, str], Inspection]) -> list[Property]:
    """The numbers of every file that could be read, by modality and name."""
    found: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for (position, modality), inspection in files.items():
        for name, value in inspection.properties.items():
            positions, values = found.setdefault((modality, name), ([], []))
            positions.append(position)
            values.append(value)
    return [Property(m, name, np.array(p), np.array(v, np.float64)) for (m, name), (p, v) in found.items()]


def labels(manifest: Manifest) -> list[Property]:
    """The targets as properties: a label that one source has more often can be learnt from the scanner's mark."""
    found = []
    for task, values in manifest.targets.items():
        known = np.flatnonzero(~np.isnan(values))
        if known.size:
            found.append(Property("label", task, known, values[known].astype(np.float64)))
    return found


def source_column(manifest: Manifest, asked: str | None = None) -> str | None:
    """The column that says where a study comes from: the one that is asked for, else the first of `SOURCES` that is there.

    Raises:
        KeyError: there is no such column.
    """
    if asked is not None:
        if asked not in manifest.table:
            raise KeyError(f"--source: no column {asked!r} in the table; known: {', '.join(manifest.table.columns)}")
        return asked
    for name in (*SOURCES, *(f"group_{name}" for name in SOURCES)):
        if name in manifest.table and 2 <= manifest.table[name].nunique() <= _MOST_SOURCES:
            return name
    return None


def drift(found: Sequence[Property], sources: pd.Series, limits: Limits) -> list[Difference]:
    """Properties by which one source can be told from the others, the strongest first.

    Args:
        found: properties of the files.
        sources: (rows,) where each study comes from; "" = not known.
        limits: `drift`, the least |delta|, and `drift_files`, the files that a source must have.
    """
    names = sources.to_numpy(dtype=object)
    differences = []
    for item in found:
        here = names[item.positions]
        known = sorted({name for name in here if name})
        enough = [name for name in known if (here == name).sum() >= limits.drift_files]
        # of two sources, each differs from the other alike: one line is enough
        for name in enough[:1] if len(known) == 2 and len(enough) == 2 else enough:
            inside, outside = item.values[here == name], item.values[(here != name) & (here != "")]
            if len(outside) < limits.drift_files:
                continue
            delta = cliffs_delta(inside, outside)
            if abs(delta) >= limits.drift:
                middle = _middle(item, inside), _middle(item, outside)
                differences.append(Difference(item.modality, item.name, str(name), len(inside), *middle, delta))
    return sorted(differences, key=lambda difference: -abs(difference.delta))


def cliffs_delta(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """P(first > second) - P(first < second) for a pair drawn at random; 0 where the two are alike.

    Norman Cliff, Psychological Bulletin 1993; twice the AUROC of the values less 1.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([first, second]))
    above = ranks[: len(first)].sum() - len(first) * (len(first) + 1) / 2
    return float(2 * above / (len(first) * len(second)) - 1)


def _middle(item: Property, values: NDArray[np.float64]) -> float:
    """The median; of a label the mean, which for a binary one is its share."""
    return float(values.mean() if item.modality == "label" else np.median(values))
