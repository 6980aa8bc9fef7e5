"""Files of one series that contradict each other in what their values mean, and tags that say that it is no HU."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medssml.readers import ReadError, ct_header, read_ct
from medssml.readers.errors import Flag
from tests.readers.test_read_ct import phantom, series, slice_dataset


def signed(index: int) -> dict[str, object]:
    """Signed values with the offset of unsigned ones: 0 HU is 1024."""
    values = np.frombuffer(slice_dataset(index).PixelData, np.uint16).astype(np.int16)
    return {"PixelData": values.tobytes(), "PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}


def without(folder, names, *tags: str):
    """Drops tags from some files of a folder."""
    for name in names:
        dataset = pydicom.dcmread(folder / name)
        for tag in tags:
            delattr(dataset, tag)
        dataset.save_as(folder / name)
    return folder


THREE = ("003.dcm", "004.dcm", "005.dcm")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (("RescaleSlope", "RescaleIntercept"), "no rescale"),
        (("RescaleIntercept",), "RescaleSlope 1"),
        (("RescaleSlope",), "RescaleIntercept -1024"),
    ],
)
@pytest.mark.parametrize("change", [signed, lambda index: {}])
def test_a_rescale_in_some_files_alone_is_refused_with_their_names(tmp_path, change, tags, said):
    folder = without(series(tmp_path / "s", change=change), THREE, *tags)
    message = (
        rf"3 of 9 files state {said} \(003.dcm, 004.dcm, 005.dcm\), others RescaleSlope 1 and RescaleIntercept -1024"
    )
    with pytest.raises(ReadError, match=message) as caught:
        ct_header(folder)
    assert caught.value.code == "units"


def test_a_series_that_states_no_rescale_at_all_is_flagged(tmp_path):
    def plain(index):
        values = np.frombuffer(slice_dataset(index).PixelData, np.uint16).astype(np.int16) - 1024
        return {"PixelData": values.tobytes(), "PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}

    names = [f"{index:03d}.dcm" for index in range(9)]
    folder = without(series(tmp_path / "s", change=plain), names, "RescaleSlope", "RescaleIntercept")
    (note,) = ct_header(folder).notes
    assert note == "9 of 9 files state no rescale: stored values taken as HU" and note.code == "assumed"
    np.testing.assert_array_equal(read_ct(folder).array, phantom())


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("BitsStored", 13, "BitsStored differs within the series: 12 in 6 files, 13 in 3 (003.dcm, 004.dcm, 005.dcm)"),
        ("PixelPaddingValue", 0, "PixelPaddingValue differs within the series: none in 6 files, 0 in 3 (003.dcm"),
        ("ConvolutionKernel", "B70f", "ConvolutionKernel differs within the series: none in 6 files, B70F in 3"),
        ("KVP", "80", "KVP differs within the series"),
        (
            "RescaleIntercept",
            -1000,
            "RescaleIntercept differs within the series: -1024 in 6 files, -1000 in 3 (003.dcm",
        ),
    ],
)
def test_a_tag_of_the_series_that_differs_is_flagged_with_files_and_figures(tmp_path, tag, value, said):
    def change(index):
        high = {"HighBit": value - 1} if tag == "BitsStored" else {}
        return {tag: value, **high} if 3 <= index <= 5 else {}

    notes = ct_header(series(tmp_path / "s", change=change)).notes
    assert all(isinstance(note, Flag) for note in notes)
    assert said in " ".join(notes)


def test_a_sign_that_differs_is_flagged_and_each_file_is_read_by_its_own(tmp_path):
    volume = read_ct(series(tmp_path / "s", change=lambda index: signed(index) if index < 2 else {}))
    np.testing.assert_array_equal(volume.array, phantom())
    assert "PixelRepresentation differs within the series: 0 in 7 files, 1 in 2 (000.dcm, 001.dcm)" in volume.notes


def test_a_rescale_of_its_own_in_every_slice_is_no_contradiction(tmp_path):
    def change(index):
        values = np.frombuffer(slice_dataset(index).PixelData, np.uint16) + np.uint16(index)
        return {"PixelData": values.tobytes(), "RescaleIntercept": -1024 - index}

    volume = read_ct(series(tmp_path / "s", change=change))
    np.testing.assert_array_equal(volume.array, phantom())
    assert volume.notes == ()


NOT_HU = [
    ({"RescaleType": "ED"}, "does not hold HU (RescaleType ED)"),
    ({"RescaleType": "Z_EFF"}, "RescaleType Z_EFF"),
    ({"RescaleType": "MGML"}, "RescaleType MGML"),
    ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"]}, "ImageType MAT_SPECIFIC"),
    ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"]}, "ImageType ELECTRON_DENSITY"),
]


@pytest.mark.parametrize(("tags", "said"), NOT_HU)
def test_values_that_are_no_hounsfield_units_by_their_tags_are_refused(tmp_path, tags, said):
    with pytest.raises(ReadError) as caught:
        ct_header(series(tmp_path / "s", change=lambda index: tags))
    assert said in caught.value.reason and caught.value.code == "units" and caught.value.file.endswith("000.dcm")


def test_types_that_differ_are_refused(tmp_path):
    folder = series(tmp_path / "s", change=lambda i: {"RescaleType": "US" if i in (3, 4, 5) else "HU"})
    with pytest.raises(ReadError, match=r"RescaleType differs within the series: HU in 6 files, US in 3 \(003.dcm"):
        ct_header(folder)


def derived(code: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", "in words"
    return Sequence([item])


ODD = [
    ({"RescaleType": "US"}, "RescaleType US (no unit) in 9 of 9 files"),
    ({"RescaleType": "HU_MOD"}, "HU that were modified"),
    ({"MultienergyCTAcquisition": "YES"}, "MultienergyCTAcquisition YES in 9 of 9 files"),
    (
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "VMI"]},
        "ImageType VMI (HU that were computed from several energies)",
    ),
    ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "MIP"]}, "derived: a maximum intensity projection"),
    ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"]}, "derived: a maximum intensity projection"),
    ({"ImageType": ["DERIVED", "SECONDARY", "MAX_IP"]}, "derived: a maximum intensity projection"),
    ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "MIN IP"]}, "derived: a minimum intensity projection"),
    ({"DerivationCodeSequence": derived("113062")}, "derived: a difference of images"),
    ({"FluoroscopyFlag": "YES"}, "FluoroscopyFlag YES in 9 of 9 files"),
]


@pytest.mark.parametrize(("tags", "said"), ODD)
def test_values_that_are_hounsfield_units_of_another_kind_are_flagged(tmp_path, tags, said):
    (note,) = ct_header(series(tmp_path / "s", change=lambda index: tags)).notes
    assert said in note and isinstance(note, Flag)


@pytest.mark.parametrize(
    "tags", [{"RescaleType": "HU"}, {"DerivationCodeSequence": derived("113072")}, {"MultienergyCTAcquisition": "NO"}]
)
def test_what_is_as_it_should_be_is_not_told(tmp_path, tags):
    assert ct_header(series(tmp_path / "s", change=lambda index: tags)).notes == ()


def test_values_that_a_table_maps_are_refused(tmp_path):
    item = Dataset()
    item.LUTDescriptor = [2, 0, 16]
    with pytest.raises(ReadError, match=r"ModalityLUTSequence"):
        ct_header(series(tmp_path / "s", change=lambda index: {"ModalityLUTSequence": Sequence([item])}))


def frames(scaled) -> Dataset:
    """The phantom as one file of nine frames; scaled(index): whether a frame states its rescale."""
    dataset = slice_dataset(0, NumberOfFrames=9)
    every = [slice_dataset(index) for index in range(9)]
    dataset.PixelData = b"".join(item.PixelData for item in every)
    groups = []
    for index, item in enumerate(every):
        group, plane, turn, measures, values = (Dataset() for _ in range(5))
        plane.ImagePositionPatient = item.ImagePositionPatient
        turn.ImageOrientationPatient = item.ImageOrientationPatient
        measures.PixelSpacing, measures.SliceThickness = item.PixelSpacing, item.SliceThickness
        group.PlanePositionSequence, group.PlaneOrientationSequence = Sequence([plane]), Sequence([turn])
        group.PixelMeasuresSequence = Sequence([measures])
        if scaled(index):
            values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
            group.PixelValueTransformationSequence = Sequence([values])
        groups.append(group)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, tag)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return dataset


def test_frames_of_one_file_are_asked_as_files_of_a_series_are(tmp_path):
    frames(lambda index: True).save_as(tmp_path / "a.dcm")
    volume = read_ct(tmp_path / "a.dcm")
    np.testing.assert_array_equal(volume.array, phantom())
    assert volume.notes == ()
    frames(lambda index: index not in (3, 4)).save_as(tmp_path / "b.dcm")
    with pytest.raises(
        ReadError, match=r"2 of 9 frames state no rescale, others RescaleSlope 1 and RescaleIntercept -1024"
    ):
        ct_header(tmp_path / "b.dcm")


def test_a_type_in_words_of_its_own_is_flagged(tmp_path):
    (note,) = ct_header(series(tmp_path / "a", change=lambda index: {"RescaleType": "ct values"})).notes
    assert note == "RescaleType CT VALUES (no term of the standard) in 9 of 9 files" and isinstance(note, Flag)
    assert ct_header(series(tmp_path / "b", change=lambda index: {"RescaleType": "Hounsfield Units"})).notes == ()


def test_numbers_are_compared_as_numbers_and_words_in_their_place_stop_nothing(tmp_path):
    def change(index):
        return {"KVP": "120.0" if index % 2 else "120"}

    folder = series(tmp_path / "s", change=change)
    assert ct_header(folder).notes == ()
    data = (folder / "003.dcm").read_bytes()
    (folder / "003.dcm").write_bytes(data.replace(b"DS\x06\x00120.0 ", b"DS\x06\x00120,0 "))
    (note,) = ct_header(folder).notes
    assert note == "KVP differs within the series: 120 in 8 files, 120,0 in 1 (003.dcm)"
