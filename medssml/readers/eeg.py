"""EEG recordings (EDF, BDF, GDF, FIF, SET, BrainVision) through MNE: scalp electrodes under their 10-10 names, in uV.

A recording is referential (each electrode against a common reference) or bipolar (one electrode against another); of a mixed
one, the kind of which it has more channels is read.

MNE is imported when a recording is read, not before.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.brainvision import vhdr_header
from medssml.readers.channels import CHANNELS, canonical_channel, canonical_derivation
from medssml.readers.edf import EDFHeader, edf_header
from medssml.readers.errors import Flag, Note, ReadError, declared_bytes, reading, require_file
from medssml.readers.fif import check_fif
from medssml.readers.gdf import gdf_header
from medssml.readers.matlab import check_mat5

if TYPE_CHECKING:
    from mne.io import BaseRaw

__all__ = ["CHANNELS", "Annotation", "EEGHeader", "Recording", "canonical_channel", "eeg_header", "read_eeg"]

PLAUSIBLE_UV = (0.15, 2000.0)
"""Least and greatest median spread, in uV within 1 s, that a scalp recording in the right unit can have: amplifier
noise is above the first even in electrocerebral silence, artefacts stay below the second."""

_UV_PER_UNIT = {"uv": 1.0, "µv": 1.0, "μv": 1.0, "\x83\xcav": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3, "": 1.0}
_MNE_VOLTS = {"uV": 1e-6, "µV": 1e-6, "μV": 1e-6, "\x83\xcaV": 1e-6, "mV": 1e-3}
_CHUNK_S = 600
_BIOSEMI = re.compile(r"A(?:[3-9]|[12][0-9]|3[0-2])|[BDEGH](?:[1-9]|[12][0-9]|3[0-2])")  # C1, F1 are 10-10
_ODD_SPREAD = 100.0
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
_COMPANIONS = {".eeg": ".vhdr", ".vmrk": ".vhdr", ".fdt": ".set"}


class Annotation(NamedTuple):
    """onset and duration in s from the start of the signal."""

    onset: float
    duration: float
    text: str


class Recording(NamedTuple):
    """An EEG recording.

    signal: (C, T) float32 uV. sfreq: Hz. channels: (C,) names out of `CHANNELS`, or derivations of two of them ("Fp1-F7"),
    each once. notes: what was fixed, left out or is odd. references: (C,) what each channel was measured against, "" where
    that is the recorder's own reference; none for a bipolar recording. breaks: s at which parts of the signal are joined.
    """

    signal: NDArray[np.float32]
    sfreq: float
    channels: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    notes: tuple[str, ...]
    references: tuple[str, ...] = ()
    breaks: tuple[float, ...] = ()

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


class _Picked(NamedTuple):
    """labels: as the file spells them. channels: the same under their 10-10 names."""

    labels: tuple[str, ...]
    channels: tuple[str, ...]


def read_eeg(path: str | Path, *, start: float = 0.0, seconds: float | None = None) -> Recording:
    """The scalp channels of `path`, in uV, from `start` s, for `seconds` s or to the end.

    Channels that are no scalp electrode (ECG, EOG, ear against ear, status), flat or NaN are left out and noted; a unit
    that is blank, or that cannot be right, is corrected and noted. T3, T4, T5, T6 become T7, T8, P7, P8. Bipolar
    derivations are channels of their own where they are the greater part of a recording.

    Raises:
        ReadError: unreadable, truncated, no scalp channel, or nothing left of the signal.
    """
    path = require_file(path)
    with reading(path, "EEG"):
        notes: list[str] = []
        raw, picked, gains = _open(path, notes)
        sfreq = float(raw.info["sfreq"])
        first, last = _span(path, raw.n_times, sfreq, start, seconds)
        signal = _load(raw, picked, gains, first, last)
        signal, channels = _usable(signal, picked.channels, path, notes)
        signal = _plausible(signal, sfreq, notes)
        _note_odd_channels(signal, sfreq, channels, notes)
        annotations = _annotations(raw, first / sfreq, last / sfreq)
        return Recording(signal, sfreq, channels, annotations, tuple(notes))


def eeg_header(path: str | Path) -> EEGHeader:
    """Channels, rate and length of `path`; a truncated EDF or BDF is found by arithmetic, without MNE.

    Raises:
        ReadError: as `read_eeg`, as far as headers tell.
    """
    path = require_file(path)
    with reading(path, "EEG"):
        notes: list[str] = []
        if _kind(path) in ("EDF", "BDF"):
            header = edf_header(path)
            picked = _pick(header.labels, path, notes)
            rates = _rates(header, picked)
            return EEGHeader(picked.channels, float(rates.max()), header.seconds, header.notes + tuple(notes))
        raw, picked, _ = _open(path, notes)
        sfreq = float(raw.info["sfreq"])
        return EEGHeader(picked.channels, sfreq, raw.n_times / sfreq, tuple(notes))


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
    if main is not None:
        reason = f"is one of the files of a recording whose header is the {main} file"
        raise ReadError(path, reason, f"name {path.stem}{main}", code="format")
    raise ReadError(path, "is not EDF, BDF, GDF, FIF, SET or BrainVision", _FORMATS, code="format")


def _check_suffix(path: Path, kind: str) -> None:
    """MNE goes by the suffix; that of BrainVision in small letters."""
    wanted = f".{kind.lower()}"
    found = path.suffix if kind == "VHDR" else path.suffix.lower()
    if kind in ("EDF", "BDF", "GDF", "VHDR") and found != wanted:
        raise ReadError(
            path, f"is {kind} under the suffix {path.suffix!r}", f"rename it to end in {wanted}", code="format"
        )


def _open(path: Path, notes: list[str]) -> tuple[BaseRaw, _Picked, NDArray[np.float64]]:
    """MNE's view of the file with nothing loaded, the channels to keep, and (C,) uV per unit of MNE's values."""
    kind = _kind(path)
    if kind in ("EDF", "BDF"):
        return _open_edf(path, kind, notes)
    if kind in ("GDF", "VHDR"):
        return (_open_gdf if kind == "GDF" else _open_vhdr)(path, notes)
    import mne

    if kind == "FIF":
        check_fif(path)
        raw = mne.io.read_raw_fif(path, preload=False, on_split_missing="raise", verbose="ERROR")
    else:
        check_mat5(path)
        raw = mne.io.read_raw_eeglab(path, preload=False, verbose="ERROR")
    _check_inside(raw, path)
    kinds = raw.get_channel_types()
    bad = set(raw.info["bads"]) if set(raw.ch_names) - set(raw.info["bads"]) else set()
    names = [name for name, channel_type in zip(raw.ch_names, kinds, strict=True) if channel_type == "eeg"]
    if len(names) < len(raw.ch_names):
        notes.append(Note(f"{len(raw.ch_names) - len(names)} channels of another type left out"))
    if bad & set(names):
        notes.append(Note(f"left out, marked as bad in the file: {_listed(sorted(bad & set(names)))}"))
    picked = _pick([name for name in names if name not in bad], path, notes)
    declared_bytes(path, (len(picked.labels), raw.n_times), 4)
    return raw, picked, np.full(len(picked.labels), 1e6)


def _open_edf(path: Path, kind: str, notes: list[str]) -> tuple[BaseRaw, _Picked, NDArray[np.float64]]:
    header = edf_header(path)
    notes += header.notes
    picked = _pick(header.labels, path, notes)
    rates = _rates(header, picked)
    _note_rates(rates, notes)
    if header.discontinuous:
        notes.append(Flag(f"the recording has interruptions ({kind}+D): its parts are joined", "joined"))
    raw = _raw_edf(path, kind, sorted(set(header.labels) - set(picked.labels)))
    declared = round(header.seconds * float(raw.info["sfreq"]))
    if raw.n_times > declared:  # MNE goes by the length of the file
        raw.crop(tmax=(declared - 1) / float(raw.info["sfreq"]), verbose="ERROR")
    units = [header.units[header.labels.index(label)] for label in picked.labels]
    _note_units([bool(unit) and unit.lower() in _UV_PER_UNIT for unit in units], notes)
    gains = np.array([_UV_PER_UNIT.get(unit.lower(), 1.0) / _MNE_VOLTS.get(unit, 1.0) for unit in units])
    return raw, picked, gains


def _raw_edf(path: Path, kind: str, exclude: list[str]) -> BaseRaw:
    """Annotations are UTF-8 by the standard, Latin-1 in practice: the first that decodes."""
    import mne

    reader = mne.io.read_raw_edf if kind == "EDF" else mne.io.read_raw_bdf
    try:
        return reader(path, exclude=exclude, preload=False, stim_channel=None, encoding="utf8", verbose="ERROR")
    except Exception as error:  # MNE wraps the fault of an annotation into a bare Exception
        if not isinstance(error.__cause__ or error.__context__ or error, UnicodeDecodeError):
            raise
    return reader(path, exclude=exclude, preload=False, stim_channel=None, encoding="latin1", verbose="ERROR")


def _open_gdf(path: Path, notes: list[str]) -> tuple[BaseRaw, _Picked, NDArray[np.float64]]:
    import mne

    header = gdf_header(path)
    picked = _pick(header.labels, path, notes)
    at = [header.labels.index(label) for label in picked.labels]
    _note_rates(header.sfreq[at], notes)
    _note_units(header.stated[at].tolist(), notes)
    exclude = sorted(set(header.labels) - set(picked.labels))
    # MNE looks for a table of events even past the end: a zero there says that there is none
    source = io.BytesIO(path.read_bytes() + b"\0") if header.bare else path
    raw = mne.io.read_raw_gdf(source, exclude=exclude, preload=header.bare, stim_channel=None, verbose="ERROR")
    return raw, picked, header.gains[at]


def _open_vhdr(path: Path, notes: list[str]) -> tuple[BaseRaw, _Picked, NDArray[np.float64]]:
    import mne

    header = vhdr_header(path)
    notes += header.notes
    picked = _pick(header.labels, path, notes)
    at = [header.labels.index(label) for label in picked.labels]
    _note_units(header.stated[at].tolist(), notes)
    raw = mne.io.read_raw_brainvision(path, eog=(), misc=[], preload=False, verbose="ERROR")
    _check_inside(raw, path)
    return raw, picked, header.gains[at]


def _note_rates(rates: NDArray[np.float64], notes: list[str]) -> None:
    if rates.min() < rates.max():
        reason = f"channels at {rates.min():g} to {rates.max():g} Hz brought to {rates.max():g} Hz"
        notes.append(Flag(reason, "resampled"))


def _note_units(stated: Sequence[bool], notes: list[str]) -> None:
    blank = len(stated) - sum(stated)
    if blank:
        notes.append(Flag(f"{blank} channels state no voltage unit: uV taken", "assumed"))


def _rates(header: EDFHeader, picked: _Picked) -> NDArray[np.float64]:
    return np.array([header.sfreq[header.labels.index(label)] for label in picked.labels])


def _check_inside(raw: BaseRaw, path: Path) -> None:
    """A .set or a split .fif may name another file for its samples: it must lie in the same folder."""
    folder = path.resolve().parent
    for file in raw.filenames:
        if file is not None and Path(file).resolve().parent != folder:
            raise ReadError(
                path, "keeps its samples in a file outside its folder", "put both files into one folder", code="outside"
            )


def _pick(labels: Sequence[str], path: Path, notes: list[str]) -> _Picked:
    """The scalp channels among `labels`, each once and of one kind, referential or bipolar; the rest is noted."""
    if sum(_BIOSEMI.fullmatch(label) is not None for label in labels) > 4:
        reason = "names its channels by the BioSemi layout (A1, A2, ... B1), in which A1 and A2 are no ears"
        raise ReadError(path, reason, "rename the channels to the 10-20 system", code="content")
    referential = _by_channel(labels, canonical_channel)
    bipolar = _by_channel(labels, canonical_derivation)
    if not referential and not bipolar:
        raise ReadError(
            path,
            f"holds no scalp electrode of the 10-10 system (first: {', '.join(labels[:4])})",
            _FORMATS,
            code="content",
        )
    # One kind alone: an average over electrodes and differences of them would be neither.
    few, most = (referential, bipolar) if len(bipolar) > len(referential) else (bipolar, referential)
    foreign = set(labels) - {label for group in (few, most) for same in group.values() for label in same}
    if foreign:
        notes.append(Note(f"left out, no scalp electrode: {_listed([label for label in labels if label in foreign])}"))
    if few:
        ours, theirs = ("referential", "bipolar") if most is bipolar else ("bipolar", "referential")
        mixed = [label for same in few.values() for label in same]
        notes.append(Flag(f"left out, {ours} beside {len(most)} {theirs} channels: {_listed(mixed)}", "left_out"))
    twice = [label for same in most.values() for label in same[1:]]
    if twice:
        notes.append(Flag(f"left out, recorded twice: {_listed(twice)}", "left_out"))
    return _Picked(tuple(same[0] for same in most.values()), tuple(most))


def _by_channel(labels: Sequence[str], name_of: Callable[[str], str | None]) -> dict[str, list[str]]:
    """Channel -> the labels that mean it, the first of which is kept."""
    found: dict[str, list[str]] = {}
    for label in labels:
        name = name_of(label)
        if name is not None:
            turned = "-".join(reversed(name.split("-")))  # P7-T7 beside T7-P7 is the same signal with its sign turned
            found.setdefault(turned if turned in found else name, []).append(label)
    return found


def _span(path: Path, n_times: int, sfreq: float, start: float, seconds: float | None) -> tuple[int, int]:
    first = round(start * sfreq)
    last = n_times if seconds is None else min(n_times, first + round(seconds * sfreq))
    if not 0 <= first < last:
        length = n_times / sfreq
        raise ReadError(path, f"has {length:.1f} s, nothing from {start:g} s on", "ask for a part that is recorded")
    return first, last


def _load(raw: BaseRaw, picked: _Picked, gains: NDArray[np.float64], first: int, last: int) -> NDArray[np.float32]:
    """(C, T) uV, read in pieces: MNE works in float64, twice the memory of what is kept."""
    names = _names_in(raw, picked.labels)
    signal = np.empty((len(names), last - first), np.float32)
    step = max(1, round(_CHUNK_S * float(raw.info["sfreq"])))
    for begin in range(first, last, step):
        end = min(last, begin + step)
        piece = raw.get_data(picks=names, start=begin, stop=end, verbose="ERROR")
        signal[:, begin - first : end - first] = piece * gains[:, None]
    return signal


def _names_in(raw: BaseRaw, labels: Sequence[str]) -> list[str]:
    """MNE numbers repeated labels (`T8-P8-0`): the first of them is meant."""
    known = set(raw.ch_names)
    return [label if label in known else f"{label}-0" for label in labels]


def _usable(
    signal: NDArray[np.float32], channels: tuple[str, ...], path: Path, notes: list[str]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Without the channels that are flat or hold NaN, which are noted."""
    broken = ~np.isfinite(signal).all(axis=1)
    flat = ~broken & (np.ptp(signal, axis=1) == 0)
    for mask, what in ((broken, "NaN or infinite values"), (flat, "flat")):
        if mask.any():
            notes.append(Flag(f"left out, {what}: {_listed([channels[i] for i in np.flatnonzero(mask)])}", "left_out"))
    keep = ~(broken | flat)
    if not keep.any():
        reason = f"holds no signal: {int(flat.sum())} channels are flat, {int(broken.sum())} hold NaN"
        raise ReadError(path, reason, "export the recording again", code="content")
    if keep.all():
        return signal, channels
    return signal[keep], tuple(channels[i] for i in np.flatnonzero(keep))


