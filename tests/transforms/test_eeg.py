"""EEG: units, frequencies and channel names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import edfio
import numpy as np
import pytest
import torch

from medssml.readers.channels import CHANNELS, channel_name
from medssml.readers.errors import ReadError
from medssml.transforms import EEGTransform
from medssml.transforms.eeg import STEP_UV, filter_resample, rate_ratio, reference, response


def sine(hertz: float, sfreq: float, seconds: float, uv: float = 50.0) -> np.ndarray:
    return uv * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sfreq)) / sfreq)


def edf(path: Path, signals: dict[str, np.ndarray], sfreq: float, unit: str = "uV") -> Path:
    scale = {"uV": 1.0, "mV": 1e-3}[unit]
    edfio.Edf([edfio.EdfSignal(v * scale, sfreq, label=k, physical_dimension=unit) for k, v in signals.items()]).write(
        path
    )
    return path


@pytest.mark.parametrize("sfreq", [128, 200, 250, 256, 500])
def test_a_rhythm_keeps_its_frequency_amplitude_and_phase(sfreq: float) -> None:
    signal = sine(10, sfreq, 20)[None].astype(np.float32)
    out = filter_resample(signal, sfreq, 100, (0.5, 45), None)
    assert out.shape == (1, 2000)
    np.testing.assert_allclose(out[0, 200:-200], sine(10, 100, 20)[200:-200], atol=0.5)


def test_what_is_outside_the_band_is_gone() -> None:
    for hertz, gain in ((0.2, 0), (1.0, 1), (30, 1), (44, 1), (50, 0), (70, 0), (110, 0)):
        mains = 50 if hertz == 50 else None
        out = filter_resample(sine(hertz, 250, 60)[None].astype(np.float32), 250, 100, (0.5, 45), mains)
        assert np.sqrt(2) * out[0, 1000:-1000].std() == pytest.approx(50 * gain, abs=1.5), hertz


def test_agreement_with_mne() -> None:
    """An independent chain: MNE's FIR band-pass and polyphase resampling."""
    import mne

    rng = np.random.default_rng(0)
    noise = 10 * np.cumsum(rng.standard_normal((3, 250 * 60)), axis=1)
    noise[:, 5:] -= noise[:, :-5].copy()  # slow drifts are cut differently by the two, and dominate a random walk
    info = mne.create_info(["a", "b", "c"], 250, "eeg")
    raw = (
        mne.io.RawArray(noise * 1e-6, info, verbose="ERROR")
        .filter(0.5, 45, verbose="ERROR")
        .resample(100, verbose="ERROR")
    )
    ours = filter_resample(noise.astype(np.float32), 250, 100, (0.5, 45), None)
    for mine, theirs in zip(ours, raw.get_data() * 1e6, strict=True):
        assert np.corrcoef(mine[500:-500], theirs[500:-500])[0, 1] > 0.99


def test_raising_the_rate_and_odd_rates() -> None:
    low = filter_resample(sine(8, 64, 30)[None].astype(np.float32), 64, 100, (0.5, 30), None)
    np.testing.assert_allclose(low[0, 300:-300], sine(8, 100, 30)[300:-300], atol=0.5)
    odd = filter_resample(sine(8, 199.8, 30)[None].astype(np.float32), 199.8, 100, None, None)
    assert abs(odd.shape[1] - 3000) <= 1
    np.testing.assert_allclose(odd[0, 300:2600], sine(8, 100, 30)[300:2600], atol=1.5)


@pytest.mark.parametrize("sfreq", [200.05, 999.4121105232217, 256.016, 128.0005, 4096.0, 16384.0])
def test_a_measured_rate_keeps_its_time_axis(sfreq: float) -> None:
    """A phase that drifts is a ratio of rates that was rounded: 0.2 ms at 7 Hz are 0.009 of a radian."""
    seconds = 90
    out = filter_resample(sine(7, sfreq, seconds)[None].astype(np.float32), sfreq, 100, (0.5, 45), None)[0]
    for middle in (5, 45, 85):
        k = np.arange(middle * 100 - 200, middle * 100 + 200)
        phase = np.angle(np.sum(out[k] * np.exp(-2j * np.pi * 7 * k / 100))) + np.pi / 2
        assert abs(phase) < 2 * np.pi * 7 * 2e-4, middle
    exact = Fraction(100) / Fraction(sfreq)
    assert abs(rate_ratio(sfreq, 100, 10**6) - exact) * 10**6 <= Fraction(1, 1000)


