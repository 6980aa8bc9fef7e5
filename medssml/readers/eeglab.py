"""EEGLAB recordings (.set, MATLAB 5, with or without an .fdt): channels, events, boundaries, and where the samples lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.channels import reference_name
from medssml.readers.errors import Flag, ReadError, declared_bytes, require_file
from medssml.readers.matlab import check_mat5
from medssml.readers.records import Records, Run, read_records
from medssml.readers.source import Annotation, Break, Channel, Source, Timeline, placed
from medssml.readers.voltage import UV_BY_FORMAT

_SAVE = "save the continuous data in EEGLAB, before it is cut into epochs"
_AGAIN = "open it in EEGLAB and save it again"
_OTHER = frozenset(
    "eog ecg ekg emg resp stim trigger misc bio gsr eyegaze pupil temperature meg grad mag ref_meg seeg ecog dbs".split()
)
_BOUNDARIES = ("boundary", "-99", "-99.0")


def set_source(path: Path) -> Source:
    """The recording in `path`.

    Raises:
        ReadError: another MATLAB format, a broken structure, epochs, no samples, or a data file that is missing or cut.
    """
    path = require_file(path)
    check_mat5(path)
    eeg = _structure(path)
    rate, count = _number(eeg, "srate", path), int(_number(eeg, "nbchan", path))
    points, trials = int(_number(eeg, "pnts", path)), int(_number(eeg, "trials", path, 1.0))
    if not rate > 0 or count < 1 or points < 1:
        raise ReadError(path, f"declares {count} channels and {points} samples at {rate:g} Hz", _AGAIN, code="damaged")
    if trials > 1:
        reason = f"holds {trials} epochs of {points / rate:.1f} s, no continuous recording"
        raise ReadError(path, reason, _SAVE, code="content")
    channels = _channels(eeg, count, rate, path)
    data = eeg.get("data")
    notes: list[str] = []
    if isinstance(data, str):
        records = _samples_beside(path, data, count, points, notes)
        runs = [Run(4 * row, 1, "<f4", 1.0) for row in range(count)]
        stored, present = None, records.number
    else:
        stored = _samples_inside(data, count, points, path)
        present = stored.shape[1]
    if present != points:
        notes.append(Flag(f"the header states {points:,} samples, {present:,} are there: all are read", "reread"))

    def read(wanted: Sequence[int], first: int, last: int) -> NDArray[np.float32]:
        if stored is None:
            return read_records(records, [runs[row] for row in wanted], first, last)
        return stored[list(wanted), first:last].astype(np.float32)

    def timeline() -> Timeline:
        return _timeline(eeg, rate, present / rate)

    return Source(channels, present / rate, read, timeline, notes=tuple(notes))


def _structure(path: Path) -> Mapping[str, Any]:
    """The fields of EEG, at the top level or in a structure of that name."""
    from scipy.io import loadmat

    found = loadmat(path, simplify_cells=True)
    for _ in range(2):
        if isinstance(found.get("EEG"), dict):
            found = found["EEG"]
    if "data" not in found or "nbchan" not in found:
        names = ", ".join(sorted(name for name in found if not name.startswith("__"))[:6])
        reason = f"holds no EEGLAB data set (variables: {names or 'none'})"
        raise ReadError(path, reason, "name the .set of one recording", code="content")
    return found


def _number(eeg: Mapping[str, Any], name: str, path: Path, default: float | None = None) -> float:
    value = _as_number(eeg.get(name))
    if math.isnan(value):
        value = math.nan if default is None else default
    if math.isnan(value) or not math.isfinite(value):
        raise ReadError(path, f"has no number in EEG.{name}", _AGAIN, code="damaged")
    return value


def _as_number(value: Any) -> float:
    """NaN for what is no single number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _records_of(value: Any) -> list[Mapping[str, Any]]:
    """An array of structures as a list, whatever MATLAB made of one with a single entry or none."""
    if isinstance(value, dict):
        return [value]
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list | np.ndarray) else []


