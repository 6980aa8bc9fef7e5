"""EEG: what was written comes back in uV under its 10-10 name; what cannot be right is corrected, noted or refused."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from edfio import Bdf, BdfSignal, Edf, EdfAnnotation, EdfSignal

from medssml.readers import CHANNELS, ReadError, eeg_header, read_eeg
from medssml.readers.channels import canonical_channel, canonical_derivation, channel_name, channel_number
from medssml.readers.errors import Flag

SFREQ = 100


def waves(channels: int = 3, seconds: int = 4, amplitude: float = 30.0) -> np.ndarray:
    """(C, T) uV: a sine of its own frequency per channel."""
    t = np.arange(seconds * SFREQ) / SFREQ
    return np.stack([amplitude * np.sin(2 * np.pi * (5 + c) * t + c) for c in range(channels)])


def edf(path: Path, signal: np.ndarray, labels=("EEG FP1-REF", "Fc5.", "EEG T3"), unit="uV", sfreq=SFREQ, **kwargs):
    width = float(np.abs(signal[np.isfinite(signal)]).max() or 1)
    signals = [
        EdfSignal(row, sfreq, label=label, physical_dimension=unit, physical_range=(-width, width))
        for row, label in zip(signal, labels, strict=True)
    ]
    Edf(signals, **kwargs).write(path)
    return path


def set_field(path: Path, offset: int, text: str, width: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + width] = text.ljust(width).encode()
    path.write_bytes(data)


def test_edf_round_trip(tmp_path):
    path = edf(tmp_path / "a.edf", waves(), annotations=[EdfAnnotation(1.0, 0.5, "eyes closed")])
    read = read_eeg(path)
    assert read.channels == ("Fp1", "FC5", "T7") and read.sfreq == SFREQ and read.notes == ()
    assert read.signal.dtype == np.float32
    np.testing.assert_allclose(read.signal, waves(), atol=30 / 2**15 * 2)
    assert read.annotations == ((1.0, 0.5, "eyes closed"),)
    header = eeg_header(path)
    assert header == (read.channels, SFREQ, 4.0, ())


def test_bdf_round_trip(tmp_path):
    labels = ("Cz", "Status")
    signals = [BdfSignal(row, SFREQ, label=labels[i], physical_dimension="uV") for i, row in enumerate(waves(2))]
    Bdf(signals).write(tmp_path / "a.bdf")
    read = read_eeg(tmp_path / "a.bdf")
    assert read.channels == ("Cz",) and "Status" in read.notes[0]
    np.testing.assert_allclose(read.signal, waves(1), atol=1e-3)
    assert eeg_header(tmp_path / "a.bdf").channels == ("Cz",)


def mne_raw(names, types, signal):
    import mne

    info = mne.create_info(names, SFREQ, types)
    return mne.io.RawArray(signal * 1e-6, info, verbose="ERROR")


def test_fif_round_trip(tmp_path):
    raw = mne_raw(["EEG FP1-REF", "Cz", "HEO"], ["eeg", "eeg", "eog"], waves())
    raw.save(tmp_path / "a_raw.fif", verbose="ERROR")
    read = read_eeg(tmp_path / "a_raw.fif")
    assert read.channels == ("Fp1", "Cz")
    np.testing.assert_allclose(read.signal, waves()[:2], rtol=1e-5, atol=1e-4)
    assert eeg_header(tmp_path / "a_raw.fif")[:3] == (("Fp1", "Cz"), SFREQ, 4.0)


def test_a_fif_whose_tags_run_in_a_circle_or_end_early_is_refused(tmp_path):
    mne_raw(["Fp1", "Cz"], "eeg", waves(2)).save(tmp_path / "a_raw.fif", verbose="ERROR")
    data = bytearray((tmp_path / "a_raw.fif").read_bytes())
    (tmp_path / "cut_raw.fif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ReadError, match="is truncated"):
        eeg_header(tmp_path / "cut_raw.fif")
    second = 16 + int.from_bytes(data[8:12], "big")
    third = second + 16 + int.from_bytes(data[second + 8 : second + 12], "big")
    data[third + 12 : third + 16] = second.to_bytes(4, "big")
    (tmp_path / "circle_raw.fif").write_bytes(data)
    with pytest.raises(ReadError, match="points back to byte"):
        read_eeg(tmp_path / "circle_raw.fif")
    (tmp_path / "b_raw.fif.gz").write_bytes(gzip.compress((tmp_path / "a_raw.fif").read_bytes()))
    np.testing.assert_array_equal(read_eeg(tmp_path / "b_raw.fif.gz").signal, read_eeg(tmp_path / "a_raw.fif").signal)


def eeglab(path: Path, data, **changes) -> Path:
    """A .set of three channels and 400 samples; `changes` are fields of EEG."""
    from scipy.io import savemat

    fields = {"setname": "a", "nbchan": 3.0, "pnts": 400.0, "trials": 1.0, "srate": 100.0, "xmin": 0.0, "xmax": 3.99}
    locations = np.array([(name,) for name in ("Fp1", "Cz", "T3")], dtype=[("labels", object)])
    rest = {"data": data, "chanlocs": locations, "event": [], "icawinv": [], "icaweights": []}
    savemat(path, {"EEG": fields | rest | changes})
    return path


def test_set_round_trip(tmp_path):
    read = read_eeg(eeglab(tmp_path / "a.set", waves().astype(np.float32)))
    assert read.channels == ("Fp1", "Cz", "T7")
    np.testing.assert_allclose(read.signal, waves(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"trials": 4.0, "pnts": 100.0},
            "holds 4 epochs of 1.0 s, no continuous recording; fix: save the continuous data",
        ),
        ({"chanlocs": []}, r"names 0 channels \(EEG.chanlocs\) of 3; fix: add the channels' names"),
        ({"srate": []}, "has no number in EEG.srate"),
        (
            {"nbchan": 2.0, "chanlocs": np.array([("Cz",), ("Pz",)], [("labels", object)])},
            "holds 3 x 400 samples, 2 x 400",
        ),
    ],
)
def test_a_set_that_is_no_recording_says_what_it_is(tmp_path, changes, message):
    path = eeglab(tmp_path / "a.set", waves().astype(np.float32), **changes)
    for read in (read_eeg, eeg_header):
        with pytest.raises(ReadError, match=message):
            read(path)
    with pytest.raises(ReadError, match="keeps its samples in a .dat"):
        read_eeg(eeglab(path, "a.dat"))


def test_a_set_with_odd_fields_and_one_with_its_samples_beside_it(tmp_path):
    inside = read_eeg(eeglab(tmp_path / "a.set", waves().astype(np.float32), chaninfo=np.array([]), ref="common"))
    waves().astype("<f4").T.tofile(tmp_path / "b.fdt")
    beside = read_eeg(eeglab(tmp_path / "b.set", "b.fdt"), start=1, seconds=2)
    np.testing.assert_array_equal(beside.signal, inside.signal[:, 100:300])
    renamed = read_eeg(eeglab(tmp_path / "b.set", "old name.fdt"))
    np.testing.assert_array_equal(renamed.signal, inside.signal)
    assert inside.notes == beside.notes == () and "b.fdt taken" in renamed.notes[0]
    for name, data in (("a.set", waves()), ("b.set", "b.fdt")):  # a count that is too low costs nothing
        more = read_eeg(eeglab(tmp_path / name, data, pnts=300.0))
        assert more.signal.shape == (3, 400) and "states 300 samples, 400 are there" in more.notes[0]
    unnamed = np.array([("Fp1",), ([],), ("T3",)], [("labels", object)])
    assert read_eeg(eeglab(tmp_path / "a.set", waves(), chanlocs=unnamed)).left_out[0][0] == "without a name (2)"
    eeglab(tmp_path / "b.set", "b.fdt")
    (tmp_path / "b.fdt").write_bytes((tmp_path / "b.fdt").read_bytes()[:-4])
    with pytest.raises(ReadError, match=r"b\.fdt: is truncated: 4,796 bytes, 4,800 expected"):
        read_eeg(tmp_path / "b.set")


def test_a_fif_that_is_no_recording_says_what_it_is(tmp_path):
    import mne

    raw = mne_raw(["Fp1", "Cz", "Oz"], "eeg", waves())
    epochs = mne.make_fixed_length_epochs(raw, 2.0, preload=True, verbose="ERROR")
    epochs.save(tmp_path / "a-epo.fif", verbose="ERROR")
    epochs.average().save(tmp_path / "a-ave.fif", verbose="ERROR")
    for name, what in (("a-epo.fif", "epochs"), ("a-ave.fif", "averages")):
        with pytest.raises(ReadError, match=f"holds {what}, no continuous recording; fix: save the raw recording"):
            eeg_header(tmp_path / name)


def test_what_mne_warns_of_is_a_flag_if_it_is_a_loss_and_never_on_the_console(tmp_path, capsys):
    import mne

    from medssml.readers.fif import heard

    notes: list[str] = []
    with heard(notes):
        mne.utils.warn("Omitted 2 annotation(s) that were outside the data range.")
        mne.utils.warn("This filename does not conform to MNE naming conventions.")
    assert len(notes) == 1 and isinstance(notes[0], Flag) and "Omitted 2" in notes[0]
    mne_raw(["Fp1", "Cz", "Oz"], "eeg", waves()).save(tmp_path / "odd.fif", overwrite=True, verbose="ERROR")
    assert read_eeg(tmp_path / "odd.fif").notes == ()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


def test_a_set_whose_samples_lie_elsewhere_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    waves().astype("<f4").T.tofile(tmp_path / "outside.fdt")
    for name in ("../outside.fdt", str(tmp_path / "outside.fdt")):
        with pytest.raises(ReadError, match="outside its folder"):
            read_eeg(eeglab(tmp_path / "in" / "a.set", name))


def test_a_set_with_a_broken_structure_is_refused_before_it_is_decoded(tmp_path):
    # SciPy's decoder ends the interpreter on some of these
    source = eeglab(tmp_path / "a.set", waves()[:, :400]).read_bytes()
    rng = np.random.default_rng(0)
    for number in range(300):
        data = bytearray(source)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(128, 2500)] = rng.integers(0, 256)
        (tmp_path / "m.set").write_bytes(data[: -number or None])
        try:
            read_eeg(tmp_path / "m.set")
        except ReadError:
            pass
    (tmp_path / "b.set").write_bytes(source[:5000])
    with pytest.raises(ReadError, match="broken structure: is truncated"):
        read_eeg(tmp_path / "b.set")
    (tmp_path / "c.set").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(ReadError, match="MATLAB 7.3"):
        eeg_header(tmp_path / "c.set")


def test_a_compressed_set_reads_and_one_that_inflates_without_end_does_not(tmp_path):
    import zlib

    from scipy.io import loadmat, savemat

    savemat(tmp_path / "c.set", {"EEG": loadmat(eeglab(tmp_path / "a.set", waves()))["EEG"]}, do_compression=True)
    np.testing.assert_allclose(read_eeg(tmp_path / "c.set").signal, waves(), rtol=1e-5, atol=1e-4)
    bomb = zlib.compress(bytes(200 << 20), 9)
    header = (tmp_path / "a.set").read_bytes()[:128]
    (tmp_path / "b.set").write_bytes(header + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb)
    with pytest.raises(ReadError, match="inflates to over"):
        read_eeg(tmp_path / "b.set")


def test_a_part_of_a_recording(tmp_path):
    path = edf(tmp_path / "a.edf", waves(seconds=20), annotations=[EdfAnnotation(6.5, None, "spike")])
    part = read_eeg(path, start=5, seconds=3)
    np.testing.assert_array_equal(part.signal, read_eeg(path).signal[:, 500:800])
    assert part.annotations == ((1.5, 0.0, "spike"),)
    with pytest.raises(ReadError, match="has 20.0 s, nothing from 30 s on"):
        read_eeg(path, start=30)


def test_pieces_join_without_a_seam(tmp_path, monkeypatch):
    path = edf(tmp_path / "a.edf", waves(seconds=20))
    whole = read_eeg(path).signal
    monkeypatch.setattr("medssml.readers.records._PIECE_BYTES", 2000)
    np.testing.assert_array_equal(read_eeg(path).signal, whole)


def test_channels_that_are_no_electrode_flat_nan_or_twice_are_left_out(tmp_path):
    labels = ["EEG Fp1", "EEG A2-A1", "ECG ECG", "O1", "FP1", "Oz"]
    signal = waves(6)
    signal[3] = 0
    read = read_eeg(edf(tmp_path / "a.edf", signal, labels))
    assert read.channels == ("Fp1", "Oz")
    np.testing.assert_allclose(read.signal, signal[[0, 5]], atol=2e-3)
    notes = " | ".join(read.notes)
    for part in ("no scalp electrode: EEG A2-A1, ECG ECG", "recorded twice: FP1", "flat: O1"):
        assert part in notes

    raw = mne_raw(["Fp1", "Cz", "Oz"], "eeg", waves() * np.array([[1], [np.nan], [1]]))
    raw.save(tmp_path / "b_raw.fif", verbose="ERROR")
    read = read_eeg(tmp_path / "b_raw.fif")
    assert read.channels == ("Fp1", "Oz") and "NaN or infinite values: Cz" in read.notes[0]


@pytest.mark.parametrize(
    ("unit", "factor", "note"),
    [
        ("mV", 1e-3, ""),
        ("V", 1e-6, ""),
        ("nV", 1e3, ""),
        ("", 1, "state no voltage unit"),
        ("", 1e-3, "state no voltage unit.*multiplied by 1000, it is 21.2 uV"),
        ("", 1e3, "state no voltage unit.*multiplied by 0.001"),
        ("V", 1, "2.12e\\+07 uV in the stated unit cannot be right: multiplied by 1e-06"),  # 30 V are on no head
        ("mVolt", 1e-3, ""),
        ("uVolts", 1, ""),
    ],
)
def test_units_and_mis_declared_units(tmp_path, unit, factor, note):
    path = edf(tmp_path / "a.edf", waves() * factor, unit=unit)
    read = read_eeg(path)
    np.testing.assert_allclose(read.signal, waves(), atol=0.05)
    assert re.search(note, " ".join(read.notes)) and bool(read.notes) == bool(note)
    assert all(isinstance(note, Flag) for note in read.notes) and read.units == (unit,) * 3
    np.testing.assert_allclose(read.limits[0], (-30, 30), rtol=1e-2)


@pytest.mark.parametrize(("unit", "factor", "what"), [("uV", 1e-3, "less than 0.15"), ("mV", 1, "more than 2000")])
def test_a_stated_unit_is_believed_and_flagged(tmp_path, unit, factor, what):
    read = read_eeg(edf(tmp_path / "a.edf", waves() * factor, unit=unit))
    np.testing.assert_allclose(read.signal, waves() * factor * (1000 if unit == "mV" else 1), rtol=1e-3, atol=factor)
    (note,) = read.notes
    assert (
        isinstance(note, Flag) and f"3 of 3 channels spread {what} uV" in note and "at least 100% of the time" in note
    )


def test_a_silent_or_drifting_eeg_is_not_rescaled(tmp_path):
    rng = np.random.default_rng(0)
    silent = rng.normal(0, 0.4, (3, 400))
    assert read_eeg(edf(tmp_path / "a.edf", silent)).notes == ()
    drifting = waves(seconds=60) + np.linspace(0, 30_000, 6000)
    assert read_eeg(edf(tmp_path / "b.edf", drifting)).notes == ()


def test_mixed_rates_are_brought_to_the_highest(tmp_path):
    t = np.arange(200) / 50
    slow = EdfSignal(30 * np.sin(2 * np.pi * 2 * t), 50, label="Cz", physical_dimension="uV")
    fast = EdfSignal(waves(1)[0], SFREQ, label="Pz", physical_dimension="uV")
    Edf([slow, fast]).write(tmp_path / "a.edf")
    read = read_eeg(tmp_path / "a.edf")
    assert read.sfreq == SFREQ and read.signal.shape == (2, 400)
    assert "50 to 100 Hz brought to 100 Hz" in read.notes[0]
    truth = 30 * np.sin(2 * np.pi * 2 * np.arange(400) / 100)
    assert np.corrcoef(read.signal[0], truth)[0, 1] > 0.99


def test_truncated_edf_is_found_from_the_header_with_its_figures(tmp_path):
    path = edf(tmp_path / "a.edf", waves(seconds=10))
    data = path.read_bytes()
    (tmp_path / "b.edf").write_bytes(data[:-1500])
    for read in (read_eeg, eeg_header):
        with pytest.raises(ReadError, match=r"b\.edf: is truncated: 7 of 10 records") as caught:
            read(tmp_path / "b.edf")
        assert "fix:" in str(caught.value)
    for keep in (0, 5, 100, 256, 700):
        (tmp_path / "c.edf").write_bytes(data[:keep])
        with pytest.raises(ReadError):
            eeg_header(tmp_path / "c.edf")


def test_unknown_number_of_records_and_trailing_bytes(tmp_path):
    path = edf(tmp_path / "a.edf", waves(seconds=10))
    set_field(path, 236, "-1", 8)
    assert "10 found" in eeg_header(path).notes[0]
    set_field(path, 236, "8", 8)
    for declared in ("8", "0"):
        set_field(path, 236, declared, 8)
        (note,) = eeg_header(path).notes
        assert (
            isinstance(note, Flag) and f"states {declared} records, 10 are in the file" in note and "10 s read" in note
        )
        assert read_eeg(path).signal.shape == (3, 1000)
    path.write_bytes(path.read_bytes() + bytes(1000))  # one record of zeros and a rest are no data
    set_field(path, 236, "10", 8)
    assert "1000 bytes after the last record ignored" in eeg_header(path).notes[0]
    assert read_eeg(path).signal.shape == (3, 1000)


@pytest.mark.parametrize(
    ("offset", "text", "width", "message"),
    [
        (236, "99999999", 8, "truncated"),
        (244, "0", 8, "records of 0 s"),
        (252, "9999", 4, "declares 9999 signals"),
        (252, "abc", 4, "expected a number"),
        (184, "512", 8, "declares 512 header bytes"),
        (0, "garbage", 8, r"not EDF|cannot be decoded"),
    ],
)
def test_faulty_headers(tmp_path, offset, text, width, message):
    path = edf(tmp_path / "a.edf", waves())
    set_field(path, offset, text, width)
    for read in (read_eeg, eeg_header):
        with pytest.raises(ReadError, match=message):
            read(path)


def test_nothing_usable(tmp_path):
    with pytest.raises(ReadError, match="no scalp electrode"):
        read_eeg(edf(tmp_path / "b.edf", waves(2), ["ECG", "Resp"]))
    with pytest.raises(ReadError, match="3 channels are flat"):
        read_eeg(edf(tmp_path / "c.edf", waves() * 0))
    (tmp_path / "d.csv").write_text("1,2,3")
    with pytest.raises(ReadError, match="is not EDF, BDF, GDF, FIF, SET or BrainVision"):
        read_eeg(tmp_path / "d.csv")
    for name in ("e.fif", "e.set"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 10)
        with pytest.raises(ReadError):
            read_eeg(tmp_path / name)


def test_mutated_recordings_raise_read_errors_alone(tmp_path):
    rng = np.random.default_rng(0)
    source = edf(tmp_path / "a.edf", waves()).read_bytes()
    refused = 0
    for _ in range(60):
        data = bytearray(source)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(0, 1024)] = rng.integers(32, 127)
        (tmp_path / "m.edf").write_bytes(data)
        try:
            read_eeg(tmp_path / "m.edf")
        except ReadError as error:
            refused += 1
            assert error.fix, error
    assert 0 < refused < 60  # the mutations are neither idle nor all fatal


def test_channels_are_the_10_10_system():
    import mne

    known: set[str] = set()
    for name in mne.channels.get_builtin_montages():
        if name.endswith(("1020", "1005")):
            known |= set(mne.channels.make_standard_montage(name).ch_names)
    assert CHANNELS[0] == "" and len(set(CHANNELS)) == len(CHANNELS)
    assert set(CHANNELS[1:]) <= known | {"Nz"}
    system_10_10 = {name for name in known if not name.endswith("h") and len(name) < 5}
    assert {"Fp1", "AFz", "FC5", "T7", "CP6", "PO8", "Iz"} <= system_10_10 & set(CHANNELS)


@pytest.mark.parametrize(
    ("label", "name"),
    {
        "EEG FP1-REF": "Fp1", "EEG FP1-LE": "Fp1", "Fc5.": "FC5", "EEG Fp1": "Fp1", "T3": "T7", "EEG T6-REF": "P8",
        "Cz..": "Cz", "C3-M2": "C3", "FCZ": "FCz", "EEG A1-REF": "A1", "EEG A2-A1": None, "EEG Fpz-Cz": None,
        "ECG ECG": None, "X": None, "nd": None, "Status": None, "EMG-REF": None, "P3 ": "P3", "T8-P8": None,
    }.items(),
)  # fmt: skip
def test_canonical_names(label, name):
    assert canonical_channel(label) == name


@pytest.mark.parametrize(
    ("label", "name"),
    {
        "FP1-F7": "Fp1-F7", "EEG Fpz-Cz": "Fpz-Cz", "EEG Pz-Oz": "Pz-Oz", "T8-P8-0": "T8-P8", "T8-P8-1": "T8-P8",
        "T4-T6": "T8-P8", "FT9-FT10": "FT9-FT10", "A1-T3": "A1-T7", "fp1 - f7": "Fp1-F7",
        "EEG FP1-REF": None, "EEG FP1-LE": None, "C3-M2": None, "T4-A2": None, "F7-CS2": None, "FC1-Ref": None,
        "A2-A1": None, "T8-T8": None, "LOC-ROC": None, "EKG1-CHIN": None, "Fp1": None, "ECG": None, "-": None,
    }.items(),
)  # fmt: skip
def test_derivations(label, name):
    assert canonical_derivation(label) == name


def test_a_label_is_an_electrode_or_a_derivation_and_numbers_are_unique():
    names = [name for name in CHANNELS if name]
    assert all(canonical_channel(f"{a}-{b}") is None or b in ("A1", "A2") for a in names for b in names)
    every = [*names, *(f"{a}-{b}" for a in names for b in names)]
    numbers = [channel_number(name) for name in every]
    assert len(set(numbers)) == len(numbers) and 0 not in numbers
    assert [channel_name(number) for number in numbers] == every
    assert [channel_number(name) for name in names] == list(range(1, len(CHANNELS)))  # as prepared studies have them


CHB_MIT = (
    "FP1-F7 F7-T7 T7-P7 P7-O1 FP1-F3 F3-C3 C3-P3 P3-O1 FP2-F4 F4-C4 C4-P4 P4-O2 FP2-F8 F8-T8 T8-P8 P8-O2 FZ-CZ CZ-PZ "
    "P7-T7 T7-FT9 FT9-FT10 FT10-T8 T8-P8"
).split()


def electrodes(names: list[str]) -> dict[str, np.ndarray]:
    """Name -> (T,) uV against a common reference, of which all have a share."""
    rng = np.random.default_rng(0)
    shared = 25 * rng.standard_normal(400)
    return {name: shared + 30 * rng.standard_normal(400) for name in names}


def test_a_bipolar_montage_is_the_difference_of_its_electrodes(tmp_path):
    """CHB-MIT's: T8-P8 twice, P7-T7 the reverse of T7-P7."""
    import mne

    at = electrodes(sorted({part for label in CHB_MIT for part in label.split("-")}))
    signal = np.stack([at[a] - at[b] for a, b in (label.split("-") for label in CHB_MIT)])
    read = read_eeg(edf(tmp_path / "a.edf", signal, CHB_MIT))
    assert len(read.channels) == 21 and read.channels[:3] == ("Fp1-F7", "F7-T7", "T7-P7") and read.bipolar
    for name, row in zip(read.channels, read.signal, strict=True):
        first, second = name.upper().split("-")
        np.testing.assert_allclose(row, at[first] - at[second], atol=0.02)
    assert [note for note in read.notes if "twice" in note] == ["left out, recorded twice: P7-T7, T8-P8"]
    assert eeg_header(tmp_path / "a.edf").channels == read.channels

    # An independent view: MNE makes the same derivations of the referential recording; no reference leaves a trace.
    referential = edf(tmp_path / "b.edf", np.stack(list(at.values())), [f"EEG {name}-REF" for name in at])
    whole = read_eeg(referential)
    raw = mne_raw(list(whole.channels), "eeg", whole.signal)
    pairs = [name.split("-") for name in read.channels]
    made = mne.set_bipolar_reference(
        raw, [a for a, _ in pairs], [b for _, b in pairs], drop_refs=False, verbose="ERROR"
    )
    np.testing.assert_allclose(made.get_data(picks=list(read.channels)) * 1e6, read.signal, atol=0.02)
    made.pick(list(read.channels)).save(tmp_path / "c_raw.fif", verbose="ERROR")
    again = read_eeg(tmp_path / "c_raw.fif")
    assert again.channels == read.channels
    np.testing.assert_allclose(again.signal, read.signal, atol=0.02)


