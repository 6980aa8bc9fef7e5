"""The header of a GDF file, by its specification: what is recorded, in which unit, and whether the file holds all of it.

MNE reads the samples; it takes millivolts for volts in GDF 1 and does not say that records are missing.
GDF: Schloegl, "GDF - A general dataformat for biosignals", arXiv:cs/0608052, versions 1.25 to 2.51.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import ReadError, declared_bytes, human, require_file

_COPY = "copy the file again"
_CONVERT = "convert the recording to EDF"
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 8, 8: 8, 16: 4, 17: 8}
_UV_PER_CODE = {4256: 1e6, 4274: 1e3, 4275: 1.0, 4276: 1e-3}
_MNE_VOLTS_2 = {4275: 1e-6, 4274: 1e-3}
_UV_PER_TEXT = {"uv": 1.0, "µv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}


class GDFHeader(NamedTuple):
    """labels, gains (uV per unit of MNE's values), stated (whether the unit is one of voltage), sfreq: one per channel.

    bare: GDF 1 that ends with its last record, without a table of events.
    """

    labels: tuple[str, ...]
    gains: NDArray[np.float64]
    stated: NDArray[np.bool_]
    sfreq: NDArray[np.float64]
    seconds: float
    bare: bool


class _Fixed(NamedTuple):
    """The part of the header that every version has."""

    version: float
    header_bytes: int
    records: int
    seconds_per_record: float
    channels: int


def gdf_header(path: str | Path) -> GDFHeader:
    """The header of `path`, checked against the length of the file; patient and recording fields are skipped unread.

    Raises:
        ReadError: not GDF, truncated, inconsistent, or a declared size over the limit.
    """
    path = require_file(path)
    with path.open("rb") as file:
        fixed = _fixed(file.read(256), path)
        block = file.read(256 * fixed.channels)
    if len(block) < 256 * fixed.channels:
        reason = f"is truncated: {256 + len(block):,} of {256 * (fixed.channels + 1):,} header bytes"
        raise ReadError(path, reason, _COPY, code="truncated")
    if fixed.header_bytes != 256 * (fixed.channels + 1):
        reason = f"declares {fixed.header_bytes:,} header bytes for {fixed.channels} channels"
        raise ReadError(path, f"{reason}, expected {256 * (fixed.channels + 1):,}", _CONVERT)
    samples, types = (np.frombuffer(block, "<i4", fixed.channels, at * fixed.channels) for at in (216, 220))
    if samples.min() < 0 or samples.sum() == 0:
        raise ReadError(path, f"declares {int(samples.sum())} samples per record", _CONVERT)
    if unknown := sorted(set(types.tolist()) - set(_TYPE_BYTES)):
        raise ReadError(path, f"has sample type {unknown[0]}, which is not read", _CONVERT, code="format")
    if len(set(types.tolist())) > 1:  # MNE would read them all as the first
        raise ReadError(path, "mixes sample types between channels", _CONVERT, code="format")
    spare = _spare_bytes(path, fixed, int(samples.sum()) * _TYPE_BYTES[int(types[0])])
    _check_events(path, fixed, spare)
    declared_bytes(path, (fixed.channels, fixed.records * int(samples.max())), 4)
    _check_ranges(path, block, fixed)
    return _signals(block, fixed, samples, spare)


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


def _spare_bytes(path: Path, fixed: _Fixed, record_bytes: int) -> int:
    """What follows the last record; fewer records than declared is a truncated file."""
    available = path.stat().st_size - fixed.header_bytes
    if fixed.records < 1:
        raise ReadError(path, f"declares {fixed.records} records of data", "export the recording again", code="content")
    if fixed.records * record_bytes > available:
        share = f"{available // record_bytes:,} of {fixed.records:,} records"
        sizes = f"({human(max(0, available))} of {human(fixed.records * record_bytes)})"
        raise ReadError(path, f"is truncated: {share} {sizes}", _COPY, code="truncated")
    return available - fixed.records * record_bytes


def _check_events(path: Path, fixed: _Fixed, spare: int) -> None:
    """The table of events behind the records holds as many as it declares: MNE makes room for them unseen."""
    if spare < 8:
        return
    with path.open("rb") as file:
        file.seek(path.stat().st_size - spare)
        head = file.read(8)
    count = int.from_bytes(head[4:8] if fixed.version < 1.94 else head[1:4], "little")
    needed = 8 + count * (12 if head[0] == 3 else 6)
    if (fixed.version >= 1.9 or head[0] in (1, 3)) and needed > spare:
        reason = f"declares {count:,} events ({human(needed)}), {human(spare)} follow the records"
        raise ReadError(path, reason, _CONVERT, code="damaged")


def _check_ranges(path: Path, block: bytes, fixed: _Fixed) -> None:
    n = fixed.channels
    low, high = (np.frombuffer(block, "<f8", n, at * n) for at in (104, 112))
    first, last = (np.frombuffer(block, "<i8" if fixed.version < 1.9 else "<f8", n, at * n) for at in (120, 128))
    bad = ~np.isfinite(low) | ~np.isfinite(high) | (low == high) | ~(first < last)
    if bad.any():
        at = int(bad.argmax())
        reason = f"channel {at + 1} maps {first[at]:g}..{last[at]:g} to {low[at]:g}..{high[at]:g}: no scale"
        raise ReadError(path, reason, "export the recording again")


def _signals(block: bytes, fixed: _Fixed, samples: NDArray[np.int32], spare: int) -> GDFHeader:
    n = fixed.channels
    labels = tuple(block[16 * i : 16 * (i + 1)].split(b"\0")[0].decode("latin-1").strip() for i in range(n))
    if fixed.version < 1.9:
        texts = [
            block[96 * n + 8 * i : 96 * n + 8 * (i + 1)].split(b"\0")[0].decode("latin-1").strip() for i in range(n)
        ]
        known = np.array([text.lower() in _UV_PER_TEXT for text in texts])
        volts = [1e-6 if text[:2] == "uV" else 1.0 for text in texts]
        gains = np.array([_UV_PER_TEXT.get(text.lower(), 1.0) for text in texts]) / volts
    else:
        codes = np.frombuffer(block, "<u2", n, 102 * n).tolist()
        known = np.array([code in _UV_PER_CODE for code in codes])
        gains = np.array([_UV_PER_CODE.get(code, 1.0) / _MNE_VOLTS_2.get(code, 1.0) for code in codes])
    seconds = fixed.records * fixed.seconds_per_record
    return GDFHeader(
        labels, gains, known, samples / fixed.seconds_per_record, seconds, spare == 0 and fixed.version < 1.9
    )
