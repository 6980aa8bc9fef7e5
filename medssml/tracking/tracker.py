"""The tracker of a training: the loop appends to a list, a thread writes it to MLflow in batches."""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from medssml.tracking.allowed import allowed_params, mlflow_name
from medssml.tracking.store import URI_VARIABLE, NoStoreError, Store, ask, gave_up, home_of, uri_of

log = logging.getLogger(__name__)

#: Seconds that the end of a run waits for a server that does not answer: it holds the device all the while.
PATIENCE_S = 10.0

_BATCH = 1000


class Writer:
    """Gives orders to a `Store` that lives in a thread of its own: none of them blocks, and none of them fails.

    A store that cannot be written costs a warning and nothing else.

    Args:
        folder: the run folder.
        start: what makes the store ready for orders.
    """

    def __init__(self, folder: Path, start: Callable[[Store], None]) -> None:
        self.folder, self._start = folder, start
        self.uri = uri_of(folder)
        self.failed = self._importing = False
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answered = time.monotonic()
        self._given_up = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def order(self, kind: str, content: Any) -> None:
        """Has `Store.kind(content)` called, later."""
        self._orders.put((kind, content))

    def close(self, status: str) -> bool:
        """Waits until everything is written; False where it was not, which has been said. At a server that does not
        answer `PATIENCE_S`; a store that is a file takes its time, and answers, and so does the import of MLflow."""
        self.order("end", status)
        self._answered = time.monotonic()
        server = home_of(self.uri) is None
        while self._thread.is_alive():
            self._thread.join(0.05)
            if server and not self._importing and time.monotonic() - self._answered > PATIENCE_S:
                self._given_up = True
                gave_up(self.uri)
                log.warning(
                    "MLflow: no answer for %.0f s from where %s points: not waited for, and %s is not tracked to its end",
                    PATIENCE_S, URI_VARIABLE, self.folder.name,
                )  # fmt: skip
                return False
        return not self.failed

    def _work(self) -> None:
        try:
            ask(self.uri)
            self._importing = True
            store = Store(self.folder, self.uri)
            self._answered, self._importing = time.monotonic(), False
            self._start(store)
            self._answered = time.monotonic()
            while True:
                kind, content = self._orders.get()
                getattr(store, kind)(content)
                self._answered = time.monotonic()
                if kind == "end":
                    return
        except Exception as error:  # whatever a tracking server says, the work goes on
            self.failed = True
            if not self._given_up:
                log.warning("MLflow: %s; %s is not tracked", _said(error), self.folder.name)
            self._drain()

    def _drain(self) -> None:
        while self._orders.get()[0] != "end":
            continue


def _said(error: Exception) -> str:
    """One line of an error, without a password in an address."""
    text = str(error).split("\n")[0]
    text = re.sub(r"//[^/@\s]+@", "//", text)
    return text if isinstance(error, NoStoreError) else f"{type(error).__name__}: {text}"


class MlflowTracker:
    """One run in MLflow, of a training: `sqlite:///FOLDER/mlflow.db`, or where MLFLOW_TRACKING_URI says.

    Use it as a context manager; the end of the block waits until everything is written. A store that cannot be
    written costs a warning and no training, and a server that does not answer `PATIENCE_S` at the end.

    Args:
        folder: the run folder; the run is named after it.
        config: resolved; `allowed_params` of it are logged.
        facts: further parameters: manifest hash, presence statistics.
        tags: what the run is found by: verb, config, parent run.
        every_s: seconds between two writes of metrics.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any],
        facts: Mapping[str, str | int | float] | None = None,
        tags: Mapping[str, str] | None = None,
        every_s: float = 20.0,
    ) -> None:
        params = allowed_params(config) | {key: str(value) for key, value in (facts or {}).items()}
        self.params = {mlflow_name(key): value for key, value in params.items()}
        self.tags = dict(tags or {})
        self.name = folder.resolve().name
        self.every_s = every_s
        self._waiting: list[tuple[str, float, int, int]] = []
        self._last = time.monotonic()
        self._writer = Writer(folder, lambda store: store.begin(self.name, self.params, self.tags))
        self._status = "FINISHED"

    def __enter__(self) -> MlflowTracker:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("FAILED" if error is not None else None)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of one step; they are written in batches."""
        now = int(time.time() * 1000)
        self._waiting += [(name, float(value), now, step) for name, value in values.items()]
        if len(self._waiting) >= _BATCH or time.monotonic() - self._last > self.every_s:
            self.flush()

    def flush(self) -> None:
        """Hands what waits to the writing thread; returns at once."""
        if self._waiting:
            self._writer.order("metrics", self._waiting)
            self._waiting = []
        self._last = time.monotonic()

    def stopped(self) -> None:
        """The run was stopped by a signal and will go on later."""
        self._status = "KILLED"

    def close(self, status: str | None = None) -> None:
        """Writes everything and ends the thread; the run is then finished, or stopped, or what `status` says."""
        self.flush()
        self._writer.close(self._status if status is None else status)