def _channels(eeg: Mapping[str, Any], count: int, rate: float, path: Path) -> tuple[Channel, ...]:
    places = _records_of(eeg.get("chanlocs"))
    if len(places) != count:
        reason = f"names {len(places)} channels (EEG.chanlocs) of {count}"
        raise ReadError(path, reason, "add the channels' names in EEGLAB and save it again", code="content")
    common = eeg.get("ref")
    channels = []
    for number, place in enumerate(places, start=1):
        label = place.get("labels")
        name = str(label) if isinstance(label, str | int | float) else f"without a name ({number})"
        kind = str(place.get("type", "")).strip().lower() if isinstance(place.get("type"), str) else ""
        own = place.get("ref")
        against = own if isinstance(own, str) and own.strip() else common if isinstance(common, str) else ""
        excluded = f"of type {kind.upper()}" if kind in _OTHER else ""
        reference = reference_name("average" if against.strip().lower() == "averef" else against)
        channels.append(Channel(name, rate, UV_BY_FORMAT, reference=reference, excluded=excluded))
    return tuple(channels)


def _samples_inside(data: Any, count: int, points: int, path: Path) -> NDArray[Any]:
    array = np.atleast_2d(np.asarray(data))
    if array.shape == (points, count) and count == 1:
        array = array.T
    if array.ndim != 2 or len(array) != count or not array.size or array.dtype.kind not in "fiu":
        shape = " x ".join(map(str, array.shape))
        raise ReadError(path, f"holds {shape} samples, {count} x {points} expected", _AGAIN, code="damaged")
    return array


def _samples_beside(path: Path, name: str, count: int, points: int, notes: list[str]) -> Records:
    """The .fdt of a recording: that which it names, or that which bears its own name, as after both were renamed."""
    file = path.parent / name.strip()
    if "\0" in name or file.resolve().parent != path.resolve().parent:
        reason = "keeps its samples in a file outside its folder"
        raise ReadError(path, reason, "put both files into one folder", code="outside")
    if file.suffix.lower() == ".dat":
        raise ReadError(path, "keeps its samples in a .dat, which is not read", _AGAIN, code="format")
    if not file.exists() and path.with_suffix(".fdt").exists():
        notes.append(
            Flag(f"names {name.strip()[:80]!r} for its samples, which is not there: {path.stem}.fdt taken", "reread")
        )
        file = path.with_suffix(".fdt")
    if not file.exists():
        raise ReadError(path, f"needs {file.name!r}, which is not beside it", "copy it there", code="missing")
    require_file(file)
    declared_bytes(path, (count, points), 4)
    size, needed = file.stat().st_size, 4 * count * points
    if size < needed:
        reason = f"is truncated: {size:,} bytes, {needed:,} expected for {count} channels and {points:,} samples"
        raise ReadError(file, reason, "copy the file again", code="truncated")
    if rest := size % (4 * count):
        notes.append(Flag(f"{rest:,} bytes after the last sample ignored", "left_out"))
    return Records(file, 0, size // (4 * count), 4 * count)


def _timeline(eeg: Mapping[str, Any], rate: float, seconds: float) -> Timeline:
    """Events, and boundaries with the time that was cut out there."""
    annotations, breaks, lost = [], [], 0
    for event in _records_of(eeg.get("event")):
        latency, length = _as_number(event.get("latency")), _as_number(event.get("duration"))
        kind = str(event.get("type", "")).strip()
        if not math.isfinite(latency):
            lost += 1
            continue
        length = length / rate if math.isfinite(length) and length > 0 else 0.0
        if kind.lower() in _BOUNDARIES:
            breaks.append(Break(round(latency - 0.5) / rate, length or None))
            length = 0.0
        annotations.append(Annotation((latency - 1) / rate, length, kind))
    timeline = placed(annotations, breaks, seconds)
    if lost:
        timeline = timeline._replace(
            notes=(*timeline.notes, Flag(f"left out, without a time: {lost} of the events", "left_out"))
        )
    return timeline
