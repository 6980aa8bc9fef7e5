"""Checkpoints are whole or not there, and can run no code."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from types import SimpleNamespace

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


def test_what_cannot_be_read_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / LAST
    with pytest.raises(FileNotFoundError):
        checkpoint.load(path)
    path.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=r"^last.ckpt cannot be read \(BadZipFile\); fix: remove it, or --fresh$"):
        checkpoint.load(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"^last.ckpt has format list, this version reads 2; fix: --fresh$"):
        checkpoint.load(path)
    assert checkpoint.last_step(tmp_path) is None


def test_a_bit_that_has_flipped_is_found(tmp_path: Path) -> None:
    path = tmp_path / LAST
    checkpoint.save(path, {"weights": torch.full((1000,), 1.5)})
    content = bytearray(path.read_bytes())
    place = content.find(torch.full((4,), 1.5).numpy().tobytes())
    content[place + 100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)


def test_the_last_step_is_that_of_the_newest_readable_one(tmp_path: Path) -> None:
    assert checkpoint.last_step(tmp_path) is None
    checkpoint.save(tmp_path / LAST, {"weights": torch.ones(1)})
    assert checkpoint.last_step(tmp_path) == 0
    for step in (7, 8):
        checkpoint.save(tmp_path / LAST, state(step))
    assert checkpoint.last_step(tmp_path) == 8
    (tmp_path / LAST).write_bytes(b"")
    assert checkpoint.last_step(tmp_path) == 7


def test_the_best_does_not_push_the_last_one_aside(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path / checkpoint.BEST, state(step))
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.BEST]


@pytest.mark.parametrize(
    ("error", "free", "told"),
    [
        (OSError(errno.ENOSPC, "full"), 2_500_000_000, "2.5 GB"),
        (OSError(errno.EDQUOT, "quota"), 1_000_000_000, "1.0 GB"),
        (RuntimeError("of torch, without a number"), 7_999_999, "8.0 MB"),
        (RuntimeError("No space left"), 9_000_000, "9.0 MB"),
        (OSError(errno.EIO, "broken"), 1, None),
        (RuntimeError("something else"), 8_000_000, None),
    ],
)
def test_a_full_disk_is_told_from_other_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, free: int, told: str | None
) -> None:
    """Two tensors, within a list and a tuple, of eight million bytes together."""
    asked = []
    monkeypatch.setattr(
        checkpoint.shutil, "disk_usage", lambda path: (asked.append(path), SimpleNamespace(free=free))[1]
    )
    held = {"a": [torch.zeros(500_000)], "b": ({"c": torch.zeros(750_000, dtype=torch.float64)}, 3, "text")}
    with pytest.raises((NoSpaceError, type(error))) as caught, checkpoint.space_for(tmp_path / "x", held, tmp_path):
        raise error
    assert asked == [tmp_path]
    if told is None:
        assert caught.value is error
        return
    assert str(caught.value) == (
        f"no space for x: needs 8.0 MB, {told} free; last good = none; fix: make room and run the same command again"
    )
    assert isinstance(caught.value, NoSpaceError) and caught.value.errno == errno.ENOSPC
    assert caught.value.exit_code == 75 and caught.value.__cause__ is error


def test_what_a_full_disk_says_of_a_checkpoint_is_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(NoSpaceError, match=r"^no space for last.ckpt: needs 4.0 MB, .* free; last good = none; fix"):
        checkpoint.save(tmp_path / LAST, {"step": 1, "weights": torch.zeros(1_000_000)})
