"""MLflow's own pages on the store of a run folder: the command that serves them, on this machine alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from medssml.tracking.store import NO_USAGE_DATA, RUN_NOTE, URI_VARIABLE, run_folder, run_of, store_address

HOST = "127.0.0.1"

#: Seconds that a server may take to start on a busy machine.
START_S = 180.0


def store_of(run: str | Path) -> Path:
    """The folder whose mlflow.db has a run.

    Args:
        run: run folder, its model folder, or a folder with the store of several runs.

    Raises:
        ValueError: there is none, with where there is one.
    """
    run = Path(run)
    if not run.is_dir():
        raise ValueError(f"{run}: no such folder; fix: name a run folder")
    folder = run_folder(run)
    if (folder / "mlflow.db").exists():
        return folder
    if (folder / RUN_NOTE).exists():
        raise ValueError(
            f"{run} is tracked elsewhere, where {URI_VARIABLE} pointed when it was trained; fix: open that address in "
            f"a browser, or name the folder of that mlflow.db"
        )
    below = sorted(path.parent for path in run.glob("*/mlflow.db"))
    fix = f"medssml ui {below[0]}" if below else "train it without --no-track"
    raise ValueError(f"{run} has no mlflow.db: no run that was tracked in it; fix: {fix}")


def server_command(store: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command that serves a store and its artifacts, and its environment: nothing is reported to anybody.

    Args:
        store: as `store_of` returns it.
        port: of this machine.
    """
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", store_address(store), "--serve-artifacts",
        "--artifacts-destination", str(store.absolute() / "mlartifacts"),
    ]  # fmt: skip
    # Nothing of what it runs in the background, for applications of language models, has to do with a run here.
    quiet = {**NO_USAGE_DATA, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {name: value for name, value in os.environ.items() if name != URI_VARIABLE}
    return command, environment | quiet


def page_of(run: str | Path, port: int) -> str:
    """The address of a run's page, or of all runs of the store; MLflow would begin with its part for language models."""
    run_id = run_of(run_folder(run))
    place = f"experiments/1/runs/{run_id}" if run_id else "experiments/1"
    return f"http://{HOST}:{port}/#/{place}?workflowType=machine_learning"


def free_port(first: int) -> int:
    """`first`, or the next port that nobody listens on.

    Raises:
        ValueError: none of the next hundred is free.
    """
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ValueError(f"no port is free from {first} on; fix: another --port")


class Server:
    """A server that was started: a process with processes of its own.

    Args:
        process: leads a group.
        port: where it will answer.
        said: where its lines go.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
        self.process, self.port, self._said = process, port, said

    def answers(self) -> bool:
        """Waits for its first answer; False where it ended instead, or needs longer than `START_S`."""
        until = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < until:
            try:
                with urlopen(f"http://{HOST}:{self.port}/health", timeout=5):
                    return True
            except HTTPError:
                return True
            except (URLError, OSError):
                time.sleep(0.2)
        return False

    def wait(self) -> bool:
        """Waits for its end; True where it came by itself, False where somebody asked for it."""
        with contextlib.suppress(KeyboardInterrupt):
            self.process.wait()
            return True
        return False

    def last_words(self) -> str:
        """The last line that it said."""
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"


@contextlib.contextmanager
def serving(store: Path, port: int) -> Iterator[Server]:
    """Serves a store while the block lasts; Ctrl+C and SIGTERM raise KeyboardInterrupt inside, and end the server too."""
    command, environment = server_command(store, port)
    with tempfile.TemporaryFile() as said, _terminating():
        # A group of its own: the server has children, which its end alone would leave behind.
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield Server(process, port, said)
        except KeyboardInterrupt:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """Inside, SIGTERM is as Ctrl+C, where this is the main thread."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
