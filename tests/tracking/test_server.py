"""`medssml ui`: which store, which command, and that it shows the run and its artifacts and reports nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from medssml.tracking import MlflowTracker, add_artifact, store
from medssml.tracking.server import free_port, page_of, server_command, serving, store_of


def test_the_store_of_a_run_and_of_its_model(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tuned"
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}")
    (run / "mlflow.db").touch()
    assert store_of(run) == store_of(run / "model") == run
    with pytest.raises(ValueError, match=r"runs has no mlflow.db.*fix: medssml ui .*tuned"):
        store_of(tmp_path / "runs")
    with pytest.raises(ValueError, match="no such folder"):
        store_of(tmp_path / "nothing")
    (run / "mlflow.db").unlink()
    with pytest.raises(ValueError, match="train it without --no-track"):
        store_of(run)
    (run / store.RUN_NOTE).write_text("abc\n")
    with pytest.raises(ValueError, match="tracked elsewhere"):
        store_of(run)
    for folder, place in ((run, "experiments/1/runs/abc"), (tmp_path, "experiments/1")):
        assert page_of(folder, 5000) == f"http://127.0.0.1:5000/#/{place}?workflowType=machine_learning"


def test_it_serves_this_machine_alone_and_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(store.URI_VARIABLE, "http://elsewhere")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    command, environment = server_command(tmp_path, 5001)
    assert command[command.index("--host") + 1] == "127.0.0.1" and command[command.index("--port") + 1] == "5001"
    assert command[command.index("--artifacts-destination") + 1] == str(tmp_path / "mlartifacts")
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "true"
    assert store.URI_VARIABLE not in environment


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port(port) < port + 100


def test_sigterm_ends_the_server_and_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    monkeypatch.setattr("medssml.tracking.server.server_command", lambda *_: ([sys.executable, "-c", code], {}))
    with serving(tmp_path, 1) as server:
        group = server.process.pid
        os.kill(os.getpid(), signal.SIGTERM)
        assert not server.wait()
    assert server.process.returncode == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_server_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('a'); print('no such table'); raise SystemExit(3)"
    monkeypatch.setattr("medssml.tracking.server.server_command", lambda *_: ([sys.executable, "-c", code], {}))
    with serving(tmp_path, 1) as server:
        assert not server.answers() and server.wait() and server.last_words() == "no such table"


@pytest.mark.slow
def test_a_moved_run_shows_its_report_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, moved, elsewhere = tmp_path / "run", tmp_path / "given" / "away", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (run / "report.html").write_text("<html>page")
    with MlflowTracker(run, config={"seed": 1}) as tracker:
        tracker.metrics(1, {"loss": 1.0})
    add_artifact(run, run / "report.html")
    shutil.move(run, moved)
    monkeypatch.chdir(elsewhere)
    # The server's process, unlike a test's, is not known to be one that reports nothing.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    port, run_id = free_port(5100), store.run_of(moved)
    with serving(store_of(moved), port) as server:
        assert server.answers()
        base = f"http://127.0.0.1:{port}"
        listed = json.load(urlopen(f"{base}/api/2.0/mlflow/artifacts/list?run_id={run_id}"))
        assert [file["path"] for file in listed["files"]] == ["report.html"]
        page = urlopen(f"{base}/get-artifact?run_id={run_id}&path=report.html").read()
        assert page == b"<html>page"
        told = json.load(urlopen(f"{base}/ajax-api/3.0/mlflow/ui-telemetry"))
        assert told["disable_ui_telemetry"]
        body = json.dumps({"records": [{"event_name": "x"}]}).encode()
        posted = Request(f"{base}/ajax-api/3.0/mlflow/ui-telemetry", body, {"Content-Type": "application/json"})
        assert json.load(urlopen(posted)) == {"status": "disabled"}
    assert list(elsewhere.iterdir()) == []
    with pytest.raises(OSError):
        urlopen(f"{base}/health", timeout=2)


@pytest.mark.slow
def test_mlflow_in_this_process_reports_nothing(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from medssml.tracking.store import Store, uri_of\n"
        "Store(pathlib.Path('run'), uri_of(pathlib.Path('run'))).client\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
    )
    skipped = ("MLFLOW", "PYTEST", "CI", "DO_NOT", "GITHUB", "GITLAB")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(skipped)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, timeout=300)