def _plausible(signal: NDArray[np.float32], sfreq: float, notes: list[str]) -> NDArray[np.float32]:
    """`signal` in uV, corrected by the power of 1000 that makes its spread that of an EEG, if it cannot be one."""
    spread = spread_uv(signal, sfreq)
    if PLAUSIBLE_UV[0] <= spread <= PLAUSIBLE_UV[1]:
        return signal
    factors = np.array([1e-6, 1e-3, 1e3, 1e6])
    best = float(factors[np.abs(np.log10(spread * factors / 20.0)).argmin()]) if spread > 0 else 1.0
    if not 0.5 <= spread * best <= 1000:
        notes.append(Flag(f"median spread {spread:.3g} uV is not that of an EEG in any voltage unit; left as it is"))
        return signal
    reason = f"median spread {spread:.3g} uV cannot be right: multiplied by {best:g} to {spread * best:.3g} uV"
    notes.append(Flag(reason, "rescaled"))
    return signal * np.float32(best)


def _note_odd_channels(signal: NDArray[np.float32], sfreq: float, channels: tuple[str, ...], notes: list[str]) -> None:
    """Flags channels whose spread is another order of magnitude than that of the others: another unit, or no contact."""
    if len(channels) < 3:
        return
    spreads = np.array([spread_uv(row[None], sfreq) for row in signal])
    usual = float(np.median(spreads))
    with np.errstate(divide="ignore", invalid="ignore"):
        odd = (spreads > _ODD_SPREAD * usual) | (spreads < usual / _ODD_SPREAD)
    if odd.any():
        shown = ", ".join(f"{channels[i]} {spreads[i]:.3g} uV" for i in np.flatnonzero(odd)[:4])
        notes.append(Flag(f"{int(odd.sum())} channels spread unlike the others ({usual:.3g} uV): {shown}"))


def spread_uv(signal: NDArray[np.float32], sfreq: float) -> float:
    """Median over channels and seconds of the standard deviation within 1 s, in the unit of `signal` (C, T).

    Within one second, so that neither drift nor an offset counts; the median, so that artefacts do not.
    """
    width = max(2, min(round(sfreq), signal.shape[1]))
    windows = signal.shape[1] // width
    blocks = signal[:, : windows * width].reshape(signal.shape[0], windows, width)
    stride = max(1, windows // 256)
    return float(np.median(blocks[:, ::stride].std(axis=2, dtype=np.float64)))


def _annotations(raw: BaseRaw, start: float, end: float) -> tuple[Annotation, ...]:
    shift = float(raw.first_time) if raw.annotations.orig_time is not None else 0.0
    found = []
    for onset, duration, text in zip(
        raw.annotations.onset, raw.annotations.duration, raw.annotations.description, strict=True
    ):
        at = float(onset) - shift
        if at < end and at + float(duration) >= start:
            found.append(Annotation(at - start, float(duration), str(text)))
    return tuple(found)


def _listed(labels: Sequence[str]) -> str:
    counts = Counter(labels)
    shown = [f"{label} x {n}" if n > 1 else label for label, n in list(counts.items())[:8]]
    return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")
