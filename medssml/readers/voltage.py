"""Units of a channel as recorders spell them: a voltage, none stated, or one that says that the channel is no EEG.

A unit that is stated is believed. `%`, `mmHg` or `bpm` say that a channel called O2 or P1 is no electrode.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_UV = {"": 1e6, "u": 1.0, "micro": 1.0, "mikro": 1.0, "m": 1e3, "milli": 1e3, "n": 1e-3, "nano": 1e-3}
_NOT_STATED = frozenset(
    {"", "-", "--", ".", "n/a", "na", "none", "null", "nil", "unknown", "undefined", "unspecified", "?"}
)
_MU = re.compile("Âµ|Î¼|µ|μ|\x83\xca|\ufffd|^mc(?=v)|^\\?(?=v)", re.IGNORECASE)
_VOLTAGE = re.compile(r"(micro|mikro|milli|nano|[umn]?)v(?:olts?)?(?:/(?:bit|lsb|count|digit))?")


class Unit(NamedTuple):
    """text: as the file states it. uv: microvolts in one of it, NaN where it is no voltage. stated: whether it is."""

    text: str
    uv: float
    stated: bool

    @property
    def is_voltage(self) -> bool:
        """Whether values in it can be an EEG: a voltage, or nothing stated."""
        return not math.isnan(self.uv)


UV_BY_FORMAT = Unit("uV", 1.0, stated=False)
"""What a format means that states no unit: EEGLAB, and BrainVision where the field is empty."""


def unit_of(text: str) -> Unit:
    """The unit that `text` means; uV is taken where none is stated.

    >>> [unit_of(text).uv for text in ("uV", "µV", "mVolt", "V", "nanovolt", "", "n/a")]
    [1.0, 1.0, 1000.0, 1000000.0, 0.001, 1.0, 1.0]
    >>> [unit_of(text).is_voltage for text in ("%", "mmHg", "Ohm", "uV")]
    [False, False, False, True]
    """
    text = text.strip(" \0")
    plain = _MU.sub("u", "".join(text.strip("[]()").lower().split()))
    if plain in _NOT_STATED:
        return Unit(text, 1.0, stated=False)
    match = _VOLTAGE.fullmatch(plain)
    return Unit(text, _UV[match[1]] if match else math.nan, stated=True)
