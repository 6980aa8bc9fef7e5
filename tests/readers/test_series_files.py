"""Files of a series: a slice that was cut is named, and a refusal of many series stays one line."""

import pydicom
import pytest
from pydicom.uid import RLELossless

from medssml.readers import ReadError, ct_header, read_ct
from tests.readers.test_read_ct import series, slice_dataset


@pytest.mark.parametrize("size", [0, 60, 131, 132])
@pytest.mark.parametrize("number", [0, 4, 8])
def test_a_slice_that_is_cut_before_its_mark_is_named(tmp_path, size, number):
    """Without an ending, it would be left out as no DICOM: a gap, or at either end a slice less without a word."""
    folder = series(tmp_path / "s", names="IM{:04d}".format)
    cut = folder / f"IM{number:04d}"
    cut.write_bytes(cut.read_bytes()[:size])
    with pytest.raises(ReadError) as caught:
        ct_header(folder)
    assert caught.value.file == str(cut) and caught.value.code in ("truncated", "unreadable")
    if size < 132:
        assert f"is no DICOM file ({size} bytes), though it is named as the slices beside it" in caught.value.reason


def test_other_files_beside_the_slices_are_left_out_as_before(tmp_path):
    folder = series(tmp_path / "s", names="IM{:04d}".format)
    for name in ("README", "IM0001.txt", "DONE1", "index.html"):
        (folder / name).write_bytes(b"some text" if name != "DONE1" else b"")
    assert ct_header(folder).notes == ("4 files left out: not DICOM",)


@pytest.mark.parametrize("size", [0.6, 0.97])
def test_a_compressed_slice_that_is_cut_is_named(tmp_path, size):
    folder = series(tmp_path / "s")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file)
    cut = folder / "004.dcm"
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * size)])
    with pytest.raises(ReadError) as caught:
        read_ct(folder)
    assert caught.value.file == str(cut)


def test_series_of_one_file_each_are_told_as_what_they_are(tmp_path):
    folder = series(tmp_path / "s", change=lambda index: {"SeriesInstanceUID": f"1.2.{index}"})
    message = r"holds 9 CT files, each with a SeriesInstanceUID of its own: an export made them anew"
    with pytest.raises(ReadError, match=message) as caught:
        ct_header(folder)
    assert "mapped consistently" in caught.value.fix
    slice_dataset(0, SeriesInstanceUID="1.2.0", SOPInstanceUID="5.5").save_as(folder / "one_more.dcm")
    with pytest.raises(ReadError, match=r"holds 9 CT series \(2 \+ 1 \+ 1 \+ 1 and 5 more files\)"):
        ct_header(folder)


def test_images_without_modality_are_slices_where_they_have_a_position(tmp_path):
    folder = series(tmp_path / "s", change=lambda index: {"Modality": "", "SOPClassUID": "1.2.3"})
    (note,) = ct_header(folder).notes
    assert note == "9 of 9 files state no Modality (000.dcm, 001.dcm, 002.dcm and 6 more): taken as CT"
    assert note.code == "assumed"
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.ImagePositionPatient
        dataset.save_as(file)
    with pytest.raises(ReadError, match=r"holds no CT slice \(9 images that state no Modality and no position\)"):
        ct_header(folder)
