"""EEG: band-passed, re-referenced, at one sampling rate, with the channels' names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.arrays import held_eeg
from medssml.readers.channels import EARS, channel_number
from medssml.readers.eeg import Recording, eeg_header, read_eeg
from medssml.readers.errors import ReadError
from medssml.readers.held import Held
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, at_least, notes_array

#: uV per step of the stored int16: a twentieth of an amplifier's own noise, with a range of 3.2 mV.
STEP_UV = 0.1
#: s of mirrored signal beyond each end: the filter's memory.
_PAD_S = 8.0


class EEGSignal(Preparation):
    """A recording at one rate, of any subset of the named 10-10 channels or of their bipolar derivations.

    Args:
        sfreq: Hz of what is stored.
        bandpass: Hz, edges of the pass band; None = no filter below the new Nyquist frequency.
        notch: Hz of the mains and its harmonics; None = none.
        average_reference: subtract the mean over scalp electrodes; a bipolar recording, and one whose channels have several
            references, stays as it is.
        max_s: s that are stored, the middle of the recording.
    """

    libraries = ("numpy", "scipy", "mne")
    revision = 2

    def __init__(
        self,
        sfreq: float = 100.0,
        bandpass: Sequence[float] | None = (0.5, 45.0),
        notch: float | None = None,
        average_reference: bool = True,
        max_s: float = 600.0,
    ) -> None:
        at_least("sfreq", sfreq, 1)
        self.sfreq, self.max_s = float(sfreq), float(max_s)
        self.bandpass = None if bandpass is None else (float(bandpass[0]), float(bandpass[1]))
        self.notch, self.average_reference = notch, average_reference
        if self.bandpass is not None and not 0 <= self.bandpass[0] < self.bandpass[1] <= self.sfreq / 2:
            raise ValueError(
                f"bandpass {self.bandpass} Hz does not fit a rate of {self.sfreq} Hz; keep it in 0 to {self.sfreq / 2}"
            )

    def held(self, name: str, value: Any) -> Source:
        return Held(held_eeg(name, value))

    def settings(self) -> dict[str, Any]:
        names = ("sfreq", "bandpass", "notch", "average_reference", "max_s")
        return {name: getattr(self, name) for name in names}

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        """{"signal": (C, T) int16 in 0.1 uV, "channels": (C,) int64 `channel_number`, ascending, "notes"}.

        Raises:
            ReadError: the recording cannot be used, or is shorter than half a second.
        """
        seconds = _seconds(source)
        start = max(0.0, (seconds - self.max_s) / 2)
        recording = _part(source, start, self.max_s if start > 0 else None)
        notes = list(recording.notes) + (
            [f"the middle {self.max_s:g} s of {seconds:.0f} s are used"] if start > 0 else []
        )
        if recording.signal.shape[1] < 0.5 * recording.sfreq:
            where = "the array" if isinstance(source, Held) else str(source)
            raise ReadError(
                where, f"holds {recording.signal.shape[1] / recording.sfreq:.2f} s, at least 0.5 are needed"
            )
        names = np.array([channel_number(name) for name in recording.channels], dtype=np.int64)
        order = np.argsort(names)
        signal = recording.signal
        if self.average_reference and not recording.bipolar:
            signal = reference(signal, recording.channels, recording.references)
        signal = filter_resample(
            signal[order], recording.sfreq, self.sfreq, self.bandpass, self.notch, breaks=recording.breaks
        )
        stored = np.clip(np.rint(signal / STEP_UV), -32767, 32767).astype(np.int16)
        return {"signal": stored, "channels": names[order], NOTES: notes_array(notes)}


def _seconds(source: Source) -> float:
    """The length of a recording."""
    if isinstance(source, Held):
        return float(source.value.signal.shape[1] / source.value.sfreq)
    return eeg_header(source).seconds


def _part(source: Source, start: float, seconds: float | None) -> Recording:
    """A recording from `start` s for `seconds` s, or to its end."""
    if not isinstance(source, Held):
        return read_eeg(source, start=start, seconds=seconds)
    recording: Recording = source.value
    first = round(start * recording.sfreq)
    last = None if seconds is None else first + round(seconds * recording.sfreq)
    breaks = tuple(at - start for at in recording.breaks if 0 < at - start < (seconds or float("inf")))
    return recording._replace(signal=recording.signal[:, first:last], breaks=breaks)


def reference(signal: NDArray[Any], channels: Sequence[str], references: Sequence[str] = ()) -> NDArray[Any]:
    """`signal` less the mean over its scalp electrodes, which takes away what all were measured against.

    It does so for one common reference alone: of channels against several, half of the references' difference would enter
    every channel, so those stay as they are. The ears have no part in the mean.

    Args:
        signal: (C, T). channels: (C,) names. references: (C,) what each was measured against; none = the same for all.
    """
    scalp = [row for row, name in enumerate(channels) if name not in EARS]
    if len(scalp) < 2 or len(set(references)) > 1:
        return signal
    return signal - signal[scalp].mean(axis=0, keepdims=True)


def filter_resample(
    signal: NDArray[np.float32],
    sfreq: float,
    to: float,
    bandpass: tuple[float, float] | None,
    notch: float | None,
    *,
    breaks: Sequence[float] = (),
) -> NDArray[np.float32]:
    """Band-pass, notch and resampling as one zero-phase multiplication in the frequency domain.

    The slopes of the pass band are raised cosines: between half the lower edge and the edge, and over the upper edge to
    a quarter beyond it, or to the new Nyquist frequency where that comes first. The ends are mirrored.

    Args:
        signal: (C, T) at `sfreq` Hz.
        to: Hz of the result.
        bandpass: Hz. notch: Hz.
        breaks: s at which parts of the signal were joined: no filter runs over such a step.

    Returns:
        (C, round(T * to / sfreq)) float32.
    """
    count = signal.shape[1]
    inner = sorted({round(at * sfreq) for at in breaks} - {0, count})
    edges = [0, *(at for at in inner if 0 < at < count), count]
    lengths = np.diff([round(at * to / sfreq) for at in edges])
    ratio = rate_ratio(sfreq, to, count)
    parts = [
        _filtered(signal[:, first:last], sfreq, ratio, bandpass, notch, int(length))
        for first, last, length in zip(edges[:-1], edges[1:], lengths, strict=True)
        if length
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def rate_ratio(sfreq: float, to: float, count: int) -> Fraction:
    """`to` / `sfreq` as the simplest fraction that moves none of `count` samples by a thousandth of one at the new rate."""
    exact, largest = Fraction(to) / Fraction(sfreq), 1000
    while abs((ratio := exact.limit_denominator(largest)) - exact) * count > Fraction(1, 1000):
        largest *= 4
    return ratio


def _filtered(
    signal: NDArray[np.float32],
    sfreq: float,
    ratio: Fraction,
    bandpass: tuple[float, float] | None,
    notch: float | None,
    kept: int,
) -> NDArray[np.float32]:
    """(C, kept) one part of a recording, at `ratio` times its rate."""
    from scipy import fft

    # One period: a whole number of samples at both rates, and of a length that an FFT is fast at.
    total = ratio.denominator * fft.next_fast_len(
        math.ceil((signal.shape[1] + 2 * _PAD_S * sfreq) / ratio.denominator), real=True
    )
    spectrum = fft.rfft(_periodic(signal, total), axis=1)
    spectrum *= response(fft.rfftfreq(total, 1 / sfreq), sfreq * min(1.0, float(ratio)) / 2, bandpass, notch)
    length = total * ratio.numerator // ratio.denominator
    bins = length // 2 + 1
    if bins > spectrum.shape[1]:
        spectrum = np.pad(spectrum, ((0, 0), (0, bins - spectrum.shape[1])))
    resampled = fft.irfft(spectrum[:, :bins], n=length, axis=1) * (length / total)
    return resampled[:, :kept].astype(np.float32)


def _periodic(signal: NDArray[np.float32], total: int) -> NDArray[np.float32]:
    """(C, total) the signal, and then a bridge from its end to its start: both mirrored, one faded into the other."""
    count, gap = signal.shape[1], total - signal.shape[1]
    bridge = np.arange(gap)
    fade = (0.5 + 0.5 * np.cos(np.pi * (bridge + 1) / (gap + 1))).astype(np.float32)
    after = signal[:, _mirror(count + bridge, count)]
    before = signal[:, _mirror(bridge - gap, count)]
    return np.concatenate([signal, after * fade + before * (1 - fade)], axis=1)


def _mirror(index: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions beyond the ends of `count` samples, reflected at them as often as it takes."""
    folded = np.mod(index, 2 * count)
    return np.where(folded < count, folded, 2 * count - 1 - folded)


def response(
    hertz: NDArray[np.float64], nyquist: float, bandpass: tuple[float, float] | None, notch: float | None
) -> NDArray[np.float32]:
    """(F,) gain at `hertz`: 1 in the pass band, 0 above `nyquist`, 0 within 1 Hz of the mains and its harmonics."""
    low, high = bandpass if bandpass is not None else (0.0, nyquist * 0.9)
    high = min(high, nyquist)
    gain = _slope(hertz, high, min(high * 1.25, nyquist))
    if low > 0:
        gain = gain * (1 - _slope(hertz, low / 2, low))
    if notch is not None:
        distance = np.abs(hertz - notch * np.maximum(np.rint(hertz / notch), 1))
        gain = gain * (1 - _slope(distance, 1.0, 2.0))
    return gain.astype(np.float32)


def _slope(hertz: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """1 up to `start`, 0 from `stop` on, a raised cosine between."""
    if stop <= start:
        return (hertz <= start).astype(np.float64)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((hertz - start) / (stop - start), 0, 1))
