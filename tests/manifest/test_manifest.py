"""The study table: what it accepts, and what it refuses with row and column."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medssml.manifest.manifest import Label, Manifest, ManifestError


def write(folder: Path, text: str, encoding: str = "utf-8", name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def refused(folder: Path, text: str, **options: object) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        Manifest.read(write(folder, text), **options)  # type: ignore[arg-type]
    return caught.value


def test_ids_stay_text_and_na_is_an_id(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path, "subject_id,study_id,ct\n007,NA,a.nii\n7,0001,NA\n"))
    assert list(manifest.subject_ids) == ["007", "7"]
    assert list(manifest.study_ids) == ["NA", "0001"]
    assert manifest.present.tolist() == [[True], [False]]


def test_byte_order_mark_and_outer_blanks(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path, "subject_id,study_id, split\n a ,1,train\n", "utf-8-sig"))
    assert list(manifest.subject_ids) == ["a"] and list(manifest.splits) == ["train"]


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "subject_id,study_id\na,1\n")
    assert Manifest.read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("column", "near"),
    [
        ("repot", "report"),
        ("xrays", "xray"),
        ("lable_x", "label_x"),
        ("study_ids", "study_id"),
    ],
)
def test_near_miss_of_a_column(tmp_path: Path, column: str, near: str) -> None:
    error = refused(tmp_path, f"subject_id,study_id,{column}\na,1,x\n")
    assert repr(near) in str(error) and error.problems[0][1] == column


@pytest.mark.parametrize("column", ["age", "ecg", "wt", "source", "date", "site", "sex", "labs", "report_findings"])
def test_other_columns_are_kept(tmp_path: Path, column: str) -> None:
    manifest = Manifest.read(write(tmp_path, f"subject_id,study_id,{column}\na,1,x\n"))
    assert column in manifest.table and manifest.modalities == ()


def test_a_declared_modality_is_no_near_miss(tmp_path: Path) -> None:
    path = write(tmp_path, "subject_id,study_id,ecg,eeg\na,1,x.edf,\n")
    assert Manifest.read(path, modalities=["ecg", "eeg"]).modalities == ("eeg", "ecg")


@pytest.mark.parametrize(
    ("text", "row", "column", "says"),
    [
        ("subject_id,study_id\na,1\nb,1\n", 3, "study_id", "already in row 2"),
        ("subject_id,study_id\na,1\n,2\n", 3, "subject_id", "empty"),
        ("subject_id,study_id\n1.2E+10,1\n", 2, "subject_id", "spreadsheet"),
        ("subject_id,study_id,split\na,1,train\na,2,test\n", 3, "split", "in row 2"),
        ("subject_id,study_id,split\na,1,train\nb,2,valid\n", 3, "split", "no split"),
        ("subject_id,study_id,split\na,1,train\nb,2,\n", 3, "split", "empty"),
        ("subject_id,study_id,label_t\na,1,0\nb,2,yes\n", 3, "label_t", "no finite number"),
        ("subject_id,study_id,label_t\na,1,0\nb,2,inf\n", 3, "label_t", "no finite number"),
        ("subject_id,study_id,label_t\na,1,0\nb,2,-1\n", 3, "label_t", "uncertain"),
        ("subject_id,study_id,label_t\na,1,0\nb,2,1\nc,3,-9\n", 4, "label_t", "-9 is neither class"),
        ("subject_id,study_id,label_t\na,1,0\nb,2,1\nc,3,99\n", 4, "label_t", "99 is neither class"),
        ("subject_id,study_id,ct\na,1,../x.nii\n", 2, "ct", "leaves the data root"),
        ("subject_id,study_id,ct\na,1,/x.nii\n", 2, "ct", "absolute"),
        ("subject_id,study_id,report,report_text\na,1,r.txt,text\n", 2, "report_text", "keep one"),
        ("subject_id,study_id\na,1,2\n", 2, None, "3 cells"),
        ("subject_id,ct\na,1\n", 1, "study_id", "no such column"),
        ("subject_id,study_id,ct,ct\na,1,,\n", 1, "ct", "twice"),
    ],
)
def test_refused_with_row_and_column(tmp_path: Path, text: str, row: int, column: str | None, says: str) -> None:
    error = refused(tmp_path, text)
    assert error.problems[0][:2] == (row, column)
    assert says in str(error) and "fix:" in str(error)


def test_all_problems_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path, "subject_id,study_id,ct,label_t\na,1,../x,0\nb,1,,q\n")
    assert [(row, column) for row, column, _ in error.problems] == [(2, "ct"), (3, "study_id"), (3, "label_t")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'subject_id,study_id,report_text\na,1,ok\nb,2,"open\nc,3,x\n', "line 3"),
        (b"subject_id,study_id\na,1\nb,\x81\n", "line 3"),
        (b"", "empty"),
    ],
)
def test_no_table(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=says):
        Manifest.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        Manifest.read(tmp_path / "none.csv")


def test_a_link_that_leaves_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    os.symlink(tmp_path / "secret.txt", tmp_path / "root" / "a.txt")
    os.symlink(tmp_path, tmp_path / "root" / "up")
    path = write(tmp_path / "root", "subject_id,study_id,report\na,1,a.txt\nb,2,up/secret.txt\n")
    with pytest.raises(ManifestError) as caught:
        Manifest.read(path)
    assert [row for row, _, _ in caught.value.problems] == [2, 3]
    assert Manifest.read(path, allow_outside=True).path_of(0, "report") == tmp_path / "root" / "a.txt"


def test_a_file_that_became_a_link_since_the_table_was_read(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for name in ("root/a.txt", "root/b.txt", "secret.txt"):
        (tmp_path / name).write_text("x")
    manifest = Manifest.read(write(tmp_path / "root", "subject_id,study_id,report\na,1,a.txt\nb,2,b.txt\n"))
    assert manifest.path_of(0, "report") == tmp_path / "root" / "a.txt"
    (tmp_path / "root" / "a.txt").unlink()
    os.symlink(tmp_path / "secret.txt", tmp_path / "root" / "a.txt")
    with pytest.raises(ManifestError, match="leaves the data root"):
        manifest.path_of(0, "report")
    with pytest.raises(ManifestError, match="leaves the data root"):
        manifest.paths("report")
    assert manifest.path_of(1, "report") == tmp_path / "root" / "b.txt"


def test_a_link_inside_the_root_is_fine(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("x")
    os.symlink(tmp_path / "b.txt", tmp_path / "a.txt")
    assert len(Manifest.read(write(tmp_path, "subject_id,study_id,report\na,1,a.txt\n"))) == 1


def test_kinds_of_tasks(tmp_path: Path) -> None:
    text = "subject_id,study_id,label_b,label_m,label_r,label_age\na,1,0,2,0.5,63\nb,2,1,0,,71\nc,3,,1,-2,8\n"
    manifest = Manifest.read(write(tmp_path, text))
    assert manifest.tasks == {
        "b": Label("binary", 2),
        "m": Label("multiclass", 3),
        "r": Label("regression", 1),
        "age": Label("regression", 1),
    }
    assert np.isnan(manifest.targets["b"][2]) and manifest.targets["m"].tolist() == [2, 0, 1]
    declared = Manifest.read(tmp_path / "m.csv", tasks={"m": "regression"})
    assert declared.tasks["m"].kind == "regression"


def test_inline_report_and_path(tmp_path: Path) -> None:
    text = 'subject_id,study_id,report,report_text\na,1,r.txt,\nb,2,,"No, nothing\nto see."\nc,3,,\n'
    manifest = Manifest.read(write(tmp_path, text))
    assert manifest.source_of(0, "report") == tmp_path / "r.txt"
    assert manifest.source_of(1, "report") == "No, nothing\nto see."
    assert manifest.source_of(2, "report") is None
    assert manifest.present[:, 0].tolist() == [True, True, False]
    assert manifest.row_number(2) == 4
    with pytest.raises(KeyError, match="no modality"):
        manifest.path_of(0, "ct")


def test_coverage_filter_and_split(plain: Manifest) -> None:
    coverage = plain.coverage()
    assert coverage["all"] == {"report": 23, "xray": 13, "": 4}
    assert sum(coverage["train"].values()) == 30 and coverage["val"] == {"report": 2, "xray": 2}
    test = plain.split("test")
    assert len(test) == 6 and test.row_number(0) == 36
    assert len(plain.labelled("sick")) == 30
    assert len(plain.filter([0, 2])) == 2


def test_a_table_without_split_is_split_by_subject(tmp_path: Path) -> None:
    text = "subject_id,study_id\n" + "".join(f"s{i // 3},{i}\n" for i in range(300))
    manifest = Manifest.read(write(tmp_path, text))
    assert not manifest.official_split
    table = pd.DataFrame({"subject": manifest.subject_ids, "split": manifest.splits})
    assert (table.groupby("subject")["split"].nunique() == 1).all()
    assert set(manifest.splits) == {"train", "val", "test"}


def test_parquet_and_written_csv_say_the_same(plain: Manifest, tmp_path: Path) -> None:
    plain.table.replace("", None).to_parquet(tmp_path / "m.parquet")
    again = Manifest.read(tmp_path / "m.parquet")
    written = Manifest.read(plain.write(tmp_path / "out" / "m.csv"), data_root=tmp_path)
    for other in (again, written):
        assert (other.present == plain.present).all() and list(other.study_ids) == list(plain.study_ids)
        assert other.tasks == plain.tasks
    with pytest.raises(ManifestError, match="leading zeros"):
        pd.DataFrame({"subject_id": [1], "study_id": ["a"]}).to_parquet(tmp_path / "n.parquet")
        Manifest.read(tmp_path / "n.parquet")
