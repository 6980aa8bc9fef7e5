"""Hand-made features measure what they are named after, and the baseline learns without looking at the test rows."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.evaluation.classical import (
    BANDS,
    CHANNELS_10_20,
    ClassicalBaseline,
    ct_features,
    eeg_features,
    xray_features,
)


def _sphere(diameter_mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    shape = [int(40 / s) for s in spacing]
    axes = [(np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return np.where(x**2 + y**2 + z**2 <= (diameter_mm / 2) ** 2, 40, -850).astype(np.int16)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0)])
def test_ct_features_hold_the_diameter_in_mm_whatever_the_spacing(spacing: tuple[float, float, float]) -> None:
    diameter = ct_features(_sphere(16.0, spacing), spacing)[17]
    assert diameter == pytest.approx(16.0, abs=1.0)


def test_ct_features_of_air_are_finite() -> None:
    assert np.isfinite(ct_features(np.full((8, 8, 8), -1000), (1, 1, 1))).all()


def test_eeg_features_average_over_one_reference_alone() -> None:
    """An ECG of opposite sign at the two ears would enter every channel by an average over both groups."""
    t = np.arange(2000) / 100
    brain, ecg = np.random.default_rng(0).normal(0, 8, (2, 2000)), 60.0 * (np.mod(t, 0.8) < 0.05)
    against = brain + np.stack([ecg, -ecg])
    separate = eeg_features(against, 100, ("F3", "F4"), ("A2", "A1"))
    np.testing.assert_allclose(
        separate.sum(), sum(eeg_features(against[[i]], 100, (("F3", "F4")[i],)).sum() for i in (0, 1))
    )
    assert not np.allclose(separate, eeg_features(against, 100, ("F3", "F4"), ("LE", "LE")))


def test_eeg_features_find_a_ten_hertz_rhythm_where_it_is() -> None:
    sfreq, t = 100.0, np.arange(2000) / 100.0
    signal = np.random.default_rng(0).normal(0, 1, (3, len(t)))
    signal[1] += 30 * np.sin(2 * np.pi * 10.5 * t)
    power = eeg_features(signal, sfreq, ("Fp1", "O1", "Cz")).reshape(len(CHANNELS_10_20), len(BANDS))
    assert np.unravel_index(power.argmax(), power.shape) == (CHANNELS_10_20.index("O1"), BANDS.index((10, 13)))
    assert not power[CHANNELS_10_20.index("T8")].any()


def test_xray_features_have_one_length_for_any_size() -> None:
    rng = np.random.default_rng(0)
    assert xray_features(rng.random((300, 200))).shape == xray_features(rng.random((128, 512))).shape


def test_baseline_learns_from_vectors_and_text_and_ignores_unknown_words() -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0.0, 1.0], 40)
    vectors = [np.array([v + rng.normal(0, 2), rng.normal()]) for v in y]
    texts = ["large effusion seen" if v else "no effusion seen" for v in y]
    subjects = [str(i // 2) for i in range(80)]
    model = ClassicalBaseline().fit({"ct": vectors, "report": texts}, y, subjects)
    probability = model.predict({"ct": [np.zeros(2), np.ones(2)], "report": ["no effusion", "large zebra"]})
    assert probability[0] < 0.4 < 0.6 < probability[1]
