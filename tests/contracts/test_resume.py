"""kill -9 in the middle of an epoch, at its edge, and SIGTERM: then the same command, to the very same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOY = Path(__file__).parents[1] / "trainers" / "toy.py"
ROOT = Path(__file__).parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOY), str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_kill_9_twice_and_the_same_command_gives_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr

    # Batch 9 is in the middle of the second epoch of six batches, batch 18 the first of the fourth.
    for place in ("9", "18"):
        killed = run(tmp_path / "killed", "--kill", place)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "killed" / "final.pt").exists()
    resumed = run(tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr

    ours = torch.load(tmp_path / "whole" / "final.pt", weights_only=True)
    theirs = torch.load(tmp_path / "killed" / "final.pt", weights_only=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_75(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(TOY), str(tmp_path), "--slow"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(5):
        assert process.stdout.readline() == "batch\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert 3 <= state["step"] <= 6 and not state["over"]
