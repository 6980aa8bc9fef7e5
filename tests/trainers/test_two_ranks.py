"""Two ranks with half of each batch learn what one rank learns with the whole: the run itself, through Lightning's DDP."""

from __future__ import annotations

import copy
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from medssml.model import Task
from medssml.objectives import AdaptiveGradientModulation, EarlyLearning, GeneralisedCrossEntropy, GradientModulation
from medssml.trainers.history import read
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings

from .toy import ToyLoader, toy_model, tuner


class RankLoader(ToyLoader):
    """Each rank takes its contiguous part of the batch."""

    def batch(self, rows, epoch=0):  # type: ignore[no-untyped-def]
        if dist.is_initialized() and len(rows) == self.size:
            rows = rows.chunk(dist.get_world_size())[dist.get_rank()]
        return super().batch(rows, epoch)


def learn(folder: Path, devices: int, evidence: bool, options: dict[str, object]) -> Learner:
    torch.set_num_threads(1)
    # Half of the labels are missing: the ranks hold different numbers of them, and now and then none.
    model = toy_model(tasks=(), dropout=0.0)
    model.add_task("sick", Task(evidence=evidence))
    # What an option keeps from step to step is its run's own.
    own = copy.deepcopy(options)
    chunk = own.pop("encoder_chunk", None)
    learner = tuner(model, None, Optim(lr=0.01), modality_dropout=0.3, seed=3, **own)
    settings = TrainerSettings(
        max_epochs=3, device="cpu", precision="32", devices=devices, save_every_steps=5, encoder_chunk=chunk
    )  # fmt: skip
    fit(learner, RankLoader(labels=0.4), folder, settings, val=ToyLoader(studies=44, seed=9))
    return learner


def one_of_two(rank: int, port: int, folder: Path, evidence: bool, options: dict[str, object]) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    learner = learn(folder, devices=2, evidence=evidence, options=options)
    torch.save(learner.model.state_dict(), folder / f"rank{rank}.pt")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.parametrize(
    ("evidence", "options"),
    [
        (False, {}),
        (True, {}),
        (False, {"loss": EarlyLearning()}),
        (False, {"loss": GeneralisedCrossEntropy(k=0.5, prune_after=0.0)}),
        (False, {"modulation": GradientModulation()}),
        (False, {"modulation": AdaptiveGradientModulation()}),
        (False, {"encoder_chunk": 2}),
    ],
    ids=[
        "one weight for all",
        "own weights per modality",
        "what is kept per study",
        "studies pruned",
        "gradients",
        "gradients, by a running mean",
        "two studies pass an encoder at a time",
    ],
)
def test_two_ranks_learn_what_one_learns(tmp_path: Path, evidence: bool, options: dict[str, object]) -> None:
    one = learn(tmp_path / "one", 1, evidence, options)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=one_of_two, args=(rank, port, tmp_path / "two", evidence, options)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0

    for rank in range(2):
        weights = torch.load(tmp_path / "two" / f"rank{rank}.pt", weights_only=True)
        for name, value in one.model.state_dict().items():
            torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=1e-4, msg=name)
    losses = [
        [row["train/loss"] for row in read(tmp_path / n / "history.csv") if "train/loss" in row] for n in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
