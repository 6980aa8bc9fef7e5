"""A cell of a grid: measured once, refused with another config, and tried again where it failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medssml.runs.run_folder import RunFolderError
from medssml.studies.cells import digest_of, kept_line


def test_a_cell_is_measured_once(tmp_path: Path) -> None:
    calls = []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"found": len(calls)}

    file = tmp_path / "cell.json"
    lines = [kept_line(file, {"name": "a", "config": "x"}, measure) for _ in range(2)]
    assert lines[0] == lines[1] == {"name": "a", "config": "x", "found": 1} and len(calls) == 1
    assert file.read_text().count("\n") == 1
    with pytest.raises(RunFolderError, match="cell.json was measured with another config"):
        kept_line(file, {"name": "a", "config": "y"}, measure)


def test_a_cell_that_failed_says_why_and_is_tried_again(tmp_path: Path) -> None:
    def cannot() -> dict[str, Any]:
        raise KeyError("no\nsuch task")

    file, identity = tmp_path / "cell.json", {"config": "x"}
    assert kept_line(file, identity, cannot) == {"config": "x", "failed": "no such task"}
    assert kept_line(file, identity, lambda: {"found": 1}) == {"config": "x", "found": 1}


def test_another_value_is_another_digest() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})
