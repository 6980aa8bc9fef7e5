"""How far a long pass is, in a line every few seconds: readable in a terminal and in the log of a batch job."""

from __future__ import annotations

import time

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
