"""kill -9 in the middle of an epoch, at its edge, and SIGTERM: then the same run again, to the very same weights.

The processes that are killed are forked, so that they need not import everything again; what they leave behind is on
the disk alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

TRAINERS = Path(__file__).parents[1] / "trainers"
FORK = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None

pytestmark = pytest.mark.skipif(FORK is None, reason="this system cannot fork")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(str(TRAINERS.parent))
    from trainers import toy

    torch.set_num_threads(1)
    return toy


def exit_code_of(run: Callable[[], int]) -> int | None:
    """The exit code of a forked process that runs `run`."""
    assert FORK is not None
    process = FORK.Process(target=lambda: sys.exit(run()))
    process.start()
    process.join(timeout=120)
    return process.exitcode


def killed_before(toy, folder: Path, batch: int) -> int:  # type: ignore[no-untyped-def]
    def before(step: int) -> None:
        if step == batch:
            os.kill(os.getpid(), signal.SIGKILL)

    loader = toy.ToyLoader()
    loader.before_batch = before
    return toy.toy_run(folder, loader=loader)[1].exit_code


def test_kill_9_twice_and_the_same_run_again_gives_the_same_bits(toy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole, _ = toy.toy_run(tmp_path / "whole")

    # Batch 9 is in the middle of the second epoch of six batches, batch 18 the first of the fourth.
    for batch in (9, 18):
        assert exit_code_of(lambda batch=batch: killed_before(toy, tmp_path / "killed", batch)) == -signal.SIGKILL
    resumed, outcome = toy.toy_run(tmp_path / "killed")

    assert outcome.status == "done" and not outcome.skipped
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_sigterm_from_outside_saves_and_exits_with_75(toy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert FORK is not None
    reached = FORK.Event()

    def slow() -> int:
        def before(step: int) -> None:
            if step >= 4:
                reached.set()
            time.sleep(0.05)

        loader = toy.ToyLoader()
        loader.before_batch = before
        return toy.toy_run(tmp_path, loader=loader)[1].exit_code

    process = FORK.Process(target=lambda: sys.exit(slow()))
    process.start()
    assert reached.wait(timeout=60)
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=60)
    assert process.exitcode == 75
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert 2 <= state["step"] <= 12 and not state["over"]
