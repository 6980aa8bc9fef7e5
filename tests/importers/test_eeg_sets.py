"""EEG corpora: who a recording is of, what its folder and its neighbours say about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.importers import LayoutError
from tests.importers.trees import put, run


def test_tueg(tmp_path: Path) -> None:
    session = "edf/000/aaaaaaaa/s001_2015_12_30"
    root = put(
        tmp_path / "tueg",
        {
            f"{session}/01_tcp_ar/aaaaaaaa_s001_t000.edf": b"1",
            f"{session}/01_tcp_ar/aaaaaaaa_s001_t001.edf": b"longer",
            f"{session}/aaaaaaaa_s001.txt": "CLINICAL HISTORY: caf\xe9".encode("latin-1"),
            "edf/000/aaaaaaaa/s002_2016_01_01/02_tcp_le/aaaaaaaa_s002_t000.edf": b"1",
            "edf/01_tcp_ar/027/00002729/s001_2006_04_12/00002729_s001.edf": b"1",
            "edf/01_tcp_ar/027/00002729/s001_2006_04_12/00002729_s001.txt": "IMPRESSION: normal.",
            "DOCS/montage.txt": "about",
            "edf/000/aaaaaaaa/bad.edf": b"1",
        },
    )
    made = run("tueg", root)
    assert list(made.rows) == ["aaaaaaaa_s001", "aaaaaaaa_s002", "00002729_s001"]
    row = made.rows["aaaaaaaa_s001"]
    assert row["eeg"].endswith("_t001.edf") and row["other_files"].endswith("_t000.edf"), "the longest is the session's"
    assert (
        row["report"] == f"{session}/aaaaaaaa_s001.txt"
        and row["group_montage"] == "01_tcp_ar"
        and row["year"] == "2015"
    )
    assert made.rows["aaaaaaaa_s002"]["report"] == ""
    assert made.rows["00002729_s001"]["subject_id"] == "00002729" and made.rows["00002729_s001"]["report"] != ""
    assert "not part" in made.why(file="DOCS/montage.txt") and "not part" in made.why(file="edf/000/aaaaaaaa/bad.edf")
    assert set(run("tueg", root, rows="file").rows) >= {"aaaaaaaa_s001_t000", "aaaaaaaa_s001_t001"}


def test_tuab_keeps_its_evaluation_set(tmp_path: Path) -> None:
    files = {f"edf/train/normal/01_tcp_ar/aaaaaa{x}a_s001_t000.edf": b"1" for x in "bcdefghijk"}
    files["edf/eval/abnormal/01_tcp_ar/aaaaaazz_s004_t000.edf"] = b"1"
    made = run("tuab", put(tmp_path / "tuab", files), val_fraction=0.3)
    row = made.rows["aaaaaazz_s004_t000"]
    assert (row["subject_id"], row["split"], row["label_abnormal"]) == ("aaaaaazz", "test", "1")
    assert {r["split"] for r in made.rows.values()} == {"train", "val", "test"}
    assert {r["official_split"] for r in made.rows.values()} == {"train", "eval"}


def test_tusz(tmp_path: Path) -> None:
    stem = "edf/dev/aaaaaqvx/s003_2015_08_24/03_tcp_ar_a/aaaaaqvx_s003_t000"
    head = "# version = csv_v1.0.0\n# bname = x\nchannel,start_time,stop_time,label,confidence\n"
    quiet = "edf/train/aaaaaaac/s001_2002/02_tcp_le/aaaaaaac_s001_t000"
    root = put(
        tmp_path / "tusz",
        {
            f"{stem}.edf": b"1",
            f"{stem}.csv": head + "FP1-F7,1.0,2.0,fnsz,1.0\n",
            f"{stem}.csv_bi": head + "TERM,0.0,1.0,bckg,1.0\nTERM,1.0,2.0,seiz,1.0\n",
            f"{quiet}.edf": b"1",
            f"{quiet}.csv_bi": head + "TERM,0.0,1.0,bckg,1.0\n",
            "edf/eval/aaaaaaaq/s001/01_tcp_ar/aaaaaaaq_s001_t000.edf": b"1",
        },
    )
    made = run("tusz", root)
    row = made.rows["aaaaaqvx_s003_t000"]
    assert (row["split"], row["label_seizure"], row["events"]) == ("val", "1", f"{stem}.csv_bi")
    assert made.rows["aaaaaaac_s001_t000"]["label_seizure"] == "0"
    assert made.rows["aaaaaaaq_s001_t000"]["label_seizure"] == "" and made.rows["aaaaaaaq_s001_t000"]["split"] == "test"
    assert made.why(file=f"{stem}.csv") == ""


def test_tuev(tmp_path: Path) -> None:
    root = put(
        tmp_path / "tuev",
        {
            "edf/train/aaaaaaar/aaaaaaar_00000001.edf": b"1",
            "edf/train/aaaaaaar/aaaaaaar_00000001.rec": "13,90.4,91.4,6\n1,20.0,21.0,2\n",
            "edf/train/aaaaaaar/aaaaaaar_00000001.htk": b"features",
            "edf/eval/000/bckg_000_a_.edf": b"1",
            "edf/eval/000/bckg_000_a_.rec": "0,1.0,2.0,6\n",
        },
    )
    made = run("tuev", root, val_fraction=0)
    row = made.rows["aaaaaaar_00000001"]
    assert (row["subject_id"], row["split"]) == ("aaaaaaar", "train")
    assert (row["label_gped"], row["label_bckg"], row["label_spsw"]) == ("1", "1", "0")
    assert made.rows["000_bckg_000_a"]["subject_id"] == "000" and made.rows["000_bckg_000_a"]["split"] == "test"


def test_chb_mit(tmp_path: Path) -> None:
    summary = (
        "Data Sampling Rate: 256 Hz\n\nFile Name: chb01_01.edf\nFile Start Time: 11:42:54\nNumber of Seizures in File: 0\n\n"
        "File Name: chb01_03.edf\nNumber of Seizures in File: 2\nSeizure 1 Start Time: 2996 seconds\n"
        "Seizure 1 End Time: 3036 seconds\nSeizure 2 Start Time: 3100 seconds\nSeizure 2 End Time: 3110 seconds\n"
    )
    other = "File Name: chb21_19.edf\nNumber of Seizures in File: 1\n"
    other += "Seizure Start Time: 1288 seconds\nSeizure End Time: 1344 seconds\n"
    root = put(
        tmp_path / "chbmit",
        {
            "chb01/chb01-summary.txt": summary,
            "chb21/chb21-summary.txt": other,
            "SUBJECT-INFO": "Case\tGender\tAge (years)\nchb01\tF\t11\nchb21\tF\t13\n",
            "chb01/chb01_01.edf": b"1",
            "chb01/chb01_03.edf": b"1",
            "chb01/chb01_03.edf.seizures": b"1",
            "chb21/chb21_19.edf": b"1",
            "chb17/chb17a_03.edf": b"1",
            "chb02/chb02_16+.edf": b"1",
            "RECORDS": "chb01/chb01_01.edf\n",
        },
    )
    made = run("chb-mit", root)
    assert {name: row["subject_id"] for name, row in made.rows.items()} == {
        "chb01_01": "chb01",
        "chb01_03": "chb01",
        "chb02_16+": "chb02",
        "chb17a_03": "chb17",
        "chb21_19": "chb01",  # the same girl, 1.5 years later
    }
    row = made.rows["chb01_03"]
    assert (row["label_seizure"], row["seizures"], row["group_sex"], row["age"]) == (
        "1",
        "2996-3036;3100-3110",
        "F",
        "11",
    )
    assert made.rows["chb01_01"]["label_seizure"] == "0" and made.rows["chb17a_03"]["label_seizure"] == ""
    assert made.rows["chb21_19"]["seizures"] == "1288-1344" and made.rows["chb21_19"]["age"] == "13"


def test_bids(tmp_path: Path) -> None:
    base = "sub-01/ses-1/eeg/sub-01_ses-1_task-rest_run-1"
    root = put(
        tmp_path / "bids",
        {
            "participants.tsv": "participant_id\tage\tsex\tgroup\nsub-01\t71\tM\tAD\n"
            "sub-02\tn/a\tF\tcontrol\nsub-03\t66\tF\tAD\n",
            f"{base}_eeg.vhdr": "x",
            f"{base}_eeg.eeg": b"1",
            f"{base}_eeg.vmrk": "x",
            f"{base}_events.tsv": "onset\tduration\ttrial_type\n1\t0\ta\n",
            f"{base}_channels.tsv": "name\ttype\tunits\nFp1\tEEG\tuV\n",
            "sub-02/eeg/sub-02_task-rest_eeg.set": b"1",
            "sub-02/eeg/sub-02_task-rest_eeg.fdt": b"1",
            "derivatives/clean/sub-02/eeg/sub-02_task-rest_eeg.set": b"1",
        },
    )
    made = run("bids-eeg", root, columns={"label_group": "group"})
    row = made.rows["sub-01_ses-1_task-rest_run-1"]
    assert (row["subject_id"], row["eeg"], row["events"]) == ("sub-01", f"{base}_eeg.vhdr", f"{base}_events.tsv")
    assert (row["session"], row["task"], row["run"], row["group_sex"], row["participant_age"]) == (
        "1",
        "rest",
        "1",
        "M",
        "71",
    )
    assert (row["label_group"], made.rows["sub-02_task-rest"]["label_group"]) == ("0", "1")
    assert "label_group: 0 = AD, 1 = control" in made.done.notes
    assert made.rows["sub-02_task-rest"]["participant_age"] == "", "n/a is nothing"
    assert made.why(file=f"{base}_eeg.eeg") == made.why(file=f"{base}_channels.tsv") == ""
    assert made.why(file="derivatives/clean/sub-02/eeg/sub-02_task-rest_eeg.set").startswith("in derivatives")
    assert made.why(source="participants.tsv", row=4) == "nothing on disk belongs to it"


def test_sleep_edfx(tmp_path: Path) -> None:
    root = put(
        tmp_path / "sleep",
        {
            "sleep-cassette/SC4001E0-PSG.edf": b"1",
            "sleep-cassette/SC4001EC-Hypnogram.edf": b"1",
            "sleep-cassette/SC4002E0-PSG.edf": b"1",
            "sleep-telemetry/ST7011J0-PSG.edf": b"1",
            "sleep-telemetry/ST7011JP-Hypnogram.edf": b"1",
            "sleep-telemetry/ST7099JP-Hypnogram.edf": b"1",
        },
    )
    made = run("sleep-edfx", root)
    assert {name: row["subject_id"] for name, row in made.rows.items()} == {
        "SC4001": "SC400",
        "SC4002": "SC400",
        "ST7011": "ST701",
    }
    assert (
        made.rows["SC4001"]["events"] == "sleep-cassette/SC4001EC-Hypnogram.edf" and made.rows["SC4002"]["events"] == ""
    )
    assert made.rows["ST7011"]["group_part"] == "telemetry" and made.rows["SC4002"]["night"] == "2"
    assert made.why(file="sleep-telemetry/ST7099JP-Hypnogram.edf") != ""


def test_motor_imagery(tmp_path: Path) -> None:
    base = "files/eegmmidb/1.0.0"
    files = {f"{base}/S001/S001R{run:02d}.edf": b"1" for run in range(1, 15)} | {f"{base}/S001/S001R03.edf.event": b"1"}
    made = run("eegbci", put(tmp_path / "mi", files))
    tasks = [made.rows[f"S001R{run:02d}"]["task"] for run in range(1, 8)]
    assert tasks == [
        "eyes open",
        "eyes closed",
        "fist",
        "imagined fist",
        "fists or feet",
        "imagined fists or feet",
        "fist",
    ]
    assert made.rows["S001R14"]["label_task"] == "5" and made.manifest.tasks["task"].n_classes == 6
    assert {row["subject_id"] for row in made.rows.values()} == {"S001"}


@pytest.mark.parametrize("name", ["tueg", "tuab", "tusz", "tuev", "chb-mit", "bids-eeg", "sleep-edfx", "eegmmidb"])
def test_another_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="holds no .*fix: give the"):
        run(name, put(tmp_path / "x", {"a.txt": "1"}))
