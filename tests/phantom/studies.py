"""The cohort that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from medssml.phantom import Design
from medssml.phantom.presets import Preset

DESIGN = Design(studies=32, seed=3, missing=0.0)


class Rendered(NamedTuple):
    """A cohort on disk, what was drawn for it, and how large its files are."""

    folder: Path
    table: pd.DataFrame
    preset: Preset
