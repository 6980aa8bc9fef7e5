"""What happens between the steps of a run: its time, its lines of progress, its rows, what it tells to whom, its stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.model import MultimodalModel, Task
from medssml.objectives import Clock, Objective, Step
from medssml.trainers import callback, checkpoint
from medssml.trainers.history import read
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings
from medssml.trainers.signals import StopRequest

from .toy import ToyLoader, toy_model, toy_run, tuner

CPU: dict[str, Any] = {"device": "cpu", "precision": "32"}


class Slow:
    """A learner whose every step takes some seconds of a clock that nothing else moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 5.0) -> None:
        self.now, self.seconds = 1000.0, seconds
        monkeypatch.setattr(callback, "time", SimpleNamespace(monotonic=lambda: self.now))

    def learner(self) -> Learner:
        made = tuner(toy_model(), None, Optim(lr=0.01), seed=3)
        step = made.optimizer_step

        def slow(*args: Any, **kwargs: Any) -> None:
            step(*args, **kwargs)
            self.now += self.seconds

        made.optimizer_step = slow  # type: ignore[method-assign]
        return made


class Follower:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.flushed = 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def flush(self) -> None:
        self.flushed += 1


def said(caplog: pytest.LogCaptureFixture, name: str = "medssml.trainers.callback.progress") -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == name]


@pytest.mark.parametrize(
    ("seconds", "steps", "ends"),
    [
        (5.0, 8, {1: "", 3: "0.2 steps/s  25 s left", 5: "0.2 steps/s  15 s left", 7: "0.2 steps/s  5 s left",
                  8: "0.2 steps/s"}),
        (0.5, 25, {1: "", 21: "2 steps/s  2 s left", 25: "2 steps/s"}),
        (20.0, 3, {1: "", 2: "0.05 steps/s  20 s left", 3: "0.05 steps/s"}),
    ],
)  # fmt: skip
def test_progress_is_said_every_ten_seconds_with_its_pace_and_what_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    steps: int,
    ends: dict[int, str],
) -> None:
    learner = Slow(monkeypatch, seconds).learner()
    with caplog.at_level(logging.INFO, logger="medssml"):
        fit(learner, ToyLoader(), tmp_path, TrainerSettings(max_steps=steps, log_every=1, **CPU))
    rows = {row["step"]: row["train/loss"] for row in read(tmp_path / "history.csv")}
    lines = said(caplog)
    assert [line.split("  loss ")[0] for line in lines] == [f"step {step}/{steps}" for step in ends]
    for line, (step, end) in zip(lines, ends.items(), strict=True):
        number, _, rest = line.split("  loss ")[1].partition("  ")
        assert float(number) == pytest.approx(rows[step], abs=1e-4) and rest == end


def test_seconds_are_those_since_the_run_began_also_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Slow(monkeypatch)
    loader = ToyLoader()
    loader.before_batch = lambda step: signal.raise_signal(signal.SIGTERM) if step == 4 else None
    settings = TrainerSettings(max_steps=8, log_every=1, **CPU)
    stopped = fit(time.learner(), loader, tmp_path, settings)
    assert stopped.status == "stopped" and stopped.seconds == 5 * stopped.step > 0

    time.now += 5000.0
    done = fit(time.learner(), ToyLoader(), tmp_path, settings)
    assert done.seconds == 40.0 and not done.skipped
    rows = read(tmp_path / "history.csv")
    assert [row["seconds"] for row in rows] == [5.0 * row["step"] for row in rows] and len(rows) == 8
    assert [row["epoch"] for row in rows] == pytest.approx([row["step"] / 6 for row in rows], abs=1e-4)

    time.now += 7.0
    again = fit(time.learner(), ToyLoader(), tmp_path, settings)
    assert again.skipped and (again.status, again.exit_code, again.step, again.seconds) == ("done", 0, 8, 40.0)


def test_a_tracker_gets_every_row_and_is_flushed_at_every_checkpoint(tmp_path: Path) -> None:
    tracker, learner = Follower(), tuner(toy_model(), None, Optim(lr=0.01), seed=3)
    settings = TrainerSettings(max_steps=12, log_every=3, save_every_steps=4, **CPU)
    outcome = fit(learner, ToyLoader(), tmp_path, settings, val=ToyLoader(seed=9), tracker=tracker)
    told: dict[int, dict[str, float]] = {}
    for step, values in tracker.rows:
        told.setdefault(step, {}).update(values)
    rows = read(tmp_path / "history.csv")
    assert list(told) == [row["step"] for row in rows] == [3, 6, 9, 12]
    for row in rows:
        own = {name: value for name, value in row.items() if name not in ("step", "epoch", "seconds")}
        assert own == pytest.approx(told[int(row["step"])], rel=1e-4)
    assert tracker.flushed == 4  # after steps 4, 8 and 12, and at the end
    validated = {f"val/{name}": value for name, value in outcome.metrics.items()}
    assert validated and validated.items() <= told[12].items()


