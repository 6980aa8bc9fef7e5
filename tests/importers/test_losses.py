"""An import that loses too much stops: a whole table, split, source, label or column of files, or too many rows."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medssml import cli
from medssml.importers import LayoutError, LostError
from medssml.importers.account import Aside
from tests.importers.trees import put, run

HEAD = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding\n"
MOST = 0.1


def path(split: str, number: int) -> str:
    return f"{split}/patient{number:05d}/study1/view1_frontal.jpg"


def chexpert(root: Path, train: range, valid: range, *, without: str = "") -> Path:
    """A CheXpert of these patients; pictures of which the path holds `without` are not on disk."""
    tables, pictures = {}, {}
    for split, numbers in (("train", train), ("valid", valid)):
        paths = [path(split, number) for number in numbers]
        rows = "".join(f"CheXpert-v1.0/{name},Male,50,Frontal,PA,1.0\n" for name in paths)
        tables[f"CheXpert-v1.0/{split}.csv"] = HEAD + rows
        pictures |= {f"CheXpert-v1.0/{name}": name.encode() for name in paths if not without or without not in name}
    return put(root, {**tables, **pictures})


def test_a_whole_table_and_its_split(tmp_path: Path) -> None:
    root = chexpert(tmp_path / "set", range(1, 200), range(500, 502), without="valid")
    out = tmp_path / "out" / "manifest.csv"
    with pytest.raises(LostError) as caught:
        run("chexpert", root, out, max_lost=MOST)
    said = str(caught.value)
    assert "CheXpert-v1.0/valid.csv: all 2 rows (2 x no such image on disk)" in said, (
        "1 % of all rows, and a whole table"
    )
    assert "split 'val': all 2 studies" in said and "accept it with --max-lost 1" in said and "\n" not in said
    assert caught.value.exit_code == 4 and not out.exists(), "nothing is written as if it had succeeded"
    with (out.parent / "import_report.csv").open() as file:
        assert sum(line["reason"] == "no such image on disk" for line in csv.DictReader(file)) == 2
    assert len(run("chexpert", root, out, max_lost=1.0).rows) == 199


def test_a_share_of_the_rows(tmp_path: Path) -> None:
    root = chexpert(tmp_path / "set", range(1, 21), range(500, 502), without="patient0000")
    with pytest.raises(LostError, match=r"train.csv: 9 of 20 rows \(9 x no such image on disk\).*--max-lost 0.45"):
        run("chexpert", root, max_lost=MOST)
    assert len(run("chexpert", root, max_lost=0.45).rows) == 13


def test_a_few_rows_are_no_reason_to_stop(tmp_path: Path) -> None:
    root = chexpert(tmp_path / "set", range(1, 31), range(500, 502), without="patient00007")
    assert len(run("chexpert", root, max_lost=MOST).rows) == 31


def test_a_column_of_files_none_of_which_is_there(tmp_path: Path) -> None:
    """Each study has another file, so that no row is lost."""
    rows = "".join(f"s{n},t{n},x.png,scans/{n}.nii\n" for n in range(30))
    files = {"t.csv": "subject_id,study_id,xray,ct\n" + rows + "s99,t99,x.png,x.nii\n", "x.png": b"1", "x.nii": b"1"}
    with pytest.raises(LostError, match=r"t.csv: 30 of 31 files that it names for ct \(30 x no such file; there is no"):
        run("csv", put(tmp_path / "t", files), max_lost=MOST)


def test_a_source_and_a_label_of_which_nothing_is_left(tmp_path: Path) -> None:
    rows = "".join(f"s{n},t{n},a.png,north,{n % 2},\n" for n in range(40)) + "s90,t90,gone.png,south,0,1\n"
    files = {"t.csv": "subject_id,study_id,xray,hospital,label_a,label_b\n" + rows, "a.png": b"1"}
    with pytest.raises(LostError) as caught:
        run("csv", put(tmp_path / "t", files), max_lost=MOST)
    assert "'south': all 1 studies" in str(caught.value) and "label_b: all 1 labels" in str(caught.value)
    assert "rows" not in str(caught.value).split("; the limit")[0], "2 % of the rows are no loss"


def test_recordings_under_another_name_are_lost_and_derived_ones_are_not(tmp_path: Path) -> None:
    files = {f"S001/S001R{n:02d}.edf": b"1" for n in range(1, 5)}
    files |= {f"S002/person2_run{n}.edf": b"1" for n in range(1, 5)}
    with pytest.raises(LostError, match="4 of 8 files .4 x not part of the layout of PhysioNet motor imagery"):
        run("eegmmidb", put(tmp_path / "mi", files), max_lost=MOST)
    derived = {name.replace("S002/", "filtered/"): data for name, data in files.items()}
    assert len(run("eegmmidb", put(tmp_path / "again", derived), max_lost=MOST).rows) == 4


def test_what_is_put_aside_is_no_loss(tmp_path: Path) -> None:
    """A table of findings that says most things twice, and masks beside the pictures."""
    rows = "".join(f"{n:08d}_000.png,Hernia,0,{n},050Y,M,PA\n" for n in range(5))
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    files = {"Data_Entry_2017.csv": head + rows * 3}
    for folder in ("images", "masks"):
        files |= {f"{folder}/{n:08d}_000.png": folder for n in range(5)}
    made = run("nih-cxr14", put(tmp_path / "nih", files), max_lost=MOST)
    assert len(made.rows) == 5 and made.rows["00000001_000"]["xray"] == "images/00000001_000.png"
    assert made.why(source="2017.csv", row=7) == "the image has a row already"
    assert isinstance(Aside("x"), str)


def test_nothing_at_all_never_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "out" / "manifest.csv"
    empty = put(tmp_path / "empty", {"CheXpert-v1.0/train.csv": HEAD, "CheXpert-v1.0/valid.csv": HEAD})
    assert cli.main(["import", "chexpert", str(empty), "--out", str(out), "--max-lost", "1"]) == 3
    assert not out.exists()


def test_a_refusal_says_what_was_left_out_and_writes_the_account(tmp_path: Path) -> None:
    root = put(tmp_path / "cd", {"a.dcm": b"no", "b.dcm": b"no", "viewer.txt": "x"})
    with pytest.raises(
        LayoutError, match=r"holds no CT slice and no radiograph \(2 x no DICOM file\); fix: .*every row is in"
    ):
        run("dicom", root)
    with (tmp_path / "out" / "import_report.csv").open() as file:
        assert [line["file"] for line in csv.DictReader(file)] == ["a.dcm", "b.dcm", "viewer.txt"]


@pytest.mark.parametrize("share", ["-0.1", "1.5"])
def test_a_share_is_a_share(tmp_path: Path, share: str) -> None:
    assert cli.main(["import", "dicom", str(tmp_path), "--out", str(tmp_path / "m.csv"), "--max-lost", share]) == 2
