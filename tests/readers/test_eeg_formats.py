"""GDF and BrainVision read as what was written, in uV; what is wrong with them, or with labels and marks, has a name."""

import struct
from pathlib import Path

import numpy as np
import pytest
from edfio import Edf, EdfAnnotation, EdfSignal

from medssml.readers import ReadError, eeg_header, read_eeg
from tests.corpus.recordings import LABELS, SFREQ, brainvision, gdf, waves


def change(path: Path, offset: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(value)] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", ["1.25", "2.20"])
def test_gdf_round_trip(tmp_path, version):
    path = gdf(tmp_path / "a.gdf", waves(), version=version, events=[(101, 769, 50), (201, 770, 1)])
    read = read_eeg(path)
    assert read.channels == ("Fp1", "Cz", "T7") and read.sfreq == SFREQ and read.notes == ()
    np.testing.assert_allclose(read.signal, waves(), atol=0.006)
    assert [(a.onset, a.text) for a in read.annotations] == [(1.0, "769"), (2.0, "770")]
    assert read.annotations[0].duration == 0.5
    assert eeg_header(path) == (read.channels, SFREQ, 4.0, ())


@pytest.mark.parametrize(
    ("version", "unit", "scale", "note"),
    [
        ("1.25", "mV", 1e-3, ""), ("1.25", "V", 1e-6, ""), ("1.25", "", 1, "no voltage unit"),
        ("2.20", 4274, 1e-3, ""), ("2.20", 4256, 1e-6, ""), ("2.20", 0, 1, "no voltage unit"),
    ],
)  # fmt: skip
def test_gdf_units(tmp_path, version, unit, scale, note):
    path = gdf(tmp_path / "a.gdf", waves(), version=version, unit=unit)
    # the same counts, the physical range in the other unit
    change(path, 256 + 104 * 3, struct.pack("<6d", *[-327.68 * scale] * 3, *[327.67 * scale] * 3))
    read = read_eeg(path)
    np.testing.assert_allclose(read.signal, waves(), atol=0.006)
    assert note in " ".join(read.notes) and bool(read.notes) == bool(note)


GDF_FAULTS = {
    "magic": (0, b"EDX ", "not EDF|is not GDF"),
    "version": (4, b"9.99", "GDF version 9.99"),
    "no version": (4, b"x.yz", "GDF version"),
    "records": (236, struct.pack("<q", 400), r"4 of 400 records"),
    "duration": (244, struct.pack("<2I", 1, 0), "records of 1/0 s"),
    "channels": (252, struct.pack("<I", 70_000), "declares 70,000 channels"),
    "header": (184, struct.pack("<q", 4096), "declares 4,096 header bytes for 3 channels, expected 1,024"),
    "type": (256 + 220 * 3, struct.pack("<3i", 3, 3, 255), "sample type 255"),
    "samples": (256 + 216 * 3, struct.pack("<3i", 0, 0, 0), "declares 0 samples"),
    "scale": (256 + 112 * 3, struct.pack("<3d", -327.68, -327.68, -327.68), r"Fp1: maps .*: no scale"),
    "nan": (256 + 104 * 3, struct.pack("<3d", np.nan, np.nan, np.nan), r"Cz: maps"),
}


@pytest.mark.parametrize("fault", GDF_FAULTS)
def test_faulty_gdf(tmp_path, fault):
    offset, value, message = GDF_FAULTS[fault]
    path = change(gdf(tmp_path / "a.gdf", waves()), offset, value)
    for read in (read_eeg, eeg_header):
        with pytest.raises(ReadError, match=message) as caught:
            read(path)
        assert "a.gdf" in str(caught.value) and "fix: " in str(caught.value) and "ecret" not in str(caught.value)


@pytest.mark.parametrize("version", ["1.25", "2.20"])
def test_a_gdf_that_declares_millions_of_events(tmp_path, version):
    """MNE would make room for them all, 16 bytes each, before it looks into the file."""
    path = gdf(tmp_path / "a.gdf", waves(), version=version, events=[(101, 769, 50), (201, 770, 1)])
    count = 4 if version < "1.94" else 1
    start = len(path.read_bytes()) - 8 - 2 * 12
    with pytest.raises(ReadError, match=r"declares 16,\d+,\d+ events .* follow the records"):
        read_eeg(change(path, start + count + 2, b"\xff"))


