"""One training run: a learner, its data, a folder. Runs, saves, resumes, stops; knows nothing of any method."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment

from medssml.batch import Batch
from medssml.trainers import checkpoint
from medssml.trainers.callback import Course, Outcome, Tracker, Watcher
from medssml.trainers.checkpoint import CheckpointError
from medssml.trainers.learner import Learner
from medssml.trainers.precision import chosen_precision, device_type
from medssml.trainers.settings import TrainerSettings
from medssml.trainers.stream import Stream, TrainLoader

log = logging.getLogger(__name__)

__all__ = ["Outcome", "Tracker", "Watcher", "fit"]


def fit(
    learner: Learner,
    train: TrainLoader,
    folder: Path,
    settings: TrainerSettings,
    *,
    val: Iterable[Batch] | None = None,
    studies: Iterable[Batch] | None = None,
    identity: Mapping[str, str] | None = None,
    tracker: Tracker | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Trains `learner`, or goes on where the run in `folder` stopped; afterwards its model holds the weights to keep.

    These are the best ones by `learner.score` on the validation batches, or the last ones where it cannot decide.

    Args:
        learner: on the CPU.
        train: batches of the training studies.
        folder: gets `checkpoints/` and `history.csv`.
        settings: how long and on what.
        val: batches of the validation studies; never of the test studies.
        studies: all training studies in their order, without augmentation, for objectives that look at them before an
            epoch (`Objective.begin_epoch`).
        identity: name -> text of what must not change between a run and its resumption (config, manifest, studies).
        tracker: gets what history.csv gets.
        watcher: is told of every step.

    Raises:
        CheckpointError: the folder holds a run that differs in `identity`, or damaged checkpoints.
        NonFiniteError: no finite gradient in `settings.bad_steps` steps in a row. NoSpaceError: the disk is full.
    """
    torch.set_grad_enabled(True)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = device_type(settings.device)
    state = checkpoint.load_last(folder / "checkpoints")
    known = dict(identity or {})
    if state is not None:
        _same_run(state["identity"], known)

    precision = chosen_precision(settings.precision, device)
    if state is not None:
        _same_precision(str(state["precision"]), precision)
    per_epoch = settings.epoch_batches(len(train))
    if per_epoch < 1:
        raise ValueError("no training batch: fewer training studies than a batch; fix: a smaller data.batch_size")
    learner.accumulate = settings.accumulate
    learner.per_epoch = per_epoch
    learner.total = settings.total_steps(len(train))
    learner.bad_limit = settings.bad_steps
    learner.encode_in_chunks(settings.encoder_chunk)
    if settings.ema is not None and learner.average is None:
        learner.keep_average(settings.ema)

    course = Course(
        learner, folder, settings, per_epoch, precision, val=val, studies=studies, identity=known, tracker=tracker,
        watcher=watcher,
    )  # fmt: skip
    course.restore(state)
    log.info("precision %s on %s", precision, device)
    if not course.over:
        _train(learner, train, course, device)
    return course.finish()


def _train(learner: Learner, train: TrainLoader, course: Course, device: str) -> None:
    settings = course.settings
    # Lightning's own loggers say what a user cannot act on ("GPU available: False").
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    many = settings.devices * settings.num_nodes > 1
    trainer = pl.Trainer(
        accelerator=device if device == "cpu" else "gpu",
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        # A rank may lack a modality; what no rank uses must stay without gradient, as with one rank.
        strategy="ddp_find_unused_parameters_true" if many else "auto",
        precision=course.precision,  # type: ignore[arg-type]
        accumulate_grad_batches=settings.accumulate,
        max_epochs=1,
        callbacks=[course],
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
        default_root_dir=str(course.folder),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    last = learner.total * settings.accumulate
    stream = Stream(train, first=learner.batches, last=last, per_epoch=course.per_epoch, accumulate=settings.accumulate)
    learner.train()
    with course.stop, warnings.catch_warnings():
        # Nothing that a user could act on: Lightning against torch, and frozen parts that are meant to be in eval mode.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")
        try:
            trainer.fit(learner, train_dataloaders=stream)
        finally:
            course.flush()
    learner.to("cpu")


def _same_precision(saved: str, now: str) -> None:
    """The precision of a run is a part of it: with another one it would be another run from here on."""
    if saved != now:
        raise CheckpointError(
            f"this run was begun in precision {saved}, and here it would go on in {now}; fix: --precision {saved}, or "
            f"--fresh to start over"
        )


def _same_run(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    differing = [name for name in sorted({*saved, *now}) if saved.get(name) != now.get(name)]
    if differing:
        raise CheckpointError(
            f"this run was begun with another {', '.join(differing)}; fix: the old one, another --out, or --fresh to "
            f"start over"
        )
