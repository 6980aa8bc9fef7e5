"""The most memory that a process had, counted from where it was asked to begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.runs.memory import peak_memory, restart_peak

LARGE = 400 << 20


def test_a_peak_counts_from_the_restart() -> None:
    kept = bytearray(LARGE)
    kept[::4096] = b"x" * len(kept[::4096])
    del kept
    before = peak_memory("cpu")
    if not restart_peak("cpu"):
        pytest.skip("this system does not let a process forget its peak")
    assert peak_memory("cpu") < before - LARGE // 2


def test_a_system_that_refuses_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> int:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "write_text", refused)
    assert not restart_peak("cpu")
