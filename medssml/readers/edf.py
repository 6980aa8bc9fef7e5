"""EDF and BDF by their specification: what is recorded, whether the file holds all of it, and where its samples lie.

Samples are cut by each channel's own rate, and records are placed by the time that each states: MNE does neither for a part
of a file with mixed rates, nor for one with interruptions.
EDF: Kemp et al. 1992; EDF+: Kemp and Olivan 2003; BDF: BioSemi.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError, human, require_file
from medssml.readers.records import INT24, Records, Run, read_records
from medssml.readers.source import Break, Channel, Source, Timeline
from medssml.readers.tal import RecordClock, stamps
from medssml.readers.voltage import Unit, unit_of

_COPY = "copy the file again"
_EXPORT = "export the recording again"
_FIELDS = {"label": 16, "transducer": 80, "unit": 8, "pmin": 8, "pmax": 8, "dmin": 8, "dmax": 8, "filter": 80, "n": 8}
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_STATUS = ("Status", "Boolean")
_NEW_EPOCH = 1 << 16
"""The bit of BioSemi's status channel that rises where recording starts, and where it starts again."""


class _Header(NamedTuple):
    """columns: the fields of each signal. samples: (signals,) in a record of `duration` s. width: bytes of a sample."""

    columns: dict[str, list[bytes]]
    samples: tuple[int, ...]
    duration: float
    declared: int
    offset: int
    width: int
    discontinuous: bool

    @property
    def record_bytes(self) -> int:
        return sum(self.samples) * self.width

    @property
    def labels(self) -> list[str]:
        return [_text(raw) for raw in self.columns["label"]]

    def starts(self) -> NDArray[np.int64]:
        """Byte of each signal within a record."""
        return np.concatenate([[0], np.cumsum(self.samples)[:-1]]).astype(np.int64) * self.width


def edf_source(path: Path) -> Source:
    """The recording in `path`, checked against the length of the file; patient and recording fields are skipped unread.

    Raises:
        ReadError: not EDF or BDF, truncated, or inconsistent. A channel that cannot be read has its `fault`.
    """
    path = require_file(path)
    header = _header(path)
    starts = header.starts()
    annotations = [i for i, label in enumerate(header.labels) if label in _ANNOTATIONS]
    rows = [i for i in range(len(header.samples)) if i not in annotations]
    if not rows:
        raise ReadError(path, "holds annotations alone, no signal", "name the file of the recording", code="content")
    clocks = [(int(starts[i]), int(starts[i]) + header.samples[i] * header.width) for i in annotations]
    count, notes = _count(path, header, clocks)
    records = Records(path, header.offset, count, header.record_bytes)
    signals = [_signal(header, i, int(starts[i])) for i in rows]
    status = next((run for channel, run in signals if (channel.label, channel.unit.text) == _STATUS), None)

    def read(wanted: Sequence[int], first: int, last: int) -> NDArray[np.float32]:
        return read_records(records, [signals[row][1] for row in wanted], first, last)

    def timeline() -> Timeline:
        fastest, continuous = max(header.samples) / header.duration, not header.discontinuous
        clock = RecordClock(stamps(records, clocks), header.duration, fastest, count, continuous=continuous)
        found = clock.timeline()
        return found if status is None else found._replace(breaks=(*found.breaks, *_restarts(records, status, header)))

    channels = tuple(channel for channel, _ in signals)
    return Source(channels, count * header.duration, read, timeline, header.discontinuous, tuple(notes))


def _header(path: Path) -> _Header:
    with path.open("rb") as file:
        block = file.read(256)
        width = _sample_width(block, path)
        count = _integer(block[252:256], path, "the number of signals")
        if not 1 <= count <= 4096:
            raise ReadError(path, f"declares {count} signals, expected 1 to 4096")
        fields = file.read(256 * count)
    if len(fields) < 256 * count:
        missing = f"{256 + len(fields):,} of {256 * (count + 1):,} header bytes"
        raise ReadError(path, f"is truncated: {missing}", _COPY, code="truncated")
    columns = _columns(fields, count)
    samples = tuple(_integer(raw, path, "samples per record") for raw in columns["n"])
    duration = _number(block[244:252], path, "the duration of a record")
    if min(samples) < 0 or sum(samples) == 0 or duration < 0:
        raise ReadError(path, f"declares {sum(samples)} samples per record of {duration:g} s")
    offset = _integer(block[184:192], path, "the header's length")
    if offset != 256 * (count + 1):
        raise ReadError(path, f"declares {offset} header bytes for {count} signals, expected {256 * (count + 1)}")
    if duration == 0 and any(_text(raw) not in _ANNOTATIONS for raw in columns["label"]):
        raise ReadError(path, f"declares records of {duration:g} s")
    declared = _integer(block[236:244], path, "the number of records")
    discontinuous = block[192:197] in (b"EDF+D", b"BDF+D")
    return _Header(columns, samples, duration, declared, offset, width, discontinuous)


