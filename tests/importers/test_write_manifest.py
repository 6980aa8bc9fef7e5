"""What every import has in common: paths, splits that no subject straddles, links, and the account."""

from __future__ import annotations

import csv
import json
import os
import shlex
from pathlib import Path

import pytest

from medssml import cli
from medssml.importers import layout_named, layouts
from medssml.importers.study import Layout
from medssml.manifest.manifest import Manifest
from tests.importers.trees import put, run

TABLE = "subject_id,study_id,split,xray\n"


def test_every_asked_for_layout_is_there_and_says_what_it_expects() -> None:
    names = "mimic-cxr chexpert chexpert-plus openi padchest nih-cxr14 ct-rate rad-chest-ct lidc-idri inspect "
    names += "tueg tuab tusz tuev chb-mit bids-eeg sleep-edfx eegmmidb dicom fhir csv monai-datalist"
    assert set(layouts()) == set(names.split())
    assert all(isinstance(layout, Layout) and layout.title and layout.expects for layout in layouts().values())
    assert layout_named("IU_Xray") is layouts()["openi"]
    with pytest.raises(KeyError, match="did you mean 'padchest'"):
        layout_named("padchset")
    page = (Path(__file__).parents[2] / "docs" / "importers.md").read_text("utf-8")
    assert [name for name in layouts() if f"`{name}`" not in page] == []


def test_a_subject_in_two_official_splits_is_kept_in_the_strictest(tmp_path: Path) -> None:
    table = (
        TABLE
        + "1,a,train,x.png\n1,b,test,x.png\n2,c,train,x.png\n2,d,valid,x.png\n3,e,train,x.png\n3,f,,x.png\n4,g,,x.png\n"
    )
    made = run("csv", put(tmp_path / "t", {"t.csv": table, "x.png": b"1"}))
    assert {name: row["split"] for name, row in made.rows.items()} == {
        "b": "test",
        "d": "val",
        "e": "train",
        "f": "train",
    }
    assert made.why(source="t.csv", row=2) == "the subject is in the official test split as well"
    assert made.why(source="t.csv", row=8) == "the official split does not name it"


def test_paths_are_relative_to_the_manifest_where_they_can_be(tmp_path: Path) -> None:
    root = put(tmp_path / "data" / "set", {"t.csv": TABLE + "1,a,,x.png\n", "x.png": b"1"})
    above = run("csv", root, out=tmp_path / "data" / "m.csv")
    assert above.rows["a"]["xray"] == "set/x.png" and above.done.report.name == "m_import_report.csv"
    assert Manifest.read(above.done.manifest).rows == 1, "no data root is needed"
    inside = run("csv", root, out=root / "sub" / "manifest.csv")
    assert inside.rows["a"]["xray"] == "x.png" and any("--data-root" in note for note in inside.done.notes)


def test_links_that_leave_the_root_are_no_part_of_it(tmp_path: Path) -> None:
    put(tmp_path, {"secret.edf": b"1"})
    root = put(tmp_path / "mi", {"S001/S001R01.edf": b"1"})
    os.symlink(tmp_path / "secret.edf", root / "S001" / "S001R02.edf")
    os.symlink(root / "S001" / "S001R01.edf", root / "S001" / "S001R03.edf")
    os.symlink(root / "gone.edf", root / "S001" / "S001R04.edf")
    os.symlink(root / "S001", root / "again")
    made = run("eegmmidb", root)
    assert list(made.rows) == ["S001R01", "S001R03"]
    assert "leaves the root" in made.why(file="S001/S001R02.edf")
    assert made.why(file="S001/S001R04.edf") == "a link that leads nowhere"
    assert made.why(file="again") == "a link to a folder, not followed"
    assert "S001R02" in run("eegmmidb", root, allow_outside=True).rows


def test_names_that_are_not_utf8_are_left_out(tmp_path: Path) -> None:
    root = put(tmp_path / "mi", {"S001/S001R01.edf": b"1"})
    with open(os.fsencode(root) + b"/S001/\xff\xfeS001R02.edf", "wb") as file:
        file.write(b"1")
    made = run("eegmmidb", root)
    assert list(made.rows) == ["S001R01"]
    assert any(line["reason"] == "its name is not UTF-8" for line in made.lines)


def test_the_same_import_gives_the_same_bytes(tmp_path: Path) -> None:
    root = put(tmp_path / "mi", {f"S00{n}/S00{n}R01.edf": b"1" for n in range(1, 6)})
    first = run("eegmmidb", root)
    before = first.done.manifest.read_bytes(), first.done.report.read_bytes()
    second = run("eegmmidb", root)
    assert before == (second.done.manifest.read_bytes(), second.done.report.read_bytes())


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = "MRN,scan,bild,diagnosis\n1,a,x.png,yes\n2,b,gone.png,no\n"
    root = put(tmp_path / "t", {"t.csv": table, "x.png": b"1"})
    out = tmp_path / "manifest.csv"
    flags = ["--out", str(out), "--column", "study_id=scan", "--column", "xray=bild"]
    assert cli.main(["import", "csv", str(root / "t.csv"), *flags]) == 4 and not out.exists()
    said = capsys.readouterr().err
    assert "t.csv: 1 of 2 rows (1 x xray: no such file)" in said and "accept it with --max-lost 0.5" in said, said
    flags += ["--max-lost", "0.5"]
    assert cli.main(["import", "csv", str(root / "t.csv"), *flags]) == 0
    said = capsys.readouterr().out
    for words in ("study_id <- 'scan' (as given)", "1 studies of 1 subjects", "1 x no such file", "import_report.csv"):
        assert words in said, said
    with (tmp_path / "import_report.csv").open() as file:
        assert {line["status"] for line in csv.DictReader(file)} == {"imported", "left out"}
    assert cli.main(["import", "csv", str(root / "t.csv"), *flags, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["studies"] == 1 and result["manifest"] == str(out)
    assert cli.main(["check", str(out), "--problems", str(tmp_path / "p.csv")]) in (0, 4)
    assert cli.main(["import", "mimic", str(root), "--out", str(out)]) == 2
    assert cli.main(["import", "mimic-cxr", str(root), "--out", str(out)]) == 3
    assert cli.main(["import", "csv", str(root), "--out", str(out), "--column", "MRN"]) == 2
    assert "expected MANIFEST=SOURCE" in capsys.readouterr().err
    assert cli.main(["import", "csv", str(root), "--out", str(out), "--rows", "image"]) == 2


def test_the_command_that_is_named_as_the_next_one_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "my set" / "S001" / "S001R01.edf"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"1")
    for out in (tmp_path / "out" / "manifest.csv", tmp_path / "my set" / "manifest.csv"):
        assert cli.main(["import", "eegmmidb", str(tmp_path / "my set"), "--out", str(out)]) == 0
        command = shlex.split(capsys.readouterr().out.strip().rpartition("next: medssml ")[2])
        assert ("--data-root" in command) == (out.parent.name == "out")
        cli.main([*command, "--problems", str(tmp_path / "p.csv")])
        assert "no such file" not in (tmp_path / "p.csv").read_text(), command
