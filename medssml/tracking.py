"""MLflow, and the only file that imports it: config, manifest hash, presence statistics, metrics and the report of a run.

Nothing else goes there. What is sent is an allow list: no path, no login name, no study id. The store of a run folder
names no folder either, so that it can be moved and shared.

MLflow takes seconds to import and to make a store, so all of it happens in a thread of its own; the training loop only
appends to a list.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any
from urllib.parse import quote

from medssml.files import write_text

log = logging.getLogger(__name__)

EXPERIMENT = "medssml"

#: The file of a run folder that says which run of MLflow it is.
RUN_NOTE = "mlflow_run.txt"

#: Sections of a resolved config that are logged; everything else in it stays in the run folder.
SECTIONS = (
    "model", "transforms", "objectives", "optim", "trainer", "data", "freeze", "modality_dropout",
    "unimodal_weight", "label_smoothing", "class_weights", "labels", "tasks", "seed",
)  # fmt: skip

#: What MLflow or its environment may add on its own, and what says who or where.
_SCRUBBED_TAGS = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")

#: Seconds that the end of a run waits for a server that does not answer: it holds the device all the while.
PATIENCE_S = 10.0

_LONGEST = 500
_BATCH = 1000


def allowed_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> text, of the sections in `SECTIONS`; a text that could be a path is left out."""
    flat: dict[str, str] = {}
    for section in SECTIONS:
        if section in config:
            _flatten(section, config[section], flat)
    return flat


def _flatten(key: str, value: Any, into: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _flatten(key if name == "init_args" else f"{key}.{name}", inner, into)
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (Mapping, list, tuple)) for inner in value):
        for place, inner in enumerate(value):
            _flatten(f"{key}.{place}", inner, into)
    elif not _could_be_path(value):
        into[key] = str(value)[:_LONGEST]


def _could_be_path(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_could_be_path(inner) for inner in value)
    if isinstance(value, PurePath):
        return True
    return isinstance(value, str) and ("/" in value or "\\" in value or value.startswith("~"))


