"""CT-RATE, RAD-ChestCT, LIDC-IDRI, INSPECT: which volume is which, and whose header can be believed."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssml.importers import LayoutError
from medssml.readers import read_ct
from tests.importers.trees import dicom_slice, put, run

REPORTS = "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n"
LABELS = "VolumeName,Medical material,Lung nodule,Hiatal hernia\n"
META = "VolumeName,PatientSex,PatientAge,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n"


def test_ct_rate(tmp_path: Path) -> None:
    def volume(split: str, patient: int, scan: str, number: int, fixed: bool = True) -> str:
        folder = f"{split}_fixed" if fixed else split
        name = f"{split}_{patient}"
        return f"dataset/{folder}/{name}/{name}_{scan}/{name}_{scan}_{number}.nii.gz"

    names = [
        volume("train", 1, "a", 2),
        volume("train", 1, "a", 1),
        volume("train", 1, "b", 1),
        volume("valid", 7, "a", 1),
    ]
    names += [
        volume("train", 2, "a", 1, fixed=False),
        volume("train", 1, "a", 1, fixed=False),
        volume("train", 9, "a", 1),
    ]
    text = 'Cough,Non-contrast,"Nodule in the ""left"" lobe.",Nodule.'
    root = put(
        tmp_path / "ctrate",
        {
            **dict.fromkeys(names, b"1"),
            "dataset/radiology_text_reports/train_reports.csv": REPORTS
            + f"train_1_a_1.nii.gz,{text}\ntrain_1_a_2.nii.gz,{text}\ntrain_1_b_1.nii.gz,Not given.,Not given.,Not given.,\n"
            + f"train_5_a_1.nii.gz,{text}\n",
            "dataset/radiology_text_reports/validation_reports.csv": REPORTS
            + "valid_7_a_1.nii.gz,Not given.,x,Clear.,\n",
            "dataset/multi_abnormality_labels/train_predicted_labels.csv": LABELS
            + "train_1_a_1.nii.gz,0,1,0\ntrain_1_b_1.nii.gz,1,0,0\n",
            "dataset/metadata/train_metadata.csv": META
            + 'train_1_a_1.nii.gz,F,060Y,1,-1024,"[0.7, 0.7]",1.5\ntrain_2_a_1.nii.gz,M,050Y,1,-8192,"[0.6, 0.6]",1.0\n',
            "dataset/metadata/no_chest_train.txt": "train_9/train_9_a/train_9_a_1.nii.gz\n",
        },
    )
    made = run("ct-rate", root)
    assert sorted(made.rows) == ["train_1_a", "train_1_b", "train_2_a", "valid_7_a"]
    row = made.rows["train_1_a"]
    assert row["subject_id"] == made.rows["train_1_b"]["subject_id"] == "train_1"
    assert (row["ct"], row["other_files"]) == (names[1], names[0]) and row["ct_spacing"] == "", (
        "the fixed header is right"
    )
    assert row["report_text"].startswith(
        'INDICATION: Cough\nTECHNIQUE: Non-contrast\nFINDINGS: Nodule in the "left" lobe.'
    )
    assert (row["label_lung_nodule"], row["label_hiatal_hernia"]) == ("1", "0")
    blank = made.rows["train_2_a"]
    assert (blank["ct_spacing"], blank["ct_slope"], blank["ct_intercept"]) == ("0.6 0.6 1", "1", "-8192")
    assert (
        made.rows["valid_7_a"]["report_text"] == "TECHNIQUE: x\nFINDINGS: Clear."
        and made.rows["valid_7_a"]["split"] == "val"
    )
    assert made.rows["train_1_b"]["report_text"] == "" and made.rows["train_1_b"]["split"] == "train"
    assert made.why(file=names[5]) == f"{names[1]} is the same volume"
    assert "no scan of the chest" in made.why(file=names[6])
    assert made.why(source="train_reports.csv", row=4) == "neither findings nor impression"
    assert made.why(source="train_reports.csv", row=5) == "nothing on disk belongs to it"
    assert set(run("ct-rate", root, rows="file").rows) >= {"train_1_a_1", "train_1_a_2"}


def hu(path: Path, seed: int, spacing: float = 0.8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(-1000, 1000, (10, 9, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-spacing, -spacing, 2 * spacing, 1.0])), path)
    return path


def organs(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).integers(0, 117, (10, 9, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-0.8, -0.8, 1.6, 1.0])), path)
    return path


VOLUMES = ("train_fixed/train_1/train_1_a/train_1_a_1.nii.gz", "valid_fixed/valid_1/valid_1_a/valid_1_a_1.nii.gz")


@pytest.mark.parametrize("place", ["ts_seg/ts_total", "ts_seg/ts_lung_nodules", "a/lungs", "zz_out", "Predictions"])
@pytest.mark.parametrize("above", ["", "dataset/"])
def test_segmentations_under_the_names_of_ct_rate(tmp_path: Path, place: str, above: str) -> None:
    """Told by their folder or, where that says nothing, by what they hold; whatever comes first in the alphabet."""
    root = tmp_path / "ctrate"
    for seed, name in enumerate(VOLUMES):
        hu(root / above / name, seed)
        organs(root / above / place / name)
    made = run("ct-rate", root)
    assert {row["ct"] for row in made.rows.values()} == {above + name for name in VOLUMES}
    assert all("segmentation" in made.why(file=f"{above}{place}/{name}") for name in VOLUMES)


def test_segmentations_alone_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "ctrate"
    for name in VOLUMES:
        organs(root / "totals" / name)
    with pytest.raises(
        LayoutError, match="holds no volume .* segmentations under such names aside .2 x a segmentation"
    ):
        run("ct-rate", root)


def test_a_derived_copy_comes_after_the_volume_and_is_not_called_the_same(tmp_path: Path) -> None:
    root = tmp_path / "ctrate"
    hu(root / "dataset" / VOLUMES[0], 0)
    hu(root / "a_resampled" / VOLUMES[0], 1)
    made = run("ct-rate", root)
    assert made.rows["train_1_a"]["ct"] == f"dataset/{VOLUMES[0]}"
    assert "has the same name" in made.why(file=f"a_resampled/{VOLUMES[0]}")


def test_the_header_says_whether_it_is_blank_and_not_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "ctrate"
    sound = hu(root / "train/train_1/train_1_a/train_1_a_1.nii.gz", 0)
    for split, patient in (("train", "train_2"), ("train_fixed", "train_3")):
        blank = root / f"{split}/{patient}/{patient}_a/{patient}_a_1.nii.gz"
        blank.parent.mkdir(parents=True)
        image = nibabel.load(sound)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.eye(4)), blank)
    rows = "".join(f'train_{n}_a_1.nii.gz,F,060Y,1,-1024,"[0.7, 0.7]",1.5\n' for n in (1, 2, 3))
    put(root, {"train_metadata.csv": META + rows})
    made = run("ct-rate", root).rows
    given = {name: (row["ct_spacing"], row["ct_slope"], row["ct_intercept"]) for name, row in made.items()}
    assert given == {
        "train_1_a": ("", "", ""), "train_2_a": ("0.7 0.7 1.5", "1", "-1024"), "train_3_a": ("0.7 0.7 1.5", "", ""),
    }, "a sound header in the folder of the first release; values of the fixed release are HU"  # fmt: skip


def test_lists_and_tables_of_ct_rate_by_other_names_and_what_their_absence_means(tmp_path: Path) -> None:
    root = tmp_path / "ctrate"
    for seed, name in enumerate(VOLUMES):
        hu(root / name, seed)
    put(root, {"no_chest_train (1).txt": "train_1_a_1.nii.gz\n", "meta/notes.txt": "x"})
    put(root, {"dataset_valid_reports_v2.csv": REPORTS + "valid_1_a_1.nii.gz,,,Clear.,\n"})
    made = run("ct-rate", root)
    assert list(made.rows) == ["valid_1_a"] and made.rows["valid_1_a"]["report_text"] == "FINDINGS: Clear."
    notes = " ".join(made.done.notes)
    assert "*_labels.csv: not found below the root; no study has a label" in notes and "*_reports" not in notes
    assert "not part of the layout" in made.why(file="meta/notes.txt"), "a list that nobody has read is in the account"


def test_rad_chest_ct_is_converted_with_its_axes(tmp_path: Path) -> None:
    root = tmp_path / "rad"
    values = np.full((6, 5, 4), -1000, np.int16)
    values[0] = 10  # the highest slice
    values[:, 0] = 20  # the front
    values[:, :, 0] = 30  # the patient's right
    for name in ("trn00001", "tst00002", "val00003"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        np.savez_compressed(root / "images" / f"{name}.npz", ct=values)
    np.savez_compressed(root / "images" / "trn00004.npz", ct=values.astype(np.uint8))
    put(
        root,
        {
            "CT_Scan_Metadata_Complete_35747.csv": "NoteAcc_DEID,MRN_DEID,VolumeAcc_DEID,final_spacing\n"
            "trn00001,m1,trn00001.npz,0.8\ntst00002,m2,tst00002.npz,0.8\nval00003,m2,val00003.npz,0.8\ntrn00004,m4,trn00004.npz,0.8\n",
            "imgtrain_Abnormality_and_Location_Labels.csv": "NoteAcc_DEID,nodule*left_lung,nodule*rul,mass*rul\ntrn00001,0,1,0\n",
        },
    )
    with pytest.raises(LayoutError, match="neither spacing nor orientation; fix: --write-into"):
        run("rad-chest-ct", root)
    made = run("radchestct", root, write_into=root / "nifti")
    row = made.rows["trn00001"]
    assert row["subject_id"] == "m1" and row["ct"] == "nifti/trn00001.nii.gz" and row["split"] in ("train", "val")
    assert (row["label_nodule"], row["label_mass"]) == ("1", "0")
    volume = read_ct(root / row["ct"])
    assert np.allclose(volume.spacing, 0.8) and volume.array.shape == (4, 5, 6)
    assert (volume.array[-2, 2, -1], volume.array[-2, -1, 2], volume.array[-1, 2, 2]) == (10, 20, 30), (
        "right is last in -x"
    )
    assert "cannot be converted" in made.why(file="images/trn00004.npz")
    assert "subject is in the official test split as well" in made.why(file="images/val00003.npz")


def lidc_xml(study: str, readers: list[list[int] | None]) -> str:
    """readers: ratings of malignancy that each gives; None: a small nodule only."""
    sessions = ""
    for ratings in readers:
        nodules = "".join(
            f"<unblindedReadNodule><noduleID>1</noduleID><characteristics><subtlety>5</subtlety><malignancy>{rating}</malignancy>"
            "</characteristics></unblindedReadNodule>"
            for rating in ratings or []
        )
        small = (
            "<unblindedReadNodule><noduleID>9</noduleID><characteristics/></unblindedReadNodule>"
            if ratings is None
            else ""
        )
        sessions += f"<readingSession>{nodules}{small}</readingSession>"
    head = f"<SeriesInstanceUid>1</SeriesInstanceUid><StudyInstanceUID>{study}</StudyInstanceUID>"
    head = f"<ResponseHeader>{head}</ResponseHeader>"
    return f'<?xml version="1.0" encoding="UTF-8"?><LidcReadMessage xmlns="http://www.nih.gov">{head}{sessions}</LidcReadMessage>'


def test_lidc_idri(tmp_path: Path) -> None:
    root = tmp_path / "lidc"
    for patient, study in (("LIDC-IDRI-0001", "1.2.1"), ("LIDC-IDRI-0002", "1.2.2"), ("LIDC-IDRI-0003", "1.2.3")):
        folder = root / patient / f"01-01-2000-{patient}-NA-30178" / "3000566.000000-NA-03192"
        for index in range(9):
            tags = {"PatientID": patient, "StudyInstanceUID": study, "SeriesInstanceUID": study + ".1"}
            dicom_slice(folder / f"1-{index:02d}.dcm", index=index, SOPInstanceUID=f"{study}.1.{index}", **tags)
    radiograph = {
        "Modality": "DX",
        "ImagePositionPatient": None,
        "StudyInstanceUID": "1.2.9",
        "PatientID": "LIDC-IDRI-0001",
    }
    dicom_slice(
        root / "LIDC-IDRI-0001" / "cxr" / "1-1.dcm",
        SeriesInstanceUID="1.2.9.1",
        SOPInstanceUID="1.2.9.1.1",
        **radiograph,
    )
    first = root / "LIDC-IDRI-0001" / "01-01-2000-LIDC-IDRI-0001-NA-30178" / "3000566.000000-NA-03192"
    put(first, {"069.xml": lidc_xml("1.2.1", [[5, 4], [3], None, []])})
    put(
        root,
        {"xml/070.xml": lidc_xml("1.2.2", [None, [], [], []]), "xml/071.xml": lidc_xml("1.2.3", [[2], [], [], []])},
    )
    put(root, {"xml/072.xml": lidc_xml("1.2.77", [[1]]), "xml/other.xml": "<a/>"})
    made = run("lidc-idri", root)
    assert {name: row["label_nodule"] for name, row in made.rows.items()} == {
        "1.2.9": "",
        "1.2.1": "1",
        "1.2.2": "0",
        "1.2.3": "",
    }
    row = made.rows["1.2.1"]
    assert row["subject_id"] == made.rows["1.2.9"]["subject_id"] == "LIDC-IDRI-0001"
    assert row["readers_with_nodule"] == "2 of 4" and row["malignancy"] == "5;4;3"
    assert row["ct"].endswith("3000566.000000-NA-03192") and read_ct(root / row["ct"]).array.shape == (10, 8, 9)
    assert made.rows["1.2.9"]["xray"].endswith("cxr/1-1.dcm")
    assert made.why(file="xml/072.xml") == "a reading of a study that is not here"
    assert made.why(file="xml/other.xml") == "no reading of LIDC-IDRI"


def test_inspect(tmp_path: Path) -> None:
    root = put(
        tmp_path / "inspect" / "full",
        {
            "study_mapping_20250611.tsv": "impression_id\timage_id\tperson_id\tprocedure_DATETIME\n"
            "1\tPE45\t100\t2010-01-01\n2\tPE46\t100\t\n3\tPE47\t200\t\n4\tPE48\t\t\n5\tPE49\t500\t\n",
            "impressions_20250611.tsv": 'impression_id\timpressions\n1\t"1. No PE.\n2. Clear ""lungs""."\n'
            "2\tPE.\n3\tPE.\n5\tNone.\n",
            "splits_20250611.tsv": "impression_id\tsplit\n1\ttrain\n1\ttrain\n2\ttrain\n3\tvalid\n5\ttest\n",
            "labels_20250611.tsv": "impression_id\tpe_positive_nlp\t12_month_mortality\n1\tFalse\tCensored\n"
            "2\tTrue\tFalse\n3\tTrue\tTrue\n",
            "CTPA/PE45.nii.gz": b"1",
            "CTPA/PE46.nii.gz": b"2",
            "CTPA/PE47.nii.gz": b"3",
        },
    )
    made = run("inspect", root)
    assert [row["subject_id"] for row in made.rows.values()] == ["100", "100", "200", "500"]
    row = made.rows["1"]
    assert row["ct"] == "CTPA/PE45.nii.gz" and row["report_text"] == 'IMPRESSION: 1. No PE.\n2. Clear "lungs".'
    assert (row["label_pe_positive_nlp"], row["label_12_month_mortality"]) == ("0", ""), "censored is unlabelled"
    assert [row["split"] for row in made.rows.values()] == ["train", "train", "val", "test"]
    assert made.why(source="splits_20250611.tsv", row=3) == "the impression has a split already"
    assert made.why(source="mapping_20250611.tsv", row=5) == "no person"
    assert made.rows["5"]["ct"] == "" and made.rows["5"]["report_text"] == "IMPRESSION: None."


@pytest.mark.parametrize("name", ["ct-rate", "rad-chest-ct", "inspect", "lidc-idri"])
def test_another_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="holds no .*fix: "):
        run(name, put(tmp_path / "x", {"a.txt": "1"}))
