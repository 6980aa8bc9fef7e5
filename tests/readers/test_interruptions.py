"""What was not recorded is said, and events stand in the time of the joined signal, in every format that can state it."""

import numpy as np
import pytest

from medssml.readers import ReadError, eeg_header, read_eeg
from medssml.readers.errors import Flag
from tests.corpus.recordings import LABELS, SFREQ, brainvision, edf_plus, gdf, waves
from tests.readers.test_read_eeg import eeglab


def joined(read, at: float, lost: str = "") -> bool:
    """Whether exactly one flag tells of one interruption at `at` s."""
    said = [note for note in read.notes if "interruptions" in note]
    return (
        len(said) == 1 and isinstance(said[0], Flag) and f"joined at {at:g} s{lost}" in said[0] and read.breaks == (at,)
    )


@pytest.mark.parametrize("gap", [4, 90])
@pytest.mark.parametrize("kind", ["EDF+D", "EDF+C", "BDF+D"])
def test_events_behind_a_gap_of_edf(tmp_path, gap, kind):
    signal = waves(seconds=20)
    onsets = [5.25 + second + (gap if second >= 10 else 0) for second in range(20)]
    events = [
        (2, 7.75, 0.5, "before"),
        (13, onsets[13] + 0.5, 0, "seizure"),
        (9, 13.25, gap + 4, "over it"),
        (9, 17.0, 1, "in it"),
    ]
    path = edf_plus(tmp_path / f"a.{kind[:3].lower()}", signal, onsets=onsets, events=events, kind=kind)
    read = read_eeg(path)
    placed = {a.text: (a.onset, a.duration) for a in read.annotations}
    assert placed["before"] == (2.5, 0.5) and placed["seizure"] == (13.5, 0.0)
    assert placed["over it"] == (8.0, 4.0)
    if gap == 90:
        assert "in it" not in placed and "1 of 4 annotations lie in an interruption" in read.notes[0]
    assert joined(read, 10.0, f" ({gap} s lost)")
    np.testing.assert_allclose(read.signal, signal, atol=0.006)
    part = read_eeg(path, start=9, seconds=6)
    assert part.breaks == (1.0,) and ("seizure", 4.5) in [(a.text, a.onset) for a in part.annotations]
    assert ("interruptions" in " ".join(eeg_header(path).notes)) == (
        kind != "EDF+C"
    )  # a header that says C is believed


def test_an_edf_without_a_gap_or_with_an_event_outside(tmp_path):
    path = edf_plus(tmp_path / "a.edf", waves(), events=[(0, 1, 0, "in"), (0, -3, 0, "before"), (3, 60, 1, "after")])
    read = read_eeg(path)
    assert read.breaks == () and [a.text for a in read.annotations] == ["in"]
    (note,) = read.notes
    assert isinstance(note, Flag) and "2 of 3 annotations lie in an interruption or outside" in note


@pytest.mark.parametrize(("onsets", "event"), [([0.0] * 20, 12.5), ([1.05 * i for i in range(20)], 13.1)])
def test_a_clock_that_contradicts_a_continuous_header_throughout_tells_of_no_break(tmp_path, onsets, event):
    path = edf_plus(tmp_path / "a.edf", waves(seconds=20), onsets=onsets, events=[(12, event, 0, "x")], kind="EDF+C")
    read = read_eeg(path)
    assert read.breaks == () and [a.onset for a in read.annotations] == [pytest.approx(12.5)]
    (note,) = read.notes
    assert isinstance(note, Flag) and "records state other times than one every 1 s" in note


def test_new_segments_of_brainvision(tmp_path):
    path = brainvision(tmp_path / "a.vhdr", waves(seconds=20))
    markers = tmp_path / "a.vmrk"
    head = markers.read_text().split("Mk1=")[0]

    def written(second: str, first: str = "20200101100000000000") -> None:
        lines = f"Mk1=New Segment,,1,1,0,{first}\nMk2=Stimulus,S  1,301,1,0\nMk3=New Segment,,1001,1,0,{second}\n"
        markers.write_text(f"{head}{lines}Mk4=Stimulus,late,5001,1,0\n")

    written("20200101103000000000")
    read = read_eeg(path)
    assert joined(read, 10.0, " (1790 s lost)") and "1 of 4 annotations lie outside" in " ".join(read.notes)
    assert [a.onset for a in read.annotations] == [0.0, 3.0, 10.0]
    assert "interruptions" in " ".join(eeg_header(path).notes)
    written("00000000000000000000", "00000000000000000000")
    assert joined(read_eeg(path), 10.0)
    written("20200101100010000000")  # nothing is missing
    assert read_eeg(path).breaks == ()


