"""One cache: beside the run folder, closed to others, and outside of whatever is handed on."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from medssml.runs.cache_place import STUDY, cache_of_model, cache_place
from medssml.store.cache import Cache


def trained(run: Path) -> Path:
    """A folder that looks like that of a finished training."""
    (run / "model").mkdir(parents=True)
    (run / "model" / "config.json").write_text("{}")
    (run / "manifest.sha256").write_text("0\n")
    return run


def test_the_flag_comes_before_the_environment_and_that_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path / "runs" / "a")
    assert cache_place(None, run) == tmp_path / "runs" / "cache"
    monkeypatch.setenv("MEDSSML_CACHE", str(tmp_path / "named"))
    assert cache_place(None, run) == cache_of_model(None, run) == tmp_path / "named"
    assert cache_place(tmp_path / "said", run) == cache_of_model(tmp_path / "said", run) == tmp_path / "said"


def test_all_verbs_of_a_training_find_the_same_one(tmp_path: Path) -> None:
    run = trained(tmp_path / "runs" / "a")
    expected = tmp_path / "runs" / "cache"
    assert cache_place(None, run) == cache_of_model(None, run) == cache_of_model(None, run / "model") == expected
    bare = tmp_path / "handed" / "lung"
    bare.mkdir(parents=True)
    (bare / "config.json").write_text("{}")
    assert cache_of_model(None, bare) == tmp_path / "handed" / "cache"


@pytest.mark.parametrize("mark", ["manifest.sha256", "demo.json", STUDY])
def test_a_run_inside_another_or_inside_a_study_has_it_outside_of_both(mark: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "all" / "seed0" / "pretrain")
    (tmp_path / "all" / mark).write_text("{}")
    assert cache_of_model(None, run) == cache_place(None, tmp_path / "all") == tmp_path / "cache"


def test_it_is_said_where_results_are_to_lie_around_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "runs" / "a")
    cache_of_model(None, run, run)
    cache_of_model(tmp_path / "runs" / "cache", run, tmp_path / "runs")  # asked for
    assert capsys.readouterr().err == ""
    cache_of_model(None, run, tmp_path / "runs")
    assert "lie in the results" in capsys.readouterr().err


def test_it_is_for_one_user_unless_that_one_made_it_for_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def mode(folder: Path) -> int:
        return stat.S_IMODE(folder.stat().st_mode)

    place = cache_place(None, tmp_path / "runs" / "a")
    Cache(place).get("0" * 40, lambda: {"values": np.zeros(1)})
    assert mode(place) == 0o700 and mode(place.parent) != 0o700
    assert cache_place(None, tmp_path / "runs" / "a") == place and capsys.readouterr().err == ""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o750)
    Cache(shared).get("0" * 40, lambda: {"values": np.zeros(1)})
    assert mode(shared) == 0o750
    place.chmod(0o755)
    assert cache_place(None, tmp_path / "runs" / "a") == place
    assert f"fix: chmod 700 {place}" in capsys.readouterr().err
