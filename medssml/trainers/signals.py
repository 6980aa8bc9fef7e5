"""SIGTERM, SIGUSR1 and Ctrl-C ask a run to save and stop; the run looks between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

#: Signal -> exit code of a run that it stopped. 75: stopped, safe to run again; 130: interrupted.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}


class StopRequest:
    """While open, the signals of `EXIT_CODES` set `exit_code` in place of ending the process; the second one ends it.

    Outside the main thread Python allows no handlers: signals then do what they did before.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._previous = self.listen()
        return self

    def listen(self) -> dict[int, Any]:
        """Takes the signals, also from somebody who took them since; returns what handled them before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._ask) for number in EXIT_CODES}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = EXIT_CODES[signal.Signals(number)]