def test_a_cut_gdf(tmp_path):
    whole = gdf(tmp_path / "a.gdf", waves()).read_bytes()
    for keep in (4, 100, 256, 900, 1024, len(whole) - 1):
        (tmp_path / "b.gdf").write_bytes(whole[:keep])
        with pytest.raises(ReadError, match="truncated|not EDF"):
            eeg_header(tmp_path / "b.gdf")


@pytest.mark.parametrize(
    ("kind", "vectorized", "unit", "resolution"),
    [("INT_16", False, "µV", 0.01), ("INT_32", True, "uV", 0.001), ("IEEE_FLOAT_32", False, "", 1.0),
     ("IEEE_FLOAT_32", False, "mV", 1.0), ("INT_16", False, "nV", 10.0)],
)  # fmt: skip
def test_brainvision_round_trip(tmp_path, kind, vectorized, unit, resolution):
    factor = {"mV": 1e-3, "nV": 1e3}.get(unit, 1)
    path = brainvision(tmp_path / "a.vhdr", waves() * factor, LABELS, kind, unit, resolution, vectorized)
    read = read_eeg(path)
    assert read.channels == ("Fp1", "Cz", "T7") and read.sfreq == SFREQ and read.notes == ()
    np.testing.assert_allclose(read.signal, waves(), atol=0.006)
    assert [(a.onset, a.text) for a in read.annotations] == [(1.0, "Stimulus/S  1")]
    assert eeg_header(path) == (read.channels, SFREQ, 4.0, ())


VHDR_FAULTS = {
    "no data file": ({"DataFile": "b.eeg"}, "names the data file 'b.eeg', which is not beside it"),
    "outside": ({"DataFile": "../a.eeg"}, "outside its folder"),
    "absolute": ({"DataFile": "/etc/passwd"}, "outside its folder"),
    "marker outside": ({"MarkerFile": "../a.vmrk"}, "marker file outside"),
    "channels": ({"NumberOfChannels": "4"}, "describes no channel 4"),
    "no number": ({"NumberOfChannels": "three"}, "NumberOfChannels 'three'"),
    "interval": ({"SamplingInterval": "0"}, "every 0 us"),
    "format": ({"BinaryFormat": "UINT_8"}, "BinaryFormat 'UINT_8', expected one of INT_16"),
    "ascii": ({"DataFormat": "ASCII"}, "expected BINARY"),
    "points": ({"DataPoints": "500"}, r"a\.eeg: is truncated: 2,400 bytes of samples, 3,000 expected"),
    "more channels": ({"NumberOfChannels": "2"}, "describes channel 3 .* declares 2 channels"),
    "spectra": ({"DataType": "FREQUENCYDOMAIN"}, "DataType FREQUENCYDOMAIN, expected TIMEDOMAIN"),
    "epochs": ({"SegmentationType": "MARKERBASED", "SegmentDataPoints": "100"}, "holds 4 segments of 100 samples"),
    "epochs of unknown length": ({"SegmentationType": "FIXTIME"}, "holds segments .* no continuous recording"),
    "average": ({"Averaged": "YES"}, "holds an average"),
    "orientation": ({"DataOrientation": "DIAGONAL"}, "DataOrientation 'DIAGONAL'"),
    "channel offset": ({"ChannelOffset": "4"}, "ChannelOffset 4, expected 0"),
    "data offset": ({"DataOffset": "some"}, "DataOffset 'some'"),
    "empty name": ({"DataFile": ""}, "has no DataFile"),
}


@pytest.mark.parametrize("fault", VHDR_FAULTS)
def test_faulty_brainvision(tmp_path, fault):
    changes, message = VHDR_FAULTS[fault]
    path = brainvision(tmp_path / "a.vhdr", waves(), **changes)
    for read in (read_eeg, eeg_header):
        with pytest.raises(ReadError, match=message) as caught:
            read(path)
        assert "fix: " in str(caught.value)


