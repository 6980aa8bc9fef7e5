"""A scalp EEG of 19 electrodes: 1/f background, posterior alpha rhythm, blinks, muscle, and bursts of spike and wave.

The bursts show the epileptiform evidence and nothing else does: in every period one generalised 3-per-second
burst, longer and taller the greater the evidence, and lost in the background where the evidence is low.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]

POSITIONS: dict[str, tuple[float, float]] = {
    "Fp1": (-0.27, 0.83), "Fp2": (0.27, 0.83), "F7": (-0.71, 0.51), "F3": (-0.36, 0.45), "Fz": (0.0, 0.42),
    "F4": (0.36, 0.45), "F8": (0.71, 0.51), "T3": (-0.88, 0.0), "C3": (-0.44, 0.0), "Cz": (0.0, 0.0),
    "C4": (0.44, 0.0), "T4": (0.88, 0.0), "T5": (-0.71, -0.51), "P3": (-0.36, -0.45), "Pz": (0.0, -0.42),
    "P4": (0.36, -0.45), "T6": (0.71, -0.51), "O1": (-0.27, -0.83), "O2": (0.27, -0.83),
}  # fmt: skip
"""10-20 electrode -> (right, front) on the head seen from above, radius 1 at the rim."""

CHANNELS = tuple(POSITIONS)
SFREQ = 200.0  # Hz at which brain and artefacts are drawn, before the recorder samples them
PERIOD = 5.0  # s for which `burst_length` is given


@dataclass(frozen=True)
class Recorder:
    """How an EEG is recorded.

    Args:
        sfreq: Hz; what is above half of it is filtered away before.
        seconds: of the recording.
        period: s, in each of which there is one burst, its length in proportion.
    """

    sfreq: float = SFREQ
    seconds: float = 20.0
    period: float = PERIOD


STANDARD = Recorder()


@dataclass(frozen=True)
class Brain:
    """What a subject's EEG keeps over all recordings; nothing of it depends on the findings.

    Args:
        alpha: Hz, posterior rhythm; slower with age.
        alpha_size: uV, its usual amplitude at the back of the head.
        background: uV root mean square of the 1/f activity.
        slope: exponent of the background's power spectrum.
        blinks: per minute.
    """

    alpha: float
    alpha_size: float
    background: float
    slope: float
    blinks: float


def draw_brain(rng: np.random.Generator, age: float) -> Brain:
    """The EEG traits of a subject of this age (years)."""
    return Brain(
        alpha=float(10.6 - 0.022 * (age - 40) + rng.normal(0, 0.4)),
        alpha_size=float(rng.uniform(14, 30)),
        background=float(rng.uniform(9, 13)),
        slope=float(rng.uniform(1.1, 1.5)),
        blinks=float(rng.uniform(6, 18)),
    )


def burst_size(evidence: float) -> float:
    """Amplitude (uV, 12 to 190) of the spikes that show this evidence; strictly increasing."""
    return float(12 + 178 * ndtr(0.7 * evidence - 0.2))


def burst_length(evidence: float) -> float:
    """Seconds (0.4 to 3.6) of each burst that shows this evidence, in periods of `PERIOD`; strictly increasing."""
    return float(0.4 + 3.2 * ndtr(0.7 * evidence - 0.1))


def recording(
    brain: Brain,
    evidence: float,
    rng: np.random.Generator,
    noisy_mains: bool = False,
    recorder: Recorder = STANDARD,
) -> Array:
    """One recording, (19, sfreq * seconds) in uV against a common reference, channels as in `CHANNELS`.

    Args:
        brain: whose.
        evidence: of epileptiform activity, in standard units.
        rng: of this recording.
        noisy_mains: whether the amplifier picks up more of the 50 Hz mains.
        recorder: rate and length.
    """
    time = np.arange(int(SFREQ * recorder.seconds)) / SFREQ
    signal = brain.background * _background(rng, brain.slope, len(time))
    signal += _alpha(rng, brain, time)
    signal += _blinks(rng, brain, time)
    signal += _muscle(rng, len(time))
    signal += spike_and_wave(rng, evidence, time, recorder.period)
    signal += (2.5 if noisy_mains else 0.6) * np.sin(2 * np.pi * 50 * time + rng.uniform(0, 6.28, (len(signal), 1)))
    return _sampled(signal, recorder.sfreq)


def _sampled(signal: Array, sfreq: float) -> Array:
    """A signal (19, T) at SFREQ as a recorder of `sfreq` Hz samples it."""
    if sfreq == SFREQ:
        return signal
    from scipy.signal import resample_poly

    ratio = Fraction(sfreq / SFREQ).limit_denominator(1000)
    return resample_poly(signal, ratio.numerator, ratio.denominator, axis=1)


def spike_and_wave(rng: np.random.Generator, evidence: float, time: Array, period: float = PERIOD) -> Array:
    """The bursts alone, (19, T) in uV: a sharp negative spike and a slow wave, 3.3 slowing to 2.8 per second."""
    size, length, margin = burst_size(evidence), burst_length(evidence) * period / PERIOD, 0.2 * period / PERIOD
    course = np.zeros_like(time)
    for number in range(int(time[-1] // period) + 1):
        onset = number * period + rng.uniform(margin, period - length - margin)
        inside = (time >= onset) & (time < onset + length)
        since = time[inside] - onset
        cycle = np.cumsum((3.3 - 0.5 * since / PERIOD) / SFREQ) % 1
        spike = np.exp(-0.5 * ((cycle - 0.18) / 0.055) ** 2) - 0.35 * np.exp(-0.5 * ((cycle - 0.30) / 0.05) ** 2)
        wave = 0.62 * np.sin(np.pi * np.clip((cycle - 0.36) / 0.62, 0, 1)) ** 2
        taper = np.clip(np.minimum(since, length - since) / 0.12, 0, 1)
        course[inside] += taper * rng.uniform(0.93, 1.07) * (spike + wave)
    across = np.array([np.exp(-(((x - 0.04) / 0.85) ** 2) - ((y - 0.38) / 0.8) ** 2) for x, y in POSITIONS.values()])
    return -size * np.outer(0.25 + 0.75 * across, course)


def _background(rng: np.random.Generator, slope: float, samples: int) -> Array:
    """1/f^slope activity of unit variance, shared between neighbouring electrodes, (19, T)."""
    frequency = np.fft.rfftfreq(samples, 1 / SFREQ)
    shape = np.where(frequency >= 0.5, np.maximum(frequency, 0.5) ** (-slope / 2), 0) / (1 + (frequency / 45) ** 2)
    white = rng.standard_normal((2, len(CHANNELS), len(frequency)))
    course = np.fft.irfft((white[0] + 1j * white[1]) * shape, samples)
    course /= course.std(1, keepdims=True)
    place = np.array(list(POSITIONS.values()))
    near = np.exp(-((place[:, None] - place[None]) ** 2).sum(-1) / 0.45)
    mixing = np.linalg.cholesky(near + 0.05 * np.eye(len(place)))
    return mixing / np.linalg.norm(mixing, axis=1, keepdims=True) @ course


def _alpha(rng: np.random.Generator, brain: Brain, time: Array) -> Array:
    """The posterior dominant rhythm, waxing and waning, (19, T) in uV."""
    drift = np.cumsum(rng.standard_normal(len(time))) * (0.35 / SFREQ**0.5)
    seconds = len(time) / SFREQ
    knots = round(0.7 * seconds)
    waxing = np.interp(time, np.linspace(0, seconds, knots), rng.uniform(0.25, 1.0, knots))
    lag = np.array([0.25 * x + 0.5 * y for x, y in POSITIONS.values()])
    across = np.array([np.exp(-(((y + 0.85) / 0.5) ** 2)) for _, y in POSITIONS.values()])
    phase = 2 * np.pi * brain.alpha * time + drift
    return brain.alpha_size * across[:, None] * waxing * np.sin(phase - lag[:, None])


def _blinks(rng: np.random.Generator, brain: Brain, time: Array) -> Array:
    """Eye blinks: slow positive frontal deflections, (19, T) in uV."""
    course = np.zeros_like(time)
    seconds = len(time) / SFREQ
    for onset in rng.uniform(0, seconds, rng.poisson(brain.blinks * seconds / 60)):
        since = time - onset
        course += rng.uniform(70, 130) * (
            np.exp(-0.5 * (since / np.where(since < 0, 0.06, 0.11)) ** 2)
            - 0.15 * np.exp(-0.5 * ((since - 0.4) / 0.15) ** 2)
        )
    across = np.array([np.clip((y - 0.2) / 0.63, 0, 1) ** 2 for _, y in POSITIONS.values()])
    return np.outer(across, course)


def _muscle(rng: np.random.Generator, samples: int) -> Array:
    """Muscle artefact of the temples, (19, T) in uV."""
    across = np.array([0.6 + 3.0 * np.clip(abs(x) - 0.5, 0, 1) for x, _ in POSITIONS.values()])
    white = rng.standard_normal((len(CHANNELS), samples))
    return across[:, None] * np.diff(white, axis=1, prepend=0) * rng.uniform(0.6, 1.2)
