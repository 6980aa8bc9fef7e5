"""Queues on two ranks: what enters, in which order, and what it makes of the next step."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from medssml.objectives import Clock, Step
from tests.examples import OBJECTIVES, Study, batch_of, study, teacher_of, tiny_model

NAMES = ("ALBEF", "MoCo v2")


def steps_of() -> list[list[list[Study]]]:
    """Three steps, of two ranks each; later studies are of earlier subjects, or have an earlier report."""
    every = [study(n, ("ct", "report") if n % 3 else ("xray", "eeg", "report")) for n in range(14)]
    every[7]["subject"] = every[1]["subject"]
    every[9]["content"]["report"] = every[2]["content"]["report"]
    return [[every[:3], every[3:4]], [every[4:5], every[5:9]], [every[9:12], every[12:]]]


def learn(rank: int | None) -> dict[str, tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Name -> the loss of the last step, and the queues after it; rank None has the studies of both."""
    out = {}
    for name in NAMES:
        model = tiny_model().double()
        model.standardise.eval()
        torch.manual_seed(1)
        objective = OBJECTIVES[name](model).double()
        teacher = teacher_of(model, objective)
        for at, (first, second) in enumerate(steps_of()):
            studies = first + second if rank is None else (first, second)[rank]
            batch = batch_of(studies, torch.float64, views=objective.views)
            step = Step(model, batch, clock=Clock(at, 10), teacher=teacher)
            loss = objective(step)["loss"].detach()
            objective.after_step(step.clock)
        out[name] = loss, dict(objective.queues.state_dict())
    return out


def worker(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(learn(rank), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_have_the_queue_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    alone = learn(None)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        for name in NAMES:
            loss, queues = found[name]
            torch.testing.assert_close(loss, alone[name][0], rtol=1e-6, atol=1e-9)
            for key, value in alone[name][1].items():
                torch.testing.assert_close(queues[key], value, rtol=1e-6, atol=1e-9, msg=f"{name} {key}")
    assert bool(alone["ALBEF"][1]["report.known"].all())
