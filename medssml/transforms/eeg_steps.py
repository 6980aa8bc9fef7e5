"""What MONAI lacks for EEG: windows in seconds, channels left out, and the tensors that an EEG encoder reads.

Between them MONAI's own transforms of intensity work as on an image: a recording is (C, T), in uV once a window is cut.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from numpy.typing import NDArray
from torch import Tensor

from medssml.config import Configured
from medssml.transforms.base import at_least
from medssml.transforms.eeg import STEP_UV

#: uV per unit of what an encoder sees, as LaBraM has it.
UNIT_UV = 100.0


def microvolts(signal: Tensor | NDArray[Any]) -> Tensor:
    """(C, T) float32 uV of a signal in the steps of `LoadEEGd`; one that is in uV already stays as it is."""
    if isinstance(signal, np.ndarray):
        signal = torch.from_numpy(np.array(signal))
    if signal.is_floating_point():
        return signal.to(torch.float32)
    return signal.to(torch.float32) * STEP_UV


class RandWindowd(Configured, RandomizableTransform, MapTransform):
    """A time shift: `seconds` of the recording, from anywhere in it; the whole where it is shorter. In uV.

    Args:
        keys: names of the entries; the rate is that of `<key>_sfreq`.
        seconds: s.
        allow_missing_keys: a study without the entry stays as it is.
    """

    reads_only = True

    def __init__(
        self, keys: str | Sequence[str] = "eeg", seconds: float = 10.0, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        self.seconds = _positive("seconds", seconds)

    def randomize(self, data: Any = None) -> None:
        """Draws where in the recording, as a share of what is to spare."""
        super().randomize(None)
        self._where = self.R.random_sample()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with (C, seconds * rate) float32 uV."""
        entries = dict(data)
        self.randomize()
        for key in self.key_iterator(entries):
            signal = entries[key]
            wanted = min(signal.shape[1], round(self.seconds * entries[f"{key}_sfreq"]))
            start = int(self._where * (signal.shape[1] - wanted + 1))
            entries[key] = microvolts(signal[:, start : start + wanted])
        return entries


class CentralWindowd(Configured, MapTransform):
    """The middle `seconds` of the recording; the whole where it is shorter, as after `RandWindowd`. In uV.

    Args:
        keys: names of the entries; the rate is that of `<key>_sfreq`.
        seconds: s; at least those of the random window, or training sees less than that.
        allow_missing_keys: a study without the entry stays as it is.
    """

    reads_only = True

    def __init__(
        self, keys: str | Sequence[str] = "eeg", seconds: float = 60.0, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.seconds = _positive("seconds", seconds)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with (C, seconds * rate) float32 uV."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            signal = entries[key]
            wanted = min(signal.shape[1], round(self.seconds * entries[f"{key}_sfreq"]))
            start = (signal.shape[1] - wanted) // 2
            entries[key] = microvolts(signal[:, start : start + wanted])
        return entries


class RandDropChannelsd(Configured, RandomizableTransform, MapTransform):
    """Leaves channels out, never all: a channel left out is absent, not zero. The order stays.

    Args:
        keys: names of the entries; `<key>_channels` loses the same rows.
        share: of the channels, on average.
        most: channels that stay at most; None = no limit.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "eeg",
        share: float = 0.1,
        most: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        if not 0 <= share < 1:
            raise ValueError(f"share is {share}, expected 0 to less than 1")
        if most is not None:
            at_least("most", most, 1)
        self.share, self.most = float(share), most

    def randomize(self, data: int) -> None:
        """Draws which of `data` channels stay, ascending."""
        super().randomize(None)
        most = data if self.most is None else min(data, self.most)
        kept = max(1, most - int(self.R.binomial(most, self.share)))
        self._rows = np.sort(self.R.permutation(data)[:kept])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the rows that stay."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            self.randomize(len(entries[key]))
            rows = torch.from_numpy(self._rows)
            entries[key] = torch.as_tensor(entries[key])[rows]
            entries[f"{key}_channels"] = torch.as_tensor(entries[f"{key}_channels"])[rows]
        return entries


class EEGInputsd(Configured, MapTransform):
    """The last step of an EEG's road: {"signal": (C, T) float32 in 100 uV, "channels": (C,) int64, "length": () int64}.

    Args:
        keys: names of the entries.
        max_channels: the first channels that are kept; None = all.
        clip_uv: uV beyond which values are cut.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "eeg",
        max_channels: int | None = None,
        clip_uv: float = 500.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        at_least("clip_uv", clip_uv, 1)
        if max_channels is not None:
            at_least("max_channels", max_channels, 1)
        self.max_channels, self.clip_uv = max_channels, float(clip_uv)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the dict of tensors, and without the entries beside it."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            channels = torch.as_tensor(entries.pop(f"{key}_channels"))[: self.max_channels]
            entries.pop(f"{key}_sfreq", None)
            signal = microvolts(torch.as_tensor(entries[key])[: self.max_channels])
            signal = signal.clamp(-self.clip_uv, self.clip_uv) / UNIT_UV
            length = torch.tensor(signal.shape[1], dtype=torch.int64)
            entries[key] = {"signal": signal.contiguous(), "channels": channels.to(torch.int64), "length": length}
        return entries


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} is {value}, expected more than 0")
    return float(value)
