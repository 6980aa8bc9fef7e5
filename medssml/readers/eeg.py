"""EEG recordings (EDF, BDF, GDF, FIF, SET, BrainVision): scalp electrodes under their 10-10 names, in uV.

A recording is referential (each electrode against a common reference) or bipolar (one electrode against another); of a mixed
one, the kind of which it has more channels is read. What a channel is measured against goes with it.

MNE is imported when a FIF file is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.amplitude import note_spreads, spreads_uv, unit_factors
from medssml.readers.brainvision import vhdr_source
from medssml.readers.channels import CHANNELS, canonical_channel
from medssml.readers.edf import edf_source
from medssml.readers.eeglab import set_source
from medssml.readers.errors import Flag, ReadError, declared_bytes, reading, require_file
from medssml.readers.fif import fif_source
from medssml.readers.gdf import gdf_source
from medssml.readers.montage import Picked, listed, pick
from medssml.readers.source import Annotation, Break, Source, Timeline, interruptions, without

__all__ = ["CHANNELS", "Annotation", "EEGHeader", "Recording", "canonical_channel", "eeg_header", "read_eeg"]

_FORMATS = "name an EDF, BDF, GDF, FIF, SET or VHDR file"
_SUFFIXES = {
    ".bdf": "BDF",
    ".edf": "EDF",
    ".gdf": "GDF",
    ".fif": "FIF",
    ".fif.gz": "FIF",
    ".set": "SET",
    ".vhdr": "VHDR",
}
_SOURCES: dict[str, Callable[[Path], Source]] = {
    "BDF": edf_source,
    "EDF": edf_source,
    "GDF": gdf_source,
    "FIF": fif_source,
    "SET": set_source,
    "VHDR": vhdr_source,
}
_COMPANIONS = {".eeg": ".vhdr", ".vmrk": ".vhdr", ".fdt": ".set"}
#: Samples on either side of a part, at the lower rate, that bringing it to a higher one looks at.
_MARGIN = 64


class Recording(NamedTuple):
    """An EEG recording.

    signal: (C, T) float32 uV. sfreq: Hz. channels: (C,) names out of `CHANNELS`, or derivations of two of them ("Fp1-F7"),
    each once. notes: what was fixed, left out or is odd. references: (C,) what each channel was measured against, "" where
    that is the recorder's own reference; none for a bipolar recording. breaks: s at which parts of the signal are joined.
    units: (C,) as the file states them. limits: (C, 2) uV at the ends of the converter's range, NaN where the file has none.
    left_out: (label, why) of every other channel of the file.
    """

    signal: NDArray[np.float32]
    sfreq: float
    channels: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    notes: tuple[str, ...]
    references: tuple[str, ...] = ()
    breaks: tuple[float, ...] = ()
    units: tuple[str, ...] = ()
    limits: NDArray[np.float64] = np.empty((0, 2))
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def bipolar(self) -> bool:
        """Whether the channels are differences of two electrodes, which no reference has a part in."""
        return any("-" in name for name in self.channels)


class EEGHeader(NamedTuple):
    """What `read_eeg` will return, without the samples; flat channels are still among `channels`."""

    channels: tuple[str, ...]
    sfreq: float
    seconds: float
    notes: tuple[str, ...]


def read_eeg(path: str | Path, *, start: float = 0.0, seconds: float | None = None) -> Recording:
    """The scalp channels of `path`, in uV, from `start` s, for `seconds` s or to the end.

    Channels that are no scalp electrode (ECG, EOG, ear against ear, status, oxygen in %), that have no scale, are flat or
    miss values are left out and noted. A stated unit is believed; one that is not stated and cannot be uV is corrected and
    flagged. What was never recorded is cut out. T3, T4, T5, T6 become T7, T8, P7, P8. Bipolar derivations are channels of
    their own where they are the greater part of a recording.

    Raises:
        ReadError: unreadable, truncated, no scalp channel, or nothing left of the signal.
    """
    path = require_file(path)
    with reading(path, "EEG"):
        return recording_of(_SOURCES[_kind(path)](path), path, start=start, seconds=seconds)


def recording_of(source: Source, path: Path, *, start: float = 0.0, seconds: float | None = None) -> Recording:
    """The same of what a format comes down to; `path` names it in messages.

    Raises:
        ReadError: no scalp channel, or nothing left of the signal.
    """
    picked, sfreq = _picked(source, path)
    first, last = _span(path, source.seconds, sfreq, start, seconds)
    declared_bytes(path, (len(picked.rows), last - first), 4)
    whole = source.timeline()
    notes = [*source.notes, *picked.notes, *_stated(source, picked), *whole.notes, *interruptions(whole)]
    signal = _load(source, picked, sfreq, first, last)
    timeline = _window(whole, first / sfreq, last / sfreq)
    signal, annotations, breaks = _recorded(signal, sfreq, timeline, path, notes)
    keep, lost = _usable(signal, picked, path, notes)
    signal = signal if keep.size == len(signal) else signal[keep]
    spreads = spreads_uv(signal, sfreq)
    kept = [source.channels[picked.rows[row]] for row in keep]
    factors, changed = unit_factors(spreads, [channel.unit.stated for channel in kept])
    names = tuple(picked.names[row] for row in keep)
    notes += [*changed, *note_spreads(spreads * factors[:, None], names)]
    return Recording(
        signal=signal * factors[:, None].astype(np.float32) if changed else signal,
        sfreq=sfreq,
        channels=names,
        annotations=annotations,
        notes=tuple(notes),
        references=tuple(picked.references[row] for row in keep) if picked.references else (),
        breaks=breaks,
        units=tuple(channel.unit.text for channel in kept),
        limits=np.array([channel.limits for channel in kept]) * factors[:, None],
        left_out=picked.left_out + lost,
    )


def eeg_header(path: str | Path) -> EEGHeader:
    """Channels, rate and length of `path`; a truncated file is found by arithmetic.

    Raises:
        ReadError: as `read_eeg`, as far as headers tell.
    """
    path = require_file(path)
    with reading(path, "EEG"):
        source = _SOURCES[_kind(path)](path)
        picked, sfreq = _picked(source, path)
        declared_bytes(path, (len(picked.rows), round(source.seconds * sfreq)), 4)
        notes = [*source.notes, *picked.notes, *_stated(source, picked)]
        if source.in_header:
            timeline = source.timeline()
            notes += [*timeline.notes, *interruptions(timeline)]
        return EEGHeader(picked.names, sfreq, source.seconds, tuple(notes))


def _picked(source: Source, path: Path) -> tuple[Picked, float]:
    """The channels to keep, and the highest of their rates."""
    picked = pick(source.channels, path)
    return picked, max(source.channels[row].sfreq for row in picked.rows)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(8)
    name = path.name.lower()
    for magic, kind in ((b"\xffBIOSEMI", "BDF"), (b"0       ", "EDF"), (b"GDF ", "GDF")):
        if head.startswith(magic):
            _check_suffix(path, kind)
            return kind
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            _check_suffix(path, kind)
            return kind
    main = _COMPANIONS.get(path.suffix.lower())
    if main is not None and not path.with_suffix(main).exists():
        reason = f"is no recording by itself: {path.stem}{main}, its header, is not beside it"
        fix = (
            f"copy the {main} there and name it, or convert the recording to EDF (other systems use {path.suffix}, too)"
        )
        raise ReadError(path, reason, fix, code="format")
    if main is not None:
        reason = f"is one of the files of a recording whose header is the {main} file"
        raise ReadError(path, reason, f"name {path.stem}{main}", code="format")
    raise ReadError(path, "is not EDF, BDF, GDF, FIF, SET or BrainVision", _FORMATS, code="format")


def _check_suffix(path: Path, kind: str) -> None:
    """A suffix that hides the format hides it from everybody else, too; that of BrainVision is in small letters."""
    wanted = f".{kind.lower()}"
    found = path.suffix if kind == "VHDR" else path.suffix.lower()
    if kind in ("EDF", "BDF", "GDF", "VHDR") and found != wanted:
        raise ReadError(
            path, f"is {kind} under the suffix {path.suffix!r}", f"rename it to end in {wanted}", code="format"
        )


def _stated(source: Source, picked: Picked) -> list[str]:
    """What of rates and units was brought to one, or taken for granted."""
    channels = [source.channels[row] for row in picked.rows]
    notes: list[str] = []
    rates = [channel.sfreq for channel in channels]
    if min(rates) < max(rates):
        notes.append(Flag(f"channels at {min(rates):g} to {max(rates):g} Hz brought to {max(rates):g} Hz", "resampled"))
    if blank := sum(not channel.unit.stated and channel.unit.text != "uV" for channel in channels):
        notes.append(Flag(f"{blank} channels state no voltage unit: uV taken", "assumed"))
    return notes


def _span(path: Path, length: float, sfreq: float, start: float, seconds: float | None) -> tuple[int, int]:
    n_times, first = round(length * sfreq), round(start * sfreq)
    last = n_times if seconds is None else min(n_times, first + round(seconds * sfreq))
    if not 0 <= first < last:
        raise ReadError(path, f"has {length:.1f} s, nothing from {start:g} s on", "ask for a part that is recorded")
    return first, last


def _load(source: Source, picked: Picked, sfreq: float, first: int, last: int) -> NDArray[np.float32]:
    """(C, last - first) uV at `sfreq`, whatever the rate of each channel."""
    signal = np.empty((len(picked.rows), last - first), np.float32)
    rates = np.array([source.channels[row].sfreq for row in picked.rows])
    for rate in np.unique(rates):
        at = np.flatnonzero(rates == rate)
        rows = [picked.rows[i] for i in at]
        if rate == sfreq:
            signal[at] = source.read(rows, first, last)
        else:
            for i, row in zip(at, rows, strict=True):
                signal[i] = _raised(source, row, float(rate), sfreq, first, last)
    return signal


def _raised(source: Source, row: int, rate: float, sfreq: float, first: int, last: int) -> NDArray[np.float32]:
    """Samples `first` to `last` at `sfreq` of a channel that is recorded at the lower `rate`, each at its time."""
    from scipy.signal import resample_poly

    ratio = Fraction(sfreq / rate).limit_denominator(100_000)
    # The part begins where both rates have a sample.
    period = max(0, first // ratio.numerator - -(-_MARGIN // ratio.denominator))
    begin = period * ratio.denominator
    end = min(round(source.seconds * rate), -(-last * ratio.denominator // ratio.numerator) + _MARGIN)
    slow = source.read([row], begin, end)[0].astype(np.float64)
    fast = resample_poly(slow, ratio.numerator, ratio.denominator, padtype="line")
    offset = first - period * ratio.numerator
    return fast[offset : offset + last - first].astype(np.float32)


def _window(timeline: Timeline, start: float, end: float) -> Timeline:
    """What of `timeline` lies between `start` and `end`, in s from `start`."""
    annotations = tuple(
        Annotation(a.onset - start, a.duration, a.text)
        for a in timeline.annotations
        if a.onset < end and a.onset + a.duration >= start
    )
    breaks = tuple(Break(b.at - start, b.lost) for b in timeline.breaks if start < b.at < end)
    gaps = tuple((max(a, start) - start, min(b, end) - start) for a, b in timeline.gaps if a < end and b > start)
    return Timeline(annotations, breaks, gaps)


def _recorded(
    signal: NDArray[np.float32], sfreq: float, timeline: Timeline, path: Path, notes: list[str]
) -> tuple[NDArray[np.float32], tuple[Annotation, ...], tuple[float, ...]]:
    """The signal, its annotations and its breaks without what was never recorded: gaps, and samples that all channels miss."""
    absent = np.zeros(signal.shape[1], bool)
    for start, end in timeline.gaps:
        absent[round(start * sfreq) : round(end * sfreq)] = True
    finite = np.isfinite(signal)
    missing = finite.any() & ~finite[finite.any(axis=1)].any(axis=0) & ~absent
    if missing.any():
        notes.append(
            Flag(
                f"{missing.sum() / sfreq:g} s in which all channels miss values are left out, the rest is joined",
                "left_out",
            )
        )
    absent |= missing
    if absent.all():
        raise ReadError(
            path, "holds no signal in this part: none of it was recorded", "ask for another part", code="content"
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[False], absent, [False]]).astype(np.int8)))
    spans = [(float(a / sfreq), float(b / sfreq)) for a, b in edges.reshape(-1, 2)]
    annotations, breaks = without(timeline, spans, signal.shape[1] / sfreq)
    return (signal[:, ~absent] if spans else signal), annotations, breaks


def _usable(
    signal: NDArray[np.float32], picked: Picked, path: Path, notes: list[str]
) -> tuple[NDArray[np.int64], tuple[tuple[str, str], ...]]:
    """Rows that are neither flat nor miss values, and (name, why) of the others, which are noted."""
    broken = ~np.isfinite(signal).all(axis=1)
    flat = ~broken & (np.ptp(signal, axis=1) == 0)
    lost: list[tuple[str, str]] = []
    for mask, what in ((broken, "NaN or infinite values"), (flat, "flat")):
        if mask.any():
            names = [picked.names[row] for row in np.flatnonzero(mask)]
            zero = flat & (signal[:, 0] == 0)
            why = (
                " (0 throughout: not connected, or what the others are measured against)" if (mask & zero).any() else ""
            )
            notes.append(Flag(f"left out, {what}: {listed(names)}{why}", "left_out"))
            lost += [(name, what) for name in names]
    keep = np.flatnonzero(~(broken | flat))
    if not keep.size:
        reason = f"holds no signal: {int(flat.sum())} channels are flat, {int(broken.sum())} hold NaN"
        raise ReadError(path, reason, "export the recording again", code="content")
    return keep, tuple(lost)
