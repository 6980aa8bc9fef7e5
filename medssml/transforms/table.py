"""Laboratory values: chosen features, standardised by the training studies; what was not measured stays unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.arrays import as_array
from medssml.readers.errors import ReadError
from medssml.readers.table import parse_table, read_table
from medssml.readers.units import same_unit
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, at_least, notes_array


class TableValues(Preparation):
    """Values of the chosen features, as they are.

    Args:
        features: name -> unit, in the order of the encoder's features; "" where no unit is checked. Other names in a
            table are left out.
    """

    libraries = ("numpy",)
    takes_text = True

    def __init__(self, features: Mapping[str, str]) -> None:
        at_least("number of features", len(features), 1)
        self.features = dict(features)

    def settings(self) -> dict[str, Any]:
        return {"features": self.features}

    def held(self, name: str, value: Any) -> Source:
        """The text of values in memory: a dict or Series of feature and value, or an array (F,) in the order of `features`."""
        array = as_array(value)
        if isinstance(value, Mapping) or hasattr(value, "items"):
            values = dict(value.items())
        elif array is not None and array.ndim == 1 and len(array) == len(self.features):
            values = dict(zip(self.features, array.tolist(), strict=True))
        elif array is not None:
            order = ", ".join(f"{feature} ({unit})" if unit else feature for feature, unit in self.features.items())
            raise ValueError(f"{name} is an array {array.shape}; fix: (F,) numbers, NaN where not measured: {order}")
        else:
            raise TypeError(f"{name} is a {type(value).__name__}; fix: a path, a text, or a dict of feature and value")
        known = {str(feature): number for feature, number in values.items() if number is not None and number == number}
        return json.dumps({feature: str(number) for feature, number in known.items()})

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        """{"values": (F,) float64, NaN where not measured, "notes"}. A `Path` is a file, a string is the text itself.

        Raises:
            ReadError: not a table, none of the features, or a value in another unit.
        """
        read = read_table(source) if isinstance(source, Path) else parse_table(str(source))
        where = str(source) if isinstance(source, Path) else "table text"
        for name, unit in self.features.items():
            stated = read.units.get(name, "")
            if unit and stated and not same_unit(stated, unit):
                raise ReadError(where, f"{name} is in {stated!a}, expected {unit!a}", "convert the value", code="units")
        values = np.array([read.values.get(name, np.nan) for name in self.features], dtype=np.float64)
        if np.isnan(values).all():
            reason = f"has none of the {len(self.features)} features ({', '.join(list(self.features)[:4])} ...)"
            raise ReadError(where, reason, "name features of the table, or leave the cell empty", code="content")
        return {"values": values, NOTES: notes_array(read.notes)}


def learned_scale(names: Sequence[str], table: NDArray[np.float64]) -> dict[str, list[float]]:
    """Name -> [mean, standard deviation] of the known values of each column of (n, F) `table`.

    A feature that no study has, or that never varies, keeps its unit: mean as it is, std 1.
    """
    fitted = {}
    for name, column in zip(names, table.T, strict=True):
        seen = column[np.isfinite(column)]
        std = float(seen.std()) if seen.size > 1 else 0.0
        fitted[name] = [float(seen.mean()) if seen.size else 0.0, std if std > 0 else 1.0]
    return fitted


def standardised(
    values: NDArray[np.float64], scale: Mapping[str, Sequence[float]], clip: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(F,) (x - mean) / std cut at `clip`, 0 where not known; and (F,) what is known."""
    mean, std = np.array(list(scale.values()), dtype=np.float64).T
    known = np.isfinite(values)
    scaled = np.clip((np.where(known, values, mean) - mean) / std, -clip, clip)
    return scaled.astype(np.float32), known
