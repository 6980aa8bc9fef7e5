"""--dry-run: a few steps on a few studies; what a training will take is measured, and nothing is written."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssml.data.datamodule import StudyDataModule
from medssml.data.shard_dataset import Shards
from medssml.manifest.manifest import Manifest
from medssml.runs import console
from medssml.runs.memory import GIB, peak_memory
from medssml.runs.training import prepare, presence
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.precision import device_type
from medssml.trainers.settings import TrainerSettings

#: Steps that are taken; the first, in which libraries warm up, is not timed.
STEPS = 3


class _Clock:
    """When each step was done: a watcher of a training."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, step: int, total: int, studies: int, means: Mapping[str, float]) -> None:
        """See `medssml.trainers.callback.Watcher`."""
        self.times.append(time.monotonic())

    @property
    def seconds_per_step(self) -> float:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def rehearse(
    make: Callable[[StudyDataModule], Learner], data: StudyDataModule, settings: TrainerSettings
) -> dict[str, Any]:
    """Trains a few steps on a few studies of every pattern of presence, and says what the whole training will take.

    Returns:
        parameters; steps of the whole training and its seconds; seconds_per_step and studies_per_step; peak_memory_gib of
        the device: on a CPU that of this process so far, the libraries included.
    """
    few = _few(data.all_studies, data.batch_size)
    rehearsal = StudyDataModule(
        few,
        data.transforms,
        batch_size=min(data.batch_size, len(few)),
        seed=data.seed,
        tasks=data.tasks,
        cache_dir=data.store if isinstance(data.store, Shards) else None,
        prepare_workers=0,
    )
    prepare(rehearsal, None)
    learner = make(rehearsal)
    rehearsal.views = learner.views
    quick = dataclasses.replace(settings, max_epochs=None, max_steps=STEPS, accumulate=1, validate_every=0)
    clock, device = _Clock(), device_type(settings.device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as scratch:
        fit(
            learner, rehearsal.train_dataloader(), Path(scratch), quick, studies=rehearsal.loader("train"),
            watcher=clock,
        )  # fmt: skip

    train = len(data.all_studies.split("train"))
    steps = settings.total_steps(max(1, train // data.batch_size))
    found = {
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()),
        "patterns": len(presence(few)["patterns"]),
        "device": device,
        "steps": steps,
        "studies_per_step": data.batch_size * settings.accumulate,
        "seconds_per_step": clock.seconds_per_step * settings.accumulate,
        "seconds": clock.seconds_per_step * settings.accumulate * steps,
        "peak_memory_gib": peak_memory(device) / GIB,
    }
    say(found)
    return found


def say(found: Mapping[str, Any]) -> None:
    """The findings of a rehearsal, as a person reads them."""
    console.say(f"model: {found['parameters']:,} parameters; patterns tried: {found['patterns']}")
    console.say(
        f"memory: {found['peak_memory_gib']:.1f} GiB at most"
        + (" on the GPU" if found["device"] == "cuda" else " in this process")
    )
    console.say(
        f"time: {found['seconds_per_step']:.2g} s per step of {found['studies_per_step']} studies; {found['steps']} steps, "
        f"about {console.duration(found['seconds'])}, besides reading files and validating"
    )
    console.say("dry run: nothing was written")


def _few(manifest: Manifest, most: int) -> Manifest:
    """Training studies of `manifest`, at most `most`, of every pattern of presence in turn."""
    train = manifest.split("train")
    train = train.filter(train.present.any(axis=1))
    patterns = ["".join("1" if here else "0" for here in row) for row in train.present]
    rank: dict[str, int] = {}
    turn = []
    for pattern in patterns:
        rank[pattern] = rank.get(pattern, 0) + 1
        turn.append(rank[pattern])
    return train.filter(np.sort(np.argsort(turn, kind="stable")[: max(most, 2)]))
