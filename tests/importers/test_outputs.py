"""What an import writes never takes the place of what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml import cli
from tests.importers.test_dicom_tree import series
from tests.importers.trees import put, run

TABLE = "subject_id,study_id,xray\n1,a,x.png\n"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["import", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_the_manifest_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = put(tmp_path / "t", {"t.csv": TABLE, "x.png": b"1", "cxr-record-list.csv": TABLE, "notes.csv": "a,b\n"})
    table = root / "t.csv"
    assert "is what is imported; fix: write to another name" in refused(capsys, "csv", table, "--out", table)
    (tmp_path / "link.csv").symlink_to(table)
    assert "is what is imported" in refused(capsys, "csv", table, "--out", tmp_path / "link.csv")
    for name in ("cxr-record-list.csv", "notes.csv", "x.png"):
        said = refused(capsys, "csv", table, "--out", root / name)
        assert "is there, and no import has written it" in said, said
    assert "is a folder; fix: name a file in it" in refused(capsys, "csv", table, "--out", root)
    assert table.read_text() == TABLE and (root / "notes.csv").read_text() == "a,b\n"


def test_the_account_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = put(tmp_path / "t", {"t.csv": TABLE, "x.png": b"1", "import_report.csv": "mine,yours\n"})
    assert "import_report.csv is there, and no import" in refused(
        capsys, "csv", root / "t.csv", "--out", root / "manifest.csv"
    )
    reports = put(tmp_path / "r", {"m.csv": "accession,report\n1,x\n"}) / "m.csv"
    said = refused(capsys, "dicom", root, "--reports", reports, "--out", reports)
    assert "is what is imported" in said


def test_an_earlier_import_is_written_again_and_is_no_input_of_the_next(tmp_path: Path) -> None:
    root = put(tmp_path / "mi", {"S001/S001R01.edf": b"1"})
    out = root / "manifest.csv"
    first = run("eegmmidb", root, out)
    again = run("eegmmidb", root, out)
    assert first.lines == again.lines and all(line["file"].endswith(".edf") for line in again.lines)


def test_the_folder_that_is_written_into_holds_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "flat"
    series(root / "a", 1)
    series(root / "a", 2, start="b")
    out = tmp_path / "m.csv"
    flags = ("dicom", root, "--out", out, "--write-into")
    assert "holds what is imported" in refused(capsys, *flags, root)
    assert "holds what is imported" in refused(capsys, *flags, tmp_path)
    assert "holds files that no import has written" in refused(capsys, *flags, root / "a")
    assert "is a file" in refused(capsys, *flags, root / "a" / "IM000")
    first = run("dicom", root, write_into=root / "links")
    assert first.rows == run("dicom", root, write_into=root / "links").rows, (
        "what it has written itself it writes again"
    )
