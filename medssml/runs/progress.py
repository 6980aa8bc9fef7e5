"""How far a long pass is: a line every few seconds, which the log of a batch job can hold, or a bar on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from medssml.runs import console

#: s between two lines.
EVERY_S = 10.0


class Progress:
    """Called as progress(done, total) after each item; `what` names the items. total: how many there were."""

    def __init__(self, what: str) -> None:
        self.what, self.total = what, 0
        self._first: tuple[int, float] | None = None
        self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self.total, now = total, time.monotonic()
        # The start of the processes is in the first item's time, and says nothing about the others.
        first, since = self._first = self._first or (done, now)
        if now - self._said >= EVERY_S and first < done < total:
            left = console.duration((now - since) / (done - first) * (total - done))
            console.say(f"{done:,} of {total:,} {self.what}, about {left} left")
            self._said = now


class TrainingBar:
    """Steps, the parts of the loss, studies a second and the time left, on one line of a terminal.

    Args:
        bar: a `rich` progress with the fields `losses` and `rate`.
    """

    #: Steps that the rate is taken over.
    WINDOW = 20

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self._task: Any = None
        self._losses = ""
        self._seen: list[tuple[float, int]] = []

    def step(self, step: int, total: int, studies: int, means: Mapping[str, float]) -> None:
        """See `medssml.trainers.callback.Watcher`."""
        from medssml.trainers.callback import losses_in_words

        self._losses = losses_in_words(means).strip() or self._losses
        self._seen = [*self._seen[-self.WINDOW :], (time.monotonic(), studies)]
        spent = self._seen[-1][0] - self._seen[0][0]
        rate = f"{sum(count for _, count in self._seen[1:]) / spent:.3g} studies/s" if spent > 0 else ""
        if self._task is None:
            self._task = self.bar.add_task("steps", total=total, completed=step - 1, losses="", rate="")
        self.bar.update(self._task, completed=step, total=total, losses=self._losses, rate=rate, refresh=True)


@contextmanager
def training_bar() -> Iterator[TrainingBar | None]:
    """A bar on a terminal; None elsewhere, where the lines of the training say the same."""
    if not console.on_terminal():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    # The losses take the room that is left, and are cut where there is none.
    rest = TextColumn("{task.fields[losses]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    whole = Column(no_wrap=True)
    rate = TextColumn("{task.fields[rate]}", table_column=whole)
    left = TimeRemainingColumn(compact=True, table_column=whole.copy())
    # Drawn when a step is done: a thread of its own would live on in the processes that are forked.
    bar = Progress(
        TextColumn("steps"), BarColumn(bar_width=20), MofNCompleteColumn(), rate, left, rest,
        console=console.rich_console(), auto_refresh=False, transient=True, expand=True,
    )  # fmt: skip
    with bar, _above_the_bar():
        yield TrainingBar(bar)


@contextmanager
def _above_the_bar() -> Iterator[None]:
    """Inside, log lines go where `rich` has put stdout, and lines of progress, which the bar shows, to log.txt alone."""

    def shown(record: logging.LogRecord) -> bool:
        return not record.name.endswith(".progress")

    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    streams = [handler.setStream(sys.stdout) for handler in handlers]
    for handler in handlers:
        handler.addFilter(shown)
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.removeFilter(shown)
            if stream is not None:
                handler.setStream(stream)