def test_boundaries_of_eeglab(tmp_path):
    events = np.array(
        [("boundary", 0.5, 30.0), ("boundary", 200.5, 3000.0), ("stim", 301.0, 50.0), ("lost", np.nan, 1.0)],
        dtype=[("type", object), ("latency", object), ("duration", object)],
    )
    read = read_eeg(eeglab(tmp_path / "a.set", waves().astype(np.float32), event=events))
    assert joined(read, 2.0, " (30 s lost)") and "without a time: 1 of the events" in " ".join(read.notes)
    assert read.annotations[-1] == (3.0, 0.5, "stim")


def mne_raw(signal, date=None, skip=([], [], []), crop=None):
    import mne

    raw = mne.io.RawArray(signal * 1e-6, mne.create_info(list(LABELS), SFREQ, "eeg"), verbose="ERROR")
    if date is not None:
        raw.set_meas_date(date)
    raw.set_annotations(mne.Annotations(*skip))
    return raw if crop is None else raw.crop(crop)


@pytest.mark.parametrize("date", [None, 1e9])
def test_events_of_a_cropped_fif(tmp_path, date):
    mne_raw(waves(seconds=20), date, ([6.0], [1.0], ["spike"]), 2.5).save(tmp_path / "a_raw.fif", verbose="ERROR")
    assert read_eeg(tmp_path / "a_raw.fif").annotations == ((3.5, 1.0, "spike"),)
    assert read_eeg(tmp_path / "a_raw.fif", start=2).annotations == ((1.5, 1.0, "spike"),)


def test_samples_that_a_fif_never_recorded_are_no_eeg(tmp_path):
    signal = waves(seconds=20)
    signal[:, 600:1000] = 0
    skip = ([6.0, 8.0, 12.0], [4.0, 0.5, 1.0], ["BAD_ACQ_SKIP", "in it", "spike"])
    mne_raw(signal, skip=skip).save(tmp_path / "a_raw.fif", verbose="ERROR")
    read = read_eeg(tmp_path / "a_raw.fif")
    np.testing.assert_allclose(read.signal, np.delete(signal, slice(600, 1000), axis=1), atol=1e-3)
    assert read.annotations == ((8.0, 1.0, "spike"),) and read.breaks == (6.0,)
    (note,) = read.notes
    assert isinstance(note, Flag) and "4 s that were never recorded are left out" in note and "(6 to 10 s)" in note
    assert read_eeg(tmp_path / "a_raw.fif", start=8, seconds=4).signal.shape == (3, 200)
    with pytest.raises(ReadError, match="none of it was recorded"):
        read_eeg(tmp_path / "a_raw.fif", start=7, seconds=2)


def test_joined_fif(tmp_path):
    import mne

    parts = [mne_raw(waves(seconds=4)), mne_raw(waves(seconds=6))]
    mne.concatenate_raws(parts, verbose="ERROR").save(tmp_path / "a_raw.fif", verbose="ERROR")
    assert joined(read_eeg(tmp_path / "a_raw.fif"), 4.0)


@pytest.mark.parametrize("version", ["1.25", "2.20"])
def test_a_new_segment_and_missing_values_of_gdf(tmp_path, version):
    signal = waves(seconds=10)
    signal[:, 500:600] = -327.68  # every channel at the converter's lower limit
    events = [(101, 769, 50), (301, 0x7FFE, 0), (701, 770, 1)]
    read = read_eeg(gdf(tmp_path / "a.gdf", signal, version=version, events=events))
    np.testing.assert_allclose(read.signal, np.delete(signal, slice(500, 600), axis=1), atol=0.006)
    assert read.breaks == (3.0, 5.0) and [a.onset for a in read.annotations] == [1.0, 3.0, 6.0]
    notes = " ".join(read.notes)
    assert "joined at 3 s" in notes and "1 s in which all channels miss values are left out" in notes


def test_biosemi_says_by_bit_16_that_recording_began_again(tmp_path):
    status = np.zeros(400)
    status[[0, 250]] = 1 << 16
    status[100:120] = 7  # a trigger
    ranges = ((-327.68, 327.67), (-327.68, 327.67), (-32768, 32767))
    path = edf_plus(
        tmp_path / "a.bdf",
        [*waves(2), status * 0],
        ("Fp1", "Cz", "Status"),
        units=("uV", "uV", "Boolean"),
        ranges=ranges,
        kind="BDF",
    )
    data = bytearray(path.read_bytes())
    for record in range(4):
        for sample in range(100):
            at = 1024 + record * 900 + 600 + 3 * sample
            data[at : at + 3] = int(status[record * 100 + sample]).to_bytes(3, "little")
    path.write_bytes(data)
    assert joined(read_eeg(path), 2.5)
