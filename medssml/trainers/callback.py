"""What happens between the steps of a run: the row in history.csv, the validation, the checkpoint, the stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
from torch import Tensor

from medssml.batch import Batch
from medssml.trainers import checkpoint
from medssml.trainers.checkpoint import BEST, LAST
from medssml.trainers.history import History, RunningMean, numbers_of_step
from medssml.trainers.learner import Learner, evaluating
from medssml.trainers.settings import TrainerSettings
from medssml.trainers.signals import StopRequest
from medssml.trainers.stream import Portion

log = logging.getLogger(__name__)
#: Lines of progress have a logger of their own: where a bar shows the same, they are for log.txt alone.
progress = logging.getLogger(f"{__name__}.progress")

#: Seconds between two lines of progress.
SAY_EVERY_S = 10.0


class Tracker(Protocol):
    """Where metrics go besides history.csv; `medssml.tracking` has the one for MLflow."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...


class Watcher(Protocol):
    """Who looks on while a run goes, such as a bar on a terminal."""

    def step(self, step: int, total: int, studies: int, means: Mapping[str, float]) -> None:
        """After each step of the optimiser. studies: of this step. means: train/... since the last row; mostly empty."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    status: "done", or "stopped" by a signal. exit_code: 0, or 75 / 130 where stopped. step: optimiser steps taken.
    score: of the checkpoint that was kept, None where the last one was. skipped: nothing was left to do.
    """

    status: Literal["done", "stopped"]
    exit_code: int
    step: int
    seconds: float
    score: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: bool = False