def _signal(header: _Header, index: int, start: int) -> tuple[Channel, Run]:
    """The channel and where it lies; one without a scale has a fault instead, as nobody may need it."""
    label, samples = header.labels[index], header.samples[index]
    unit = unit_of(_text(header.columns["unit"][index]))
    channel = Channel(label, samples / header.duration, unit)
    run = Run(start, samples, INT24 if header.width == 3 else "<i2", 1.0)
    try:
        low, high = (_value(header.columns[name][index], f"{name} of {label!r}") for name in ("pmin", "pmax"))
        first, last = (_value(header.columns[name][index], f"{name} of {label!r}") for name in ("dmin", "dmax"))
    except ValueError as error:
        return channel._replace(fault=f"its scale is unknown: {error}"), run
    if low == high or first >= last:
        return channel._replace(fault=f"maps {first:g}..{last:g} to {low:g}..{high:g}: no scale"), run
    if not samples:
        return channel._replace(fault="has no samples"), run
    return scaled(channel, run, (first, last), (low, high))


def scaled(
    channel: Channel, run: Run, digital: tuple[float, float], physical: tuple[float, float]
) -> tuple[Channel, Run]:
    """Both with the line that maps `digital` counts to `physical` values in the channel's unit."""
    unit: Unit = channel.unit
    step = (physical[1] - physical[0]) / (digital[1] - digital[0])
    base = physical[0] - digital[0] * step
    low, high = sorted(value * unit.uv for value in physical)
    return channel._replace(limits=(low, high)), run._replace(scale=step * unit.uv, base=base * unit.uv)


def _sample_width(block: bytes, path: Path) -> int:
    if len(block) < 256:
        raise ReadError(path, f"is truncated: {len(block)} of 256 header bytes", _COPY, code="truncated")
    if block[:8] == b"\xffBIOSEMI":
        return 3
    if block[:8] == b"0       ":
        return 2
    raise ReadError(path, "is not EDF or BDF (wrong first bytes)", "name an EDF, BDF, FIF or SET file", code="format")


def _count(path: Path, header: _Header, clocks: Sequence[tuple[int, int]]) -> tuple[int, list[str]]:
    """How many records are read: all that are there. Fewer than declared is a truncated file."""
    available = path.stat().st_size - header.offset
    present, rest = divmod(max(0, available), header.record_bytes)
    declared, notes = header.declared, []
    if declared > present:
        share = f"{present:,} of {declared:,} records ({human(available)} of {human(declared * header.record_bytes)})"
        raise ReadError(path, f"is truncated: {share}", _COPY, code="truncated")
    count = declared if 0 < declared == present else _recorded(path, header, max(0, declared), present, clocks)
    if count < 1:
        raise ReadError(path, "holds no record of data", "leave the cell empty", code="content")
    if declared == -1:
        notes.append(f"the header does not say how many records follow: {count} found")
    elif declared != count:
        seconds = f"{max(0, declared) * header.duration:g} s by the header, {count * header.duration:g} s read"
        notes.append(Flag(f"the header states {declared} records, {count} are in the file: {seconds}", "reread"))
    if left := available - count * header.record_bytes:
        notes.append(Flag(f"{human(left)} after the last record ignored", "left_out"))
    return count, notes


def _recorded(path: Path, header: _Header, declared: int, present: int, clocks: Sequence[tuple[int, int]]) -> int:
    """`declared`, and the records after it that hold data: with the time that an EDF+ record states, not one value alone."""
    if present == declared:
        return declared
    disk = np.memmap(path, np.uint8, "r", header.offset, (present, header.record_bytes))
    for record in range(declared, present):
        if clocks and disk[record, clocks[0][0]] not in b"+-":
            return record
        if not clocks and (disk[record] == disk[record, 0]).all():
            return record
    return present


def _restarts(records: Records, status: Run, header: _Header) -> list[Break]:
    """Where BioSemi's status says that recording began again."""
    rate = status.samples / header.duration
    words = read_records(records, [status._replace(scale=1.0, base=0.0)], 0, records.number * status.samples)[0]
    marked = (words.astype(np.int64) & _NEW_EPOCH) > 0
    rises = np.flatnonzero(marked[1:] & ~marked[:-1]) + 1
    return [Break(int(at) / rate) for at in rises]


def _columns(fields: bytes, count: int) -> dict[str, list[bytes]]:
    columns, position = {}, 0
    for name, width in _FIELDS.items():
        columns[name] = [fields[position + i * width : position + (i + 1) * width] for i in range(count)]
        position += width * count
    return columns


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _integer(raw: bytes, path: Path, what: str) -> int:
    value = _number(raw, path, what)
    if not value.is_integer():
        raise ReadError(path, f"has {value:g} for {what}, expected a whole number")
    return int(value)


def _number(raw: bytes, path: Path, what: str) -> float:
    try:
        return _value(raw, what)
    except ValueError as error:
        raise ReadError(path, f"has {error}") from error


def _value(raw: bytes, what: str) -> float:
    """The number that `raw` spells; a decimal comma is one."""
    text = _text(raw).replace(",", ".")
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{text[:16]!r} for {what}, expected a number") from error
    if not np.isfinite(value):
        raise ValueError(f"{text[:16]!r} for {what}, expected a finite number")
    return value
