"""What a long pass says of itself."""

from __future__ import annotations

import pytest

from medssml.runs import progress


def test_it_speaks_every_ten_seconds_and_does_not_count_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    told = progress.Progress("files")
    for done, now in enumerate([60.0, 61.0, 65.0, 70.0, 71.5], 1):
        clock[0] = now
        told(done, 5)
    # After 60 s of start one file took 1 s, and three are left; the next line is not due before 71 s, when all is done.
    assert capsys.readouterr().out == "2 of 5 files, about 3.0 s left\n"
    assert told.total == 5
