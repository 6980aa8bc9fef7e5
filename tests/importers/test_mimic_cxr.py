"""MIMIC-CXR: views, reports beside the study folder, tables named 2.0.0, labels of studies, splits of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.importers import LayoutError
from tests.importers.trees import put, run

METADATA = """dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate
aa-lat,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506
aa-ap,10000032,50414267,"CHEST (PORTABLE AP), 1 view",AP,3056,2544,21800506
aa-pa,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506
bb-ll,10000032,53189527,CHEST,LL,3056,2544,21800626
cc-gone,10000764,57375967,CHEST,AP,3056,2544,21801001
cc-odd,10000764,57375967,CHEST,SWIMMERS,3056,2544,21801001
aa-pa,10000032,50414267,twice,PA,3056,2544,21800506
dd-pa,11000001,58000001,CHEST,,3056,2544,21800101
"""
SPLIT = """dicom_id,study_id,subject_id,split
aa-lat,50414267,10000032,train
aa-ap,50414267,10000032,train
aa-pa,50414267,10000032,train
bb-ll,53189527,10000032,train
cc-odd,57375967,10000764,validate
dd-pa,58000001,11000001,test
"""
CHEXPERT = """subject_id,study_id,Atelectasis,Cardiomegaly,No Finding,Pleural Effusion
10000032,50414267,1.0,-1.0,,0.0
10000764,57375967,,,1.0,
99999999,59999999,1.0,,,
"""


def study(subject: str, study_id: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s{study_id}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    first, second, third = study("10000032", "50414267"), study("10000032", "53189527"), study("10000764", "57375967")
    return put(
        tmp_path / "jpg",
        {
            "mimic-cxr-2.0.0-metadata.csv.gz": METADATA,
            "mimic-cxr-2.0.0-split.csv": SPLIT,
            "mimic-cxr-2.0.0-chexpert.csv.gz": CHEXPERT,
            "mimic-cxr-2.0.0-negbio.csv.gz": CHEXPERT,
            f"{first}/aa-lat.jpg": b"1",
            f"{first}/aa-ap.jpg": b"2",
            f"{first}/aa-pa.jpg": b"3",
            f"{first}/zz-unlisted.jpg": b"4",
            f"{first}.txt": "FINAL REPORT\n FINDINGS: ___ clear.",
            f"{second}/bb-ll.jpg": b"5",
            f"{second}.txt": "FINDINGS: old.",
            f"{third}/cc-odd.jpg": b"6",
            f"{third}.txt": "IMPRESSION: none.",
            f"{study('11000001', '58000001')}/dd-pa.jpg": b"7",
            f"{study('11000001', '58000001')}/._dd-pa.jpg": b"resource fork",
            f"{study('12000001', '58000009')}.txt": "FINDINGS: a report without an image.",
        },
    )


def test_one_row_a_study_with_its_best_views(root: Path) -> None:
    made = run("mimic-cxr", root)
    assert list(made.rows) == ["50414267", "53189527", "57375967", "58000001"]
    row = made.rows["50414267"]
    folder = study("10000032", "50414267")
    assert (row["subject_id"], row["xray"], row["xray_lateral"]) == (
        "10000032",
        f"{folder}/aa-pa.jpg",
        f"{folder}/aa-lat.jpg",
    )
    assert row["other_files"] == f"{folder}/aa-ap.jpg" and row["group_view"] == "PA"
    assert row["report"] == f"{folder}.txt" and row["study_date"] == "21800506"
    lateral_only = made.rows["53189527"]
    assert (
        lateral_only["xray"] == ""
        and lateral_only["xray_lateral"].endswith("bb-ll.jpg")
        and lateral_only["group_view"] == ""
    )
    assert made.rows["57375967"]["other_files"].endswith("cc-odd.jpg"), "an odd view is no xray"
    assert made.rows["58000001"]["xray"].endswith("dd-pa.jpg"), "a view that is not stated is taken as frontal"


def test_the_official_split_and_labels(root: Path) -> None:
    made = run("mimic-cxr", root)
    assert {name: row["split"] for name, row in made.rows.items()} == {
        "50414267": "train",
        "53189527": "train",
        "57375967": "val",
        "58000001": "test",
    }
    row = made.rows["50414267"]
    assert (row["label_atelectasis"], row["label_pleural_effusion"], row["label_no_finding"]) == ("1", "0", "")
    assert row["uncertain_labels"] == "cardiomegaly"
    assert "label_cardiomegaly" not in row, "uncertain is neither class, and nobody else has the label"
    assert made.manifest.tasks["atelectasis"].kind == "binary"
    asked = run("mimic-cxr", root, uncertain="positive", unmentioned="negative").rows["50414267"]
    assert (asked["label_cardiomegaly"], asked["label_no_finding"]) == ("1", "0")


def test_every_row_is_accounted_for(root: Path) -> None:
    made = run("mimic-cxr", root)
    assert made.why(source="metadata.csv.gz", row=2) == ""
    assert made.why(source="metadata.csv.gz", row=6) == "no such image on disk"
    assert made.why(source="metadata.csv.gz", row=8) == "already in row 4"
    assert made.why(source="chexpert.csv.gz", row=4) == "nothing on disk belongs to it"
    assert "not part of the layout" in made.why(file="mimic-cxr-2.0.0-negbio.csv.gz")
    assert "in no table" in made.why(file=study("10000032", "50414267") + "/zz-unlisted.jpg")
    alone = study("12000001", "58000009") + ".txt"
    assert made.why(file=alone) == "the official split does not name it"
    assert not any("._" in line["file"] for line in made.lines), "a resource fork of macOS is no image"


def test_one_row_a_file(root: Path) -> None:
    made = run("mimic-cxr", root, rows="file")
    assert {name for name, row in made.rows.items() if row["subject_id"] == "10000032"} == {
        "50414267_aa-lat",
        "50414267_aa-ap",
        "50414267_aa-pa",
        "53189527",
    }
    assert made.rows["50414267_aa-lat"]["group_view"] == "lateral"
    assert made.rows["50414267_aa-lat"]["report"] == made.rows["50414267_aa-pa"]["report"] != ""


def test_dicom_release_without_jpg_tables(tmp_path: Path) -> None:
    folder = study("10000032", "50414267")
    root = put(
        tmp_path / "dcm",
        {
            "cxr-record-list.csv.gz": f"subject_id,study_id,dicom_id,path\n10000032,50414267,aa,{folder}/aa.dcm\n",
            "cxr-study-list.csv.gz": f"subject_id,study_id,path\n10000032,50414267,{folder}.txt\n",
            f"{folder}/aa.dcm": b"x",
            f"{folder}.txt": "FINDINGS: clear.",
        },
    )
    made = run("mimic-cxr", root)
    assert made.rows["50414267"]["xray"] == f"{folder}/aa.dcm" and made.rows["50414267"]["report"] == f"{folder}.txt"
    assert "split" not in made.rows["50414267"], "without an official split the hash of the subject decides on reading"


def test_a_jpeg_comes_before_the_dicom_file_that_it_was_made_of(tmp_path: Path) -> None:
    folder = study("10000032", "50414267")
    root = put(tmp_path / "both", {f"dcm/{folder}/aa.dcm": b"x", f"jpg/{folder}/aa.jpg": b"y"})
    made = run("mimic-cxr-jpg", root)
    assert made.rows["50414267"]["xray"] == f"jpg/{folder}/aa.jpg"
    assert "same image" in made.why(file=f"dcm/{folder}/aa.dcm")


def test_sections_are_taken_where_somebody_has_made_them(root: Path) -> None:
    table = "study,impression,findings,last_paragraph,comparison\ns50414267,Normal.,Clear.,,\ns1,a,b,,\n"
    put(root, {"mimic_cxr_sectioned.csv": table})
    row = run("mimic-cxr", root).rows["50414267"]
    assert row["report_text"] == "FINDINGS: Clear.\nIMPRESSION: Normal." and row["report"] == ""


def test_another_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    root = put(tmp_path / "other", {"a/b.jpg": b"1"})
    with pytest.raises(LayoutError, match=r"no study of MIMIC-CXR.*expected files/p10"):
        run("mimic-cxr", root)
    with pytest.raises(LayoutError, match="no such folder"):
        run("mimic-cxr", tmp_path / "nowhere")


def test_a_flat_tree_a_mask_of_the_same_name_and_tables_that_are_missing(tmp_path: Path) -> None:
    files = {f"files/p10000032/s50414267/aa.{ending}": b"x" for ending in ("jpg", "dcm")}
    files["a_masks/p10000032/s50414267/aa.jpg"] = b"mask"
    made = run("mimic-cxr", put(tmp_path / "flat", files))
    assert made.rows["50414267"]["xray"] == "files/p10000032/s50414267/aa.jpg"
    assert "a mask" in made.why(file="a_masks/p10000032/s50414267/aa.jpg")
    notes = " ".join(made.done.notes)
    assert "mimic-cxr-2.0.0-split.csv: not found" in notes and "the official split is not used" in notes
