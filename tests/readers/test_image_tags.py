"""What the tags of a radiograph say that it is: refused where it is none, flagged where it is of another kind."""

import re
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medssml.readers import ReadError, read_xray, xray_header
from medssml.readers.dicom import pixel_digest
from medssml.readers.errors import Flag
from medssml.readers.image_tags import body_part, is_raw, modality_of, other_part, view_of
from tests.readers.test_read_xray import dicom, expected, picture

STORAGE = "1.2.840.10008.5.1.4.1.1."


def code(meaning: str, value: str = "0") -> Sequence:
    item = Dataset()
    item.CodeMeaning, item.CodeValue = meaning, value
    return Sequence([item])


@pytest.mark.parametrize("modality", ["MG", "IO", "PX", "XA", "RF", "ECG", "CT", "MR", "US", "SR", "PT", "OPT"])
def test_other_modalities_are_refused(tmp_path, modality):
    path = dicom(tmp_path / "a.dcm", picture(12), Modality=modality)
    for read in (xray_header, read_xray):
        with pytest.raises(ReadError, match=f"has modality {modality}, not a radiograph") as caught:
            read(path)
        assert caught.value.code == "content"


def test_an_image_without_modality_is_known_by_its_class_or_taken_with_a_flag(tmp_path):
    path = dicom(tmp_path / "a.dcm", picture(12), Modality="")
    (note,) = read_xray(path).notes
    assert note == "states no Modality: taken as a radiograph" and note.code == "assumed"
    assert xray_header(path).notes == (note,)
    for sop_class, modality in (("1.2", "MG"), ("2", "CT"), ("12.1", "XA")):
        with pytest.raises(ReadError, match=f"has modality {modality}"):
            read_xray(dicom(tmp_path / "b.dcm", picture(12), Modality="", SOPClassUID=f"{STORAGE}{sop_class}"))
    assert read_xray(dicom(tmp_path / "c.dcm", picture(12), Modality="", SOPClassUID=f"{STORAGE}1")).notes == ()
    (note,) = read_xray(dicom(tmp_path / "d.dcm", picture(12), Modality="OT")).notes
    assert "states modality OT" in note


RAW = [
    {"PresentationIntentType": "FOR PROCESSING"},
    {"PresentationIntentType": "for processing "},
    {"SOPClassUID": f"{STORAGE}1.1.1"},
]


@pytest.mark.parametrize("tags", RAW)
def test_raw_images_are_refused(tmp_path, tags):
    path = dicom(tmp_path / "a.dcm", picture(12), **tags)
    for read in (xray_header, read_xray):
        with pytest.raises(
            ReadError, match=r"is a raw image \(.* FOR PROCESSING\), not meant to be looked at"
        ) as caught:
            read(path)
        assert "name the image FOR PRESENTATION" in caught.value.fix
    tags = {"PresentationIntentType": "FOR PRESENTATION", "SOPClassUID": f"{STORAGE}1.1"}
    assert read_xray(dicom(tmp_path / "b.dcm", picture(12), **tags)).notes == ()


