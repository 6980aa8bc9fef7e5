"""Which channels are read: electrodes in a voltage, each once, where possible against one reference; the rest is named."""

import math

import numpy as np
import pytest

from medssml.readers import ReadError, eeg_header, read_eeg
from medssml.readers.channels import reference_name, referential
from medssml.readers.errors import Flag
from medssml.readers.montage import pick
from medssml.readers.source import Channel
from medssml.readers.voltage import unit_of
from tests.corpus.recordings import LABELS, brainvision, edf_plus, gdf, waves


@pytest.mark.parametrize(
    ("text", "uv"),
    {
        "uV": 1, "µV": 1, "μV": 1, "Âµv": 1, "\x83\xcaV": 1, "?V": 1, "mcV": 1, "uVolt": 1, "microvolts": 1, "[µV]": 1, "u V": 1,
        "mV": 1e3, "MV": 1e3, "mVolt": 1e3, "millivolt": 1e3, "V": 1e6, "Volts": 1e6, "nV": 1e-3, "nanovolt": 1e-3, "uV/bit": 1,
        "%": math.nan, "mmHg": math.nan, "bpm": math.nan, "degC": math.nan, "Ohm": math.nan, "l/min": math.nan, "uS": math.nan,
        "uV^2": math.nan, "g": math.nan, "counts": math.nan, "kOhm": math.nan,
    }.items(),
)  # fmt: skip
def test_stated_units(text, uv):
    unit = unit_of(text)
    assert unit.stated and unit.is_voltage != math.isnan(uv)
    np.testing.assert_equal(unit.uv, uv)


@pytest.mark.parametrize("text", ["", "  ", "-", "n/a", "None", "unknown", "\0"])
def test_a_unit_that_is_not_stated(text):
    assert unit_of(text).uv == 1 and not unit_of(text).stated


@pytest.mark.parametrize(
    ("label", "found"),
    {
        "Fp1-Ref1": ("Fp1", "REF1"), "Cz-Vref": ("Cz", "VREF"), "Pz-AVERAGE": ("Pz", "AVG"), "C3-linked ears": ("C3", "LE"),
        "C3-(A1+A2)/2": ("C3", "LE"), "C4-A1+A2": ("C4", "LE"), "EEG C3-M2": ("C3", "M2"), "C4M1": ("C4", "M1"),
        "C3-A2-0": ("C3", "A2"), "Fp1-0V": ("Fp1", "0V"), "Fp1-AA": ("Fp1", "LE"),
        "Fz (M1+M2)": ("Fz", "LM"), "EEG Fz-LE": ("Fz", "LE"), "EEG Fz-REF": ("Fz", ""), "Fz": ("Fz", ""), "M1M2": None,
        "O2-A1": ("O2", "A1"), "A2A1": None, "Fp1-Cz": None, "EMG-Ref1": None,
    }.items(),
)  # fmt: skip
def test_the_reference_in_a_label(label, found):
    assert referential(label) == found


def test_names_of_one_reference():
    assert {reference_name(text) for text in ("A1A2", "a1 + a2", "(A1+A2)/2", "Linked Ears", "LE")} == {"LE"}
    assert len({reference_name(text) for text in ("A1", "A2", "M1", "CLE", "Ref1", "Ref2", "Cz", "")}) == 8


def recording(tmp_path, labels, **changes):
    n = len(labels)
    settings = {"rates": (100,) * n, "units": ("uV",) * n, "ranges": ((-327.68, 327.67),) * n, "kind": "EDF"} | changes
    return edf_plus(tmp_path / "a.edf", waves(n), labels, **settings)


def test_contralateral_ears_are_two_references(tmp_path):
    path = recording(tmp_path, ("F3-A2", "F4-A1", "C3-M2", "O1-A2"))
    read = read_eeg(path)
    assert read.references == ("A2", "A1", "M2", "A2")
    for notes in (read.notes, eeg_header(path).notes):
        (note,) = notes
        assert isinstance(note, Flag) and "3 references (A2: F3, O1; A1: F4; M2: C3): no average" in note


def test_of_one_electrode_that_against_the_usual_reference_is_read(tmp_path):
    read = read_eeg(recording(tmp_path, ("C3-A1", "C3-A2", "C4-A2", "O1-A2", "O1-A2")))
    assert read.channels == ("C3", "C4", "O1") and set(read.references) == {"A2"}
    np.testing.assert_allclose(read.signal, waves(5)[[1, 2, 3]], atol=0.006)
    assert [str(note) for note in read.notes] == [
        "left out, recorded twice, here against another reference: C3-A1",
        "left out, recorded twice: O1-A2",
    ]
    assert dict(read.left_out)["C3-A1"].endswith("another reference")


