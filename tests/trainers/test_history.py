"""history.csv: blocks, columns that turn up later, and rewinding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssml.trainers.history import History, RunningMean, read


def test_rows_are_held_back_and_then_all_there(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path, block=3)
    history.add(1, 0.5, 1.0, {"loss": 2.0})
    history.add(2, 1.0, 2.0, {"loss": 1.5})
    assert not path.exists()
    history.add(3, 1.5, 3.0, {"loss": 1.0})
    assert [row["loss"] for row in read(path)] == [2.0, 1.5, 1.0]


def test_a_new_column_does_not_disturb_the_old_rows(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv", block=1)
    history.add(1, 0.5, 1.0, {"loss": 2.0})
    history.add(2, 1.0, 2.0, {"val/auroc": 0.75})
    history.flush()
    assert read(tmp_path / "history.csv") == [
        {"step": 1, "epoch": 0.5, "seconds": 1, "loss": 2},
        {"step": 2, "epoch": 1, "seconds": 2, "val/auroc": 0.75},
    ]


def test_numbers_of_one_step_share_a_row(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.add(1, 0.5, 1.0, {"loss": 2.0})
    history.add(1, 0.5, 1.1, {"val/loss": 3.0})
    history.flush()
    assert len(read(tmp_path / "history.csv")) == 1


def test_a_resumed_run_writes_the_later_rows_again(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    first = History(path, block=1)
    for step in (1, 2, 3):
        first.add(step, step, step, {"loss": float(step), **({"late": 1.0} if step == 3 else {})})
    second = History(path, block=1)
    second.rewind(2)
    second.add(3, 3, 3, {"loss": 30.0})
    assert [row["loss"] for row in read(path)] == [1, 2, 30]
    assert "late" not in path.read_text()


def test_the_running_mean_counts_only_what_is_there_and_survives_a_checkpoint() -> None:
    means = RunningMean()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    means.add({"a": torch.tensor(3.0)})
    other = RunningMean()
    other.load_state_dict(means.state_dict())
    assert means.read() == pytest.approx({"a": 2.0, "b": 5.0}) == other.read()
    assert means.read() == {}
