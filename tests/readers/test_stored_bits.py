"""Bits above those of an image: an overlay is cut away and told, a depth or a sign that is stated wrong is refused."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from medssml.readers import ReadError, read_ct, read_xray
from medssml.readers.errors import Flag
from tests.readers.test_read_ct import phantom, series, slice_dataset
from tests.readers.test_read_xray import dicom, expected, picture


def stored(index: int, offset: int = 1024) -> np.ndarray:
    """(10, 12) values of a slice of the phantom, with an offset to HU."""
    return np.frombuffer(slice_dataset(index).PixelData, np.uint16).reshape(10, 12).astype(np.int32) - 1024 + offset


def implant(index: int, signed: bool) -> dict[str, object]:
    """The phantom with 3 x 3 voxels of 2600 HU in the slices 6 and 7, in a file that states 12 bits."""
    values = stored(index, 0 if signed else 2024)
    if index in (6, 7):
        values[2:5, 2:5] = 2600 + (0 if signed else 2024)
    kind = np.int16 if signed else np.uint16
    offset = {"PixelRepresentation": 1, "RescaleIntercept": 0} if signed else {"RescaleIntercept": -2024}
    return {"PixelData": values.astype(kind).tobytes(), **offset}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_a_depth_that_is_stated_too_low_is_refused_with_files_and_figures(tmp_path, signed, compressed):
    folder = series(tmp_path / "s", change=lambda index: implant(index, signed))
    if compressed:
        for file in folder.iterdir():
            dataset = pydicom.dcmread(file)
            dataset.compress(RLELossless)
            dataset.save_as(file)
    needed, highest = (13, "2,600") if signed else (13, "4,624")
    message = (
        rf"states 12 bits a value, and 18 values of 2 of 9 files \(006.dcm, 007.dcm\) need {needed} \(up to {highest}\)"
    )
    with pytest.raises(ReadError, match=message) as caught:
        read_ct(folder)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("extended", [True, False])
def test_both_ways_to_write_a_sign_are_sound(tmp_path, extended):
    def signed(index):
        values = stored(index, 0).astype(np.int16)
        raw = values if extended else values.view(np.uint16) & 0x0FFF
        return {"PixelData": raw.tobytes(), "PixelRepresentation": 1, "RescaleIntercept": 0}

    volume = read_ct(series(tmp_path / "s", change=signed))
    np.testing.assert_array_equal(volume.array, phantom())
    assert volume.notes == ()


def test_an_overlay_that_no_tag_declares_is_cut_away_and_flagged_and_a_declared_one_is_put_right(tmp_path):
    def overlaid(index):
        values = stored(index).astype(np.uint16)
        values[index, 2:6] |= 0x8000
        return {"PixelData": values.tobytes()}

    folder = series(tmp_path / "s", change=overlaid)
    volume = read_ct(folder)
    np.testing.assert_array_equal(volume.array, phantom())
    (note,) = volume.notes
    assert isinstance(note, Flag) and note.code == "cut"
    assert "in use in 3.3% of the pixels of 9 of 9 files (000.dcm, 001.dcm, 002.dcm and 6 more)" in note
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.add_new(0x60020102, "US", 15)
        dataset.save_as(file)
    assert read_ct(folder).notes == ("overlay removed from the upper bits",)


def test_padding_that_the_depth_cannot_hold_becomes_air_and_is_no_fault(tmp_path):
    def padded(index):
        values = stored(index).astype(np.uint16)
        values[0] = 63536  # -2000 without a sign
        return {"PixelData": values.tobytes(), "PixelPaddingValue": 63536}

    volume = read_ct(series(tmp_path / "s", change=padded))
    wanted = phantom().copy()
    wanted[:, -1] = -1000  # the first row is the front of the body
    np.testing.assert_array_equal(volume.array, wanted)
    assert volume.notes == ("108 voxels of padding set to air",)


def smooth(bits: int) -> np.ndarray:
    """(48, 40) values from 0 to 2^bits - 1 that pass the middle of the range many times."""
    y, x = np.mgrid[0:48, 0:40]
    wave = 0.5 + 0.5 * np.sin(x / 5) * np.cos(y / 7)
    return (wave * ((1 << bits) - 1)).round().astype(np.uint16)


@pytest.mark.parametrize("bits", [12, 16])
def test_a_sign_that_the_values_do_not_have_is_refused(tmp_path, bits):
    path = dicom(tmp_path / "a.dcm", smooth(bits), bits, PixelRepresentation=1)
    with pytest.raises(
        ReadError, match=f"PixelRepresentation 1 .signed., and its values run on as unsigned ones of {bits} bits"
    ):
        read_xray(path)
    centred = (smooth(bits).astype(np.int32) - (1 << (bits - 1))).astype(np.int16)
    if bits < 16:  # the copies of the sign above the depth tell
        with pytest.raises(ReadError, match="states 12 bits a value"):
            read_xray(dicom(tmp_path / "b.dcm", centred, bits, PixelRepresentation=0))
    sound = dicom(tmp_path / "c.dcm", centred, bits)
    np.testing.assert_allclose(read_xray(sound).array, smooth(bits) / ((1 << bits) - 1), atol=1e-4)
    assert read_xray(sound).notes == ()


def test_words_of_two_8_bit_pixels_in_big_endian_files(tmp_path):
    """PS3.5 8.1.1: with OW, the first pixel is the low byte of a word, in either byte order."""
    values = picture().astype(np.uint8)
    path = dicom(tmp_path / "a.dcm", values, 8)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset["PixelData"].VR = "OW"
    dataset.PixelData = values.reshape(-1, 2)[:, ::-1].tobytes()
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    np.testing.assert_allclose(read_xray(path).array, expected(), atol=1e-6)
    dataset["PixelData"].VR = "OB"
    dataset.PixelData = values.tobytes()
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    np.testing.assert_allclose(read_xray(path).array, expected(), atol=1e-6)
