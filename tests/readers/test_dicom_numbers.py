"""Numbers in words are told with file, tag and text; numbers in an odd representation are read."""

import struct

import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from medssml.readers import ReadError, ct_header, read_ct, read_xray
from medssml.readers.errors import Flag
from tests.readers.test_read_ct import SPACING, phantom, series
from tests.readers.test_read_xray import dicom, expected, picture

#: Tag and VR as they stand in an explicit file.
TAGS = {
    "PixelSpacing": b"\x28\x00\x30\x00DS",
    "SliceThickness": b"\x18\x00\x50\x00DS",
    "ImagePositionPatient": b"\x20\x00\x32\x00DS",
    "ImageOrientationPatient": b"\x20\x00\x37\x00DS",
    "RescaleSlope": b"\x28\x00\x53\x10DS",
    "RescaleIntercept": b"\x28\x00\x52\x10DS",
    "WindowCenter": b"\x28\x00\x50\x10DS",
    "Rows": b"\x28\x00\x10\x00US",
    "BitsStored": b"\x28\x00\x01\x01US",
}


def rewrite(path, tag: str, value: bytes, vr: bytes | None = None) -> None:
    """Replaces the value of an element of a file, and its representation where one is given."""
    data = path.read_bytes()
    at = data.index(TAGS[tag])
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    value += b" " * (len(value) % 2)
    size = b"\0\0" + struct.pack("<I", len(value)) if vr in (b"UT", b"UN") else struct.pack("<H", len(value))
    path.write_bytes(data[: at + 4] + (vr or data[at + 4 : at + 6]) + size + value + data[at + 8 + length :])


WORDS = {
    "PixelSpacing": (
        b"1,1\\0,8",
        r"PixelSpacing holds '1,1\\0,8', expected 2 numbers; fix: write decimals with a point",
    ),
    "ImagePositionPatient": (b"1.0,2.0,3.0", "ImagePositionPatient holds '1.0,2.0,3.0', expected 3 numbers"),
    "ImageOrientationPatient": (b"1\\0\\0\\0\\x\\0", "ImageOrientationPatient holds .*expected 6 numbers; fix: export"),
    "RescaleSlope": (b"1,0", "RescaleSlope holds '1,0', expected finite numbers; fix: write decimals with a point"),
    "RescaleIntercept": (b"nan", "RescaleIntercept holds 'nan', expected finite numbers"),
    "Rows": (b"\x0a", "Rows holds '2 bytes'|Rows holds|truncated"),
    "BitsStored": (b"\x0c\0\x0c\0", r"BitsStored holds '12\\12', expected a whole number"),
}


@pytest.mark.parametrize("tag", WORDS)
def test_a_number_in_words_names_file_tag_and_text(tmp_path, tag):
    text, message = WORDS[tag]
    folder = series(tmp_path / "s")
    rewrite(folder / "003.dcm", tag, text)
    with pytest.raises(ReadError, match=message) as caught:
        ct_header(folder)
    assert caught.value.file == str(folder / "003.dcm")


@pytest.mark.parametrize("vr", [b"UT", b"LO", b"UN", b"CS"])
@pytest.mark.parametrize("tag", ["PixelSpacing", "RescaleIntercept", "ImagePositionPatient"])
def test_a_number_in_another_text_representation_is_read(tmp_path, tag, vr):
    folder = series(tmp_path / "s")
    for file in folder.iterdir():
        data = file.read_bytes()
        at = data.index(TAGS[tag])
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        rewrite(file, tag, data[at + 8 : at + 8 + length], vr)
    volume = read_ct(folder)
    np.testing.assert_array_equal(volume.array, phantom())
    np.testing.assert_allclose(volume.spacing, SPACING, atol=1e-5)
    assert volume.notes == ()


def test_a_number_that_is_not_needed_stops_nothing(tmp_path):
    folder = series(tmp_path / "s")
    for file in folder.iterdir():
        rewrite(file, "SliceThickness", b"2,5")
    assert read_ct(folder).notes == ()
    path = dicom(tmp_path / "a.dcm", picture(12), PixelSpacing=[0.1, 0.2])
    rewrite(path, "PixelSpacing", b"0,1\\0,2")
    read = read_xray(path)
    (note,) = read.notes
    assert note == r"PixelSpacing holds '0,1\0,2', expected 2 numbers: spacing left out" and isinstance(note, Flag)
    assert read.spacing is None
    np.testing.assert_allclose(read.array, expected(12), atol=1e-6)


@pytest.mark.parametrize("tags", [{"NumberOfFrames": 0}, {"SamplesPerPixel": 0}, {"HighBit": 0}])
def test_0_counts_as_not_stated(tmp_path, tags):
    np.testing.assert_allclose(read_xray(dicom(tmp_path / "a.dcm", picture(12), **tags)).array, expected(12), atol=1e-6)


def test_a_window_in_words_names_its_tag(tmp_path):
    path = dicom(tmp_path / "a.dcm", picture(12), WindowCenter=2048, WindowWidth=4096)
    rewrite(path, "WindowCenter", b"2048,5")
    with pytest.raises(ReadError, match=r"a\.dcm: WindowCenter holds '2048,5', expected finite numbers"):
        read_xray(path)


def test_binary_numbers_in_implicit_files_are_read(tmp_path):
    import pydicom

    path = dicom(tmp_path / "a.dcm", picture(12))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    np.testing.assert_allclose(read_xray(path).array, expected(12), atol=1e-6)
