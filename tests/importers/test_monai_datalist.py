"""MONAI's list of data -> manifest: splits, files, labels, what is lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from medssml.importers import LayoutError, layout_named
from medssml.importers.study import Options
from medssml.importers.write_manifest import import_layout
from medssml.manifest.manifest import Manifest


def imported(root: Path, said: Any, **columns: str) -> tuple[list[dict[str, str]], Any]:
    (root / "datalist.json").write_text(json.dumps(said))
    layout = layout_named("monai-datalist")
    options = Options(columns=columns, max_lost=1.0)
    done = import_layout(layout, root / "datalist.json", root / "manifest.csv", options)
    return list(csv.DictReader((root / "manifest.csv").open())), done


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.nii.gz", "b.nii.gz", "c.nii.gz", "a.png"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_splits_files_and_labels(root: Path) -> None:
    said = {
        "name": "A task",
        "labels": {"0": "background"},
        "training": [
            {"image": "a.nii.gz", "xray": "a.png", "label": 1, "subject_id": "p1", "report": "No findings."},
            {"ct": "b.nii.gz", "label": 0, "subject_id": "p2"},
        ],
        "validation": [{"image": "c.nii.gz", "label": 0, "subject_id": "p3", "age": 61.5}],
    }
    rows, _ = imported(root, said)
    assert [row["split"] for row in rows] == ["train", "train", "val"] and [row["ct"] for row in rows] == [
        "a.nii.gz", "b.nii.gz", "c.nii.gz",
    ]  # fmt: skip
    assert rows[0]["xray"] == "a.png" and rows[0]["report_text"] == "No findings."
    assert [row["label_label"] for row in rows] == ["1", "0", "0"] and rows[2]["label_age"] == "61.5"
    manifest = Manifest.read(root / "manifest.csv")
    assert manifest.modalities == ("ct", "xray", "report") and len(manifest.to_datalist()) == 3


def test_what_a_manifest_gives_comes_back(root: Path) -> None:
    rows, _ = imported(root, [{"ct": "a.nii.gz", "subject_id": "p1", "study_id": "s1", "label_sick": 1.0}])
    entries = Manifest.read(root / "manifest.csv").to_datalist()
    again = [{name: str(v) if isinstance(v, Path) else v for name, v in entry.items()} for entry in entries]
    (root / "again").mkdir()
    assert [row["ct"] for row in imported(root, again)[0]] == ["a.nii.gz"] and rows[0]["label_sick"] == "1"


def test_what_is_lost_is_accounted_for(root: Path) -> None:
    said = {"training": [{"scan": f"{name}.nii.gz", "label": 1} for name in "abcd"], "test": ["a.png"]}
    rows, done = imported(root, said, ct="scan")
    assert [row["ct"] for row in rows] == ["a.nii.gz", "b.nii.gz", "c.nii.gz", ""] and rows[3]["xray"] == "a.png"
    assert dict(done.reasons)["no such file"] == 1
    assert any("no subject_id: each is taken for a subject of its own" in note for note in done.notes)
    for wrong, words in (
        ("text", "holds a str"),
        ({"data": []}, "no list under training"),
        ({"training": 3}, "no list"),
    ):
        with pytest.raises(LayoutError, match=words):
            imported(root, wrong)
    (root / "datalist.json").write_text("{")
    with pytest.raises(LayoutError, match="is no JSON"):
        import_layout(layout_named("decathlon"), root / "datalist.json", root / "m.csv", Options())
