"""`medssml pretrain` killed in the middle of an epoch, at its edge, and by SIGTERM: the same command gives the same bits.

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

from medssml import cli

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
#: Optimiser steps of an epoch: 12 training studies, four at a time. A checkpoint is written after every second step.
EPOCH, SETTINGS = 3, ("data.batch_size=4", "trainer.max_epochs=4", "trainer.save_every_steps=2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"),
]


@pytest.fixture(scope="module")
def manifest(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small cohort with twelve training studies, six to validate and six for testing."""
    import pandas as pd

    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    table["split"] = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    table["subject_id"] = table["study_id"]
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def command(manifest: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """The command line of a pretraining into a folder."""
    cache = tmp_path_factory.mktemp("cache")
    flags = ["--config", str(SMOKE / "pretrain.yaml"), "--manifest", str(manifest), "--data-root", str(cohort.parent)]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return lambda out: ["pretrain", *flags, "--cache", str(cache), "--no-track", *settings, "--out", str(out)]


@pytest.fixture(scope="module")
def whole(command: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(command(out)) == 0
    return weights(out)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def forked(argv: list[str], before_batch: Callable[[int], None]) -> multiprocessing.Process:
    """A process that runs the command line and calls `before_batch(number)` before it takes a batch."""

    def run() -> None:
        from medssml.data.loader import TrainLoader

        take = TrainLoader.take

        def watched(self: TrainLoader):  # type: ignore[no-untyped-def]
            before_batch(self.step)
            return take(self)

        TrainLoader.take = watched  # type: ignore[method-assign]
        sys.exit(cli.main(argv))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process  # type: ignore[return-value]


def test_kill_9_in_an_epoch_and_at_its_edge_then_the_same_command_gives_the_same_bits(
    whole: bytes, command: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    for batch in (EPOCH + 1, 2 * EPOCH):

        def die(number: int, batch: int = batch) -> None:
            if number == batch:
                os.kill(os.getpid(), signal.SIGKILL)

        process = forked(command(tmp_path / "run"), die)
        process.join(timeout=120)
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "run" / "model").exists()
    assert cli.main(command(tmp_path / "run")) == 0
    assert weights(tmp_path / "run") == whole


def test_sigterm_exits_with_75_and_the_same_command_goes_on_to_the_same_bits(
    whole: bytes, command: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    reached = multiprocessing.get_context("fork").Event()

    def slow(number: int) -> None:
        if number >= EPOCH + 1:
            reached.set()
            time.sleep(0.2)

    process = forked(command(tmp_path / "run"), slow)
    assert reached.wait(timeout=120)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=60)
    assert process.exitcode == 75
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and not (tmp_path / "run" / "model").exists()
    assert cli.main(command(tmp_path / "run")) == 0
    assert weights(tmp_path / "run") == whole
