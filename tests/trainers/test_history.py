"""history.csv: blocks, columns that turn up later, and rewinding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssml.trainers.history import History, RunningMean, _number, numbers_of_step, read


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


def test_a_row_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path, block=1)
    history.add(1, 0.123456, 1.23456, {"loss": 1.23456789, "count": 3, "small": 1.5e-7})
    assert path.read_text() == "step,epoch,seconds,loss,count,small\n1,0.1235,1.235,1.23457,3,1.5e-07\n"
    (row,) = read(path)
    assert row == {"step": 1, "epoch": 0.1235, "seconds": 1.235, "loss": 1.23457, "count": 3, "small": 1.5e-7}
    assert [type(row[name]) for name in ("step", "loss", "count")] == [int, float, int]
    history.add(2, 1.0, 2.0, {"small": 1e3})
    (_, row) = read(path)
    assert path.read_text().splitlines()[2] == "2,1,2,,,1000" and "loss" not in row


def test_what_is_read_of_a_number() -> None:
    assert [(_number(text), type(_number(text))) for text in ("12", "1.0", "2e3", "0.5", "-4")] == [
        (12, int), (1.0, float), (2000.0, float), (0.5, float), (-4, int),
    ]  # fmt: skip


def test_fifty_rows_are_held_back_at_most(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path)
    for step in range(1, 50):
        history.add(step, step, step, {"loss": 1.0})
    assert not path.exists()
    history.add(50, 50, 50, {"loss": 1.0})
    assert len(read(path)) == 50
    history.add(50, 50, 50, {"late": 1.0})
    history.flush()
    history.flush()
    assert [row["step"] for row in read(path)] == [*range(1, 51), 50] and "late" in read(path)[-1]


def test_columns_keep_their_order_after_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    first = History(path, block=1)
    first.add(1, 1, 1, {"z": 1.0, "a": 2.0})
    first.add(2, 2, 2, {"m": 3.0, "k": 4.0})
    second = History(path, block=1)
    second.rewind(2)
    assert path.read_text().splitlines()[0] == "step,epoch,seconds,z,a,m,k"
    second.add(3, 3, 3, {"a": 5.0})
    assert path.read_text().splitlines()[-1] == "3,3,3,,5,,"
    second.rewind(-1)
    assert read(path) == []


def test_a_run_that_begins_anew_forgets_what_it_held_back(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.add(1, 1, 1, {"a": 1.0})
    history.rewind(5)
    history.flush()
    assert not history.path.exists() and read(history.path) == []


def test_a_row_that_another_writer_has_spoilt_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("step,epoch,seconds,a\n1,1,1,2\n2,1,1,2,3,4\n3,1,1,5\n")
    assert [row["step"] for row in read(path)] == [1, 3]


def test_the_loss_of_a_step_is_a_sum_of_shares_and_other_numbers_are_means() -> None:
    parts = [
        {"loss": torch.tensor(3.0), "words/loss": torch.tensor(3.0), "words/accuracy": torch.tensor(0.5)},
        {"grad_norm": torch.tensor([4.0])},
        {"words/accuracy": torch.tensor(1.0), "x/loss_of": torch.tensor(2.0)},
    ]
    found = numbers_of_step(parts)
    expected = {"loss": 1.0, "words/loss": 1.0, "words/accuracy": 0.75, "grad_norm": 4.0, "x/loss_of": 2.0}
    assert {name: float(value) for name, value in found.items()} == expected and list(found) == list(expected)
    assert all(value.dtype == torch.float64 and value.shape == () for value in found.values())


def test_a_mean_of_many_small_numbers_is_exact_and_goes_on_from_a_checkpoint() -> None:
    means = RunningMean()
    assert means.read() == {} and means.state_dict() == {"sums": {}, "counts": {}}
    for _ in range(1000):
        means.add({"a": torch.tensor([0.1], dtype=torch.float32, requires_grad=True)})
    assert means.state_dict() == {"sums": {"a": pytest.approx(100.0, rel=1e-7)}, "counts": {"a": 1000}}
    other = RunningMean()
    other.load_state_dict(means.state_dict())
    other.add({"a": torch.tensor(100.1)})
    assert other.read() == {"a": pytest.approx(200.1 / 1001, rel=1e-6)}
    other.add({"a": torch.tensor(7.0)})
    assert other.read() == {"a": 7.0}
