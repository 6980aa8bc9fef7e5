"""The demo's bookkeeping: done once, reused, continued where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medssml.shipped_configs import shipped_names
from medssml.verbs.demo import FULL, QUICK, Story


def verb(log: list[str], value: Any = None) -> Any:
    def run(*, name: str) -> Any:
        log.append(name)
        if isinstance(value, BaseException):
            raise value
        return value

    return run


def test_a_station_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    log: list[str] = []
    for _ in range(2):
        story = Story(tmp_path / "run", {"seed": 0})
        assert story.do("one", "first", verb(log), {"name": "one"}) == 0
        assert story.do("two", "second", verb(log, 0), {"name": "two"}) == 0
    assert log == ["one", "two"]
    assert story.seconds == 0.0


def test_a_station_that_stops_or_fails_is_done_next_time(tmp_path: Path) -> None:
    log: list[str] = []
    story = Story(tmp_path / "run", {"seed": 0})
    assert story.do("one", "first", verb(log, 75), {"name": "stopped"}) == 75
    with pytest.raises(RuntimeError):
        story.do("one", "first", verb(log, RuntimeError("x")), {"name": "failed"})
    story = Story(tmp_path / "run", {"seed": 0})
    assert story.do("one", "first", verb(log, tmp_path), {"name": "done"}) == 0
    assert log == ["stopped", "failed", "done"]


def test_other_settings_need_another_folder_or_fresh(tmp_path: Path) -> None:
    log: list[str] = []
    Story(tmp_path, {"seed": 0}).do("one", "first", verb(log), {"name": "one"})
    with pytest.raises(ValueError, match="fix: --fresh"):
        Story(tmp_path, {"seed": 1})
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "cohort").mkdir()
    story = Story(tmp_path, {"seed": 1}, fresh=True)
    assert story.do("one", "first", verb(log), {"name": "again"}) == 0
    assert log == ["one", "again"]
    assert (tmp_path / "mine.txt").exists() and not (tmp_path / "cohort").exists()


def test_fresh_removes_nothing_from_a_folder_that_no_demo_has_written(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    Story(tmp_path, {"seed": 0}, fresh=True)
    assert (tmp_path / "cohort").exists()


def test_the_state_survives_json(tmp_path: Path) -> None:
    Story(tmp_path, {"tasks": ["a"], "seed": 0})
    assert json.loads((tmp_path / "demo.json").read_text())["settings"] == {"tasks": ["a"], "seed": 0}
    Story(tmp_path, {"tasks": ["a"], "seed": 0})


@pytest.mark.parametrize("scale", [FULL, QUICK], ids=["full", "quick"])
def test_the_configs_of_the_demo_are_shipped(scale: Any) -> None:
    assert scale.pretrain in shipped_names("pretrain") and scale.finetune in shipped_names("finetune")
