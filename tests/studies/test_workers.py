"""Cells on workers: as many at a time as asked for, each once, and what a cell raises is what the study raises."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medssml.store.engines import MissingExtra
from medssml.studies.methods import study_methods
from medssml.studies.obstacles import study_obstacles
from medssml.studies.resume import StudyStopped
from medssml.studies.workers import on_workers


class TaskError(Exception):
    """As Ray wraps what a task raises."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a long trace of Ray")
        self.cause = cause


class FakeRay:
    """The few calls of Ray that are used: tasks are done when they are waited for, the newest first."""

    exceptions = SimpleNamespace(RayTaskError=TaskError)

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.options: dict[str, Any] = {}
        self.started = False

    def is_initialized(self) -> bool:
        return self.started

    def init(self, **_: Any) -> None:
        self.started = True

    def remote(self, function: Callable[..., Any]) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=lambda *arguments: _Handle(function, arguments))

        return SimpleNamespace(options=options)

    def wait(self, handles: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        assert num_returns == 1 and self.started
        self.asked.append(len(handles))
        return [handles[-1]], handles[:-1]

    def get(self, handle: Any) -> Any:
        try:
            return handle.function(*handle.arguments)
        except Exception as error:
            raise TaskError(error) from None


class _Handle:
    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", found)
    return found


def test_each_task_is_done_once_and_no_more_at_a_time_than_asked(ray: FakeRay) -> None:
    found = dict(on_workers(lambda task: task * 10, [1, 2, 3, 4, 5], 2))
    assert found == {1: 10, 2: 20, 3: 30, 4: 40, 5: 50}
    assert ray.asked == [2, 2, 2, 2, 1]
    assert ray.options["max_retries"] == 0 and ray.options["num_gpus"] == 0
    list(on_workers(str, [1], 2, gpu=True))
    assert ray.options["num_gpus"] == 1
    assert list(on_workers(str, [], 2)) == []


def test_what_a_cell_raises_is_what_the_study_raises(ray: FakeRay) -> None:
    def stopped(_: int) -> None:
        raise StudyStopped("seed 0: default", 75)

    with pytest.raises(StudyStopped, match="seed 0: default was stopped") as caught:
        list(on_workers(stopped, [1], 1))
    assert caught.value.exit_code == 75


def test_without_ray_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MissingExtra, match=r"--workers: package 'ray' is not installed; fix: pip install 'medssml\[ray\]'"
    ):
        list(on_workers(str, [1], 2))


@pytest.mark.parametrize("study", [study_methods, study_obstacles])
def test_a_wrong_number_of_workers_is_refused(study: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--workers is -1; fix: 0 or more"):
        study(out=tmp_path / "out", workers=-1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_ray_of_this_machine_measures_the_same(tmp_path: Path) -> None:
    """Two methods, a few steps: the same cells as in one process."""
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    small = {
        "methods": ["smoke/simclr", "smoke/vicreg"],
        "studies": 40,
        "steps": 2,
        "labels": [1.0],
        "tasks": ["effusion"],
    }
    options: dict[str, Any] = {**small, "bootstrap": 50, "threads": 1, "cache": tmp_path / "cache"}
    try:
        for name, workers in (("alone", 0), ("spread", 2)):
            study_methods(out=tmp_path / name, workers=workers, **options)
    finally:
        ray.shutdown()
    files = sorted(file.name for file in (tmp_path / "alone" / "cells").glob("*.csv"))
    assert len(files) == 2
    for name in files:
        assert (tmp_path / "alone" / "cells" / name).read_text() == (tmp_path / "spread" / "cells" / name).read_text()