def test_the_reference_that_brainvision_states_beside_the_label(tmp_path):
    path = brainvision(tmp_path / "a.vhdr", waves())
    text = path.read_text("utf-8")
    path.write_text(
        text.replace("Ch1=Fp1,,", "Ch1=Fp1,A1,").replace("Ch3=T3,,", "Ch3=T3,A2,").replace("Ch2=Cz,,", "Ch2=Cz,A1,"),
        "utf-8",
    )
    assert read_eeg(path).references == ("A1", "A1", "A2") and "2 references" in read_eeg(path).notes[0]


@pytest.mark.parametrize("kind", ["edf", "gdf", "vhdr"])
def test_a_unit_that_is_no_voltage_is_no_electrode(tmp_path, kind):
    labels = ("Fp1", "O2", "P1")
    if kind == "edf":
        path = recording(tmp_path, labels, units=("uV", "%", "mmHg"))
    elif kind == "gdf":
        path = gdf(tmp_path / "a.gdf", waves(), labels, unit="%")
        data = path.read_bytes()
        path.write_bytes(data[: 256 + 96 * 3] + b"uV".ljust(8, b"\0") + data[256 + 96 * 3 + 8 :])
    else:
        path = brainvision(tmp_path / "a.vhdr", waves(), labels)
        text = path.read_text("utf-8")
        path.write_text(text.replace("O2,,0.01,µV", "O2,,0.01,%").replace("P1,,0.01,µV", "P1,,0.01,mmHg"), "utf-8")
    read = read_eeg(path)
    assert read.channels == ("Fp1",)
    (note,) = read.notes
    assert isinstance(note, Flag) and "states a unit that is no voltage: O2 (%), P1" in note
    with pytest.raises(ReadError, match="no scalp electrode that can be read .*no voltage"):
        read_eeg(recording(tmp_path, ("O2",), units=("%",)))


def test_a_slow_channel_is_a_trend_of_something_else(tmp_path):
    signals = [waves(1)[0], waves(1)[0][::50], waves(1)[0]]
    path = edf_plus(tmp_path / "a.edf", signals, ("Fp1", "O2", "Cz"), rates=(100, 2, 100), kind="EDF")
    assert (
        read_eeg(path).channels == ("Fp1", "Cz") and "under 32 Hz beside faster channels: O2" in read_eeg(path).notes[0]
    )


def test_a_channel_without_a_scale_costs_itself_alone(tmp_path):
    ranges = ((-327.68, 327.67), (0, 0), (-327.68, 327.67), (0, 0))
    read = read_eeg(recording(tmp_path, ("Fp1", "Cz", "Pz", "OSAT"), ranges=ranges, units=("uV", "uV", "uV", "%")))
    assert read.channels == ("Fp1", "Pz")
    np.testing.assert_allclose(read.signal, waves(4)[[0, 2]], atol=0.006)
    assert [isinstance(note, Flag) for note in read.notes] == [True, False] and "no scale: Cz" in read.notes[0]
    with pytest.raises(ReadError, match=r"can be read \(Fp1: maps -32768..32767 to 0..0: no scale"):
        read_eeg(recording(tmp_path, ("Fp1", "ECG"), ranges=((0, 0), (-5, 5))))
    path = brainvision(tmp_path / "a.vhdr", waves(), ("Fp1", "Cz", "Aux"))
    path.write_text(path.read_text("utf-8").replace("Aux,,0.01", "Aux,,none"), "utf-8")
    assert read_eeg(path).channels == ("Fp1", "Cz") and not isinstance(read_eeg(path).notes[0], Flag)


def test_a_gdf_of_several_types_of_samples(tmp_path):
    """A status channel of another type would cost the whole file, were types not read channel by channel."""
    path = gdf(tmp_path / "a.gdf", waves(), ("Fp1", "Cz", "STI"))
    data = bytearray(path.read_bytes())
    data[256 + 220 * 3 + 8 : 256 + 220 * 3 + 12] = (5).to_bytes(4, "little")  # int32
    head, body = bytes(data[:1024]), np.frombuffer(data[1024:], "<i2").reshape(4, 3, 100)
    records = [body[i, :2].tobytes() + body[i, 2].astype("<i4").tobytes() for i in range(4)]
    path.write_bytes(head + b"".join(records))
    np.testing.assert_allclose(read_eeg(path).signal, waves()[:2], atol=0.006)


def test_a_zero_channel_may_be_the_reference(tmp_path):
    signal = waves()
    signal[1] = 0
    read = read_eeg(brainvision(tmp_path / "a.vhdr", signal, LABELS))
    (note,) = read.notes
    assert (
        isinstance(note, Flag)
        and "flat: Cz (0 throughout: not connected, or what the others are measured against)" in note
    )
    assert read.left_out == (("Cz", "flat"),)


def test_what_to_do_about_labels_that_nobody_knows(tmp_path):
    with pytest.raises(ReadError, match="fix: rename the channels to the 10-20 system"):
        pick([Channel("Kanal 1", 100.0), Channel("Kanal 2", 100.0)], tmp_path / "a.edf")
