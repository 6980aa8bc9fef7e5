"""A study that is continued is the same study; a run of it that was stopped ends it with the run's exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.cli import explain
from medssml.runs.run_folder import RunFolderError
from medssml.studies.resume import StudyStopped, same_study, unless_stopped

SETTINGS = {"pretraining": {"optim": {"lr": 1e-3}, "data": {"num_workers": 0}}, "folds": 6}


def test_a_folder_of_before_these_were_written_down_is_continued_and_from_then_on_held_to_them(tmp_path: Path) -> None:
    (tmp_path / "seed0").mkdir()
    same_study(tmp_path, SETTINGS)
    same_study(tmp_path, SETTINGS)
    with pytest.raises(RunFolderError, match=r"pretraining: optim\.lr was 0\.001, now 0\.01; fix: another --out"):
        same_study(tmp_path, {**SETTINGS, "pretraining": {"optim": {"lr": 1e-2}, "data": {"num_workers": 0}}})
    same_study(tmp_path, SETTINGS)


def test_what_touches_no_number_may_change(tmp_path: Path) -> None:
    same_study(tmp_path, SETTINGS)
    same_study(tmp_path, {**SETTINGS, "pretraining": {"optim": {"lr": 1e-3}, "data": {"num_workers": 4}}})


def test_a_stopped_run_ends_the_study_with_its_exit_code() -> None:
    for done in (Path("run"), 0, 4):
        unless_stopped("seed 0", done)
    with pytest.raises(StudyStopped) as stopped:
        unless_stopped("seed 1: malignant", 75)
    code, said = explain(stopped.value)
    assert code == 75 and said == "seed 1: malignant was stopped; fix: the same command continues"
