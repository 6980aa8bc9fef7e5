"""The MLflow side of tracking: everything that imports MLflow or waits for it.

A run is tracked in `sqlite:///RUN/mlflow.db`, or where MLFLOW_TRACKING_URI says: a server, or a file of SQLite that several
runs share. Artifacts of a file lie in `mlartifacts/` beside it, and the file does not say where: it can be moved.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from medssml.checkpoint import CONFIG
from medssml.files import write_text
from medssml.tracking.allowed import mlflow_name

EXPERIMENT = "medssml"

#: The file of a run folder that says which run of MLflow it is.
RUN_NOTE = "mlflow_run.txt"

#: Where runs are tracked, if not in their own folders.
URI_VARIABLE = "MLFLOW_TRACKING_URI"

#: What keeps MLflow from reporting its use: read when it is imported, by the server and by its page too.
NO_USAGE_DATA = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

#: Seconds in which a server has to answer at first.
PROBE_S = 5.0

#: Seconds for which a server that did not answer is not asked again by this process.
SILENCE_S = 300.0

#: What MLflow or its environment may add on its own, and what says who or where.
_SCRUBBED_TAGS = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")
_BATCH = 1000
_FILE = "sqlite:///"

_silent_since: dict[str, float] = {}


class NoStoreError(ConnectionError):
    """Where a run should be tracked nobody answers, or knows it; said in one line."""


class Store:
    """One run of one store. Its public methods after `begin` or `join` are the orders that its thread is given.

    Args:
        folder: the run folder.
        uri: of the store.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        for variable, value in NO_USAGE_DATA.items():
            os.environ.setdefault(variable, value)
        import mlflow.entities as entities
        from mlflow import MlflowClient

        # After the import, which sets the level itself.
        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        # It would say each of its attempts at a server; that all have failed is said once.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self.entities = entities
        self.home = home_of(uri)
        if self.home is not None and not (self.home / "mlflow.db").exists():
            _create_store(uri, self.home)
        self.client = MlflowClient(tracking_uri=uri)
        self.run_id = ""

    def begin(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Begins the run of the folder, or goes on with it."""
        self.run_id = self._resumed(name) or self._created(name)
        known = self.client.get_run(self.run_id).data.params
        new = [self.entities.Param(key, value) for key, value in params.items() if key not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.run_id, params=new[start : start + 100])
        self.tags({**tags, **self._nested(tags), **code_version()})
        self._scrub()

    def join(self) -> None:
        """Goes to the run that the folder began, whatever its status.

        Raises:
            NoStoreError: this store does not have it.
        """
        run_id = run_of(self.folder)
        try:
            self.run_id = str(self.client.get_run(str(run_id)).info.run_id)
        except Exception as error:
            raise NoStoreError(
                f"the run of {self.folder.name} is not in the store that {URI_VARIABLE} names"
                if os.environ.get(URI_VARIABLE)
                else f"the run of {self.folder.name} is not in its own store; fix: {URI_VARIABLE}, as in its training"
            ) from error

    def metrics(self, rows: list[tuple[str, float, int, int]]) -> None:
        """Writes (name, value, milliseconds, step), a thousand at a time."""
        made = [self.entities.Metric(mlflow_name(name), value, stamp, step) for name, value, stamp, step in rows]
        for start in range(0, len(made), _BATCH):
            self.client.log_batch(self.run_id, metrics=made[start : start + _BATCH])

    def tags(self, tags: Mapping[str, str]) -> None:
        """Writes tags; unlike parameters they may change."""
        made = [self.entities.RunTag(mlflow_name(name), text) for name, text in tags.items()]
        self.client.log_batch(self.run_id, tags=made)

    def artifact(self, which: tuple[Path, str]) -> None:
        """Copies a file beside the store's, or sends it to the server; under its name, in a folder of the artifacts."""
        path, place = which
        if self.home is not None:
            copy_artifact(self.home, self.run_id, path, place)
        else:
            self.client.log_artifact(self.run_id, str(path), place or None)

    def end(self, status: str) -> None:
        """Marks the run as ended; "" leaves it as it is."""
        if status:
            self.client.set_terminated(self.run_id, status=status)

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = f"mlflow-artifacts:/{EXPERIMENT}" if self.home is not None else None
        # MLflow's pages begin with runs and curves, and not with traces of language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location, tags=tags))

    def _resumed(self, name: str) -> str | None:
        """The run that this folder began, where there is one."""
        run_id = run_of(self.folder)
        if run_id is None:
            return None
        with contextlib.suppress(Exception):  # a new server, or a store that was removed: begin a new run
            self.client.update_run(run_id, status="RUNNING", name=name)
            return run_id
        return None

    def _created(self, name: str) -> str:
        run_id = str(self.client.create_run(self._experiment(), run_name=name, tags={}).info.run_id)
        write_text(self.folder / RUN_NOTE, run_id + "\n")
        return run_id

    def _nested(self, tags: Mapping[str, str]) -> dict[str, str]:
        """MLflow's own tag for a run below another one, where this store has both."""
        parent = tags.get("medssml.parent_run")
        if parent:
            with contextlib.suppress(Exception):
                self.client.get_run(parent)
                return {"mlflow.parentRunId": parent}
        return {}

    def _scrub(self) -> None:
        tags = self.client.get_run(self.run_id).data.tags
        for tag in _SCRUBBED_TAGS:
            if tag in tags:
                self.client.delete_tag(self.run_id, tag)


def ask(uri: str) -> None:
    """Returns where a server answers, whatever it says; at once for a file, and for a server that lately did not.

    MLflow itself would try for minutes.

    Raises:
        NoStoreError: it does not.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    if time.monotonic() - _silent_since.get(uri, -math.inf) < SILENCE_S:
        raise NoStoreError(f"still no answer from where {URI_VARIABLE} points")
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", "", ""))
    try:
        with urlopen(Request(address, method="GET"), timeout=PROBE_S):
            return
    except HTTPError:
        return
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if "CERTIFICATE" in str(reason):  # a server that MLflow has its own settings for
            return
        gave_up(uri)
        why = "nobody answers" if isinstance(reason, TimeoutError) else "nobody is there"
        raise NoStoreError(f"{why} where {URI_VARIABLE} points") from error


def gave_up(uri: str) -> None:
    """Remembers that a server did not answer, so that further verbs of this process do not wait for it again."""
    _silent_since[uri] = time.monotonic()


def uri_of(folder: Path) -> str:
    """Where a run folder is tracked: where the variable says, or in itself."""
    return os.environ.get(URI_VARIABLE) or store_address(folder)


def store_address(folder: Path) -> str:
    """The address of a folder's own store; in an address, `?`, `#` and `%` of a folder's name mean something else."""
    path = str(folder.absolute() / "mlflow.db")
    return _FILE + re.sub("[?#%]", lambda letter: quote(letter[0]), path)


def home_of(uri: str) -> Path | None:
    """The folder of a store that is a file; None of a server."""
    if not uri.startswith(_FILE):
        return None
    return Path(unquote(uri.removeprefix(_FILE).split("?")[0])).absolute().parent


def run_of(folder: Path) -> str | None:
    """The id in MLflow of a run folder's run; None where it was not tracked."""
    note = folder / RUN_NOTE
    return note.read_text(encoding="utf-8").strip() if note.exists() else None


def run_folder(checkpoint: str | Path) -> Path:
    """The run folder of a checkpoint, which is that folder or the model folder in it."""
    path = Path(checkpoint)
    return path.absolute().parent if (path / CONFIG).is_file() else path


def copy_artifact(home: Path, run_id: str, path: Path, place: str = "") -> None:
    """Copies a file to where `mlflow server --artifacts-destination mlartifacts` shows it."""
    target = home / "mlartifacts" / EXPERIMENT / run_id / "artifacts" / place
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target / path.name)


def _create_store(uri: str, home: Path) -> None:
    # Made here and not by the client, which would write the folder of the process into the store as the place of
    # artifacts. This scheme names none: the server that shows the store is told where they are.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    home.mkdir(parents=True, exist_ok=True)
    SqlAlchemyStore(uri, "mlflow-artifacts:/").engine.dispose()
    # MLflow makes empty folders where it takes an address for a path.
    misread = Path(uri.removeprefix(_FILE)).parent
    if misread.absolute() != home:
        with contextlib.suppress(OSError):
            os.removedirs(misread)


def code_version() -> dict[str, str]:
    """The version of medssml, and its commit where it runs from a checkout of its own."""
    from medssml import __version__

    found = {"medssml.version": __version__}
    checkout = Path(__file__).resolve().parent.parent.parent
    if (checkout / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude", "*"]
            said = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=True)
            found["medssml.commit"] = said.stdout.strip()
    return found
