"""What a long pass says of itself."""

from __future__ import annotations

import io
import logging
import re

import pytest
from rich.console import Console

from medssml.runs import progress


def test_it_speaks_every_ten_seconds_and_does_not_count_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    told = progress.Progress("files")
    for done, now in enumerate([60.0, 61.0, 65.0, 70.0, 71.5], 1):
        clock[0] = now
        told(done, 5)
    # After 60 s of start one file took 1 s, and three are left; the next line is not due before 71 s, when all is done.
    assert capsys.readouterr().out == "2 of 5 files, about 3.0 s left\n"
    assert told.total == 5


def bar_on(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal that remembers what was written to it."""
    screen = io.StringIO()
    monkeypatch.setattr(progress.console, "on_terminal", lambda: True)
    terminal = Console(file=screen, force_terminal=True, width=90)
    monkeypatch.setattr(progress.console, "rich_console", lambda: terminal)
    return screen


def test_a_bar_shows_steps_rate_parts_of_the_loss_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, clock = bar_on(monkeypatch), [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.training_bar() as bar:
        assert bar is not None
        for step in range(1, 6):
            clock[0] += 2.0
            parts = {
                "train/loss": 2.5,
                "train/contrast/loss": 1.5,
                "train/words/loss": 1.0,
                "train/words/accuracy": 0.5,
            }
            bar.step(step, 40, 32, parts if step == 2 else {})
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue().split("steps")[-1])
    assert "5/40" in last and "loss 2.5000 (contr" in last
    assert re.search(r"16 studies/s +\d\d:\d\d ", last)  # the time left is whole, however long the losses are


def test_lines_that_the_bar_shows_too_go_to_the_log_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bar_on(monkeypatch)
    heard, kept = io.StringIO(), io.StringIO()
    shown, logged = logging.StreamHandler(heard), logging.StreamHandler(kept)
    logger = logging.getLogger("medssml.trainers.callback")
    monkeypatch.setattr(logging.getLogger("medssml"), "level", logging.INFO)
    logging.getLogger().addHandler(shown)
    logger.addHandler(logged)
    try:
        with progress.training_bar():
            monkeypatch.setattr(shown, "stream", heard)
            logging.getLogger("medssml.trainers.callback.progress").info("step 1/2")
            logger.info("resumed")
        logging.getLogger("medssml.trainers.callback.progress").info("step 2/2")
    finally:
        logging.getLogger().removeHandler(shown)
        logger.removeHandler(logged)
    assert heard.getvalue() == "resumed\nstep 2/2\n"
    assert kept.getvalue() == "step 1/2\nresumed\nstep 2/2\n"


def test_there_is_no_bar_where_nobody_looks() -> None:
    with progress.training_bar() as bar:
        assert bar is None
