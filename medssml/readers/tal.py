"""Time-stamped annotation lists of EDF+ and BDF+: when each record began, and what happened when.

The signal is the records, joined. What a list says is in the time of the file, which runs on through interruptions; here it is
brought to the time of the joined signal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from medssml.readers.errors import Flag
from medssml.readers.records import Records
from medssml.readers.source import Annotation, Break, Timeline, placed


class Stamp(NamedTuple):
    """What one record says: when it began, in s of the file's time, where it says so; and its events in that time."""

    onset: float | None
    events: tuple[Annotation, ...]


def stamps(records: Records, places: Sequence[tuple[int, int]]) -> Iterator[Stamp]:
    """The lists of every record; `places` are the bytes of the annotation signals within it."""
    if not places:
        return
    disk = np.memmap(records.file, np.uint8, "r", records.offset, (records.number, records.width))
    for record in disk:
        found = [list(_lists(record[start:stop].tobytes())) for start, stop in places]
        own = next((onset for onset, _, texts in found[0] if texts[:1] == [""]), None)
        yield Stamp(
            own,
            tuple(
                Annotation(at, length, text) for part in found for at, length, texts in part for text in texts if text
            ),
        )


def _lists(packed: bytes) -> Iterator[tuple[float, float, list[str]]]:
    """(onset, duration, texts) of each list; what is no list is passed over."""
    for part in packed.split(b"\0"):
        time, *texts = part.split(b"\x14")
        onset, _, duration = time.partition(b"\x15")
        try:
            begin, length = float(onset), float(duration or 0)
        except ValueError:
            continue
        if np.isfinite(begin) and np.isfinite(length):
            yield begin, max(0.0, length), [_decoded(text) for text in (texts[:-1] or texts)]


def _decoded(text: bytes) -> str:
    """UTF-8 by the standard, Latin-1 in practice."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


class RecordClock:
    """Brings the file's time to that of the joined signal.

    Args:
        stamps: one per record, or none. duration: s of a record. rate: Hz of the fastest channel. count: records.
        continuous: whether the header says so; then a clock that contradicts it at most records, or runs back, tells of no
            interruption.
    """

    def __init__(self, stamps: Iterator[Stamp], duration: float, rate: float, count: int, *, continuous: bool) -> None:
        said = list(stamps)
        self.events = [event for stamp in said for event in stamp.events]
        self.duration, self.count = duration, count
        self.tolerance = max(2 / rate, 1e-3)
        self.onsets = np.empty(count)
        at = 0.0
        for record in range(count):
            own = said[record].onset if record < len(said) else None
            at = at if own is None else own
            self.onsets[record] = at
            at += duration
        steps = np.diff(self.onsets)
        other = np.abs(steps - duration) > self.tolerance
        self.wrong = continuous and bool((steps <= 0).any() or other.sum() > 0.5 * count)
        if self.wrong and (steps <= 0).any():
            self.onsets = self.onsets[0] + duration * np.arange(count)

    def timeline(self) -> Timeline:
        """Events and interruptions in the time of the joined signal; what lies within a gap is left out, and counted."""
        steps = np.diff(self.onsets) - self.duration
        breaks = [
            Break((int(record) + 1) * self.duration, float(steps[record]) if steps[record] > 0 else None)
            for record in np.flatnonzero(np.abs(steps) > self.tolerance)
            if not self.wrong
        ]
        found = [event for event in map(self._joined, self.events) if event is not None]
        timeline = placed(found, breaks, self.count * self.duration)
        if lost := len(self.events) - len(found):
            line = Flag(
                f"{lost} of {len(self.events)} annotations lie in an interruption or outside the recording: left out",
                "left_out",
            )
            timeline = timeline._replace(notes=(line, *timeline.notes))
        if self.wrong:
            line = Flag(
                f"records state other times than one every {self.duration:g} s, as the header does: no interruption is taken"
            )
            timeline = timeline._replace(notes=(line, *timeline.notes))
        return timeline

    def _joined(self, event: Annotation) -> Annotation | None:
        begin, inside = self._at(event.onset)
        end, _ = self._at(event.onset + event.duration)
        if not inside and end <= begin:
            return None
        return Annotation(begin, end - begin, event.text)

    def _at(self, time: float) -> tuple[float, bool]:
        """`time` in the joined signal, held at the edges of a gap; and whether it was recorded."""
        record = int(np.searchsorted(self.onsets, time + 1e-9, side="right")) - 1
        if record < 0:
            return 0.0, bool(time >= self.onsets[0] - self.tolerance)
        within = time - float(self.onsets[record])
        return record * self.duration + min(max(within, 0.0), self.duration), within <= self.duration + self.tolerance
