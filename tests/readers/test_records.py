"""Counts on disk become uV, whatever their type, layout or rate; a part is what the whole has at the same time."""

from pathlib import Path

import numpy as np
import pytest

from medssml.readers import read_eeg
from medssml.readers.errors import Flag
from medssml.readers.records import INT24, Records, Run, read_records
from tests.corpus.recordings import LABELS, SFREQ, brainvision, edf_plus, gdf, waves


@pytest.mark.parametrize("kind", ["<i1", "<u2", ">i2", INT24, "<i4", "<f4", "<i8", ">f8"])
def test_every_type_of_sample(tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(0)
    low = 0 if "u" in kind else -120
    counts = rng.integers(low, 120, (5, 2, 7))  # records, channels, samples
    if kind == INT24:
        counts *= 60_000
        packed = counts.astype("<i4").view("u1").reshape(5, -1, 4)[:, :, :3].tobytes()
    else:
        packed = counts.astype(kind).tobytes()
    (tmp_path / "a").write_bytes(b"head" + packed)
    size = len(packed) // 70
    runs = [Run(row * 7 * size, 7, kind, 0.5, 3.0) for row in (1, 0)]
    for piece in (1, 1 << 24):
        monkeypatch.setattr("medssml.readers.records._PIECE_BYTES", piece)
        read = read_records(Records(tmp_path / "a", 4, 5, 14 * size), runs, 6, 30)
        truth = counts.transpose(1, 0, 2).reshape(2, -1)[::-1, 6:30] * 0.5 + 3
        np.testing.assert_array_equal(read, truth.astype(np.float32))


def test_a_count_outside_the_limits_is_missing_and_so_are_all_at_them_at_once(tmp_path):
    counts = np.array([[1, 5, 9, 10, 12, 0, 3], [1, 10, 2, 10, 4, 0, 3]], "<i2")
    (tmp_path / "a").write_bytes(counts.T.tobytes())
    runs = [Run(2 * row, 1, "<i2", 1.0, bounds=(0, 10)) for row in (0, 1)]
    read = read_records(Records(tmp_path / "a", 0, 7, 4), runs, 0, 7)
    assert np.isnan(read).tolist() == [[i in (3, 4, 5) for i in range(7)], [i in (3, 5) for i in range(7)]]
    assert read[1, 1] == 10  # one channel at its limit is clipped, which is a value


RATES = (128, 64, 32)


def spikes(rates=RATES, at: float = 12.25, seconds: int = 30) -> list[np.ndarray]:
    """A spike at `at` s on a slow wave, per rate."""
    times = [np.arange(seconds * rate) / rate for rate in rates]
    return [15 * np.sin(2 * np.pi * 3 * t) + 150 * np.exp(-(((t - at) / 0.12) ** 2)) for t in times]


@pytest.mark.parametrize("start", [0.0, 8.0, 8.5, 9.5, 11.0078125])
def test_a_part_of_mixed_rates_has_every_channel_at_its_time(tmp_path, start):
    path = edf_plus(tmp_path / "a.edf", spikes(), rates=RATES, record_s=2, kind="EDF")
    part = read_eeg(path, start=start, seconds=6)
    first = round(start * 128)
    inner = slice(16, None) if start == 0 else slice(None)  # what was before the first sample, nobody knows
    for row in part.signal:
        np.testing.assert_allclose(row[inner], spikes((128,))[0][first : first + 768][inner], atol=0.5)
    assert part.sfreq == 128 and "32 to 128 Hz brought to 128 Hz" in part.notes[0]


def test_rates_without_a_whole_ratio_and_long_records(tmp_path):
    rates = (200, 128, 90)
    path = edf_plus(tmp_path / "a.edf", spikes(rates), rates=rates, record_s=15, kind="EDF")
    part = read_eeg(path, start=7.5, seconds=10)
    for row in part.signal:
        np.testing.assert_allclose(row, spikes((200,))[0][1500:3500], atol=0.5)


@pytest.mark.parametrize("maker", ["edf", "bdf", "gdf", "vhdr"])
def test_agreement_with_mne(tmp_path: Path, maker: str) -> None:
    """An independent reader of files that it reads right."""
    import mne

    signal = waves(seconds=20) + np.random.default_rng(0).normal(0, 5, (3, 2000))
    if maker in ("edf", "bdf"):
        kind = f"{maker.upper()}+C"
        events = [(3, 3.5, 2.0, "spindle"), (12, 12.25, 0, "arousal")]
        path = edf_plus(tmp_path / f"a.{maker}", signal, events=events, kind=kind)
        raw = getattr(mne.io, f"read_raw_{maker}")(path, verbose="ERROR")
    elif maker == "gdf":
        path = gdf(tmp_path / "a.gdf", signal, version="2.20", events=[(101, 769, 50), (901, 770, 1)])
        raw = mne.io.read_raw_gdf(path, verbose="ERROR")
    else:
        path = brainvision(tmp_path / "a.vhdr", signal, markers=((101, "S  1"), (1501, "S  2")))
        raw = mne.io.read_raw_brainvision(path, verbose="ERROR")
    read = read_eeg(path, start=2.5, seconds=11)
    np.testing.assert_allclose(read.signal, raw.get_data(start=250, stop=1350) * 1e6, atol=1e-4)
    assert read.sfreq == raw.info["sfreq"] == SFREQ and raw.ch_names == list(LABELS)
    ours = [(a.onset, a.duration, a.text) for a in read_eeg(path).annotations]
    theirs = [(a["onset"], a["duration"], a["description"]) for a in raw.annotations]
    assert ours == [tuple(pytest.approx(v) if isinstance(v, float) else v for v in row) for row in theirs]


@pytest.mark.parametrize("kind", ["INT_16", "INT_32", "IEEE_FLOAT_32"])
@pytest.mark.parametrize("vectorized", [False, True])
def test_byte_order_and_what_lies_around_the_samples_of_brainvision(tmp_path, kind, vectorized):
    keys = {"UseBigEndianOrder": "YES", "DataOffset": "100", "TrailerSize": "37"}
    path = brainvision(tmp_path / "a.vhdr", waves(), kind=kind, vectorized=vectorized, **keys)
    path.write_text(
        path.read_text("utf-8").replace("[Common Infos]", "[Common infos]"), "utf-8"
    )  # as NeurOne writes it
    read = read_eeg(path, start=1, seconds=2)
    np.testing.assert_allclose(read.signal, waves()[:, 100:300], atol=0.006)
    assert read.notes == ()


@pytest.mark.parametrize("version", ["1.25", "2.20"])
@pytest.mark.parametrize("declared", [-1, 0, 2])
def test_records_of_gdf_that_were_not_counted(tmp_path, version, declared):
    for events in ((), [(101, 769, 50), (301, 770, 1)]):
        path = gdf(tmp_path / "a.gdf", waves(), version=version, events=events)
        data = bytearray(path.read_bytes())
        data[236:244] = declared.to_bytes(8, "little", signed=True)
        path.write_bytes(data)
        read = read_eeg(path)
        np.testing.assert_allclose(read.signal, waves(), atol=0.006)
        assert [a.onset for a in read.annotations] == [(at - 1) / 100 for at, *_ in events]
        assert f"states {declared} records, 4 are in the file" in read.notes[0] and isinstance(read.notes[0], Flag)


def test_optional_fields_behind_the_channels_of_gdf(tmp_path):
    path = gdf(tmp_path / "a.gdf", waves(), version="2.20")
    data = bytearray(path.read_bytes())
    data[184:186] = (5).to_bytes(2, "little")
    path.write_bytes(data[:1024] + bytes(256) + data[1024:])
    np.testing.assert_allclose(read_eeg(path).signal, waves(), atol=0.006)


def test_what_a_check_needs_of_the_converter(tmp_path):
    path = edf_plus(tmp_path / "a.edf", waves() * 20, units=("uV", "mV", ""), kind="EDF")
    read = read_eeg(path)
    assert read.units == ("uV", "mV", "") and read.limits[0].tolist() == [-327.68, 327.67]
    np.testing.assert_allclose(read.limits[1], [-327_680, 327_670])
    assert (read.signal[0] >= read.limits[0, 1] - 1e-3).mean() > 0.1  # clipped, and it shows
    assert np.isnan(read_eeg(brainvision(tmp_path / "a.vhdr", waves(), kind="IEEE_FLOAT_32")).limits).all()
    np.testing.assert_allclose(read_eeg(brainvision(tmp_path / "a.vhdr", waves())).limits, [(-327.68, 327.67)] * 3)
