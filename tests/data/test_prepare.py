"""The pass before training: the cache is filled, what fails is listed, the vocabulary sees the training split alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssml.data.dataset import StudyDataset
from medssml.data.prepare import fit_training, prepare_all, to_prepare
from medssml.manifest.manifest import Manifest
from medssml.store.cache import Cache, read_entry
from medssml.store.engines import MissingExtra, on_ray


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


def _deadly(kills: tuple[str, ...] = ("x6.txt", "x9.txt"), stalls: str = "x12.txt") -> Any:
    """A transform that kills its process at some files, stalls at another and refuses those that say "bad".

    Its class is local: so it travels by value, and the processes need not import this module, and torch with it, within
    the time that the test allows.
    """

    class Deadly:
        def spec(self) -> dict[str, str]:
            return {}

        def prepare(self, source: Path) -> dict[str, np.ndarray]:
            if source.name in kills:
                os._exit(137)
            if source.name == stalls:
                time.sleep(600)
            if source.read_text().startswith("bad"):
                raise ValueError("it says that it is bad")
            return {"values": np.zeros(1, np.uint8)}

    return Deadly()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_kills_a_process_costs_that_file_alone(plain: Manifest, tmp_path: Path, workers: int) -> None:
    dataset = StudyDataset(plain, {"xray": _deadly(stalls="")}, Cache(tmp_path / "cache"))
    problems = prepare_all(dataset, workers=workers)
    assert [p.file for p in problems] == ["x6.txt", "x9.txt"]
    assert all("killed the process" in p.problem for p in problems)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 13 - 2
    assert not list((tmp_path / "cache").glob(".reading-*"))


@pytest.mark.slow
def test_a_file_that_stalls_a_process_costs_that_file_alone(plain: Manifest, tmp_path: Path) -> None:
    """The time is long beside the start of a process, on a busy machine too."""
    dataset = StudyDataset(plain, {"xray": _deadly(kills=())}, Cache(tmp_path / "cache"))
    problems = prepare_all(dataset, workers=2, timeout_s=20)
    assert [(p.file, p.problem) for p in problems] == [("x12.txt", "reading it took more than 20 s")]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 13 - 1


def test_progress_ends_at_the_number_of_files(dataset: StudyDataset) -> None:
    told: list[tuple[int, int]] = []
    prepare_all(dataset, workers=0, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 36) for done in range(1, 37)]


def _pass(folder: Path, manifest: Path) -> None:
    from tests.plain_cohort import Bytes

    dataset = StudyDataset(Manifest.read(manifest), {"xray": Bytes(), "report": Bytes()}, Cache(folder))
    if prepare_all(dataset, workers=0):
        raise RuntimeError("a file failed")


def test_two_passes_at_once_fill_one_cache(plain: Manifest, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    passes = [context.Process(target=_pass, args=(tmp_path / "c", tmp_path / "manifest.csv")) for _ in range(2)]
    for one in passes:
        one.start()
    for one in passes:
        one.join(60)
    assert [one.exitcode for one in passes] == [0, 0]
    files = [path for path in (tmp_path / "c").rglob("*") if path.is_file()]
    assert len(files) == 36 and all(read_entry(path).arrays for path in files)


def test_without_ray_the_extra_is_named(dataset: StudyDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtra, match=r"medssml\[ray\]") as caught:
        prepare_all(dataset, engine="ray")
    assert caught.value.exit_code == 2


@pytest.mark.slow
def test_ray_prepares_and_a_file_that_kills_its_process_is_found(plain: Manifest, tmp_path: Path) -> None:
    """On a Ray of one process on this machine. What its dead process takes with it is prepared without Ray."""
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    (plain.root / "x3.txt").write_text("bad file")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        sound = StudyDataset(plain, {"xray": _deadly(kills=(), stalls="")}, Cache(tmp_path / "sound"))
        outcomes = list(on_ray(to_prepare(sound)[1], sound.recipes, sound.cache))
        dataset = StudyDataset(plain, {"xray": _deadly(stalls="")}, Cache(tmp_path / "cache"))
        problems = prepare_all(dataset, engine="ray", workers=1)
    finally:
        ray.shutdown()
    assert sorted(o.position for o in outcomes) == sorted(np.flatnonzero(plain.present[:, 0]))
    assert [o.reason for o in outcomes if o.reason] == ["ValueError: it says that it is bad"]
    assert len(list((tmp_path / "sound").rglob("*.safetensors"))) == 13 - 1
    assert [p.file for p in problems] == ["x3.txt", "x6.txt", "x9.txt"]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 13 - 3


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


def test_what_a_transform_says_goes_with_its_modality(dataset: StudyDataset, transforms: dict) -> None:
    assert fit_training(dataset) == []
    transforms["report"].fit_training = lambda prepared, subjects: ["3 are cut"]
    assert fit_training(dataset) == ["report: 3 are cut"]


def test_the_vocabulary_never_sees_the_test_split(tmp_path: Path) -> None:
    from medssml.transforms import ReportTransform

    words = {"train": "opacity", "val": "cardiomegaly", "test": "pneumothorax"}
    rows = [f"{split}{i},{split}{i},{split},{word} {word}" for split, word in words.items() for i in range(9)]
    (tmp_path / "m.csv").write_text("subject_id,study_id,split,report_text\n" + "\n".join(rows) + "\n")
    report = ReportTransform()
    fit_training(StudyDataset(Manifest.read(tmp_path / "m.csv"), {"report": report}, Cache(None)))
    vocabulary = report.vocabulary.tokenizer.get_vocab()
    assert "\u2581opacity" in vocabulary
    assert not any(piece in token for token in vocabulary for piece in ("pneu", "thorax", "cardio", "x"))
