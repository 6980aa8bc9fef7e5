"""A run that cannot start leaves nothing, never removes what it starts from, and is written by its own first process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed

from medssml.manifest.problems import Problem
from medssml.runs.inputs import refuse_overlap
from medssml.runs.run_folder import OWN, RunFolder, RunFolderError, differences
from medssml.trainers.ranks import is_first
from medssml.trainers.settings import TrainerSettings

ONE, TWO = TrainerSettings(max_steps=1, devices=1), TrainerSettings(max_steps=1, devices=2)
SLURM = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}
LEFT = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID", *SLURM)


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"])
def test_one_process_writes_whatever_rank_the_environment_names(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "3")
    assert is_first(ONE)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"RANK": "1", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "x", "SLURM_PROCID": "3"}, True),
        ({"RANK": "3"}, True),
        ({**SLURM, "SLURM_PROCID": "1"}, False),
        ({**SLURM, "SLURM_PROCID": "0", "LOCAL_RANK": "1", "RANK": "1"}, True),
    ],
)
def test_of_several_processes_the_first_writes(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LEFT:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first(TWO) == first


@pytest.mark.parametrize("rank", [0, 1])
def test_once_processes_have_met_their_rank_counts(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    assert is_first(TWO) == (rank == 0)


def test_a_process_that_does_not_write_makes_no_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", writes=False)
    folder.begin({}, "hash", fresh=True)
    folder.remember(["x"])
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_at_its_start_leaves_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "run")
    folder.begin({"seed": 0}, "hash")
    with pytest.raises(KeyError), folder.starting(), folder.logging():
        raise KeyError("x")
    assert not folder.path.exists()


def test_what_explains_the_failure_stays_and_so_do_a_users_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    folder = RunFolder(tmp_path)
    folder.begin({"seed": 0}, "hash")
    with pytest.raises(ValueError), folder.starting(), folder.logging():
        folder.write_problems([Problem(2, "a", "ct", "a.nii", "missing", "no such file", "copy it")])
        raise ValueError("no study to train on; fix: the files named in problems.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "problems.csv"]


def finished(path: Path) -> list[str]:
    """A run folder of an earlier run, and what is in it."""
    folder = RunFolder(path)
    folder.begin({"seed": 0}, "old")
    for name in ("model", "checkpoints"):
        (path / name).mkdir()
        (path / name / "weights").write_text("old")
    return sorted(str(kept.relative_to(path)) for kept in path.rglob("*"))


@pytest.mark.parametrize("killed", [False, True])
def test_an_earlier_run_is_there_again_where_a_fresh_one_cannot_start(tmp_path: Path, killed: bool) -> None:
    before = finished(tmp_path)
    folder = RunFolder(tmp_path)
    folder.begin({"seed": 1}, "new", fresh=True)
    assert (tmp_path / "manifest.sha256").read_text() == "new\n" and not (tmp_path / "model").exists()
    if killed:
        RunFolder(tmp_path).begin({"seed": 0}, "old")
    else:
        with pytest.raises(KeyError), folder.starting():
            raise KeyError("x")
    assert sorted(str(kept.relative_to(tmp_path)) for kept in tmp_path.rglob("*")) == before
    assert (tmp_path / "manifest.sha256").read_text() == "old\n"


def test_an_earlier_run_goes_once_the_fresh_one_has_started(tmp_path: Path) -> None:
    finished(tmp_path)
    folder = RunFolder(tmp_path)
    folder.begin({"seed": 1}, "new", fresh=True)
    with pytest.raises(KeyError), folder.starting():
        folder.started()
        (tmp_path / "checkpoints").mkdir()
        raise KeyError("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "config.yaml", "manifest.sha256"]


def test_folders_that_were_made_for_it_go_too(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b" / "run")
    folder.begin({"seed": 0}, "hash")
    with pytest.raises(KeyError), folder.starting():
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_had_begun_keeps_its_folder(tmp_path: Path, begun: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.begin({"seed": 0}, "hash")
    if begun:
        (tmp_path / "checkpoints").mkdir()
    else:
        folder = RunFolder(tmp_path)
        folder.begin({"seed": 0}, "hash")
    with pytest.raises(KeyError), folder.starting():
        raise KeyError("x")
    assert (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("given", ["run", "run/model", "run/checkpoints/cache", "run/model/tables/a.csv", "link"])
def test_an_input_where_the_run_writes_is_refused(given: str, tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(RunFolderError, match="where --x lies.*fix: another --out"):
        refuse_overlap(tmp_path / "run", {"--x": tmp_path / given})


def test_a_run_folder_inside_of_a_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "pre" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"")
    for checkpoint in (tmp_path / "pre", model):
        with pytest.raises(RunFolderError, match="in the model of --checkpoint; fix: another --out"):
            refuse_overlap(model / "run", {"--checkpoint": checkpoint})
    # Beside it, or below the run folder, nothing is lost.
    refuse_overlap(tmp_path / "pre" / "finetuned", {"--checkpoint": tmp_path / "pre"})
    refuse_overlap(tmp_path, {"--checkpoint": tmp_path / "pre", "--cache": tmp_path / "cache", "--shards": "s3://a/b"})
    refuse_overlap(tmp_path / "other", {"--checkpoint": tmp_path / "pre", "--manifest": None})
    assert "model" in OWN


def test_a_setting_of_none_is_as_good_as_none() -> None:
    """What a version of medssml learned to set since, a run of before goes on without."""
    before: dict[str, object] = {"model": {"dim": 8}, "optim": {"lr": 0.1}}
    assert differences(before, {"model": {"dim": 8, "parts": None}, "optim": {"lr": 0.1}}) == []
    assert differences({"model": {"dim": 8, "parts": None}, "optim": {"lr": 0.1}}, before) == []
    now = {"model": {"dim": 8, "parts": 0}, "optim": {"lr": None}}
    assert differences(before, now) == ["model.parts was absent, now 0", "optim.lr was 0.1, now None"]