def test_no_filter_runs_over_a_break() -> None:
    """Each part comes out as it does alone, and 150 uV between them leave no trace."""
    wave = sine(7, 128, 16)[None].astype(np.float32)
    stepped = wave.copy()
    stepped[:, 1000:] += 150
    cut = 1000 / 128
    out = filter_resample(stepped, 128, 100, (0.5, 45), None, breaks=(0.0, cut, 16.0))
    assert out.shape == filter_resample(stepped, 128, 100, (0.5, 45), None).shape == (1, 1600)
    alone = filter_resample(stepped[:, :1000], 128, 100, (0.5, 45), None)
    np.testing.assert_array_equal(out[:, : alone.shape[1]], alone)
    assert np.abs(out[0]).max() < 56 < np.abs(filter_resample(stepped, 128, 100, (0.5, 45), None)).max()


def test_a_mean_is_taken_over_scalp_electrodes_of_one_reference() -> None:
    rng = np.random.default_rng(0)
    brain, common = rng.normal(0, 8, (3, 500)).astype(np.float32), rng.normal(0, 50, 500).astype(np.float32)
    names = ("F3", "C4", "A1")
    out = reference(brain - common, names, ("LE", "LE", "LE"))
    np.testing.assert_allclose(out, brain - brain[:2].mean(axis=0), atol=1e-4)  # the ear has no part in the mean
    assert np.array_equal(reference(brain, names, ("A2", "A1", "A2")), brain)
    assert np.array_equal(reference(brain, ("F3", "A1", "A2")), brain)


def test_the_gain_is_1_in_the_band_and_0_at_the_mains() -> None:
    hertz = np.array([0.0, 0.2, 0.5, 10, 45, 50, 57, 60])
    np.testing.assert_allclose(
        response(hertz, 60, (0.5, 45), None)[[0, 1, 2, 3, 4, 6, 7]], [0, 0, 1, 1, 1, 0, 0], atol=1e-6
    )
    assert response(np.array([49.5, 50, 100.4, 52]), 125, (0.5, 110), 50).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("unit", ["uV", "mV"])
def test_a_recording_leaves_in_units_of_100_uv_under_its_names(tmp_path: Path, unit: str) -> None:
    """The average of +-50 uV sines is 0: the reference changes nothing."""
    wave = sine(10, 200, 30)
    path = edf(tmp_path / "a.edf", {"EEG O2-REF": -wave, "EEG Fp1-REF": wave, "ECG": 40 * wave}, 200, unit)
    transform = EEGTransform()
    prepared = transform.prepare(path)
    assert prepared["signal"].dtype == np.int16 and prepared["signal"].shape == (2, 3000)
    out = transform(prepared)
    assert [CHANNELS[i] for i in out["channels"]] == ["Fp1", "O2"] and out["length"] == 3000
    assert all(type(value) is torch.Tensor for value in out.values())
    np.testing.assert_allclose(out["signal"][0, 500:-500], sine(10, 100, 30)[500:-500] / 100, atol=0.01)
    np.testing.assert_allclose(out["signal"][1], -out["signal"][0], atol=2 * STEP_UV / 100)


def test_the_average_reference_takes_away_what_all_share(tmp_path: Path) -> None:
    shared, own = sine(6, 200, 20, 80), sine(11, 200, 20, 30)
    path = edf(tmp_path / "a.edf", {"Cz": shared + own, "Pz": shared - own}, 200)
    with_reference = EEGTransform().prepare(path)["signal"] * STEP_UV
    np.testing.assert_allclose(with_reference[0, 300:-300], sine(11, 100, 20, 30)[300:-300], atol=0.6)
    without = EEGTransform(average_reference=False).prepare(path)["signal"] * STEP_UV
    assert without.max() > 90