class MlflowTracker:
    """One run in MLflow: `sqlite:///FOLDER/mlflow.db`, or the server that MLFLOW_TRACKING_URI names.

    Use it as a context manager; the end of the block waits until everything is written. A store that cannot be
    written costs a warning and no training, and a server that does not answer `PATIENCE_S` at the end.

    Args:
        folder: the run folder.
        name: of the run, such as the verb.
        config: resolved; `allowed_params` of it are logged.
        facts: further parameters: manifest hash, presence statistics.
        every_s: seconds between two writes of metrics.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        facts: Mapping[str, str | int | float] | None = None,
        every_s: float = 20.0,
    ) -> None:
        self.folder = folder
        self.name = name
        params = allowed_params(config) | {key: str(value) for key, value in (facts or {}).items()}
        self.params = {_mlflow_name(key): value for key, value in params.items()}
        self.every_s = every_s
        self._waiting: list[tuple[str, float, int, int]] = []
        self._last = time.monotonic()
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._status = "FINISHED"
        self.remote = bool(os.environ.get("MLFLOW_TRACKING_URI"))
        self._answered = time.monotonic()
        self._given_up = False

    def __enter__(self) -> MlflowTracker:
        self._thread.start()
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
            self._orders.put(("metrics", self._waiting))
            self._waiting = []
        self._last = time.monotonic()

    def artifact(self, path: Path) -> None:
        """Logs a file of the run folder, such as the report, under its name alone."""
        self._orders.put(("artifact", path))

    def stopped(self) -> None:
        """The run was stopped by a signal and will go on later."""
        self._status = "KILLED"

    def close(self, status: str | None = None) -> None:
        """Writes everything and ends the thread; the run is then finished, or stopped, or what `status` says."""
        self.flush()
        self._orders.put(("end", self._status if status is None else status))
        self._answered = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.05)
            # The store of a run folder is a file: it takes its time, and answers.
            if self.remote and time.monotonic() - self._answered > PATIENCE_S:
                self._given_up = True
                log.warning(
                    "MLflow: no answer for %.0f s from where MLFLOW_TRACKING_URI points: not waited for, and this run is "
                    "not tracked to its end",
                    PATIENCE_S,
                )
                return

    # In the thread.

    def _work(self) -> None:
        try:
            store = _Store(self.folder, self.name, self.params)
            while True:
                kind, content = self._orders.get()
                getattr(store, kind)(content)
                self._answered = time.monotonic()
                if kind == "end":
                    return
        except Exception as error:  # whatever a tracking server says, training goes on
            if not self._given_up:
                log.warning("MLflow: %s: %s; this run is not tracked", type(error).__name__, str(error).split("\n")[0])
            self._drain()

    def _drain(self) -> None:
        while self._orders.get()[0] != "end":
            continue


class _Store:
    """The MLflow side: everything that blocks. Its public methods are the orders of the tracker."""

    def __init__(self, folder: Path, name: str, params: Mapping[str, str]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow.entities as entities
        from mlflow import MlflowClient

        # After the import, which sets the level itself.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.entities = entities
        self.folder = folder
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.local = not uri
        if not uri:
            uri = store_address(folder)
            _create_store(uri)
        self.client = MlflowClient(tracking_uri=uri)
        self.experiment = self._experiment()
        self.run_id = self._resumed() or self._created(name)
        known = self.client.get_run(self.run_id).data.params
        new = [entities.Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.run_id, params=new[start : start + 100])
        self._scrub()
        if self.local:
            _remove_misread(uri, folder)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = f"mlflow-artifacts:/{EXPERIMENT}" if self.local else None
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def _resumed(self) -> str | None:
        """The run that this folder began, where there is one."""
        run_id = _run_of(self.folder)
        if run_id is None:
            return None
        with contextlib.suppress(Exception):  # a new server, or a store that was removed: begin a new run
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        return None

    def _created(self, name: str) -> str:
        run_id = str(self.client.create_run(self.experiment, run_name=name, tags={}).info.run_id)
        write_text(self.folder / RUN_NOTE, run_id + "\n")
        return run_id

    def _scrub(self) -> None:
        tags = self.client.get_run(self.run_id).data.tags
        for tag in _SCRUBBED_TAGS:
            if tag in tags:
                self.client.delete_tag(self.run_id, tag)

    def metrics(self, rows: list[tuple[str, float, int, int]]) -> None:
        """Writes metrics, a thousand at a time."""
        made = [self.entities.Metric(_mlflow_name(name), value, stamp, step) for name, value, stamp, step in rows]
        for start in range(0, len(made), _BATCH):
            self.client.log_batch(self.run_id, metrics=made[start : start + _BATCH])

    def artifact(self, path: Path) -> None:
        """Copies the file to where `mlflow server --artifacts-destination mlartifacts` serves it, or sends it."""
        if self.local:
            _copy_artifact(self.folder, self.run_id, path)
        else:
            self.client.log_artifact(self.run_id, str(path))

    def end(self, status: str) -> None:
        """Marks the run as ended."""
        self.client.set_terminated(self.run_id, status=status)


def store_address(folder: Path) -> str:
    """The address of a run folder's own store; in an address, `?`, `#` and `%` of a folder's name mean something else."""
    path = str(folder.absolute() / "mlflow.db")
    return "sqlite:///" + re.sub("[?#%]", lambda letter: quote(letter[0]), path)


def _remove_misread(uri: str, folder: Path) -> None:
    """Removes the empty folders that MLflow makes where it takes an address for a path."""
    misread = Path(uri.removeprefix("sqlite:///")).parent
    if misread != folder.absolute():
        with contextlib.suppress(OSError):
            os.removedirs(misread)


def add_artifact(folder: Path, path: Path) -> bool:
    """Logs a file, such as the report, with the run of a run folder; False where that run was not tracked.

    A server that does not answer costs a warning and `PATIENCE_S`. In a run folder's own store this is a copy into
    `mlartifacts/`, and nothing of MLflow is imported.
    """
    run_id = _run_of(folder)
    if run_id is None:
        return False
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        _copy_artifact(folder, run_id, path)
        return True
    return _sent(uri, run_id, path)


def _sent(uri: str, run_id: str, path: Path) -> bool:
    """Whether a server has taken the file; one that refuses it or does not answer costs a warning."""
    told: list[str] = []

    def send() -> None:
        from mlflow import MlflowClient

        try:
            MlflowClient(tracking_uri=uri).log_artifact(run_id, str(path))
            told.append("")
        except Exception as error:  # whatever a tracking server says, the report is there
            told.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")

    thread = threading.Thread(target=send, name="mlflow", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    why = told[0] if told else f"no answer for {PATIENCE_S:.0f} s from where MLFLOW_TRACKING_URI points"
    if why:
        log.warning("MLflow: %s; %s is not tracked", why, path.name)
    return not why


def _run_of(folder: Path) -> str | None:
    note = folder / RUN_NOTE
    return note.read_text(encoding="utf-8").strip() if note.exists() else None


def _copy_artifact(folder: Path, run_id: str, path: Path) -> None:
    target = folder / "mlartifacts" / EXPERIMENT / run_id / "artifacts"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target / path.name)


def _create_store(uri: str) -> None:
    # Made here and not by the client, which would write the folder of the process into the store as the place of
    # artifacts. This scheme names none: the server that shows the store is told where they are.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, "mlflow-artifacts:/").engine.dispose()


def _mlflow_name(name: str) -> str:
    """The nearest name that MLflow accepts: "ct+report" becomes "ct_report"."""
    return "".join(letter if letter.isalnum() or letter in "_-./ :" else "_" for letter in name)[:250]
