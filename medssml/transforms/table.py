"""Laboratory values: chosen features, standardised by the training studies; what was not measured stays unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssml.readers.errors import ReadError
from medssml.readers.table import parse_table, read_table
from medssml.readers.units import same_unit
from medssml.transforms.base import NOTES, Prepared, Source, Transform, at_least, notes_array


class TableTransform(Transform):
    """Values of the features, (x - mean) / std with the figures of the training studies, cut at `clip`.

    Args:
        features: name -> unit, in the order of the encoder's features; "" where no unit is checked. Other names in a
            table are left out.
        clip: standard deviations beyond which a value says no more.
        hide: probability that training hides a known value; never all of them.
        fitted: name -> [mean, std], as a saved model brings them along; None = learned from the training studies.
    """

    libraries = ("numpy",)
    #: A string is the text itself.
    takes_text = True

    def __init__(
        self,
        features: Mapping[str, str],
        clip: float = 5.0,
        hide: float = 0.1,
        fitted: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        at_least("number of features", len(features), 1)
        at_least("clip", clip, 1)
        if not 0 <= hide < 1:
            raise ValueError(f"hide is {hide}, expected 0 to less than 1")
        if fitted is not None and set(fitted) != set(features):
            differing = sorted(set(fitted) ^ set(features))
            raise ValueError(f"fitted and features differ in {differing}; fix: leave fitted out, it is learned")
        self.features, self.clip, self.hide = dict(features), float(clip), float(hide)
        self.scale = None if fitted is None else self._as_scale(fitted)

    def settings(self) -> dict[str, Any]:
        # The values are stored as they are: other figures of the training studies prepare no table again.
        return {"features": self.features}

    def prepare(self, source: Source) -> Prepared:
        """{"values": (F,) float64, NaN where not measured, "notes"}. A `Path` is a file, a string is the text itself.

        Raises:
            ReadError: not a table, none of the features, or a value in another unit.
        """
        read = read_table(source) if isinstance(source, Path) else parse_table(source)
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

    def __call__(self, prepared: Prepared, rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """{"values": (F,) float32, 0 where not known, "known": (F,) bool}.

        Raises:
            ValueError: nothing was learned yet.
        """
        if self.scale is None:
            raise ValueError("the figures of the training studies are not known yet; call fit_training, or give fitted")
        values = np.asarray(prepared["values"])
        mean, std = self.scale
        known = np.isfinite(values)
        if rng is not None and known.sum() > 1:
            left = known & (rng.random(len(values)) >= self.hide)
            known = left if left.any() else known
        scaled = np.clip((np.where(known, values, mean) - mean) / std, -self.clip, self.clip)
        return {"values": torch.from_numpy(scaled.astype(np.float32)), "known": torch.from_numpy(known.copy())}

    def fit_training(self, prepared: Iterable[Prepared], subjects: Sequence[str] | None = None) -> list[str]:
        """Learns mean and standard deviation of every feature, unless they are there already.

        A feature that no training study has, or that never varies, keeps its unit: mean as it is, std 1.
        """
        if self.scale is not None:
            return []
        table = np.stack([np.asarray(entry["values"]) for entry in prepared])
        fitted = {}
        for name, column in zip(self.features, table.T, strict=True):
            seen = column[np.isfinite(column)]
            std = float(seen.std()) if seen.size > 1 else 0.0
            fitted[name] = [float(seen.mean()) if seen.size else 0.0, std if std > 0 else 1.0]
        self.scale = self._as_scale(fitted)
        # A saved model brings the figures along.
        self._arguments["fitted"] = fitted
        return []

    def _as_scale(self, fitted: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        mean, std = np.array([fitted[name] for name in self.features], dtype=np.float64).T
        if not (np.isfinite(mean).all() and (std > 0).all() and np.isfinite(std).all()):
            raise ValueError("fitted needs a finite mean and a positive std for every feature")
        return mean, std
