"""A DICOM tree: series by their tags and not by their folders; what no study can use is named with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medssml.importers import LayoutError, LostError
from medssml.readers import read_ct, read_report
from medssml.readers.nifti import Given
from tests.importers.trees import code, dicom_slice, put, run


def series(folder: Path, number: int = 1, slices: int = 9, start: str = "", **tags: object) -> None:
    uid = f"1.2.40.{number}"
    for index in range(slices):
        name = f"{start}IM{index:03d}"  # no ending, as on a CD
        dicom_slice(
            folder / name,
            index=index,
            SeriesInstanceUID=uid,
            SeriesNumber=number,
            SOPInstanceUID=f"{uid}.{index}",
            **tags,
        )


def radiograph(path: Path, uid: str, **tags: object) -> None:
    values = {
        "Modality": "DX",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "SeriesInstanceUID": uid,
        "SOPInstanceUID": uid + ".1",
    }
    dicom_slice(path, **{**values, "ImagePositionPatient": None, **tags})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A CD: a study with two CT series, a localizer, a dose report in words; a study with two radiographs."""
    root = tmp_path / "cd"
    series(root / "DICOM" / "S1", 1, slices=12)
    series(root / "DICOM" / "S2", 2, slices=9)
    dicom_slice(
        root / "DICOM" / "S0" / "LOC", SeriesInstanceUID="1.2.40.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    study = {"StudyInstanceUID": "1.2.50", "AccessionNumber": "A2"}
    radiograph(root / "DICOM" / "X" / "IM1", "1.2.50.1", ViewPosition="LL", **study)
    radiograph(
        root / "DICOM" / "X" / "IM2", "1.2.50.2", ViewPosition="PA", PresentationIntentType="FOR PRESENTATION", **study
    )
    radiograph(
        root / "DICOM" / "X" / "IM3", "1.2.50.3", ViewPosition="PA", PresentationIntentType="FOR PROCESSING", **study
    )
    radiograph(root / "DICOM" / "X" / "IM4", "1.2.50.4", Modality="MG", **study)
    put(root, {"DICOMDIR": b"\0" * 128 + b"DICM", "README.TXT": "viewer", "DICOM/broken.dcm": b"no"})
    return root


def test_studies_by_tags(root: Path) -> None:
    made = run("dicom", root)
    assert list(made.rows) == ["1.2.50", "1.2.40"]
    ct, xray = made.rows["1.2.40"], made.rows["1.2.50"]
    assert (
        ct["subject_id"] == xray["subject_id"] == "MRN7" and ct["accession_number"] == "A1" and ct["group_sex"] == "F"
    )
    assert (ct["ct"], ct["other_files"]) == ("DICOM/S1", "DICOM/S2"), "the longest series comes first"
    assert (xray["xray"], xray["xray_lateral"], xray["other_files"]) == ("DICOM/X/IM2", "DICOM/X/IM1", "DICOM/X/IM3")
    assert made.why(file="DICOM/S0/LOC") == "localizer"
    assert made.why(file="DICOM/X/IM4") == "modality MG"
    assert made.why(file="DICOM/broken.dcm") == "no DICOM file"
    volume = read_ct(made.manifest.path_of(1, "ct") or root)
    assert volume.array.shape == (10, 8, 12) and np.allclose(volume.spacing, (0.7, 0.7, 2.5))
    everything = made.done.manifest.read_text() + made.done.report.read_text()
    assert "Secret" not in everything, "the name is never read"


def test_series_that_share_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    series(root, 1, slices=9, start="a")
    series(root, 2, slices=10, start="b")
    made = run("dicom", root)
    row = made.rows["1.2.40"]
    assert (row["ct"], row["ct_series"], row["other_files"]) == (".", "1.2.40.2", ".#1.2.40.1"), (
        "the longest comes first"
    )
    assert made.manifest.given("ct") == [Given(series="1.2.40.2")]
    assert all(made.why(file=f"{name}IM00{n}") == "" for name in "ab" for n in range(9))
    made = run("dicom", root, rows="file")
    assert {name: row["ct_series"] for name, row in made.rows.items()} == {
        "1.2.40_series1": "1.2.40.1", "1.2.40_series2": "1.2.40.2",
    }  # fmt: skip
    depths = [read_ct(root, given).array.shape[2] for given in made.manifest.given("ct")]
    assert sorted(depths) == [9, 10]

    made = run("dicom", root, write_into=root / "series")
    row = made.rows["1.2.40"]
    assert row["ct"] == "series/1.2.40/series2_1" and row["other_files"] == "series/1.2.40/series1_0"
    assert read_ct(root / row["ct"]).array.shape == (10, 8, 10)
    with pytest.raises(LayoutError, match="is not below"):
        run("dicom", root, write_into=tmp_path / "elsewhere")


def test_a_shared_folder_that_the_reader_would_refuse_or_take_long_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "flat"
    series(root, 1, slices=9, start="a")
    series(root, 2, slices=10, start="b")
    with monkeypatch.context() as patched:
        patched.setattr("medssml.importers.dicom_tree._MOST_FILES", 18)
        with pytest.raises(LayoutError, match="19 x shares its folder.*fix: --write-into"):
            run("dicom", root)
    put(root, {"notes.dcm": b"text"})
    with pytest.raises(LayoutError, match="19 x shares its folder with a file that is no image"):
        run("dicom", root)


def test_two_patients_with_one_series_uid_are_not_told_apart_by_it(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    series(root, 1, slices=9, start="a")
    for index in range(9):
        tags = {"PatientID": "MRN8", "StudyInstanceUID": "1.2.60", "SeriesInstanceUID": "1.2.40.1"}
        dicom_slice(root / f"b{index}", index=index, SOPInstanceUID=f"1.2.60.{index}", **tags)
    with pytest.raises(LayoutError, match="18 x shares its folder"):
        run("dicom", root)


def test_a_folder_with_a_file_that_the_reader_refuses_is_no_folder_of_one_series(tmp_path: Path) -> None:
    root = tmp_path / "refused"
    series(root / "a", 1)
    put(root, {"a/notes.dcm": b"text"})
    series(root / "b", 2, StudyInstanceUID="1.2.41")
    made = run("dicom", root)
    assert list(made.rows) == ["1.2.41"] and made.rows["1.2.41"]["ct"] == "b"
    assert "shares its folder" in made.why(file="a/IM000")


def test_patients_series_and_copies(tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    series(root / "a", 1)
    series(root / "b", 2, PatientID="MRN8")  # the same study of somebody else
    series(root / "c", 3, PatientID="", StudyInstanceUID="1.2.43")
    series(root / "d", 4, StudyInstanceUID="1.2.44", slices=3)
    dicom_slice(root / "z" / "copy.dcm", SOPInstanceUID="1.2.40.1.0")
    made = run("dicom", root)
    assert {name: row["subject_id"] for name, row in made.rows.items()} == {"1.2.40": "MRN7", "1.2.43": "study-1.2.43"}
    assert made.why(file="b/IM000") == "its study is of another patient in an earlier file"
    assert "fewer than 8 slices" in made.why(file="d/IM000")
    assert made.why(file="z/copy.dcm") == "a copy of a/IM000"
    assert any("no PatientID" in note for note in made.done.notes)


def test_a_structured_report_in_words(tmp_path: Path) -> None:
    root = tmp_path / "sr"
    series(root / "ct", 1)
    text = Dataset()
    text.ValueType, text.TextValue, text.RelationshipType = "TEXT", "Lungs are clear.", "CONTAINS"
    text.ConceptNameCodeSequence = [code("1", "Findings")]
    sr = {"Modality": "SR", "Rows": None, "Columns": None, "SeriesInstanceUID": "1.2.40.7", "ContentSequence": [text]}
    dicom_slice(root / "sr" / "r.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SOPInstanceUID="1.2.40.7.1", **sr)
    dicom_slice(
        root / "sr" / "dose.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67", SOPInstanceUID="1.2.40.7.2", **sr
    )
    made = run("dicom", root)
    row = made.rows["1.2.40"]
    assert row["report"] == "sr/r.dcm" and "Lungs are clear." in read_report(root / row["report"]).text
    assert "holds no image" in made.why(file="sr/dose.dcm")


def test_reports_of_a_table_join_by_accession_and_never_across_patients(root: Path, tmp_path: Path) -> None:
    words = "The lungs are clear and the heart is of normal size."
    table = (
        f"AccessionNumber,PatientID,Report\nA1,MRN7,{words}\nA2,MRN8,Of somebody else entirely here.\nA9,MRN7,{words}\n"
    )
    reports = put(tmp_path / "his", {"reports.csv": table}) / "reports.csv"
    made = run("dicom", root, reports=reports)
    assert made.rows["1.2.40"]["report_text"] == words
    assert made.rows["1.2.50"]["report_text"] == ""
    assert made.why(source="reports.csv", row=3) == "the images of this study are of another patient"
    assert made.why(source="reports.csv", row=4) == "nothing on disk belongs to it"


def test_keys_that_a_data_frame_made_numbers_of_still_join(tmp_path: Path) -> None:
    series(tmp_path / "pacs", AccessionNumber="1001", PatientID="77")
    table = "AccessionNumber,PatientID,Report\n1001.0,77.0,The lungs are clear and the heart is normal.\n"
    reports = put(tmp_path / "his", {"reports.csv": table}) / "reports.csv"
    made = run("dicom", tmp_path / "pacs", reports=reports)
    assert made.rows["1.2.40"]["report_text"] == "The lungs are clear and the heart is normal."
    assert "reports: ids such as 1001.0 are read as 1001" in made.done.notes


def test_a_folder_of_one_series_is_its_own_root(tmp_path: Path) -> None:
    root = tmp_path / "one"
    series(root, 1)
    made = run("dicom", root)
    assert made.rows["1.2.40"]["ct"] == "." and read_ct(root).array.shape == (10, 8, 9)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no CT slice and no radiograph"):
        run("dicom", put(tmp_path / "x", {"a.txt": "x"}))


def coded(meaning: str) -> list[Dataset]:
    return [code("R-0", meaning)]


def test_one_sop_instance_uid_for_all_is_no_copy(tmp_path: Path) -> None:
    """Of people: told apart by patient. Of one patient: by position, and by the pixels."""
    root = tmp_path / "anonymised"
    for person in range(3):
        study = {"PatientID": f"P{person}", "StudyInstanceUID": f"1.2.9.{person}", "SOPInstanceUID": "1.2.3.4"}
        radiograph(root / f"p{person}" / "1.dcm", f"1.2.9.{person}.1", ViewPosition="PA", **study)
    for index in range(9):
        dicom_slice(root / "ct" / f"{index}.dcm", index=index, SOPInstanceUID="1.2.3.4")
    same = {"StudyInstanceUID": "1.2.60", "ViewPosition": "PA", "PatientID": "P9", "SOPInstanceUID": "1.2.3.4"}
    radiograph(root / "twice" / "a.dcm", "1.2.60.1", **same)
    radiograph(root / "twice" / "b.dcm", "1.2.60.1", **same)
    radiograph(root / "twice" / "c.dcm", "1.2.60.1", **same, shape=(10, 8))
    made = run("dicom", root, max_lost=0.0)
    assert {row["subject_id"] for row in made.rows.values()} == {"P0", "P1", "P2", "P9", "MRN7"}
    assert made.rows["1.2.40"]["ct"] == "ct" and read_ct(root / "ct").array.shape == (10, 8, 9)
    assert made.why(file="twice/b.dcm") == "a copy of twice/a.dcm" and made.why(file="twice/c.dcm") == ""
    assert any("one SOPInstanceUID" in note for note in made.done.notes)


def test_the_view_is_what_the_reader_sees(tmp_path: Path) -> None:
    root = tmp_path / "views"
    study = {"StudyInstanceUID": "1.2.50"}
    radiograph(root / "1.dcm", "1.2.50.1", ViewCodeSequence=coded("left lateral"), **study)
    radiograph(root / "2.dcm", "1.2.50.2", ViewCodeSequence=coded("postero-anterior"), **study)
    radiograph(
        root / "3.dcm", "1.2.51.1", ViewCodeSequence=coded("left lateral"), StudyInstanceUID="1.2.51", PatientID="B"
    )
    radiograph(root / "4.dcm", "1.2.52.1", ViewPosition="RAO", StudyInstanceUID="1.2.52", PatientID="C")
    made = run("dicom", root)
    assert (made.rows["1.2.50"]["xray"], made.rows["1.2.50"]["xray_lateral"]) == ("2.dcm", "1.dcm")
    assert (made.rows["1.2.51"]["xray"], made.rows["1.2.51"]["xray_lateral"]) == ("", "3.dcm")
    assert "1.2.52" not in made.rows, "an oblique view is no frontal one"
    assert "--rows file keeps it" in made.why(file="4.dcm")
    kept = run("dicom", root, rows="file")
    assert any(row["xray"] == "4.dcm" for row in kept.rows.values()) and kept.why(file="4.dcm") == ""


def test_a_raw_image_alone_is_left_out_with_the_reason(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    radiograph(root / "1.dcm", "1.2.50.1", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1", StudyInstanceUID="1.2.50")
    radiograph(root / "2.dcm", "1.2.51.1", StudyInstanceUID="1.2.51", PatientID="B")
    for rows in ("study", "file"):
        made = run("dicom", root, rows=rows)
        assert made.why(file="1.dcm") == "raw image (FOR PROCESSING), not meant to be looked at"


def test_raw_images_and_other_parts_of_the_body_are_no_first_choice(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    study = {"StudyInstanceUID": "1.2.50", "ViewPosition": "PA"}
    radiograph(root / "1.dcm", "1.2.50.1", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1", **study)
    radiograph(root / "2.dcm", "1.2.50.2", BodyPartExamined="HAND", **study)
    radiograph(root / "3.dcm", "1.2.50.3", BodyPartExamined="CHEST", StudyInstanceUID="1.2.50", ViewPosition="AP")
    made = run("dicom", root)
    row = made.rows["1.2.50"]
    assert row["xray"] == "3.dcm" and set(row["other_files"].split(";")) == {"1.dcm", "2.dcm"}
    assert not any("part of the body" in note for note in made.done.notes)


def test_a_study_of_another_part_of_the_body_alone_is_told(tmp_path: Path) -> None:
    root = tmp_path / "knee"
    radiograph(root / "1.dcm", "1.2.51.1", BodyPartExamined="KNEE", StudyInstanceUID="1.2.51", ViewPosition="AP")
    radiograph(root / "2.dcm", "1.2.52.1", BodyPartExamined="CHEST", StudyInstanceUID="1.2.52", ViewPosition="AP")
    made = run("dicom", root)
    assert made.rows["1.2.51"]["xray"] == "1.dcm"
    assert "1 studies have a radiograph of another part of the body than the chest alone: KNEE x 1" in made.done.notes


def test_the_longest_series_is_passed_over_where_the_reader_refuses_it(tmp_path: Path) -> None:
    root = tmp_path / "heart"
    series(root / "plain", 2, slices=9)
    for phase in range(3):
        for index in range(8):
            uid = f"1.2.40.3.{phase}.{index}"
            dicom_slice(
                root / "cardiac" / f"{phase}{index}", index=index, SeriesInstanceUID="1.2.40.3", SeriesNumber=3,
                SOPInstanceUID=uid, RescaleIntercept=-1024 + phase,
            )  # fmt: skip
    made = run("dicom", root)
    assert (made.rows["1.2.40"]["ct"], made.rows["1.2.40"]["other_files"]) == ("plain", "cardiac")
    assert any("1 CT series passed over" in note and "8 positions" in note for note in made.done.notes)
    for file in (root / "plain").iterdir():
        file.unlink()
    assert run("dicom", root).rows["1.2.40"]["ct"] == "cardiac", "the check says why it cannot be read"


@pytest.mark.parametrize("slices", [8, 1])
def test_a_series_uid_for_every_slice(tmp_path: Path, slices: int) -> None:
    root = tmp_path / "anew"
    for index in range(30):
        dicom_slice(
            root / "ct" / f"{index}.dcm",
            index=index,
            SeriesInstanceUID=f"1.2.40.{index}",
            SOPInstanceUID=f"1.2.{index}",
        )
    with pytest.raises(
        LayoutError, match="30 x one of many CT files, each with a SeriesInstanceUID of its own.*; fix: map UIDs"
    ):
        run("dicom", root, min_slices=slices)
    series(root / "sound", 99, StudyInstanceUID="1.2.99")
    with pytest.raises(LostError, match="30 of 39 files .30 x one of many CT files"):
        run("dicom", root, min_slices=slices, max_lost=0.1)


def test_images_that_state_neither_modality_nor_study(tmp_path: Path) -> None:
    root = tmp_path / "bare"
    blank = dict.fromkeys(("Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber"))
    for number in range(4):
        radiograph(root / f"{number}.dicom", f"1.2.{number}", **blank)
    with pytest.raises(LayoutError) as caught:
        run("dicom", root)
    said = str(caught.value)
    assert "holds 4 DICOM images, none of which states its Modality or its StudyInstanceUID" in said
    assert "fix: make a table with one row per image, and medssml import csv" in said
    assert (tmp_path / "out" / "import_report.csv").read_text().count("no StudyInstanceUID") == 4
    unknown = tmp_path / "unknown"
    radiograph(unknown / "a.dcm", "1.2.7", Modality=None, SOPClassUID="1.2.3")
    with pytest.raises(
        LayoutError, match=r"holds 1 DICOM image, none of which states its Modality \(1 x states no Modality"
    ):
        run("dicom", unknown)


def test_a_modality_that_the_class_of_the_file_states(tmp_path: Path) -> None:
    radiograph(tmp_path / "cr" / "a.dcm", "1.2.7", Modality=None, ViewPosition="PA")
    assert run("dicom", tmp_path / "cr").rows["1.2.40"]["xray"] == "a.dcm"


def test_files_without_the_first_bytes_of_a_dicom_file(tmp_path: Path) -> None:
    root = tmp_path / "sent"
    series(root / "ct", 1)
    for file in (root / "ct").iterdir():
        file.write_bytes(file.read_bytes()[132:])
    made = run("dicom", root, max_lost=0.0)
    assert made.rows["1.2.40"]["ct"] == "ct" and made.rows["1.2.40"]["subject_id"] == "MRN7"
