"""A server that is not there, or takes a connection and says nothing, costs seconds and a line, and no training."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medssml.tracking import MlflowTracker, add_artifact, add_results, store, tracker

DEFAULTS = store.PROBE_S, tracker.PATIENCE_S


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_silent_since", {})
    monkeypatch.setattr(store, "PROBE_S", 0.3)
    monkeypatch.setattr(tracker, "PATIENCE_S", 2.0)


@pytest.fixture(params=["nobody is there", "nobody answers"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(address of a port of this machine, what is said of it)."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        if request.param == "nobody answers":
            listening.listen()
        else:
            listening.close()
        yield f"http://ada:secret@127.0.0.1:{port}", request.param


def test_training_goes_on_and_one_line_says_why(
    address: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(store.URI_VARIABLE, address[0])
    started = time.monotonic()
    with MlflowTracker(tmp_path, config={}) as run:
        for step in range(100):
            run.metrics(step, {"loss": 1.0})
            run.flush()
    (tmp_path / store.RUN_NOTE).write_text("run\n")
    assert not add_results(tmp_path, {"a": 1.0}) and not add_artifact(tmp_path, tmp_path / "report.html")
    assert time.monotonic() - started < 2.0
    first, *further = caplog.messages
    assert first == f"MLflow: {address[1]} where MLFLOW_TRACKING_URI points; {tmp_path.name} is not tracked"
    assert len(further) == 2 and all("still no answer" in line for line in further)
    assert "secret" not in caplog.text


def test_by_default_it_costs_ten_seconds_at_most() -> None:
    probe_s, patience_s = DEFAULTS
    assert probe_s < patience_s <= 10


def test_a_server_that_refuses_has_answered() -> None:
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store.ask(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_server_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{bound.getsockname()[1]}"
        store.gave_up(uri)
        with pytest.raises(store.NoStoreError, match="still no answer"):
            store.ask(uri)
        monkeypatch.setattr(store, "SILENCE_S", 0.0)
        with pytest.raises(store.NoStoreError, match="nobody is there"):
            store.ask(uri)


def test_a_file_is_not_asked() -> None:
    store.ask("sqlite:////nowhere/mlflow.db")
    store.ask("databricks")