@pytest.mark.parametrize(
    ("tags", "part"),
    [
        ({"BodyPartExamined": "KNEE"}, "KNEE"),
        ({"BodyPartExamined": "tspine"}, "TSPINE"),
        ({"BodyPartExamined": "ABDOMEN"}, "ABDOMEN"),
        ({"AnatomicRegionSequence": code("Shoulder")}, "SHOULDER"),
        ({"BodyPartExamined": "CHEST"}, ""),
        ({"BodyPartExamined": "Thorax PA"}, ""),
        ({"BodyPartExamined": "PORT CHEST"}, ""),
        ({"BodyPartExamined": "TORAX"}, ""),
        ({"BodyPartExamined": "RIBS"}, ""),
        ({"BodyPartExamined": "WHOLEBODY"}, ""),
        ({"BodyPartExamined": ""}, ""),
        ({"AnatomicRegionSequence": code("Chest")}, ""),
    ],
)
def test_another_part_of_the_body_is_flagged(tmp_path, tags, part):
    read = read_xray(dicom(tmp_path / "a.dcm", picture(12), **tags))
    assert read.notes == ((f"states that it shows {part}",) if part else ())
    assert all(isinstance(note, Flag) for note in read.notes)
    np.testing.assert_allclose(read.array, expected(12), atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (
            {"PixelIntensityRelationshipSign": 1},
            "PixelIntensityRelationshipSign 1 and MONOCHROME2 say that dense tissue is",
        ),
        ({"PixelIntensityRelationshipSign": -1}, ""),
        ({"PixelIntensityRelationshipSign": 1, "RescaleSlope": -1, "RescaleIntercept": 4095}, ""),
        ({"PixelIntensityRelationshipSign": -1, "RescaleSlope": -1, "RescaleIntercept": 4095}, "dense tissue is dark"),
        ({"PixelIntensityRelationship": "LIN"}, "PixelIntensityRelationship LIN: the values are those of a detector"),
        ({"PixelIntensityRelationship": "LIN", "PresentationIntentType": "FOR PRESENTATION"}, ""),
        ({"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}, ""),
        ({"RescaleType": "OD"}, "states RescaleType OD: the values are no gray"),
        ({"RescaleType": "US"}, ""),
        ({"FluoroscopyFlag": "YES"}, "fluoroscopic"),
        ({"DerivationCodeSequence": code("Subtraction", "113062")}, "derived: a difference of images"),
        ({"DerivationCodeSequence": code("Lossy", "113040")}, ""),
    ],
)
def test_what_the_values_stand_for_is_told(tmp_path, tags, said):
    notes = read_xray(dicom(tmp_path / "a.dcm", picture(12), **tags)).notes
    assert bool(notes) == bool(said) and said in " ".join(notes)
    assert all(isinstance(note, Flag) for note in notes)


def test_monochrome1_and_the_sign_agree_or_are_flagged(tmp_path):
    inverse = 4095 - picture(12)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    sound = read_xray(dicom(tmp_path / "a.dcm", inverse, PixelIntensityRelationshipSign=1, **tags))
    assert sound.notes == ("MONOCHROME1 inverted",)
    odd = read_xray(dicom(tmp_path / "b.dcm", inverse, PixelIntensityRelationshipSign=-1, **tags))
    assert "PixelIntensityRelationshipSign -1 and MONOCHROME1 say that dense tissue is dark" in odd.notes[1]


def test_what_an_importer_asks():
    dataset = Dataset()
    assert (modality_of(dataset), view_of(dataset), body_part(dataset), other_part(dataset)) == ("", "", "", "")
    assert not is_raw(dataset)
    dataset.ViewCodeSequence = code("postero-anterior")
    assert view_of(dataset) == "PA"
    dataset.ViewPosition = " ll "
    assert view_of(dataset) == "LATERAL"


def test_a_digest_of_pixels_is_that_of_the_image_whatever_its_uids_and_packing(tmp_path):
    import pydicom
    from pydicom.uid import RLELossless

    first = pixel_digest(dicom(tmp_path / "a.dcm", picture(12)))
    assert pixel_digest(dicom(tmp_path / "b.dcm", picture(12), SOPInstanceUID="9.9", PatientID="other")) == first
    packed = pydicom.dcmread(tmp_path / "a.dcm")
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "c.dcm")
    assert pixel_digest(tmp_path / "c.dcm") == first
    changed = picture(12)
    changed[0, 0] += 1
    assert pixel_digest(dicom(tmp_path / "d.dcm", changed)) != first
    assert pixel_digest(dicom(tmp_path / "e.dcm", picture(12), RescaleSlope=2)) != first


def test_a_class_that_is_for_another_modality_is_flagged(tmp_path):
    (note,) = read_xray(dicom(tmp_path / "a.dcm", picture(12), SOPClassUID=f"{STORAGE}1.2")).notes
    assert note == "states modality DX, and its SOP class is for MG" and isinstance(note, Flag)


def test_what_a_damaged_tag_holds_is_not_quoted(tmp_path):
    path = dicom(tmp_path / "a.dcm", picture(12), Modality="SECRETNAME")
    path.write_bytes(path.read_bytes().replace(b"SECRETNAME", b"Sec^\n\x1bName"))
    with pytest.raises(ReadError) as caught:
        read_xray(path)
    assert str(caught.value).endswith("has modality unreadable, not a radiograph; fix: name the CR, DX or RG file")


def test_padding_of_a_radiograph_is_black_and_counted(tmp_path: Path) -> None:
    """Padding at the top of the range: by the values alone a white frame, which would be the brightest of the picture."""
    inner = picture(12).astype(np.uint16) // 2
    stored = np.pad(inner, 3, constant_values=4095)
    plain = read_xray(dicom(tmp_path / "plain.dcm", stored, 12))
    padded = read_xray(dicom(tmp_path / "padded.dcm", stored, 12, PixelPaddingValue=4095))
    frame = np.pad(np.zeros(inner.shape, bool), 3, constant_values=True)
    assert (plain.array[frame] == 1).all() and (padded.array[frame] == 0).all()
    np.testing.assert_array_equal(padded.array[~frame], plain.array[~frame])
    (note,) = [note for note in padded.notes if "padding" in note]
    assert note.startswith(f"{frame.sum()} pixels of padding (value 4095), up to 1.00, set to black")

    ranged = read_xray(dicom(tmp_path / "r.dcm", stored, 12, PixelPaddingValue=4090, PixelPaddingRangeLimit=4095))
    np.testing.assert_array_equal(ranged.array, padded.array)
    black = read_xray(dicom(tmp_path / "black.dcm", np.pad(inner, 3), 12, PixelPaddingValue=0))
    assert not [note for note in black.notes if "padding" in note]  # it is black as it is


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"PixelSpacing": [0.2, 0.4]}, "pixels are 0.2 high and 0.4 wide: .*stretched by 0.50"),
        ({"PixelAspectRatio": ["1", "2"]}, "pixels are 1 high and 2 wide"),
        ({"PixelSpacing": [0.143, 0.143]}, None),
        ({"PixelAspectRatio": ["1", "1"]}, None),
        ({}, None),
    ],
)
def test_pixels_that_are_not_square_are_told(tmp_path: Path, tags: dict, said: str | None) -> None:
    path = dicom(tmp_path / "x.dcm", picture(12), 12, **tags)
    for notes in (read_xray(path).notes, xray_header(path).notes):
        found = [note for note in notes if "pixels are" in note]
        assert (len(found) == 1 and re.search(said, found[0])) if said else found == []
