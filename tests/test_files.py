"""Files are whole or not there, and a spreadsheet runs nothing that stands in them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medssml import files


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a" / "notes.txt", "old")
    with pytest.raises(ValueError, match="halfway"), files.whole(path) as beside:
        beside.write_text("ne")
        raise ValueError("halfway")
    assert path.read_text() == "old" and os.listdir(path.parent) == ["notes.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    with files.whole(path) as beside:
        beside.write_text("ne")
        assert not path.exists() and beside.parent == path.parent
        beside.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["notes.txt"]


def test_writers_of_one_file_do_not_share_the_name_beside_it_unless_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    with files.whole(path) as one, files.whole(path) as other:
        assert one != other
    with files.whole(path, one_writer=True) as beside:
        assert beside == tmp_path / ".notes.txt.tmp"


def test_the_file_and_its_folder_are_flushed_around_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def synced(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *names: done.append("rename") or replace(*names))
    files.write_bytes(tmp_path / "a", b"1")
    assert done == ["file", "rename", "folder"]
    done.clear()
    files.write_bytes(tmp_path / "b", b"1", durable=False)
    assert done == ["rename"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_private_file_is_for_this_user_alone_from_the_start(tmp_path: Path) -> None:
    with files.whole(tmp_path / "key", private=True) as beside:
        assert stat.S_IMODE(beside.stat().st_mode) == 0o600
        beside.write_text("secret")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(files.write_text(tmp_path / "open", "").stat().st_mode) == 0o666 & ~mask


def test_json_holds_numbers_of_numpy_and_null_for_what_is_not_finite(tmp_path: Path) -> None:
    content = {
        "count": np.int64(3), "flag": np.bool_(True), "mean": np.float32(0.5), "lost": np.nan, "far": -np.inf,
        "rows": np.array([[1.0, np.nan]]), "pair": (1, None), 7: {"inner": np.float64(np.inf)}, "true": True,
    }  # fmt: skip
    text = files.write_json(tmp_path / "a.json", content).read_text()
    assert json.loads(text) == {
        "count": 3, "flag": True, "mean": 0.5, "lost": None, "far": None,
        "rows": [[1.0, None]], "pair": [1, None], "7": {"inner": None}, "true": True,
    }  # fmt: skip
    assert text.startswith('{\n  "count"') and text.endswith("}\n")


def test_a_table_of_results_has_six_digits_and_no_index(tmp_path: Path) -> None:
    table = pd.DataFrame({"study_id": ["007", "b"], "p": [1 / 3, np.nan]})
    assert files.write_csv(tmp_path / "a.csv", table).read_text() == "study_id,p\n007,0.333333\nb,\n"


def test_rows_have_these_columns_and_no_other(tmp_path: Path) -> None:
    rows = [{"row": 3, "file": "a,b", "more": 1}, {"row": ""}, {"row": 4, "file": os.fsdecode(b"\xff.nii")}]
    text = files.write_rows(tmp_path / "a.csv", ("row", "file"), iter(rows)).read_text()
    assert text == 'row,file\n3,"a,b"\n,\n4,\\udcff.nii\n'
    assert files.write_rows(tmp_path / "b.csv", ("row", "file"), []).read_text() == "row,file\n"


@pytest.mark.parametrize("cell", ["=1+1", "+cmd", "-cmd", "@sum(a)", "\t=1", "\r=1"])
def test_a_cell_that_a_spreadsheet_would_run_is_quoted_once(cell: str) -> None:
    assert files.neutral(cell) == f"'{cell}" and files.original(f"'{cell}") == cell


CELLS = ["=1+1", "'=1", "''-x", "'quoted'", "-3.5", "'-3.5", "+cmd", "@a", "\t=", "a", "", "=a,b\n=c"]


def test_what_is_quoted_is_read_back_as_it_was(tmp_path: Path) -> None:
    table = pd.DataFrame({"=id": CELLS, "n": np.arange(len(CELLS)) / 3})
    for path in (
        files.write_csv(tmp_path / "a.csv", table),
        files.write_rows(tmp_path / "b.csv", list(table), table.to_dict("records")),
    ):
        assert [row["=id"] for row in files.read_rows(path)] == CELLS
        assert "\n=1+1" not in path.read_text() and path.read_text().startswith("'=id,n\n")


def test_a_file_that_grows_has_one_header(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "=x"}, {"b": 2}]
    assert (
        files.csv_lines(("a", "b"), rows[:1]) + files.csv_lines(("a", "b"), rows[1:], header=False)
        == "a,b\n1,'=x\n,2\n"
    )


@pytest.mark.parametrize("cell", ["-3.5", "+1e-3", "-inf", "a=b", "", -3.5, 0, None])
def test_numbers_and_other_text_stay_as_they_are(cell: object) -> None:
    assert files.neutral(cell) == cell


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    path = files.write_bytes(tmp_path / "a", b"content")
    assert files.sha256_of(path) == hashlib.sha256(b"content").hexdigest()
