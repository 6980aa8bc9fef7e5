"""What an EEG records besides the brain: blinks, muscles and the mains, in uV at the electrodes.

An artefact takes the road of the signal: what the filter of the preparation takes away of it is not there, the average
reference is subtracted, and a derivation holds the difference of its two electrodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medssml.encoders.scalp import scalp_positions
from medssml.obstacles.base import Damage
from medssml.readers.channels import channel_name
from medssml.transforms.base import Preparation, Prepared
from medssml.transforms.eeg import STEP_UV, EEGSignal, reference, response

#: uV at severity 1: of a blink at the forehead, of the mains, and the root mean square of a burst of muscle at the temples.
BLINK_UV, MAINS_UV, MUSCLE_UV = 300.0, 100.0, 80.0
#: Blinks a minute, s that one takes; Hz from which muscles are seen, bursts a minute, s that one takes.
BLINKS, BLINK_S = 20.0, 0.4
MUSCLE_HZ, BURSTS, BURST_S = 20.0, 12.0, 2.0
#: Where the eyes and the chewing muscles lie, and how far their field reaches along the unit sphere.
_EYES, _TEMPLES, _REACH = ("Fpz",), ("T7", "T8"), 0.6

Floats = NDArray[np.float64]


class EEGArtefact(Damage):
    """Something added to the signal: (C, T) uV, in proportion to the severity."""

    modality, entry = "eeg", "signal"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        signal = prepared["signal"]
        names = [channel_name(int(number)) for number in prepared["channels"]]
        added = self.artefact(names, signal.shape[1], draws, preparation)
        if getattr(preparation, "average_reference", False) and not any("-" in name for name in names):
            added = reference(added, names)
        added *= self.severity / STEP_UV
        return {"signal": np.clip(np.rint(signal + added), -32767, 32767).astype(np.int16)}

    def artefact(self, names: list[str], samples: int, draws: np.random.Generator, preparation: Preparation) -> Floats:
        """(C, T) uV at severity 1."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it adds")


class EEGBlinks(EEGArtefact):
    """Blinks: 20 a minute of 0.4 s, 300 uV at the forehead at severity 1, less towards the back."""

    name, says = "eeg_blinks", "the patient blinks"

    def artefact(self, names: list[str], samples: int, draws: np.random.Generator, preparation: Preparation) -> Floats:
        course = pulses(samples, rate_of(preparation), BLINKS, BLINK_S, draws) * BLINK_UV
        return at_channels(names, lambda each: nearness(each, _EYES))[:, None] * filtered(course, preparation)


class EEGMuscle(EEGArtefact):
    """Muscle: bursts of noise above 20 Hz, 12 a minute of 2 s, 80 uV root mean square at the temples at severity 1."""

    name, says = "eeg_muscle", "muscles are tense"

    def why_not(self, preparation: Preparation) -> str | None:
        highest = _passed(preparation, np.linspace(MUSCLE_HZ, rate_of(preparation) / 2, 64, dtype=np.float64))
        return None if highest > 0.01 else f"the road's filter lets nothing above {MUSCLE_HZ:g} Hz through"

    def artefact(self, names: list[str], samples: int, draws: np.random.Generator, preparation: Preparation) -> Floats:
        rate = rate_of(preparation)
        noise = np.fft.rfft(draws.standard_normal((len(names), samples)), axis=1)
        hertz = np.fft.rfftfreq(samples, 1 / rate)
        noise[:, hertz < MUSCLE_HZ] = 0
        course = np.fft.irfft(noise, n=samples, axis=1)
        course *= MUSCLE_UV / max(float(np.sqrt((course**2).mean())), 1e-12)
        course *= pulses(samples, rate, BURSTS, BURST_S, draws)
        return at_channels(names, lambda each: nearness(each, _TEMPLES))[:, None] * filtered(course, preparation)


class EEGMains(EEGArtefact):
    """The mains: a sine of 100 uV at severity 1, in phase at all electrodes, each of which takes up half to all of it.

    Args:
        severity, seed: as `Obstacle`.
        hertz: Hz of the mains.
    """

    name, says = "eeg_mains", "the mains are in the signal"

    def __init__(self, severity: float = 0.5, seed: int = 0, hertz: float = 50.0) -> None:
        super().__init__(severity, seed)
        self.hertz = float(hertz)

    def why_not(self, preparation: Preparation) -> str | None:
        if self.hertz < rate_of(preparation) / 2 and _passed(preparation, np.array([self.hertz])) > 0.01:
            return None
        return f"the road's filter takes the {self.hertz:g} Hz of the mains away"

    def artefact(self, names: list[str], samples: int, draws: np.random.Generator, preparation: Preparation) -> Floats:
        times = np.arange(samples) / rate_of(preparation)
        phase, uptake = draws.random(), dict[str, float]()
        share = at_channels(names, lambda each: uptake.setdefault(each, 0.5 + draws.random() / 2))
        passed = 0.0 if self.why_not(preparation) else _passed(preparation, np.array([self.hertz]))
        return share[:, None] * MAINS_UV * passed * np.sin(2 * np.pi * (self.hertz * times + phase))


def rate_of(preparation: Preparation) -> float:
    """Hz of what is prepared."""
    return float(getattr(preparation, "sfreq", 100.0))


def pulses(samples: int, rate: float, per_minute: float, seconds: float, draws: np.random.Generator) -> Floats:
    """(T,) raised cosines of height 1 at drawn times, at least one."""
    count = max(1, round(per_minute * samples / rate / 60))
    times = np.arange(samples) / rate
    course = np.zeros(samples)
    for middle in draws.random(count) * samples / rate:
        near = np.abs(times - middle) < seconds / 2
        course[near] = np.maximum(course[near], 0.5 + 0.5 * np.cos(2 * np.pi * (times[near] - middle) / seconds))
    return course


def nearness(name: str, places: tuple[str, ...]) -> float:
    """1 at one of some electrodes, less further away; 0 for a name that is no electrode."""
    at = scalp_positions([name, *places]).numpy()
    if not at[0].any():
        return 0.0
    nearest = float(np.linalg.norm(at[1:] - at[0], axis=1).min())
    return float(np.exp(-((nearest / _REACH) ** 2) / 2))


def at_channels(names: list[str], of: Callable[[str], float]) -> Floats:
    """(C,) what channels hold of something at the electrodes: of a derivation the difference."""
    parts = [name.split("-") for name in names]
    return np.array([of(part[0]) - (of(part[1]) if len(part) > 1 else 0.0) for part in parts], np.float64)


def filtered(course: Floats, preparation: Preparation) -> Floats:
    """(..., T) what the preparation's filter leaves of a course."""
    if not isinstance(preparation, EEGSignal):
        return course
    hertz = np.fft.rfftfreq(course.shape[-1], 1 / preparation.sfreq).astype(np.float64)
    gain = response(hertz, preparation.sfreq / 2, preparation.bandpass, preparation.notch)
    return np.fft.irfft(np.fft.rfft(course, axis=-1) * gain, n=course.shape[-1], axis=-1)


def _passed(preparation: Preparation, hertz: Floats) -> float:
    """The most that the filter lets through of some frequencies."""
    if not isinstance(preparation, EEGSignal):
        return 1.0
    return float(response(hertz, preparation.sfreq / 2, preparation.bandpass, preparation.notch).max())
