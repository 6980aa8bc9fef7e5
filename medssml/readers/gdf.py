"""GDF by its specification: what is recorded, in which unit, whether the file holds all of it, and where its samples lie.

Counts at or beyond the limits of the converter say that a value is missing; MNE takes them for uV.
GDF: Schloegl, "GDF - A general dataformat for biosignals", arXiv:cs/0608052, versions 1.25 to 2.51.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.edf import scaled
from medssml.readers.errors import Flag, ReadError, human, require_file
from medssml.readers.records import Records, Run, read_records, size_of
from medssml.readers.source import Annotation, Break, Channel, Source, Timeline, placed
from medssml.readers.voltage import Unit, unit_of

_COPY = "copy the file again"
_CONVERT = "convert the recording to EDF"
_KINDS = {
    1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<i8", 8: "<u8", 16: "<f4", 17: "<f8", 279: "i3",
}  # fmt: skip
_VOLT = 4256
_UV_PER_PREFIX = {0: 1e6, 18: 1e3, 19: 1.0, 20: 1e-3}
_DIMENSIONLESS = (0, 512)
_NEW_SEGMENT, _SPARSE = 0x7FFE, 0x7FFF
_TRIES = 4096


class _Fixed(NamedTuple):
    """The part of the header that every version has."""

    version: float
    header_bytes: int
    records: int
    seconds: float
    channels: int


def gdf_source(path: Path) -> Source:
    """The recording in `path`, checked against the length of the file; patient and recording fields are skipped unread.

    Raises:
        ReadError: not GDF, truncated, or inconsistent. A channel that cannot be read has its `fault`.
    """
    path = require_file(path)
    with path.open("rb") as file:
        fixed = _fixed(file.read(256), path)
        block = file.read(256 * fixed.channels)
    if len(block) < 256 * fixed.channels:
        reason = f"is truncated: {256 + len(block):,} of {256 * (fixed.channels + 1):,} header bytes"
        raise ReadError(path, reason, _COPY, code="truncated")
    expected = 256 * (fixed.channels + 1)
    # From version 2.10 on, optional fields may follow the channels.
    if fixed.header_bytes != expected and (fixed.version < 2.1 or fixed.header_bytes < expected):
        reason = f"declares {fixed.header_bytes:,} header bytes for {fixed.channels} channels"
        raise ReadError(path, f"{reason}, expected {expected:,}", _CONVERT)
    samples, types = (np.frombuffer(block, "<i4", fixed.channels, at * fixed.channels).tolist() for at in (216, 220))
    if min(samples) < 0 or sum(samples) == 0:
        raise ReadError(path, f"declares {sum(samples)} samples per record", _CONVERT)
    if unknown := sorted(set(types) - set(_KINDS)):
        raise ReadError(path, f"has sample type {unknown[0]}, which is not read", _CONVERT, code="format")
    widths = [n * size_of(_KINDS[kind]) for n, kind in zip(samples, types, strict=True)]
    count, notes = _count(path, fixed, sum(widths))
    records = Records(path, fixed.header_bytes, count, sum(widths))
    starts = [sum(widths[:i]) for i in range(len(widths))]
    runs = [Run(start, n, _KINDS[kind], 1.0) for start, n, kind in zip(starts, samples, types, strict=True)]
    signals = [_signal(block, fixed, i, run) for i, run in enumerate(runs)]

    def read(wanted: Sequence[int], first: int, last: int) -> NDArray[np.float32]:
        return read_records(records, [signals[row][1] for row in wanted], first, last)

    def timeline() -> Timeline:
        end = fixed.header_bytes + count * records.width
        return _timeline(path, fixed, end, max(samples) / fixed.seconds, count * fixed.seconds)

    return Source(tuple(channel for channel, _ in signals), count * fixed.seconds, read, timeline, notes=tuple(notes))


def _fixed(block: bytes, path: Path) -> _Fixed:
    if len(block) < 256:
        raise ReadError(path, f"is truncated: {len(block)} of 256 header bytes", _COPY, code="truncated")
    if block[:4] != b"GDF ":
        raise ReadError(path, "is not GDF (wrong first bytes)", "name a GDF file", code="format")
    try:
        version = float(block[4:8])
    except ValueError as error:
        raise ReadError(path, f"has GDF version {block[4:8]!r}", _CONVERT, code="format") from error
    if not 1 <= version < 3:
        raise ReadError(path, f"has GDF version {version:g}, expected 1 to 2.51", _CONVERT, code="format")
    (length,) = struct.unpack_from("<q" if version < 1.9 else "<H", block, 184)
    records, *duration = struct.unpack_from("<q2I", block, 236)
    (channels,) = struct.unpack_from("<I" if version < 1.9 else "<H", block, 252)
    if not 1 <= channels <= 4096:
        raise ReadError(path, f"declares {channels:,} channels, expected 1 to 4096", _CONVERT)
    if 0 in duration:
        raise ReadError(path, f"declares records of {duration[0]}/{duration[1]} s", _CONVERT)
    size = length if version < 1.9 else 256 * length
    return _Fixed(version, size, records, duration[0] / duration[1], channels)


def _signal(block: bytes, fixed: _Fixed, index: int, run: Run) -> tuple[Channel, Run]:
    """The channel and where it lies; one without a scale has a fault instead, as nobody may need it."""
    n = fixed.channels
    low, high = (struct.unpack_from("<d", block, at * n + 8 * index)[0] for at in (104, 112))
    first, last = (
        struct.unpack_from("<q" if fixed.version < 1.9 else "<d", block, at * n + 8 * index)[0] for at in (120, 128)
    )
    label = _text(block[16 * index : 16 * (index + 1)])
    channel = Channel(label, run.samples / fixed.seconds, _unit(block, fixed, index))
    if not run.samples:
        return channel._replace(fault="has no samples"), run
    if not (math.isfinite(low) and math.isfinite(high)) or low == high or not first < last:
        return channel._replace(fault=f"maps {first:g}..{last:g} to {low:g}..{high:g}: no scale"), run
    return scaled(channel, run._replace(bounds=(first, last)), (first, last), (low, high))


def _unit(block: bytes, fixed: _Fixed, index: int) -> Unit:
    n = fixed.channels
    if fixed.version < 1.9:
        return unit_of(_text(block[96 * n + 8 * index : 96 * n + 8 * (index + 1)]))
    (code,) = struct.unpack_from("<H", block, 102 * n + 2 * index)
    if code in _DIMENSIONLESS:
        return unit_of("")
    prefix = code - _VOLT
    return Unit(
        f"code {code}" if prefix not in _UV_PER_PREFIX else "V", _UV_PER_PREFIX.get(prefix, math.nan), stated=True
    )


def _count(path: Path, fixed: _Fixed, width: int) -> tuple[int, list[str]]:
    """How many records are read: all that are there, before the table of events. Fewer than declared is a truncated file."""
    available = path.stat().st_size - fixed.header_bytes
    declared = fixed.records
    present = max(0, available) // width
    if declared > present:
        sizes = f"({human(max(0, available))} of {human(declared * width)})"
        raise ReadError(path, f"is truncated: {present:,} of {declared:,} records {sizes}", _COPY, code="truncated")
    if declared > 0 and not _unexplained(path, fixed, available - declared * width):
        return declared, []
    # The table of events begins where the records end: the count that leaves one of the right size, or nothing.
    tried = range(present, max(0, declared, present - _TRIES), -1)
    otherwise = declared if declared > 0 else present
    found = next((n for n in tried if not _unexplained(path, fixed, available - n * width)), otherwise)
    if found < 1:
        raise ReadError(path, f"declares {declared} records of data", "export the recording again", code="content")
    if found == declared:
        _refuse_events(path, fixed, available - declared * width)
        return declared, [
            Flag(f"{human(available - declared * width)} after the last record are no events: ignored", "left_out")
        ]
    seconds = f"{max(0, declared) * fixed.seconds:g} s by the header, {found * fixed.seconds:g} s read"
    return found, [Flag(f"the header states {declared} records, {found} are in the file: {seconds}", "reread")]


def _table(path: Path, fixed: _Fixed, spare: int) -> tuple[int, int, int]:
    """(mode, events, bytes) that a table of events in the last `spare` bytes declares."""
    with path.open("rb") as file:
        file.seek(path.stat().st_size - spare)
        head = file.read(8)
    count = int.from_bytes(head[4:8] if fixed.version < 1.94 else head[1:4], "little")
    return head[0], count, 8 + count * (12 if head[0] == 3 else 6)


def _unexplained(path: Path, fixed: _Fixed, spare: int) -> bool:
    """Whether the last `spare` bytes are neither none nor one table of events."""
    if spare < 8:
        return spare != 0 and spare != 1
    mode, _, needed = _table(path, fixed, spare)
    return mode not in (1, 3) or needed != spare


def _refuse_events(path: Path, fixed: _Fixed, spare: int) -> None:
    """A table that declares more events than there are bytes for."""
    mode, count, needed = _table(path, fixed, spare)
    if spare >= 8 and mode in (1, 3) and needed > spare:
        reason = f"declares {count:,} events ({human(needed)}), {human(spare)} follow the records"
        raise ReadError(path, reason, _CONVERT, code="damaged")


def _timeline(path: Path, fixed: _Fixed, end: int, rate: float, seconds: float) -> Timeline:
    spare = path.stat().st_size - end
    if spare < 8 or _unexplained(path, fixed, spare):
        return Timeline()
    mode, count, _ = _table(path, fixed, spare)
    table = _tail(path, spare)
    own = int.from_bytes(table[1:4], "little") if fixed.version < 1.94 else struct.unpack_from("<f", table, 4)[0]
    rate = float(own) if math.isfinite(own) and own > 0 else rate
    onsets = (np.frombuffer(table, "<u4", count, 8).astype(np.float64) - 1) / rate
    kinds = np.frombuffer(table, "<u2", count, 8 + 4 * count).tolist()
    lengths = np.frombuffer(table, "<u4", count, 8 + 8 * count) / rate if mode == 3 else np.zeros(count)
    annotations = [
        Annotation(float(at), 0.0 if kind == _SPARSE else float(length), str(kind))
        for at, length, kind in zip(onsets, lengths, kinds, strict=True)
    ]
    return placed(annotations, [Break(a.onset) for a in annotations if a.text == str(_NEW_SEGMENT)], seconds)


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(-size, 2)
        return file.read()


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("latin-1").strip()
