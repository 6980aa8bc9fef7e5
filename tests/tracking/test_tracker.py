"""What goes to MLflow: an allow list, in batches, and no path or name anywhere in the store."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from medssml.tracking import MlflowTracker, allowed_params, store, tracker

CONFIG = {
    "model": {"class_path": "MultimodalModel", "init_args": {"encoders": {"ct": {"class_path": "ViT", "init_args": {"dim": 8}}}}},
    "transforms": {"report": {"class_path": "ReportTransform", "init_args": {"tokenizer": "/home/ada/words"}}},
    "objectives": [{"class_path": "MaskedReconstruction", "init_args": {"mask_ratio": 0.75}}],
    "optim": {"lr": 1e-3, "betas": [0.9, 0.95]},
    "fusion": {"class_path": "RegressionImputation", "init_args": {"shrinkage": 0.2}},
    "fused_weight": {"class_path": "Ramp", "init_args": {"start": 0.0, "end": 1.0}},
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
        "fusion.class_path": "RegressionImputation",
        "fusion.shrinkage": "0.2",
        "fused_weight.class_path": "Ramp",
        "fused_weight.start": "0.0",
        "fused_weight.end": "1.0",
        "seed": "3",
    }


class FakeStore:
    """Remembers what was written, and how often."""

    made: list[FakeStore] = []

    def __init__(self, folder: Path, uri: str) -> None:
        self.writes: list[Any] = []
        self.status = ""
        FakeStore.made.append(self)

    def begin(self, name: str, params: dict[str, str], tags: dict[str, str]) -> None:
        self.name, self.params, self.begun = name, params, tags

    def metrics(self, rows: list[Any]) -> None:
        self.writes.append(rows)

    def end(self, status: str) -> None:
        self.status = status


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeStore]:
    FakeStore.made = []
    monkeypatch.setattr(tracker, "Store", FakeStore)
    monkeypatch.setattr(tracker, "ask", lambda uri: None)
    return FakeStore


@pytest.fixture(autouse=True)
def nobody_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_silent_since", {})


def test_metrics_are_written_in_batches_and_all_at_the_end(fake: type[FakeStore], tmp_path: Path) -> None:
    started = time.perf_counter()
    facts, tags = {"presence.train.ct+report": 5}, {"medssml.verb": "pretrain"}
    with MlflowTracker(tmp_path, config=CONFIG, facts=facts, tags=tags) as run:
        for step in range(1200):
            run.metrics(step, {"loss": 1.0, "lr": 0.1})
        assert (time.perf_counter() - started) / 1200 < 1e-3
    (made,) = fake.made
    assert made.name == tmp_path.name and made.begun == {"medssml.verb": "pretrain"}
    assert [len(rows) for rows in made.writes] == [1000, 1000, 400]
    assert made.writes[2][-1][0] == "lr" and made.writes[2][-1][3] == 1199
    assert made.status == "FINISHED" and made.params["presence.train.ct_report"] == "5"


def test_a_failed_and_a_stopped_run_are_marked_so(fake: type[FakeStore], tmp_path: Path) -> None:
    with pytest.raises(KeyError), MlflowTracker(tmp_path, config={}):
        raise KeyError("x")
    with MlflowTracker(tmp_path, config={}) as run:
        run.stopped()
    assert [made.status for made in fake.made] == ["FAILED", "KILLED"]


def test_a_store_that_cannot_be_written_costs_a_warning_and_no_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(tracker, "Store", broken)
    with MlflowTracker(tmp_path, config={}) as run:
        run.metrics(1, {"loss": 1.0})
        run.flush()
    assert "not tracked" in caplog.text


@pytest.mark.parametrize("where", ["when it is asked", "later"])
def test_a_server_that_falls_silent_costs_a_bounded_wait_and_one_line(
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fake: type[FakeStore],
    caplog: pytest.LogCaptureFixture,
) -> None:
    over = threading.Event()

    def silent(*_: object) -> None:
        over.wait(30)
        raise OSError("refused in the end")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    if where == "later":
        monkeypatch.setattr(FakeStore, "begin", silent)
    else:
        monkeypatch.setattr(tracker, "ask", silent)
    monkeypatch.setattr(tracker, "PATIENCE_S", 0.2)
    started = time.monotonic()
    with MlflowTracker(tmp_path, config={}) as run:
        run.metrics(1, {"loss": 1.0})
    assert time.monotonic() - started < 5
    over.set()
    run._writer._thread.join(5)
    (line,) = caplog.messages
    assert "no answer" in line and "not tracked" in line and "secret" not in line


def test_an_import_that_takes_long_is_no_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: type[FakeStore], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(tracker, "PATIENCE_S", 0.1)

    def slow(folder: Path, uri: str) -> FakeStore:
        time.sleep(0.5)
        return FakeStore(folder, uri)

    monkeypatch.setattr(tracker, "Store", slow)
    with MlflowTracker(tmp_path, config={}) as run:
        run.metrics(1, {"loss": 1.0})
    assert fake.made[0].status == "FINISHED" and caplog.messages == []


def test_a_server_that_answers_slowly_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake: type[FakeStore], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(tracker, "PATIENCE_S", 1.0)
    monkeypatch.setattr(FakeStore, "metrics", lambda *_: time.sleep(0.4))
    with MlflowTracker(tmp_path, config={}) as run:
        for step in range(4):
            run.metrics(step, {"loss": 1.0})
            run.flush()
    assert fake.made[0].status == "FINISHED" and caplog.messages == []