class Course(pl.Callback):
    """The course of one run; its state is what a resumption needs beside the learner's and the optimiser's."""

    def __init__(
        self,
        learner: Learner,
        folder: Path,
        settings: TrainerSettings,
        per_epoch: int,
        precision: str,
        *,
        val: Iterable[Batch] | None,
        studies: Iterable[Batch] | None,
        identity: dict[str, str],
        tracker: Tracker | None,
        watcher: Watcher | None = None,
    ) -> None:
        self.learner = learner
        self.folder = folder
        self.settings = settings
        self.per_epoch = per_epoch
        self.precision = precision
        self.val = val
        self.studies = studies
        self.identity = identity
        self.tracker = tracker
        self.watcher = watcher
        self.stop = StopRequest()
        self.history = History(folder / "history.csv")
        self.means = RunningMean()
        self.parts: list[dict[str, Tensor]] = []
        self.studies_seen = 0
        self.over = False
        self.resumed = False
        self.best: dict[str, Any] = {"score": None, "step": 0, "since": 0}
        self.best_weights: dict[str, dict[str, Tensor]] | None = None
        self.metrics: dict[str, float] = {}
        self.seconds = 0.0
        self._started = time.monotonic()
        self._said = float("-inf")
        self._first: tuple[float, int] | None = None
        self._optimizer_state: dict[str, Any] | None = None

    # From and to a checkpoint.

    def restore(self, state: dict[str, Any] | None) -> None:
        """Goes on from a checkpoint, or starts where there is none."""
        if state is None:
            self.history.rewind(-1)
            return
        self.learner.load_learning_state(state["learner"])
        self._optimizer_state = state["optimizer"]
        self.means.load_state_dict(state["means"])
        self.best, self.metrics, self.seconds = dict(state["best"]), dict(state["metrics"]), float(state["seconds"])
        self.over, self.resumed = bool(state["over"]), True
        if not self.over:
            self.history.rewind(int(state["step"]))
            log.info("resumed at step %d of %d", self.learner.step, self.learner.total)

    def save(self, trainer: pl.Trainer) -> None:
        """Writes the best weights if they are new, then the state of the run."""
        if trainer.is_global_zero:
            folder = self.folder / "checkpoints"
            if self.best_weights is not None:
                checkpoint.save(folder / BEST, {"weights": self.best_weights, **self.best})
                self.best_weights = None
            self.flush()
            state = {
                "step": self.learner.step,
                "learner": self.learner.learning_state(),
                "optimizer": trainer.optimizers[0].state_dict(),
                "means": self.means.state_dict(),
                "best": self.best,
                "metrics": self.metrics,
                "seconds": self.seconds + time.monotonic() - self._started,
                "over": self.over,
                "precision": self.precision,
                "identity": self.identity,
            }
            checkpoint.save(folder / LAST, state)
        trainer.strategy.barrier("checkpoint")

    def flush(self) -> None:
        """Everything that was held back goes to history.csv and to the tracker."""
        if self.learner.global_rank == 0:
            self.history.flush()
            if self.tracker is not None:
                self.tracker.flush()

    def finish(self) -> Outcome:
        """The outcome; puts the weights to keep into the model where the run is over."""
        seconds = self.seconds + (time.monotonic() - self._started if self._ran else 0.0)
        if not self.over:
            code = self.stop.exit_code or 75
            return Outcome("stopped", code, self.learner.step, seconds, metrics=self.metrics)
        if self.best["score"] is not None:
            kept = checkpoint.load(self.folder / "checkpoints" / BEST)
            self.learner.load_weights_to_keep(kept["weights"])
        elif self.learner.average is not None:
            self.learner.load_weights_to_keep(self.learner.weights_to_keep())
        self.learner.eval()
        self.learner.model.keep(self.learner.kept())
        return Outcome("done", 0, self.learner.step, seconds, self.best["score"], self.metrics, skipped=not self._ran)

    # Lightning's hooks.

    _ran = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The optimiser exists from here on."""
        self._ran = True
        # Lightning has just put its own handler of SIGTERM in place, which ends the run without a checkpoint.
        self.stop.listen()
        self._started = time.monotonic()
        if self._optimizer_state is not None:
            trainer.optimizers[0].load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        first = self.learner.batches == 0 and self.learner.judge.before_training
        if first and self.val is not None and self.settings.validate_every > 0:
            self._validate(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Before the first batch of an epoch the objectives may look at all training studies."""
        # Between two steps of the optimiser only: a head that is begun anew must have no gradient of the old one.
        begins = (
            self.learner.batches // self.per_epoch > (self.learner.batches - self.settings.accumulate) // self.per_epoch
        )
        if self.studies is not None and begins and self.learner.batches % self.settings.accumulate == 0:
            with trainer.precision_plugin.forward_context():
                self.learner.begin_epoch(self.studies)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Portion, batch_idx: int
    ) -> None:
        """After every batch; between two optimiser steps nothing else happens."""
        learner = self.learner
        learner.batches += 1
        self.studies_seen += len(batch.group[batch.place])
        self.parts.append(learner.numbers)
        learner.numbers = {}
        if learner.batches % self.settings.accumulate != 0:
            return
        self.means.add(numbers_of_step(self.parts))
        self.parts = []

        self.over = learner.step >= learner.total
        epoch = learner.batches // self.per_epoch
        edge = epoch > (learner.batches - self.settings.accumulate) // self.per_epoch
        means = self._log(trainer) if learner.step % self.settings.log_every == 0 or self.over else {}
        if self.watcher is not None and learner.global_rank == 0:
            self.watcher.step(learner.step, learner.total, self.studies_seen * trainer.world_size, means)
        self.studies_seen = 0
        if self._validates(epoch, edge):
            self._validate(trainer)

        stopping = self._asked_to_stop(trainer)
        if self.over or stopping or learner.step % self.settings.save_every_steps == 0:
            self.save(trainer)
        if self.over or stopping:
            trainer.should_stop = True

    # Details.

    def _log(self, trainer: pl.Trainer) -> dict[str, float]:
        means = {f"train/{name}": value for name, value in self.means.read().items()}
        self._row(means | {"lr": max(group["lr"] for group in trainer.optimizers[0].param_groups)})
        self._say(means)
        return means

    def _say(self, means: Mapping[str, float]) -> None:
        now, step, total = time.monotonic(), self.learner.step, self.learner.total
        if self._first is None:
            self._first = (now, step)
        if now - self._said < SAY_EVERY_S and not self.over:
            return
        self._said = now
        pace = (now - self._first[0]) / max(1, step - self._first[1])
        known = pace > 0 and step > self._first[1]
        rate = f"  {1 / pace:.3g} steps/s" if known else ""
        left = f"  {pace * (total - step):.0f} s left" if known and not self.over else ""
        progress.info("step %d/%d%s%s%s", step, total, losses_in_words(means), rate, left)

    def _row(self, metrics: Mapping[str, float]) -> None:
        if self.learner.global_rank == 0:
            step, seconds = self.learner.step, self.seconds + time.monotonic() - self._started
            self.history.add(step, self.learner.batches / self.per_epoch, seconds, metrics)
            if self.tracker is not None:
                self.tracker.metrics(step, metrics)

    def _validates(self, epoch: int, edge: bool) -> bool:
        every = self.settings.validate_every
        return self.val is not None and every > 0 and (self.over or (edge and epoch % every == 0))

    def _validate(self, trainer: pl.Trainer) -> None:
        with evaluating(self.learner), trainer.precision_plugin.forward_context():
            metrics = self.learner.judge.validate(self.learner, self._val_batches())
        self._row({f"val/{name}": value for name, value in metrics.items()})
        self.metrics = {name: float(value) for name, value in metrics.items()}
        score = trainer.strategy.broadcast(self.learner.judge.score(metrics))
        if score is None:
            return
        # One that is not a number is never the best: as the first it would stand for ever, since nothing is above it.
        if math.isfinite(score) and (self.best["score"] is None or score > self.best["score"]):
            self.best = {"score": float(score), "step": self.learner.step, "since": 0}
            self.best_weights = self.learner.weights_to_keep()
        else:
            self.best = {**self.best, "since": self.best["since"] + 1}
        if self.settings.patience is not None and self.best["since"] >= self.settings.patience:
            log.info("no better validation in %d looks: stopped at step %d", self.best["since"], self.learner.step)
            self.over = True

    def _val_batches(self) -> Iterator[Batch]:
        for count, batch in enumerate(self.val or ()):
            if self.settings.limit_val_batches is not None and count >= self.settings.limit_val_batches:
                return
            yield batch.to(self.learner.device)

    def _asked_to_stop(self, trainer: pl.Trainer) -> bool:
        asked = self.stop.exit_code is not None
        if trainer.world_size == 1:
            return asked
        # One rank may have the signal before the others; all have to stop at the same step.
        return bool(trainer.strategy.reduce_boolean_decision(asked, all=False))


def losses_in_words(means: Mapping[str, float]) -> str:
    """The loss and, where it has several, its parts: "  loss 2.31 (contrast 1.20, masked 1.11)"; "" where none is known."""
    if "train/loss" not in means:
        return ""
    names = [name for name in means if name.endswith("/loss") and name.count("/") == 2]
    parts = ", ".join(f"{name.split('/')[1]} {means[name]:.3g}" for name in names)
    return f"  loss {means['train/loss']:.4f}" + (f" ({parts})" if len(names) > 1 else "")
