"""Samples in records, as EDF, BDF, GDF, BrainVision and EEGLAB's .fdt store them: counts on disk -> uV.

A record holds a run of samples of each channel, one after the other. A part is cut by each channel's own count of samples, so
that channels of several rates stay in step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INT24 = "i3"
"""Three bytes, little-endian, with a sign: BDF's samples."""

_PIECE_BYTES = 1 << 22


class Records(NamedTuple):
    """`number` records of `width` bytes each, from byte `offset` of `file` on."""

    file: Path
    offset: int
    number: int
    width: int


class Run(NamedTuple):
    """One channel's samples in each record.

    start: byte within the record. samples: in a record. kind: NumPy's name of the type, or `INT24`. uV = scale * count + base.
    bounds: the least and greatest count that is a value, where others mean that there is none.
    """

    start: int
    samples: int
    kind: str
    scale: float
    base: float = 0.0
    bounds: tuple[float, float] | None = None


def size_of(kind: str) -> int:
    """Bytes of one sample."""
    return 3 if kind == INT24 else np.dtype(kind).itemsize


def read_records(records: Records, runs: Sequence[Run], first: int, last: int) -> NDArray[np.float32]:
    """(C, last - first) uV of `runs`, which have as many samples a record; NaN where nothing was recorded.

    That is a count beyond the bounds, and all channels at their bounds at once, which is how a pause is written.
    """
    samples = runs[0].samples
    disk = np.memmap(records.file, np.uint8, "r", records.offset, (records.number, records.width))
    out = np.empty((len(runs), last - first), np.float32)
    step = max(1, _PIECE_BYTES // records.width)
    for begin in range(first // samples, -(-last // samples), step):
        end = min(-(-last // samples), begin + step)
        low, high = max(first, begin * samples), min(last, end * samples)
        piece = out[:, low - first : high - first]
        paused = np.full(high - low, len(runs) > 1)
        for row, run in enumerate(runs):
            counts = _counts(disk[begin:end], run)[low - begin * samples : high - begin * samples]
            piece[row] = counts * run.scale + run.base
            if run.bounds is None:
                paused[:] = False
                continue
            piece[row, (counts < run.bounds[0]) | (counts > run.bounds[1])] = np.nan
            paused &= (counts <= run.bounds[0]) | (counts >= run.bounds[1])
        piece[:, paused] = np.nan
    return out


def _counts(block: NDArray[np.uint8], run: Run) -> NDArray[Any]:
    """All counts of one channel in `block` (R, width)."""
    stop = run.start + run.samples * size_of(run.kind)
    packed = np.ascontiguousarray(block[:, run.start : stop])
    if run.kind != INT24:
        return packed.view(run.kind).ravel()
    low, middle, high = packed.reshape(-1, 3).astype(np.int32).T
    return low | (middle << 8) | (((high ^ 0x80) - 0x80) << 16)