def test_a_night_of_sleep_edf(tmp_path):
    labels = [
        "EEG Fpz-Cz",
        "EEG Pz-Oz",
        "EOG horizontal",
        "Resp oro-nasal",
        "EMG submental",
        "Temp rectal",
        "Event marker",
    ]
    read = read_eeg(edf(tmp_path / "a.edf", waves(7), labels))
    assert read.channels == ("Fpz-Cz", "Pz-Oz") and "EOG horizontal" in read.notes[0] and len(read.notes) == 1
    np.testing.assert_allclose(read.signal, waves(7)[:2], atol=2e-3)


def test_of_a_mixed_recording_the_kind_with_more_channels_is_read(tmp_path):
    read = read_eeg(edf(tmp_path / "a.edf", waves(3), ["Fp1-F7", "F7-T7", "FC1-Ref"]))
    assert read.channels == ("Fp1-F7", "F7-T7") and "referential beside 2 bipolar channels: FC1-Ref" in read.notes[0]
    for labels in (["Fp1", "Fp1-F7"], ["Fp1-F7", "Fp1"]):  # as many of each: referential
        read = read_eeg(edf(tmp_path / "b.edf", waves(2), labels))
        assert read.channels == ("Fp1",) and not read.bipolar
        assert "bipolar beside 1 referential channels: Fp1-F7" in read.notes[0]


def test_the_reference_at_the_spine_of_chb12(tmp_path):
    read = read_eeg(edf(tmp_path / "a.edf", waves(3), ["F7-CS2", "CZ-CS2", "CP2-CS2"]))
    assert read.channels == ("F7", "Cz", "CP2") and not read.bipolar
