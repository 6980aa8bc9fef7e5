"""Files into MONAI's dictionaries: `LoadCTd`, `LoadXrayd`, `LoadEEGd`, `LoadReportd`, `LoadTabled`.

Each does in one step what a generic chain does in several, which is what makes it fast, and gives what that chain gives.
A `Path` is a file; a string is a file too, except for a report or a table, where it is the text itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform

from medssml.config import Configured
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, notes_of
from medssml.transforms.ct import OUTSIDE, CTField
from medssml.transforms.eeg import EEGSignal
from medssml.transforms.image_reader import MonaiCTReader
from medssml.transforms.report import ReportText, text_of
from medssml.transforms.table import TableValues
from medssml.transforms.xray import XraySquare

#: Behind a key: what the table says of a file beside its name.
GIVEN = "_given"


class Loader(Configured, MapTransform):
    """The first step of a road: a file into the entry of its key, and entries beside it whose names begin with the key.

    Attributes:
        preparation: what reads the file; knows nothing of MONAI.
    """

    preparation: Preparation

    def __init__(self, keys: str | Sequence[str], preparation: Preparation, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.preparation = preparation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the file of each key replaced by what it holds.

        Raises:
            medssml.readers.errors.ReadError: the file cannot be used.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            given = entries.pop(f"{key}{GIVEN}", None)
            entries.update(self.load(str(key), self._source(entries[key]), given))
        return entries

    def _source(self, value: Any) -> Source:
        return value if isinstance(value, str) and self.preparation.takes_text else Path(value)

    def load(self, key: str, source: Source, given: Any) -> dict[str, Any]:
        """The entries of one file."""
        return self.entries(key, self.preparation.prepare(source, given))

    def entries(self, key: str, prepared: Prepared, shared: bool = False) -> dict[str, Any]:
        """The entries that what was prepared stands for.

        Args:
            shared: they may be views of it, as the next step only reads. Else they are copies: a step may write into them,
                and what was prepared is the cache's.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what its stored arrays stand for")


class LoadCTd(Loader):
    """CT: (1, X, Y, Z) int16 HU, a centred field in RAS+ axes; a MetaTensor with `affine` and `spacing` in mm.

    The same as LoadImaged, Orientationd("RAS"), Spacingd and ResizeWithPadOrCropd, with one resampling of what the field
    sees. Size survives: a volume is cropped or padded, never stretched.

    Args:
        keys: names of the entries.
        spacing: mm between voxels along X, Y, Z.
        size: voxels along X, Y, Z; a few more than the encoder sees leave room for random crops.
        outside: HU of what the scan does not cover or holds nothing of, -1024 or below. Lower, such as -2048, where random
            noise must not lift an empty patch into the window (`ViT(skip_empty=True)`).
        reader: a MONAI `ImageReader`, or the name of one ("ITKReader", "NrrdReader", "NibabelReader"), for formats that
            ours does not know. None = NIfTI and DICOM series by our own.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "ct",
        spacing: Sequence[float] = (2.0, 2.0, 2.0),
        size: Sequence[int] = (128, 128, 128),
        outside: int = OUTSIDE,
        reader: Any = None,
        allow_missing_keys: bool = False,
    ) -> None:
        read = None if reader is None else MonaiCTReader(reader)
        self.field = CTField(spacing, size, outside, read, None if read is None else read.name)
        super().__init__(keys, self.field, allow_missing_keys)

    def load(self, key: str, source: Source, given: Any) -> dict[str, Any]:
        hu, affine, notes = self.field.field(source, given)
        if not get_track_meta():
            return {key: torch.from_numpy(hu[None])}
        meta = {"spacing": np.array(self.field.spacing), "space": "RAS", NOTES: list(notes)}
        return {key: MetaTensor(torch.from_numpy(hu[None]), affine=torch.from_numpy(affine), meta=meta)}

    def entries(self, key: str, prepared: Prepared, shared: bool = False) -> dict[str, Any]:
        return {key: torch.from_numpy(prepared["hu"][None].copy())}


class LoadXrayd(Loader):
    """Radiograph: (1, S, S) float32 in [0, 1], row 0 at the head, dense tissue white.

    Resized with antialiasing, its aspect kept. Rows come before columns, where MONAI's readers of pictures have them turned.

    Args:
        keys: names of the entries.
        size: S, pixels along each side; a quarter more than the encoder sees leaves room for random crops.
        fit: "pad" keeps the whole image, "crop" its central square.
        percentiles: of the pixels, that become 0 and 1; None keeps the range that the file declares.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "xray",
        size: int = 280,
        fit: str = "pad",
        percentiles: Sequence[float] | None = (1.0, 99.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, XraySquare(size, fit, percentiles), allow_missing_keys)

    def load(self, key: str, source: Source, given: Any) -> dict[str, Any]:
        prepared = self.preparation.prepare(source, given)
        gray = self.entries(key, prepared)[key]
        return {key: MetaTensor(gray, meta={NOTES: notes_of(prepared)}) if get_track_meta() else gray}

    def entries(self, key: str, prepared: Prepared, shared: bool = False) -> dict[str, Any]:
        return {key: torch.from_numpy(prepared["gray"].astype(np.float32) / np.float32(65535))[None]}


