"""How large the files of a cohort are: what they show of the findings, and so the truth about them, is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from medssml.phantom.eeg import Recorder
from medssml.phantom.shapes import Grid

PresetName = Literal["large", "small"]


@dataclass(frozen=True)
class Preset:
    """The size of a study's files.

    Args:
        ct: voxels of the CT.
        ct_parts: each voxel is the mean of so many parts along every axis: in a coarse grid without them small nodules
            would fall between voxels.
        film: voxels of the volume that is projected.
        film_pixel: mm per pixel of the radiograph.
        recorder: of the EEG.
        brief: the report is its findings alone, without indication, filler and impression.
    """

    ct: Grid
    ct_parts: int
    film: Grid
    film_pixel: float
    recorder: Recorder
    brief: bool


PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        "large": Preset(
            ct=Grid((4.0, 4.0, 4.0)),
            ct_parts=1,
            film=Grid((3.0, 4.0, 3.0)),
            film_pixel=1.5,
            recorder=Recorder(),
            brief=False,
        ),
        "small": Preset(
            ct=Grid((12.0, 12.0, 10.0)),
            ct_parts=2,
            film=Grid((6.0, 8.0, 6.0)),
            film_pixel=6.0,
            recorder=Recorder(sfreq=64.0, seconds=6.0, period=3.0),
            brief=True,
        ),
    }
)
"""large: minutes per thousand studies, for methods. small: a few hundredths of a second per study, for a first try."""


def preset(name: str) -> Preset:
    """The preset of this name. Raises ValueError for another."""
    for known, found in PRESETS.items():
        if known == name:
            return found
    raise ValueError(f"preset is {name!r}; fix: one of {list(PRESETS)}")
