"""Whether values can be the uV of a scalp recording: which channels hold a signal, and in which unit an unstated one is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag
from medssml.readers.montage import listed

PLAUSIBLE_UV = (0.15, 2000.0)
"""Least and greatest spread, in uV within 1 s, that a scalp recording in the right unit can have: amplifier
noise is above the first even in electrocerebral silence, artefacts stay below the second."""

_IMPOSSIBLE_UV = 3e5
"""uV within 1 s that no amplifier takes in: a file that states volts and holds microvolts."""

_TYPICAL_UV, _ENOUGH = (2.0, 200.0), 0.03
"""The spread of most EEG, and the share of channels and seconds that have it by which a unit that is not stated is uV: one
electrode of nineteen, or half a minute before a quarter of an hour of disconnected inputs."""


def spreads_uv(signal: NDArray[np.float32], sfreq: float) -> NDArray[np.float64]:
    """(C, W) standard deviation within 1 s, in up to 256 windows, in the unit of `signal` (C, T).

    Within one second, so that neither drift nor an offset counts.
    """
    width = max(2, min(round(sfreq), signal.shape[1]))
    windows = signal.shape[1] // width
    blocks = signal[:, : windows * width].reshape(signal.shape[0], windows, width)
    return blocks[:, :: max(1, windows // 256)].std(axis=2, dtype=np.float64)


def unit_factors(spreads: NDArray[np.float64], stated: Sequence[bool]) -> tuple[NDArray[np.float64], list[str]]:
    """(C,) what brings each channel to uV, and the lines that say so.

    A stated unit is believed, unless no amplifier could have recorded it. One that is not stated is uV, unless hardly a
    second of any channel is like an EEG, and a power of 1000 makes the most of them so.

    Args:
        spreads: (C, W) as `spreads_uv` gives them. stated: (C,) whether the file states a unit.
    """
    notes: list[str] = []
    factors: NDArray[np.float64] = np.ones(len(spreads))
    known = np.array(stated, dtype=bool)
    for rows, what in ((known, "stated"), (~known, "unstated")):
        if not rows.any():
            continue
        cells = spreads[rows]
        middle = float(np.median(cells))
        fits = float(((cells >= _TYPICAL_UV[0]) & (cells <= _TYPICAL_UV[1])).mean())
        if (
            fits >= _ENOUGH
            or PLAUSIBLE_UV[0] <= middle <= PLAUSIBLE_UV[1]
            or (what == "stated" and middle < _IMPOSSIBLE_UV)
        ):
            continue
        best = min((1e-6, 1e-3, 1e3, 1e6), key=lambda factor: abs(np.log10(middle * factor / 20.0 + 1e-30)))
        if 0.5 <= middle * best <= 1000:
            factors[rows] = best
            change = f"multiplied by {best:g}, it is {middle * best:.3g} uV"
            notes.append(
                Flag(f"median spread {middle:.3g} uV in the {what} unit cannot be right: {change}", "rescaled")
            )
    return factors, notes


def note_spreads(spreads: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    """Flags channels that are outside the plausible range for half of the time, or all together for a tenth of it.

    Args:
        spreads: (C, W) uV.
    """
    notes: list[str] = []
    low, high = spreads < PLAUSIBLE_UV[0], spreads > PLAUSIBLE_UV[1]
    for cells, what in (
        (low, f"spread less than {PLAUSIBLE_UV[0]:g} uV, an amplifier's noise (not connected, or another unit)"),
        (high, f"spread more than {PLAUSIBLE_UV[1]:g} uV (mains, no contact, or another unit)"),
    ):
        share = cells.mean(axis=1)
        rows = np.flatnonzero(share > 0.5)
        if rows.size:
            shown = [f"{names[row]} {np.median(spreads[row][cells[row]]):.3g} uV" for row in rows.tolist()]
            time = f"for at least {share[rows].min():.0%} of the time"
            notes.append(Flag(f"{rows.size} of {len(names)} channels {what} {time}: {listed(shown)}"))
        elif cells.mean() > 0.1:
            notes.append(Flag(f"channels {what} for {cells.mean():.0%} of the time"))
    return notes