class LoadEEGd(Loader):
    """EEG: (C, T) int16 in steps of 0.1 uV; beside it `<key>_channels` (C,) int64 and `<key>_sfreq` in Hz.

    Band-pass, notch and resampling are one zero-phase multiplication in the frequency domain. The steps of this package
    that cut windows turn int16 into float32 uV: a window is all of ten minutes that is read.

    Args:
        keys: names of the entries.
        sfreq: Hz.
        bandpass: Hz, edges of the pass band; None = no filter below the new Nyquist frequency.
        notch: Hz of the mains and its harmonics; None = none.
        average_reference: subtract the mean over scalp electrodes; a bipolar recording, and one whose channels have several
            references, stays as it is.
        max_s: s that are kept, the middle of the recording.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "eeg",
        sfreq: float = 100.0,
        bandpass: Sequence[float] | None = (0.5, 45.0),
        notch: float | None = None,
        average_reference: bool = True,
        max_s: float = 600.0,
        allow_missing_keys: bool = False,
    ) -> None:
        self.sfreq = float(sfreq)
        super().__init__(keys, EEGSignal(sfreq, bandpass, notch, average_reference, max_s), allow_missing_keys)

    def entries(self, key: str, prepared: Prepared, shared: bool = False) -> dict[str, Any]:
        signal: Any = prepared["signal"] if shared else torch.from_numpy(prepared["signal"].copy())
        channels = torch.from_numpy(prepared["channels"].copy())
        return {key: signal, f"{key}_channels": channels, f"{key}_sfreq": self.sfreq}


class LoadReportd(Loader):
    """Report: its text, a str.

    Args:
        keys: names of the entries.
        sections: keep only these, in this order, such as ["findings", "impression"], where the report has any of them;
            None = the whole text.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "report",
        sections: Sequence[str] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, ReportText(sections), allow_missing_keys)

    def entries(self, key: str, prepared: Prepared, shared: bool = False) -> dict[str, Any]:
        return {key: text_of(prepared)}


class LoadTabled(Loader):
    """Laboratory values: (F,) float64, NaN where not measured; beside it `<key>_features`, their names.

    Args:
        features: name -> unit, in the order of the encoder's features; "" where no unit is checked. Other names in a
            table are left out.
        keys: names of the entries.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self, features: Mapping[str, str], keys: str | Sequence[str] = "table", allow_missing_keys: bool = False
    ) -> None:
        self.features = tuple(features)
        super().__init__(keys, TableValues(features), allow_missing_keys)

    def entries(self, key: str, prepared: Prepared, shared: bool = False) -> dict[str, Any]:
        values = torch.from_numpy(np.array(prepared["values"], dtype=np.float64))
        return {key: values, f"{key}_features": self.features}
