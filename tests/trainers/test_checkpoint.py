"""Checkpoints are whole or not there, and can run no code."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch

from medssml.runs.run_folder import RunFolder
from medssml.runs.training import write_model
from medssml.trainers import checkpoint
from medssml.trainers.checkpoint import LAST, PREVIOUS, CheckpointError, NoSpaceError

from .toy import toy_model


def state(step: int) -> dict:
    return {"step": step, "weights": {"w": torch.full((3,), float(step))}}


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / LAST, state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST, PREVIOUS]
    assert checkpoint.load(tmp_path / LAST)["step"] == 3
    assert checkpoint.load(tmp_path / PREVIOUS)["weights"]["w"].tolist() == [2.0] * 3


def test_a_damaged_last_one_falls_back_to_the_one_before(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / LAST, state(1))
    checkpoint.save(tmp_path / LAST, state(2))
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[: len(whole) // 2])
    found = checkpoint.load_last(tmp_path)
    assert found is not None and found["step"] == 1
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="fix"):
        checkpoint.load_last(tmp_path)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_last(tmp_path) is None


class Harmful:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code ran')",))


def test_a_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"format": 1, "step": Harmful()}, tmp_path / LAST)
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / LAST)
    (tmp_path / LAST).write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / LAST)


def test_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / LAST)
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(tmp_path / LAST)


def test_a_full_disk_says_what_it_needs_and_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / LAST, state(100))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(NoSpaceError, match=r"needs 0.0 MB, .* [MG]B free; last good = step 100; fix") as caught:
        checkpoint.save(tmp_path / LAST, state(101))
    assert str(caught.value).startswith("no space for last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_the_disk_that_is_full_at_the_last_write_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    model = toy_model()
    checkpoint.save(tmp_path / "checkpoints" / LAST, state(7))

    def full(*_: object, **__: object) -> None:
        # As safetensors says it: no errno.
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(NoSpaceError, match=r"no space for model: needs 0.0 MB, .* free; last good = step 7; fix"):
        write_model(model, RunFolder(tmp_path), {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
