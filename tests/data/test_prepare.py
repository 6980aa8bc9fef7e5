"""The pass before training: the cache is filled, what fails is listed, the vocabulary sees the training split alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from medssml.data.cache import Cache
from medssml.data.dataset import StudyDataset
from medssml.data.manifest import Manifest
from medssml.data.prepare import fit_training, prepare_all


@pytest.fixture
def dataset(plain: Manifest, transforms: dict, tmp_path: Path) -> StudyDataset:
    return StudyDataset(plain, transforms, Cache(tmp_path / "cache"))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_is_listed_and_the_rest_is_prepared(dataset: StudyDataset, workers: int) -> None:
    root = dataset.manifest.root
    (root / "x3.txt").write_text("bad file")
    (root / "x9.txt").unlink()
    problems = prepare_all(dataset, workers=workers)
    assert [(p.row, p.study_id, p.column, p.file) for p in problems] == [
        (5, "003", "xray", "x3.txt"),
        (11, "009", "xray", "x9.txt"),
    ]
    assert "it says that it is bad" in problems[0].problem and "no such file" in problems[1].problem
    assert {p.action for p in problems} == {"quarantined"}
    assert len(list(root.rglob("*.safetensors"))) == 36 - 2


def test_a_second_pass_prepares_nothing(dataset: StudyDataset, transforms: dict) -> None:
    prepare_all(dataset, workers=0)
    before = transforms["xray"].prepared
    again = StudyDataset(dataset.manifest, transforms, dataset.cache)
    assert prepare_all(again, workers=0) == [] and transforms["xray"].prepared == before == 13
    transforms["xray"].scale = 2.0
    prepare_all(StudyDataset(dataset.manifest, transforms, dataset.cache), workers=0)
    assert transforms["xray"].prepared == 26


class _Deadly:
    """Kills its process at one file, stalls at another."""

    def spec(self) -> dict[str, str]:
        return {}

    def prepare(self, source: Path) -> dict[str, np.ndarray]:
        if source.name == "x6.txt":
            os._exit(137)
        if source.name == "x12.txt":
            time.sleep(60)
        return {"values": np.zeros(1, np.uint8)}


def test_a_file_that_kills_or_stalls_a_process_is_found(plain: Manifest, tmp_path: Path) -> None:
    dataset = StudyDataset(plain.filter(range(15)), {"xray": _Deadly()}, Cache(tmp_path / "cache"))  # type: ignore[dict-item]
    problems = prepare_all(dataset, workers=2, timeout_s=1)
    assert [p.file for p in problems] == ["x6.txt", "x12.txt"]
    assert "killed the process" in problems[0].problem


def test_a_cache_that_cannot_be_written_stops_the_pass(dataset: StudyDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="bytes needed"):
        prepare_all(dataset, workers=0)


def test_only_the_training_split_is_learned_from(dataset: StudyDataset, transforms: dict) -> None:
    fit_training(dataset)
    manifest = dataset.manifest
    train = {f"t{i:02d} ".encode() for i in range(40) if manifest.splits[i] == "train"}
    assert set(transforms["report"].seen) <= train and len(transforms["report"].seen) == 18


def test_the_vocabulary_never_sees_the_test_split(tmp_path: Path) -> None:
    from medssml.transforms.report import ReportTransform

    words = {"train": "opacity", "val": "cardiomegaly", "test": "pneumothorax"}
    rows = [f"{split}{i},{split}{i},{split},{word} {word}" for split, word in words.items() for i in range(9)]
    (tmp_path / "m.csv").write_text("subject_id,study_id,split,report_text\n" + "\n".join(rows) + "\n")
    report = ReportTransform()
    fit_training(StudyDataset(Manifest.read(tmp_path / "m.csv"), {"report": report}, Cache(None)))
    vocabulary = report.tokenizer.get_vocab()
    assert "\u2581opacity" in vocabulary
    assert not any(piece in token for token in vocabulary for piece in ("pneu", "thorax", "cardio", "x"))