def test_rows_and_validations_come_as_often_as_the_settings_say(tmp_path: Path) -> None:
    def steps(name: str, prefix: str, **options: Any) -> list[float]:
        toy_run(tmp_path / name, **options)
        return [row["step"] for row in read(tmp_path / name / "history.csv") if any(k.startswith(prefix) for k in row)]

    assert steps("every", "val/", validate_every=3, max_epochs=4) == [18, 24]
    assert steps("never", "val/", validate_every=0, max_epochs=2) == []
    assert steps("rows", "train/", log_every=5, max_epochs=2) == [5, 10, 12]


class Counts:
    """A judge that remembers how many batches it saw."""

    before_training = False

    def __init__(self) -> None:
        self.seen: list[int] = []

    def validate(self, learner: Learner, batches: Iterable[Batch]) -> dict[str, float]:
        assert not learner.model.training and not torch.is_grad_enabled()
        self.seen.append(len(list(batches)))
        return {}

    def score(self, metrics: Mapping[str, float]) -> float | None:
        return None


@pytest.mark.parametrize(("limit", "batches"), [(None, 6), (2, 2), (6, 6), (9, 6)])
def test_a_validation_sees_as_many_batches_as_the_settings_say(tmp_path: Path, limit: int | None, batches: int) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.01))
    learner.judge = Counts()
    settings = TrainerSettings(max_steps=6, limit_val_batches=limit, **CPU)
    fit(learner, ToyLoader(), tmp_path, settings, val=ToyLoader(seed=9))
    assert learner.judge.seen == [batches]


@pytest.mark.parametrize("every", [0, 1])
def test_the_weights_before_training_are_a_candidate_for_a_regression(tmp_path: Path, every: int) -> None:
    model = toy_model(tasks=(), dropout=0.0)
    model.add_task("sick", Task("regression", mean=0.5, sd=0.5))
    settings = TrainerSettings(max_steps=6, validate_every=every, **CPU)
    val = ToyLoader(studies=64, seed=9)
    fit(tuner(model, None, Optim(lr=0.01)), ToyLoader(), tmp_path / "run", settings, val=val)
    validated = [row["step"] for row in read(tmp_path / "run" / "history.csv") if "val/loss" in row]
    assert validated == ([0, 6] if every else [])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGTERM, 75)])
def test_a_signal_stops_a_run_with_its_exit_code(
    tmp_path: Path, number: signal.Signals, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    loader = ToyLoader()
    loader.before_batch = lambda step: signal.raise_signal(number) if step == 4 else None
    _, stopped = toy_run(tmp_path, loader=loader)
    assert (stopped.status, stopped.exit_code) == ("stopped", code) and not stopped.skipped
    state = checkpoint.load_last(tmp_path / "checkpoints")
    assert state is not None and state["step"] == stopped.step and not state["over"]
    assert (state["precision"], state["identity"]) == ("32", {"config": "toy"})
    with caplog.at_level(logging.INFO, logger="medssml"):
        toy_run(tmp_path)
    assert f"resumed at step {stopped.step} of 24" in said(caplog, "medssml.trainers.callback")
    assert "precision 32 on cpu" in said(caplog, "medssml.trainers.loop")


def test_a_second_interrupt_ends_the_process_and_another_signal_does_not() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as request:
        assert request.exit_code is None
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert request.exit_code == 75
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_do_what_they_did() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with StopRequest():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [before]


def test_patience_says_when_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner = tuner(toy_model(dropout=0.0), None, Optim(lr=1e-20))
    learner.model.standardise.eval()
    with caplog.at_level(logging.INFO, logger="medssml"):
        _, outcome = toy_run(tmp_path, learner=learner, max_epochs=50, ema=None, patience=2)
    looks = [line for line in said(caplog, "medssml.trainers.callback") if "no better" in line]
    assert looks == [f"no better validation in 2 looks: stopped at step {outcome.step}"]
    state = checkpoint.load_last(tmp_path / "checkpoints")
    assert state is not None and state["over"] and state["best"]["since"] == 2
    best = checkpoint.load(tmp_path / "checkpoints" / "best.ckpt")
    assert best["step"] == outcome.step - 12 and best["score"] == outcome.score and best["since"] == 0


class Begins(Objective):
    """Remembers at which batch and in which epoch it was shown all studies."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__(model)
        self.head = torch.nn.Linear(model.dim, 1)
        self.begun: list[tuple[int, int]] = []

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {"loss": self.head(step.fused.pooled).square().mean()}

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        self.begun.append((clock.step, clock.epoch))
        assert sum(len(batch) for batch in studies) == 48


@pytest.mark.parametrize(
    ("accumulate", "begun"),
    [
        (1, [(0, 0), (6, 1), (12, 2), (18, 3)]),
        # Four of six batches make a step: an epoch begins with the first step after its edge.
        (4, [(0, 0), (2, 1), (3, 2), (5, 3)]),
    ],
)
def test_the_objectives_see_all_studies_once_before_each_epoch(
    tmp_path: Path, accumulate: int, begun: list[tuple[int, int]]
) -> None:
    model = toy_model()
    objective = Begins(model)
    settings = TrainerSettings(max_epochs=4, accumulate=accumulate, **CPU)
    fit(Learner(model, [objective], Optim()), ToyLoader(), tmp_path, settings, studies=ToyLoader())
    assert objective.begun == begun
