"""What every EEG format comes down to: channels, how their samples are fetched, and what happened when."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag
from medssml.readers.voltage import Unit, unit_of

_SHOWN = 4


class Annotation(NamedTuple):
    """onset and duration in s from the start of the signal."""

    onset: float
    duration: float
    text: str


class Break(NamedTuple):
    """Where two parts of the signal meet, in s from its start, and how many s were not recorded between them, if known."""

    at: float
    lost: float | None = None


class Channel(NamedTuple):
    """One channel as the file states it.

    sfreq: Hz. limits: uV at the ends of the converter's range, NaN where there are none. reference: what it is measured
    against, where the file says so beside the label. excluded: why the file itself says that it is no EEG. fault: why it
    cannot be read.
    """

    label: str
    sfreq: float
    unit: Unit = unit_of("")
    limits: tuple[float, float] = (math.nan, math.nan)
    reference: str = ""
    excluded: str = ""
    fault: str = ""


class Timeline(NamedTuple):
    """annotations, breaks: in the time of the joined signal. gaps: (start, end) in s of samples that were never recorded.

    notes: what of it could not be placed.
    """

    annotations: tuple[Annotation, ...] = ()
    breaks: tuple[Break, ...] = ()
    gaps: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A recording on disk.

    read: (rows of one rate, first, last) -> (C, last - first) float32 uV, samples counted at that rate.
    timeline: reads what happened when. in_header: whether that is worth it where the header alone is asked for.
    """

    channels: tuple[Channel, ...]
    seconds: float
    read: Callable[[Sequence[int], int, int], NDArray[np.float32]]
    timeline: Callable[[], Timeline]
    in_header: bool = True
    notes: tuple[str, ...] = ()


def placed(
    annotations: Sequence[Annotation], breaks: Sequence[Break], seconds: float, gaps: Sequence[tuple[float, float]] = ()
) -> Timeline:
    """The timeline of a signal of `seconds` s: a break at either end is none, an event beyond the ends is left out."""
    inside = tuple(a for a in annotations if a.onset <= seconds and a.onset + a.duration >= 0)
    notes: list[str] = []
    if lost := len(annotations) - len(inside):
        notes.append(
            Flag(
                f"{lost} of {len(annotations)} annotations lie outside the {seconds:g} s recorded: left out", "left_out"
            )
        )
    each = {b.at: b for b in sorted(breaks, key=lambda b: (b.at, b.lost or 0)) if 0 < b.at < seconds}
    return Timeline(inside, tuple(each.values()), _merged(gaps), tuple(notes))


def _merged(gaps: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """`gaps` in order, each once."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(gaps):
        if merged and start <= merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return tuple(merged)


def interruptions(timeline: Timeline) -> list[str]:
    """One line on the breaks and the gaps of a recording, with their places and lengths; none where it has none."""
    notes: list[str] = []
    if timeline.breaks:
        shown = [f"{b.at:g} s" + ("" if b.lost is None else f" ({b.lost:g} s lost)") for b in timeline.breaks[:_SHOWN]]
        more = f" and {len(timeline.breaks) - _SHOWN} more" if len(timeline.breaks) > _SHOWN else ""
        parts = f"its {len(timeline.breaks) + 1} parts are joined at {', '.join(shown)}{more}"
        notes.append(Flag(f"the recording has interruptions: {parts}", "joined"))
    if timeline.gaps:
        length = sum(end - start for start, end in timeline.gaps)
        shown = [f"{start:g} to {end:g} s" for start, end in timeline.gaps[:_SHOWN]]
        reason = f"{length:g} s that were never recorded are left out, what is before and after is joined"
        notes.append(Flag(f"the recording has interruptions: {reason} ({', '.join(shown)})", "joined"))
    return notes


def without(
    timeline: Timeline, spans: Sequence[tuple[float, float]], seconds: float
) -> tuple[tuple[Annotation, ...], tuple[float, ...]]:
    """Annotations and breaks after `spans` were cut out of a signal of `seconds` s; an event inside a span goes with it."""

    def moved(at: float) -> float:
        return at - sum(min(max(at - start, 0.0), end - start) for start, end in spans)

    annotations = []
    for onset, duration, text in timeline.annotations:
        if any(start <= onset and onset + duration <= end and onset < end for start, end in spans):
            continue
        begin = moved(onset)
        annotations.append(Annotation(begin, moved(onset + duration) - begin, text))
    breaks = {moved(b.at) for b in timeline.breaks} | {moved(start) for start, _ in spans}
    return tuple(annotations), tuple(sorted(at for at in breaks if 0 < at < moved(seconds)))
