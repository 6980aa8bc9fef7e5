"""What goes to MLflow: an allow list, in batches, and no path or name anywhere in the store."""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from medssml import tracking
from medssml.tracking import MlflowTracker, allowed_params

CONFIG = {
    "model": {"class_path": "MultimodalModel", "init_args": {"encoders": {"ct": {"class_path": "ViT", "init_args": {"dim": 8}}}}},
    "transforms": {"report": {"class_path": "ReportTransform", "init_args": {"tokenizer": "/home/ada/words"}}},
    "objectives": [{"class_path": "MaskedReconstruction", "init_args": {"mask_ratio": 0.75}}],
    "optim": {"lr": 1e-3, "betas": [0.9, 0.95]},
    "out": "/home/ada/run",
    "seed": 3,
}  # fmt: skip


def test_only_known_sections_and_no_path_are_logged() -> None:
    assert allowed_params(CONFIG) == {
        "model.class_path": "MultimodalModel",
        "model.encoders.ct.class_path": "ViT",
        "model.encoders.ct.dim": "8",
        "transforms.report.class_path": "ReportTransform",
        "objectives.0.class_path": "MaskedReconstruction",
        "objectives.0.mask_ratio": "0.75",
        "optim.lr": "0.001",
        "optim.betas": "[0.9, 0.95]",
        "seed": "3",
    }


class FakeStore:
    """Remembers what was written, and how often."""

    made: list[FakeStore] = []

    def __init__(self, folder: Path, name: str, params: dict[str, str]) -> None:
        self.params, self.writes, self.status = params, [], ""
        FakeStore.made.append(self)

    def metrics(self, rows: list[Any]) -> None:
        self.writes.append(rows)

    def end(self, status: str) -> None:
        self.status = status


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[FakeStore]:
    FakeStore.made = []
    monkeypatch.setattr(tracking, "_Store", FakeStore)
    return FakeStore


def test_metrics_are_written_in_batches_and_all_at_the_end(store: type[FakeStore], tmp_path: Path) -> None:
    started = time.perf_counter()
    with MlflowTracker(tmp_path, name="pretrain", config=CONFIG, facts={"presence.train.ct+report": 5}) as tracker:
        for step in range(1200):
            tracker.metrics(step, {"loss": 1.0, "lr": 0.1})
        assert (time.perf_counter() - started) / 1200 < 1e-3
    (made,) = store.made
    assert [len(rows) for rows in made.writes] == [1000, 1000, 400]
    assert made.writes[2][-1][0] == "lr" and made.writes[2][-1][3] == 1199
    assert made.status == "FINISHED" and made.params["presence.train.ct_report"] == "5"


def test_a_failed_and_a_stopped_run_are_marked_so(store: type[FakeStore], tmp_path: Path) -> None:
    with pytest.raises(KeyError), MlflowTracker(tmp_path, name="a", config={}):
        raise KeyError("x")
    with MlflowTracker(tmp_path, name="a", config={}) as tracker:
        tracker.stopped()
    assert [made.status for made in store.made] == ["FAILED", "KILLED"]


def test_a_store_that_cannot_be_written_costs_a_warning_and_no_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(tracking, "_Store", broken)
    with MlflowTracker(tmp_path, name="a", config={}) as tracker:
        tracker.metrics(1, {"loss": 1.0})
        tracker.flush()
    assert "not tracked" in caplog.text


def test_a_server_that_does_not_answer_costs_a_bounded_wait_and_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    over = threading.Event()

    def silent(*_: object) -> None:
        over.wait(30)
        raise OSError("refused in the end")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setattr(tracking, "_Store", silent)
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.2)
    started = time.monotonic()
    with MlflowTracker(tmp_path, name="a", config={}) as tracker:
        tracker.metrics(1, {"loss": 1.0})
    assert time.monotonic() - started < 5
    over.set()
    tracker._thread.join(5)
    (line,) = caplog.messages
    assert "no answer" in line and "not tracked" in line and "secret" not in line


def test_a_server_that_answers_slowly_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: type[FakeStore], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "PATIENCE_S", 1.0)
    monkeypatch.setattr(FakeStore, "metrics", lambda *_: time.sleep(0.4))
    with MlflowTracker(tmp_path, name="a", config={}) as tracker:
        for step in range(4):
            tracker.metrics(step, {"loss": 1.0})
            tracker.flush()
    assert store.made[0].status == "FINISHED" and caplog.messages == []


def test_a_report_for_a_server_that_does_not_answer_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    over = threading.Event()

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            over.wait(30)

    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=Client))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.2)
    (tmp_path / tracking.RUN_NOTE).write_text("run\n")
    assert not tracking.add_artifact(tmp_path, tmp_path / "report.html")
    over.set()
    assert "no answer" in caplog.text and "report.html is not tracked" in caplog.text


@pytest.mark.parametrize("name", ["run", "a?b=1", "a#b", "a%20b", "lr=0.1,bs=8", "\u00e9 x"])
def test_the_address_of_a_store_is_that_of_its_folder(name: str, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    folder = tmp_path / name
    assert make_url(tracking.store_address(folder)).database == str(folder / "mlflow.db")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lr=0.1?bs=8#2", "50%25"])
def test_the_store_lies_in_a_folder_of_any_name(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with MlflowTracker(folder, name="pretrain", config=CONFIG):
        pass
    assert (folder / "mlflow.db").exists() and [path.name for path in tmp_path.iterdir()] == [name]
    assert caplog.messages == []


@pytest.mark.slow
def test_the_store_names_no_place_and_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, "ada-lovelace")
    folder = tmp_path / "secret-run"
    folder.mkdir()
    report = folder / "report.html"
    report.write_text("<html>")
    with MlflowTracker(folder, name="pretrain", config=CONFIG, facts={"manifest_sha256": "abc"}) as tracker:
        tracker.metrics(1, {"val/auroc": 0.75, "loss_ct+report": 1.0})
        tracker.artifact(report)
    # A second process would go on with the same run.
    with MlflowTracker(folder, name="pretrain", config=CONFIG) as tracker:
        tracker.metrics(2, {"val/auroc": 0.8})

    assert tracking.add_artifact(folder, report)
    assert not tracking.add_artifact(tmp_path, report)

    with sqlite3.connect(folder / "mlflow.db") as database:
        everything = "\n".join(database.iterdump())
        metrics = database.execute("select key, value, step from metrics order by key, step").fetchall()
        runs = database.execute("select name, status from runs").fetchall()
    for word in ("ada-lovelace", "/home/ada", "secret-run", str(tmp_path), "report.html"):
        assert word not in everything
    assert metrics == [("loss_ct_report", 1.0, 1), ("val/auroc", 0.75, 1), ("val/auroc", 0.8, 2)]
    assert runs == [("pretrain", "FINISHED")]
    assert len(list((folder / "mlartifacts").rglob("report.html"))) == 1
