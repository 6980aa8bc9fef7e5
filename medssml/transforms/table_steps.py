"""What MONAI lacks for tables of values: values that are hidden, and figures of the training studies to standardise by."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform

from medssml.config import Configured
from medssml.transforms.base import at_least
from medssml.transforms.table import learned_scale, standardised


class RandHideValuesd(Configured, RandomizableTransform, MapTransform):
    """Makes known values unknown, never all of them.

    Args:
        keys: names of the entries, (F,) with NaN where not known.
        share: of the known values, on average.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self, keys: str | Sequence[str] = "table", share: float = 0.1, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        if not 0 <= share < 1:
            raise ValueError(f"share is {share}, expected 0 to less than 1")
        self.share = float(share)

    def randomize(self, data: int) -> None:
        """Draws which of `data` values stay."""
        super().randomize(None)
        self._stay = torch.from_numpy(self.R.random_sample(data) >= self.share)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with NaN where a value is hidden."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            values = torch.as_tensor(entries[key])
            self.randomize(len(values))
            known = torch.isfinite(values)
            left = known & self._stay
            if bool(left.any()):
                entries[key] = values.masked_fill(known & ~left, float("nan"))
        return entries


class Standardised(Configured, MapTransform):
    """The last step of a table's road: {"values": (F,) float32, 0 where not known, "known": (F,) bool}.

    (x - mean) / std with the figures of the training studies.

    Args:
        keys: names of the entries, (F,) with NaN where not known.
        clip: standard deviations beyond which a value says no more.
        fitted: name -> [mean, std], as a saved model brings them along; None = learned from the training studies.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "table",
        clip: float = 5.0,
        fitted: Mapping[str, Sequence[float]] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        at_least("clip", clip, 1)
        self.clip = float(clip)
        self.scale = None if fitted is None else _checked(fitted)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the dict of tensors, and without the entry beside it.

        Raises:
            ValueError: nothing was learned yet, or of other features.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            names = entries.pop(f"{key}_features")
            if self.scale is None:
                raise ValueError("the figures of the training studies are not known yet; fix: fit_training, or fitted")
            if set(self.scale) != set(names):
                differing = sorted(set(self.scale) ^ set(names))
                raise ValueError(f"fitted and features differ in {differing}; fix: leave fitted out, it is learned")
            scale = {name: self.scale[name] for name in names}
            values, known = standardised(np.asarray(entries[key], dtype=np.float64), scale, self.clip)
            entries[key] = {"values": torch.from_numpy(values), "known": torch.from_numpy(known)}
        return entries

    def learn(self, data: Iterable[Mapping[Hashable, Any]], subjects: Sequence[str] | None) -> list[str]:
        """Learns mean and standard deviation of every feature, unless they are there already."""
        if self.scale is None:
            key = self.keys[0]
            rows = list(data)
            table = np.stack([np.asarray(entries[key], dtype=np.float64) for entries in rows])
            fitted = learned_scale(rows[0][f"{key}_features"], table)
            self.scale = _checked(fitted)
            # A saved model brings the figures along.
            self._arguments["fitted"] = fitted
        return []


def _checked(fitted: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    scale = {name: (float(figures[0]), float(figures[1])) for name, figures in fitted.items()}
    if not all(np.isfinite(mean) and np.isfinite(std) and std > 0 for mean, std in scale.values()):
        raise ValueError("fitted needs a finite mean and a positive std for every feature")
    return scale
