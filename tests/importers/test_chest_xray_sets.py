"""CheXpert, CheXpert Plus, ChestX-ray14, PadChest: what their tables and folders do not agree on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssml.importers import LayoutError, LostError
from tests.importers.trees import put, run

HEAD = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pleural Effusion\n"


def test_chexpert(tmp_path: Path) -> None:
    prefix = "CheXpert-v1.0-small"
    train = (
        f"{prefix}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,\n"
        f"{prefix}/train/patient00002/study2/view1_frontal.jpg,Male,0,Frontal,PA,,-1.0,1.0\n"
        f"{prefix}/train/patient00002/study2/view2_lateral.jpg,Male,0,Lateral,,,-1.0,1.0\n"
        f"{prefix}/train/patient00003/study1/view1_frontal.jpg,Male,40,Frontal,AP,,,\n"
        f"{prefix}/odd.jpg,Male,40,Frontal,AP,,,\n"
    )
    valid = f"{prefix}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,0.0\n"
    root = put(
        tmp_path / prefix,  # the folder itself is the root: the tables repeat its name
        {
            "train.csv": HEAD + train,
            "valid.csv": HEAD + valid,
            "train/patient00001/study1/view1_frontal.jpg": b"1",
            "train/patient00002/study2/view1_frontal.jpg": b"2",
            "train/patient00002/study2/view2_lateral.jpg": b"3",
            "valid/patient64541/study1/view1_frontal.jpg": b"4",
        },
    )
    made = run("chexpert", root)
    assert list(made.rows) == ["patient00001_study1", "patient00002_study2", "patient64541_study1"]
    row = made.rows["patient00002_study2"]
    assert row["xray"].endswith("view1_frontal.jpg") and row["xray_lateral"].endswith("view2_lateral.jpg")
    assert (row["label_edema"], row["uncertain_labels"], row["label_pleural_effusion"]) == ("", "edema", "1")
    assert row["age"] == "" and made.rows["patient00001_study1"]["age"] == "68", "0 is unknown"
    assert [made.rows[name]["split"] for name in made.rows] == ["train", "train", "val"]
    assert made.why(source="train.csv", row=5) == "no such image on disk"
    assert "is not SPLIT/patientN" in made.why(source="train.csv", row=6)
    positive = run("chexpert", root, uncertain="positive", unmentioned="negative").rows
    assert (
        positive["patient00002_study2"]["label_edema"] == "1" and positive["patient00001_study1"]["label_edema"] == "0"
    )
    # the folder above as the root
    assert len(run("chexpert", tmp_path, out=tmp_path / "m.csv").rows) == 3


def test_chexpert_plus(tmp_path: Path) -> None:
    columns = "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,report,section_clinical_history,section_findings,"
    table = (
        columns
        + "section_impression,age,sex,race,split\n"
        + (
            'train/patient1/study1/view1_frontal.jpg,train/patient1/study1/view1_frontal.dcm,Frontal,AP,patient1,"all\nof it",'
            "Cough.,,1. Normal.,50.0,Female,White,train\n"
            "train/patient1/study1/view2_lateral.jpg,,Lateral,,patient1,all,Cough.,,1. Normal.,50.0,Female,White,train\n"
            "train/patient2/study9/view1_frontal.jpg,,Frontal,PA,patient2,Only narrative.,,,,0.0,Male,,train\n"
            "valid/patient3/study1/view1_frontal.jpg,,Frontal,PA,patient3,,,,,61,Male,,valid\n"
        )
    )
    labels = [
        {
            "path_to_image": "train/patient1/study1/view1_frontal.jpg",
            "Edema": 1.0,
            "Fracture": None,
            "No Finding": -1.0,
        },
        {"path_to_image": "train/patient9/study9/view1_frontal.jpg", "Edema": 1.0},
    ]
    root = put(
        tmp_path / "plus",
        {
            "df_chexpert_plus_240401.csv": table,
            "chexbert_labels/impression_fixed.json": "\n".join(map(json.dumps, labels)) + "\nbroken\n",
            "PNG/PNG/train/patient1/study1/view1_frontal.png": b"1",
            "PNG/PNG/train/patient1/study1/view2_lateral.png": b"2",
        },
    )
    made = run("chexpert-plus", root)
    row = made.rows["patient1_study1"]
    assert row["xray"] == "PNG/PNG/train/patient1/study1/view1_frontal.png" and row["xray_lateral"].endswith(
        "view2_lateral.png"
    )
    assert row["report_text"] == "INDICATION: Cough.\nIMPRESSION: 1. Normal." and row["group_sex"] == "F"
    assert row["label_edema"] == "1" and row["uncertain_labels"] == "no_finding"
    assert made.rows["patient2_study9"]["report_text"] == "Only narrative.", "a report without its image stays"
    assert made.why(source="240401.csv", row=5) == "no such image on disk"
    named = [line for line in made.lines if line["row"] == "4" and line["column"] == "xray"]
    assert [line["reason"] for line in named] == ["no such image on disk"], "of a row that gives the report"
    assert made.why(source="impression_fixed.json", row=2) == "nothing on disk belongs to it"
    assert made.why(source="impression_fixed.json", row=3) == "no labels (JSONDecodeError)"


def test_nih_chest_xray_14(tmp_path: Path) -> None:
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    rows = [
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,081Y,M,PA,2500,2048,0.171,0.171,",
        "00000003_000.png,Hernia,0,3,081Y,F,AP,2500,2048,0.168,0.168,",
        "00000004_000.png,Hernia,0,4,081Y,F,AP,2500,2048,0.168,0.168,",
    ]
    root = put(
        tmp_path / "nih",
        {
            "Data_Entry_2017_v2020.csv": header + "\n".join(rows) + "\n",
            "images_001/images/00000001_000.png": b"1",
            "images_001/images/00000002_000.png": b"2",
            "images_002/images/00000003_000.png": b"3",
            "train_val_list.txt": "00000001_000.png\n00000002_000.png\n00000004_000.png\n",
            "test_list.txt": "00000003_000.png\n",
        },
    )
    made = run("nih-cxr14", root, val_fraction=0.0)
    assert {row["subject_id"]: row["split"] for row in made.rows.values()} == {
        "00000001": "train",
        "00000002": "train",
        "00000003": "test",
    }
    row = made.rows["00000001_000"]
    assert (row["label_cardiomegaly"], row["label_emphysema"], row["label_hernia"], row["label_no_finding"]) == (
        "1",
        "1",
        "0",
        "0",
    )
    assert row["xray"] == "images_001/images/00000001_000.png" and row["group_view"] == "PA" and row["age"] == "58"
    assert made.why(source="v2020.csv", row=5) == "no such image on disk"
    carved = run("nih-cxr14", root, val_fraction=1.0)
    assert {row["split"] for row in carved.rows.values()} == {"val", "test"}
    assert {row["official_split"] for row in carved.rows.values()} == {"train", "test"}
    assert any("2 training studies became val" in note for note in carved.done.notes)


def test_chexpert_as_its_archives_unpack(tmp_path: Path) -> None:
    """The tables name CheXpert-v1.0/train/patient..., the archives hold the patients in folders of their own."""
    rows = {"train": "", "valid": ""}
    files = {}
    for split, patient, folder in (
        ("train", "patient00001", "CheXpert-v1.0 batch 2 (train 1)"),
        ("train", "patient21514", "CheXpert-v1.0 batch 3 (train 2)"),
        ("valid", "patient64541", "CheXpert-v1.0 batch 1 (validate & csv)/valid"),
    ):
        view = f"{patient}/study1/view1_frontal.jpg"
        rows[split] += f"CheXpert-v1.0/{split}/{view},Female,61,Frontal,AP,1.0,,\n"
        files[f"{folder}/{view}"] = patient
    tables = {f"CheXpert-v1.0 batch 1 (validate & csv)/{split}.csv": HEAD + rows[split] for split in rows}
    made = run("chexpert", put(tmp_path / "set", {**files, **tables}), max_lost=0.0)
    assert [row["split"] for row in made.rows.values()] == ["train", "train", "val"]
    assert (
        made.rows["patient21514_study1"]["xray"]
        == "CheXpert-v1.0 batch 3 (train 2)/patient21514/study1/view1_frontal.jpg"
    )


def test_chexpert_plus_in_chunks(tmp_path: Path) -> None:
    table = "path_to_image,frontal_lateral,ap_pa,report,age,sex,race,split\n"
    table += "train/patient1/study1/view1_frontal.jpg,Frontal,PA,One report.,50,Male,,train\n"
    files = {"df_chexpert_plus_240401.csv": table, "png_chunk_3/PNG/patient1/study1/view1_frontal.png": b"1"}
    made = run("chexpert-plus", put(tmp_path / "plus", files), max_lost=0.0)
    assert made.rows["patient1_study1"]["xray"].startswith("png_chunk_3/")
    assert any("chexbert_labels" in note and "no study has a label" in note for note in made.done.notes)


def test_chexpert_plus_without_its_pictures_stops(tmp_path: Path) -> None:
    table = "path_to_image,frontal_lateral,ap_pa,report,age,sex,race,split\n"
    table += "train/patient1/study1/view1_frontal.jpg,Frontal,PA,One report.,50,Male,,train\n"
    root = put(tmp_path / "plus", {"df_chexpert_plus_240401.csv": table})
    with pytest.raises(LostError, match="all 1 files that it names for xray"):
        run("chexpert-plus", root, max_lost=0.1)


@pytest.mark.parametrize(
    "names", [("train_val_list_NIH.txt", "test_list_NIH.txt"), ("Train-Val List.txt", "TEST_LIST (1).txt")]
)
def test_the_lists_of_chest_xray_14_by_other_names(tmp_path: Path, names: tuple[str, str]) -> None:
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    rows = "".join(f"{n:08d}_000.png,Hernia,0,{n},050Y,M,PA\n" for n in (1, 2))
    files = {
        "Data_Entry_2017.csv": head + rows,
        "a/00000001_000.png": b"1",
        "a/00000002_000.png": b"2",
        "other.txt": "x",
    }
    root = put(tmp_path / "nih", {**files, names[0]: "00000001_000.png\n", names[1]: "images/00000002_000.png\n"})
    made = run("nih-cxr14", root, val_fraction=0.0)
    assert [row["split"] for row in made.rows.values()] == ["train", "test"]
    assert "not part of the layout" in made.why(file="other.txt")
    for name in names:
        (root / name).unlink()
    notes = " ".join(run("nih-cxr14", root).done.notes)
    assert "ChestX-ray14's list test_list.txt: not found" in notes and "train_val_list.txt: not found" in notes


def test_padchest(tmp_path: Path) -> None:
    header = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    header += "Projection,MethodLabel,Report,Labels\n"
    rows = [
        "0,1_a.png,0,20140915,S1,P1,1930.0,F,PA,Physician,sin hallazgos patológicos,\"['normal']\"",
        "1,1_b.png,0,20140915,S1,P1,1930.0,F,L,Physician,sin hallazgos patológicos,\"['normal']\"",
        "2,2_a.png,1,20150915,S2,P2,,M,AP_horizontal,RNN_model,\"derrame, izquierdo\",\"['pleural effusion', 'COPD signs']\"",
        "3,3_a.png,1,20150915,S3,P3,,M,COSTAL,RNN_model,None,[]",
        "4,4_a.png,1,20150915,S4,P4,,M,PA,RNN_model,informe sin imagen,\"['exclude']\"",
    ]
    root = put(
        tmp_path / "padchest",
        {
            "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz": header + "\n".join(rows) + "\n",
            "0/1_a.png": b"1",
            "0/1_b.png": b"2",
            "1/2_a.png": b"3",
            "1/3_a.png": b"4",
        },
    )
    made = run("padchest", root)
    assert list(made.rows) == ["S1", "S2", "S4"]
    assert (made.rows["S1"]["xray"], made.rows["S1"]["xray_lateral"]) == ("0/1_a.png", "0/1_b.png")
    assert made.rows["S1"]["report_text"] == "sin hallazgos patológicos" and made.rows["S1"]["label_normal"] == "1"
    assert made.rows["S2"]["group_view"] == "AP" and made.rows["S2"]["label_copd_signs"] == "1"
    assert made.rows["S2"]["findings"] == "pleural effusion;copd signs" and made.rows["S4"]["label_normal"] == ""
    assert made.rows["S4"]["report_text"] == "informe sin imagen" and made.rows["S4"]["xray"] == ""
    assert "no frontal or lateral view" in made.why(source="01.02.19.csv.gz", row=5)
    assert "split" not in made.rows["S1"]


@pytest.mark.parametrize("name", ["chexpert", "chexpert-plus", "nih-cxr14", "padchest"])
def test_a_folder_without_the_table_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="holds no .*fix: give the folder of"):
        run(name, put(tmp_path / "x", {"a.png": b"1"}))