def test_brainvision_cut_samples_missing_markers_and_foreign_text(tmp_path):
    path = brainvision(tmp_path / "a.vhdr", waves())
    (tmp_path / "a.vmrk").unlink()
    assert read_eeg(path).notes == ("its marker file is missing: no annotations, and no interruptions are known",)
    data = tmp_path / "a.eeg"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ReadError, match=r"is truncated: 2,399 bytes of samples, 2,400 expected"):
        read_eeg(path)
    (tmp_path / "c.eeg").write_bytes(b"another system's")
    for name, fix in (
        ("a.eeg", "name a.vhdr"),
        ("b.vhdr", "no such file"),
        ("c.eeg", r"c.vhdr, its header, is not beside"),
    ):
        with pytest.raises(ReadError, match=fix):
            read_eeg(tmp_path / name)
    broken = path.read_text("utf-8")
    path.write_text(broken.replace("[Common Infos]", "[Common Infos]\nDataFile=x\nDataFile=y"), "utf-8")
    with pytest.raises(ReadError, match="broken header"):
        read_eeg(path)
    path.write_text("hello")
    with pytest.raises(ReadError, match="not a BrainVision header"):
        read_eeg(path)


def test_mutated_gdf_and_brainvision_raise_read_errors_alone(tmp_path):
    rng = np.random.default_rng(0)
    sources = {
        "m.gdf": gdf(tmp_path / "a.gdf", waves(), version="2.20", events=[(1, 1, 1)]).read_bytes(),
        "n.gdf": gdf(tmp_path / "b.gdf", waves(), events=[(1, 1, 1)]).read_bytes(),
        "a.vhdr": brainvision(tmp_path / "a.vhdr", waves()).read_bytes(),
    }
    for number in range(120):
        name, source = list(sources.items())[number % 3]
        data = bytearray(source)
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(0, min(len(data), 1100))] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(data)
        try:
            read_eeg(tmp_path / name)
        except ReadError as error:
            assert error.file.startswith(str(tmp_path))


@pytest.mark.parametrize("text", ["Augen geschlossen, müde", "ojos cerrados ñ"])
def test_annotations_in_utf_8_and_latin_1(tmp_path, text):
    signals = [EdfSignal(row, SFREQ, label=LABELS[i], physical_dimension="uV") for i, row in enumerate(waves())]
    Edf(signals, annotations=[EdfAnnotation(1.0, 0.5, text)]).write(tmp_path / "a.edf")
    assert read_eeg(tmp_path / "a.edf").annotations == ((1.0, 0.5, text),)
    data = (tmp_path / "a.edf").read_bytes()
    utf8, latin = text.encode(), text.encode("latin-1")
    (tmp_path / "b.edf").write_bytes(data.replace(utf8 + b"\x14", latin + b"\x14" + b"\0" * (len(utf8) - len(latin))))
    assert read_eeg(tmp_path / "b.edf").annotations == ((1.0, 0.5, text),)


def test_biosemi_labels_are_no_ears(tmp_path):
    labels = [f"{letter}{number}" for letter in "AB" for number in range(1, 9)]
    signals = [EdfSignal(row, SFREQ, label=labels[i], physical_dimension="uV") for i, row in enumerate(waves(16))]
    Edf(signals).write(tmp_path / "a.edf")
    for read in (read_eeg, eeg_header):
        with pytest.raises(ReadError, match="BioSemi layout"):
            read(tmp_path / "a.edf")


def test_one_channel_in_another_unit_is_flagged(tmp_path):
    from medssml.readers.errors import Flag

    signals = [
        EdfSignal(row * (1000 if i == 1 else 1), SFREQ, label=LABELS[i], physical_dimension="uV")
        for i, row in enumerate(waves())
    ]
    Edf(signals).write(tmp_path / "a.edf")
    (note,) = read_eeg(tmp_path / "a.edf").notes
    assert isinstance(note, Flag) and "Cz 2.12e+04 uV" in note


def test_channels_that_a_fif_marks_as_bad_are_left_out(tmp_path):
    import mne

    raw = mne.io.RawArray(waves() * 1e-6, mne.create_info(list(LABELS), SFREQ, "eeg"), verbose="ERROR")
    raw.info["bads"] = ["Cz"]
    raw.save(tmp_path / "a_raw.fif", verbose="ERROR")
    read = read_eeg(tmp_path / "a_raw.fif")
    assert read.channels == ("Fp1", "T7") and read.notes == ("left out, marked as bad in the file: Cz",)
    assert eeg_header(tmp_path / "a_raw.fif").channels == read.channels
