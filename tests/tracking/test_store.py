"""What is in the store: of a run folder, of several runs, and what it does not say."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from medssml import __version__
from medssml.tracking import MlflowTracker, add_artifact, add_results, parent_tags, store

CONFIG = {"optim": {"lr": 1e-3}, "out": "/home/ada/run", "seed": 3}


@pytest.mark.parametrize("name", ["run", "a?b=1", "a#b", "a%20b", "lr=0.1,bs=8", "\u00e9 x"])
def test_the_address_of_a_store_is_that_of_its_folder(name: str, tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    folder = tmp_path / name
    assert make_url(store.store_address(folder)).database == str(folder / "mlflow.db")
    assert store.home_of(store.store_address(folder)) == folder


def test_a_checkpoint_is_of_the_run_around_its_model(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    assert store.run_folder(model) == store.run_folder(model.parent) == model.parent
    assert not add_results(model, {"a": 1.0}) and parent_tags(model) == {"medssml.parent": "run"}
    # A run below another one that was not tracked itself is not the other.
    (tmp_path / store.RUN_NOTE).write_text("other\n")
    assert not add_results(model.parent, {"a": 1.0})


def test_the_version_is_that_of_the_code() -> None:
    assert store.code_version()["medssml.version"] == __version__


def rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return database.execute(query).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lr=0.1?bs=8#2", "50%25"])
def test_the_store_lies_in_a_folder_of_any_name(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with MlflowTracker(folder, config=CONFIG):
        pass
    assert (folder / "mlflow.db").exists() and [path.name for path in tmp_path.iterdir()] == [name]
    assert caplog.messages == []


@pytest.mark.slow
def test_the_store_names_no_place_and_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, "ada-lovelace")
    folder = tmp_path / "pretrain"
    folder.mkdir()
    report = folder / "report.html"
    report.write_text("<html>")
    with MlflowTracker(folder, config=CONFIG, facts={"manifest_sha256": "abc"}, tags={"medssml.verb": "x"}) as run:
        run.metrics(1, {"val/auroc": 0.75, "loss_ct+report": 1.0})
    # A second process would go on with the same run.
    with MlflowTracker(folder, config=CONFIG) as run:
        run.metrics(2, {"val/auroc": 0.8})
    assert add_artifact(folder, report) and not add_artifact(tmp_path, report)

    with sqlite3.connect(folder / "mlflow.db") as database:
        everything = "\n".join(database.iterdump())
    for word in ("ada-lovelace", "/home/ada", str(tmp_path), tmp_path.name, "report.html"):
        assert word not in everything
    metrics = rows(folder, "select key, value, step from metrics order by key, step")
    assert metrics == [("loss_ct_report", 1.0, 1), ("val/auroc", 0.75, 1), ("val/auroc", 0.8, 2)]
    assert rows(folder, "select name, status from runs") == [("pretrain", "FINISHED")]
    assert len(list((folder / "mlartifacts").rglob("report.html"))) == 1
    kind = "select value from experiment_tags where key = 'mlflow.experimentKind'"
    assert rows(folder, kind) == [("custom_model_development",)]
    tags = dict(rows(folder, "select key, value from tags"))
    assert tags["medssml.version"] == __version__ and tags["medssml.verb"] == "x"


@pytest.mark.slow
def test_two_runs_of_one_process_in_one_store_do_not_mix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    shared = tmp_path / "all"
    monkeypatch.setenv(store.URI_VARIABLE, f"sqlite:///{shared / 'mlflow.db'}")
    before = mlflow.get_tracking_uri()
    first, second = tmp_path / "pretrain", tmp_path / "tuned"
    for folder in (first, second):
        folder.mkdir()
    with MlflowTracker(first, config={"seed": 1}) as run:
        run.metrics(1, {"loss": 1.0})
    with MlflowTracker(second, config={"seed": 2}, tags=parent_tags(first)) as run:
        run.metrics(1, {"loss": 2.0})
    page = first / "report.html"
    page.write_text("<html>")
    monkeypatch.chdir(tmp_path)
    assert add_artifact(first, page) and add_results(first, {"evaluate-test/sick/auroc": 0.7}, tags={"a": "b"})

    assert mlflow.active_run() is None and mlflow.get_tracking_uri() == before
    assert not (tmp_path / "mlruns").exists() and not (first / "mlflow.db").exists()
    ids = dict(rows(shared, "select name, run_uuid from runs"))
    assert rows(shared, "select key, value, run_uuid from metrics order by value") == [
        ("evaluate-test/sick/auroc", 0.7, ids["pretrain"]),
        ("loss", 1.0, ids["pretrain"]),
        ("loss", 2.0, ids["tuned"]),
    ]
    nested = "select run_uuid, value from tags where key = 'mlflow.parentRunId'"
    assert rows(shared, nested) == [(ids["tuned"], ids["pretrain"])]
    assert (shared / "mlartifacts" / "medssml" / ids["pretrain"] / "artifacts" / "report.html").exists()

    # Without the variable the run cannot be found, which is said, and fails nothing.
    monkeypatch.delenv(store.URI_VARIABLE)
    assert not add_results(first, {"a": 1.0})
    assert "fix: MLFLOW_TRACKING_URI, as in its training" in caplog.text
    shutil.rmtree(shared)
