"""The header of an EDF or BDF file, by its specification: what is recorded, and whether the file holds all of it.

MNE reads the samples; it does not say that the last records are missing, nor in which unit a blank dimension is.
EDF: Kemp et al. 1992; EDF+: Kemp and Olivan 2003.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError, declared_bytes, human, require_file

_COPY = "copy the file again"
_FIELDS = {"label": 16, "transducer": 80, "unit": 8, "pmin": 8, "pmax": 8, "dmin": 8, "dmax": 8, "filter": 80, "n": 8}
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")


class EDFHeader(NamedTuple):
    """labels, units, sfreq (Hz): one per signal, annotations left out. seconds: length. bytes_per_sample: 2 or 3."""

    labels: tuple[str, ...]
    units: tuple[str, ...]
    sfreq: NDArray[np.float64]
    seconds: float
    records: int
    bytes_per_sample: int
    discontinuous: bool
    notes: tuple[str, ...]


def edf_header(path: str | Path) -> EDFHeader:
    """The header of `path`, checked against the length of the file; patient and recording fields are skipped unread.

    Raises:
        ReadError: not EDF or BDF, truncated, inconsistent, or a declared size over the limit.
    """
    path = require_file(path)
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
    samples = np.array([_integer(raw, path, "samples per record") for raw in columns["n"]])
    duration = _number(block[244:252], path, "the duration of a record")
    if samples.min() < 0 or samples.sum() == 0 or duration < 0:
        raise ReadError(path, f"declares {samples.sum()} samples per record of {duration:g} s")
    header_bytes = _integer(block[184:192], path, "the header's length")
    if header_bytes != 256 * (count + 1):
        raise ReadError(path, f"declares {header_bytes} header bytes for {count} signals, expected {256 * (count + 1)}")
    notes: list[str] = []
    record_bytes = int(samples.sum()) * width
    declared = _integer(block[236:244], path, "the number of records")
    records = _records(path, declared, record_bytes, header_bytes, notes)
    return _signals(path, block, columns, samples, duration, records, width, notes)


def _signals(
    path: Path,
    block: bytes,
    columns: dict[str, list[bytes]],
    samples: NDArray[np.int64],
    duration: float,
    records: int,
    width: int,
    notes: list[str],
) -> EDFHeader:
    labels = [_text(raw) for raw in columns["label"]]
    keep = [index for index, label in enumerate(labels) if label not in _ANNOTATIONS]
    if not keep:
        raise ReadError(path, "holds annotations alone, no signal", "name the file of the recording", code="content")
    if duration <= 0:
        raise ReadError(path, f"declares records of {duration:g} s")
    _check_ranges(path, columns, keep)
    declared_bytes(path, (len(keep), records * int(samples[keep].max())), 4)
    return EDFHeader(
        labels=tuple(labels[index] for index in keep),
        units=tuple(_text(columns["unit"][index]) for index in keep),
        sfreq=samples[keep] / duration,
        seconds=records * duration,
        records=records,
        bytes_per_sample=width,
        discontinuous=block[192:197] in (b"EDF+D", b"BDF+D"),
        notes=tuple(notes),
    )


def _sample_width(block: bytes, path: Path) -> int:
    if len(block) < 256:
        raise ReadError(path, f"is truncated: {len(block)} of 256 header bytes", _COPY, code="truncated")
    if block[:8] == b"\xffBIOSEMI":
        return 3
    if block[:8] == b"0       ":
        return 2
    raise ReadError(path, "is not EDF or BDF (wrong first bytes)", "name an EDF, BDF, FIF or SET file", code="format")


def _records(path: Path, declared: int, record_bytes: int, header_bytes: int, notes: list[str]) -> int:
    """How many records can be read; fewer than declared is a truncated file."""
    available = path.stat().st_size - header_bytes
    present, rest = divmod(available, record_bytes)
    if declared == -1:
        notes.append(f"the header does not say how many records follow: {present} found")
        declared = present
    if declared > present:
        share = f"{present:,} of {declared:,} records ({human(available)} of {human(declared * record_bytes)})"
        raise ReadError(path, f"is truncated: {share}", _COPY, code="truncated")
    if declared < 1:
        raise ReadError(path, "holds no record of data", "leave the cell empty", code="content")
    if present > declared or rest:
        notes.append(Flag(f"{human(available - declared * record_bytes)} after the last record ignored", "left_out"))
    return declared


def _check_ranges(path: Path, columns: dict[str, list[bytes]], keep: list[int]) -> None:
    for index in keep:
        low, high = (_number(columns[name][index], path, "a physical limit") for name in ("pmin", "pmax"))
        first, last = (_integer(columns[name][index], path, "a digital limit") for name in ("dmin", "dmax"))
        if low == high or first >= last:
            label = _text(columns["label"][index])
            reason = f"channel {label!r} maps {first}..{last} to {low:g}..{high:g}: no scale"
            raise ReadError(path, reason, "export the recording again")


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
    text = _text(raw).replace(",", ".")
    try:
        value = float(text)
    except ValueError as error:
        raise ReadError(path, f"has {text[:16]!r} for {what}, expected a number") from error
    if not np.isfinite(value):
        raise ReadError(path, f"has {text[:16]!r} for {what}, expected a finite number")
    return value
