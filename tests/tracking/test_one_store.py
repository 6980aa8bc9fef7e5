"""One store for several runs: that of a folder, or that of the environment; left behind as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medssml.tracking import one_store


def test_the_store_is_left_behind_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with one_store(tmp_path):
        assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:1")
    with one_store(tmp_path):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://mine:1"