def test_a_bipolar_recording_keeps_what_its_channels_share(tmp_path: Path) -> None:
    """No reference is in a difference: an average over derivations would only mix them."""
    shared, own = sine(6, 200, 20, 80), sine(11, 200, 20, 30)
    path = edf(tmp_path / "a.edf", {"EEG Pz-Oz": shared - own, "EEG Fpz-Cz": shared + own}, 200)
    prepared = EEGTransform().prepare(path)
    assert [channel_name(number) for number in prepared["channels"]] == ["Fpz-Cz", "Pz-Oz"]
    truth = sine(6, 100, 20, 80) + np.array([[1], [-1]]) * sine(11, 100, 20, 30)
    np.testing.assert_allclose(prepared["signal"][:, 300:-300] * STEP_UV, truth[:, 300:-300], atol=0.6)
    other = EEGTransform(average_reference=False).prepare(path)
    assert np.array_equal(other["signal"], prepared["signal"])
    out = EEGTransform()(prepared)
    assert out["channels"].tolist() == prepared["channels"].tolist() and out["channels"].dtype == torch.int64


def test_both_kinds_of_recordings_make_one_batch(tmp_path: Path) -> None:
    """In a batch and in the encoder a study's channels are its own: each gives what it gives alone."""
    from medssml.data.collate import collate
    from medssml.encoders import EEGTransformer

    wave = sine(10, 200, 20)
    paths = (
        edf(tmp_path / "a.edf", {"FP1-F7": wave, "F7-T7": -2 * wave, "CZ-PZ": wave / 2}, 200),
        edf(tmp_path / "b.edf", {"EEG O2-REF": -wave, "EEG Fp1-REF": wave}, 200),
    )
    transform = EEGTransform()
    items = [transform(transform.prepare(path)) for path in paths]
    torch.manual_seed(0)
    encoder = EEGTransformer(24, 1, 3, 100, 100.0).eval()
    one = {"study_id": "a", "subject": 0, "key": 0, "content": {}, "targets": {}}
    together = encoder(collate([{**one, "eeg": item} for item in items], ["eeg"], []).inputs["eeg"]).pooled
    alone = [encoder({name: value.unsqueeze(0) for name, value in item.items()}).pooled[0] for item in items]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5) and not torch.allclose(alone[0], alone[1], atol=0.1)


def test_the_middle_of_a_long_recording_and_a_short_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = edf(
        tmp_path / "a.edf", {"Cz": 20 * rng.standard_normal(200 * 40), "Pz": 20 * rng.standard_normal(200 * 40)}, 200
    )
    transform = EEGTransform(max_s=10, window_s=4, eval_window_s=6)
    prepared = transform.prepare(path)
    assert prepared["signal"].shape == (2, 1000) and b"middle 10 s" in bytes(prepared["notes"])
    assert transform(prepared)["signal"].shape[1] == 600
    assert transform(prepared, 0)["signal"].shape[1] == 400
    assert EEGTransform(window_s=60)(prepared, 0)["length"] == 1000
    samples = edfio.EdfSignal(20 * rng.standard_normal(200), 1000, label="Cz", physical_dimension="uV")
    edfio.Edf([samples], data_record_duration=0.2).write(tmp_path / "b.edf")
    with pytest.raises(ReadError, match="0.20 s"):
        EEGTransform().prepare(tmp_path / "b.edf")


def test_augmentation_is_keyed_and_a_dropped_channel_is_absent() -> None:
    rng = np.random.default_rng(0)
    prepared = {"signal": rng.integers(-900, 900, (19, 6000)).astype(np.int16), "channels": np.arange(1, 20)}
    transform = EEGTransform(channel_dropout=0.3)
    one, same, other = (transform(prepared, seed) for seed in (1, 1, 2))
    assert torch.equal(one["signal"], same["signal"]) and not torch.equal(
        one["signal"], other["signal"][: len(one["signal"])]
    )
    counts = [len(transform(prepared, seed)["channels"]) for seed in range(40)]
    assert 11 < np.mean(counts) < 15.5 and min(counts) >= 1
    assert len(EEGTransform(max_channels=8)(prepared)["channels"]) == 8
    assert len(EEGTransform(max_channels=8, channel_dropout=0)(prepared, 0)["channels"]) == 8
    assert float(EEGTransform(clip_uv=30)(prepared)["signal"].abs().max()) == pytest.approx(0.3)


def test_settings() -> None:
    assert EEGTransform().spec() == EEGTransform(window_s=4, noise_uv=0).spec() != EEGTransform(notch=50).spec()
    for wrong in ({"bandpass": (0.5, 80)}, {"channel_dropout": 1.0}, {"window_s": 0}, {"max_channels": 0}):
        with pytest.raises(ValueError):
            EEGTransform(**wrong)
