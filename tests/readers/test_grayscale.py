"""Windows and tables that do not fit the values: named as the cause, or flagged with the share that they leave out."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from medssml.readers import ReadError, read_xray
from medssml.readers.errors import Flag
from tests.readers.test_read_xray import dicom, expected, picture
from tests.readers.test_stored_bits import smooth


def lut(first: int, entries: np.ndarray, depth: int, vr: str | None = None) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, vr or ("SS" if first < 0 else "US"), [entries.size % 65536, first, depth])
    data = entries.tobytes()
    item.add_new(0x00283006, "OW", data + bytes(len(data) % 2))
    return Sequence([item])


RAMP = np.arange(4096, dtype=np.uint16)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_beside_the_values_is_the_cause(tmp_path, photometric):
    stored = picture(11) + np.uint16(12000)
    tags = {"WindowCenter": 3174, "WindowWidth": 2426, "PhotometricInterpretation": photometric}
    message = (
        r"its window \(centre 3174, width 2426\) lies outside its values \(12000 to 14047\); fix: .*another window"
    )
    with pytest.raises(ReadError, match=message) as caught:
        read_xray(dicom(tmp_path / "a.dcm", stored, 16, **tags))
    assert caught.value.code == "content"


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_that_most_values_lie_beyond_is_flagged_with_the_share(tmp_path, function):
    path = dicom(tmp_path / "a.dcm", smooth(12), WindowCenter=128, WindowWidth=256, VOILUTFunction=function)
    share = (smooth(12) > (255 if function == "LINEAR" else 256)).mean()
    (note, *_) = read_xray(path).notes
    assert isinstance(note, Flag) and note.code == "cut"
    assert note == f"{share:.0%} of the pixels lie above its window (centre 128, width 256), and become one gray"


def test_the_first_window_that_shows_the_values_is_taken(tmp_path):
    sound = read_xray(dicom(tmp_path / "a.dcm", smooth(12), WindowCenter=[2048, 128], WindowWidth=[4096, 256]))
    assert sound.notes == ()
    np.testing.assert_allclose(sound.array, smooth(12) / 4095, atol=1e-3)
    second = read_xray(dicom(tmp_path / "b.dcm", smooth(12), WindowCenter=[9000, 2048], WindowWidth=[100, 4096]))
    np.testing.assert_array_equal(second.array, sound.array)
    (note,) = second.notes
    assert note.startswith("the first window (centre 9000, width 100) lies beside the values") and note.code == "reread"


def test_a_window_that_is_none_is_told(tmp_path):
    read = read_xray(dicom(tmp_path / "a.dcm", smooth(12), WindowCenter=100, WindowWidth=0))
    assert read.notes == ("WindowWidth 0 is no width: the range of the declared bits is taken",)
    np.testing.assert_allclose(read.array, smooth(12) / 4095, atol=1e-6)
    (note,) = read_xray(
        dicom(tmp_path / "b.dcm", smooth(12), WindowCenter=2048, WindowWidth=4096, VOILUTFunction="X")
    ).notes
    assert "VOILUTFunction X is none" in note


def test_a_table_beside_the_values_or_that_most_lie_beyond(tmp_path):
    stored = picture(12) + np.uint16(20000)
    with pytest.raises(ReadError, match=r"its VOI LUT \(0 to 4095\) lies outside its values \(20000 to 24095\)"):
        read_xray(dicom(tmp_path / "a.dcm", stored, 16, VOILUTSequence=lut(0, RAMP, 12)))
    with pytest.raises(ReadError, match=r"its modality LUT \(0 to 4095\) lies outside its values"):
        read_xray(dicom(tmp_path / "b.dcm", stored, 16, ModalityLUTSequence=lut(0, RAMP, 12)))
    path = dicom(tmp_path / "c.dcm", smooth(12), VOILUTSequence=lut(0, RAMP[:512] * 8, 12))
    (note,) = read_xray(path).notes
    assert f"{(smooth(12) > 511).mean():.0%} of the pixels lie above its VOI LUT (0 to 511)" in note


@pytest.mark.parametrize(
    ("factor", "depth", "reach", "used"), [(16, 12, 65520, 16), (1, 16, 4095, 12), (4, 8, 16380, 14)]
)
def test_entries_that_do_not_fit_their_depth_are_scaled_by_their_own_and_flagged(tmp_path, factor, depth, reach, used):
    for name in ("VOILUTSequence", "ModalityLUTSequence"):
        path = dicom(tmp_path / f"{name}.dcm", smooth(12), **{name: lut(0, RAMP * np.uint16(factor), depth)})
        read = read_xray(path)
        assert read.notes == (f"entries of a LUT reach {reach}, its depth states {depth} bits: scaled by {used} bits",)
        assert read.notes[0].code == "rescaled" and 0.99 < read.array.max() <= 1
        np.testing.assert_allclose(read.array, smooth(12) / 4095, atol=1e-3)


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_the_first_value_of_a_table_is_signed_where_its_values_are(tmp_path, syntax, sequence):
    """PS3.3 C.11.2.1.1: in implicit VR the bytes FC18h are all there is, and they are -1000 or 64536 by what is mapped."""
    tags = {sequence: lut(-1000, RAMP, 12)}
    if sequence == "VOILUTSequence":
        stored = picture(12)
        tags |= {"RescaleSlope": 1, "RescaleIntercept": -1000}
    else:
        stored = picture(12).astype(np.int16) - 1000
    path = dicom(tmp_path / "a.dcm", stored, 16 if stored.dtype == np.int16 else 12, **tags)
    if syntax == "implicit":
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    read = read_xray(path)
    np.testing.assert_allclose(read.array, expected(12), atol=1e-6)
    assert read.notes == ()


def test_a_first_value_over_32767_stays_unsigned_where_the_values_are(tmp_path):
    stored = (picture(12).astype(np.uint32) + 61440).astype(np.uint16)
    for vr in ("US", "SS"):
        first = 61440 if vr == "US" else 61440 - 65536
        path = dicom(tmp_path / f"{vr}.dcm", stored, 16, VOILUTSequence=lut(first, RAMP, 12, vr))
        np.testing.assert_allclose(read_xray(path).array, expected(12), atol=1e-6)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tables_of_8_and_16_bits_in_either_byte_order(tmp_path, big, kind):
    bits = 8 * np.dtype(kind).itemsize
    stored = (picture(8) % 251).astype(np.uint16)
    entries = np.linspace(0, (1 << bits) - 1, 251).astype(kind)  # an odd number of entries: padded to whole words
    path = dicom(tmp_path / "a.dcm", stored, 12, VOILUTSequence=lut(0, entries, bits))
    if big:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = stored.astype(">u2").tobytes()
        data = entries.tobytes()
        words = np.frombuffer(data + bytes(len(data) % 2), "<u2").astype(">u2")
        dataset.VOILUTSequence[0].LUTData = words.tobytes()
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    np.testing.assert_allclose(read_xray(path).array, entries[stored] / ((1 << bits) - 1), atol=1e-6)


def test_a_picture_that_uses_little_of_its_range_is_flagged(tmp_path):
    (note,) = read_xray(dicom(tmp_path / "a.dcm", smooth(12), 16)).notes
    assert isinstance(note, Flag)
    assert note.startswith("98% of its pixels lie between 0") and note.endswith("of 0 to 1: hardly any contrast")


def test_a_palette_whose_entries_pass_its_depth_is_scaled_by_its_own(tmp_path):
    values = (np.arange(256, dtype=np.uint16) * 16).tobytes()
    names = ("Red", "Green", "Blue")
    tags = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in names}
    tags |= {f"{name}PaletteColorLookupTableData": values for name in names}
    stored = picture().astype(np.uint8)
    path = dicom(tmp_path / "a.dcm", stored, 8, PhotometricInterpretation="PALETTE COLOR", **tags)
    dataset = pydicom.dcmread(path)
    for name in names:
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
    dataset.save_as(path)
    read = read_xray(path)
    np.testing.assert_allclose(read.array, expected(), atol=4e-3)
    assert any("entries of a LUT reach 4080, its depth states 8 bits: scaled by 12 bits" in n for n in read.notes), (
        read.notes
    )
