"""What verbs say: where it goes, and how numbers read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssml.runs import console


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (125, "2 min 05 s"), (3599.6, "1 h 00 min"), (3840, "1 h 04 min")],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert console.duration(seconds) == words


def test_a_table_aligns_numbers_to_the_right(capsys: Any) -> None:
    console.table([("ct", 7, 0.5), ("ct+xray", 12, None)], ("subset", "n", "auroc"))
    assert capsys.readouterr().out.splitlines() == [
        "subset    n  auroc",
        "-------  --  -----",
        "ct        7  0.500",
        "ct+xray  12",
    ]
    console.table([], ("a", "b"))
    assert capsys.readouterr().out.splitlines()[0] == "a  b"


def test_quiet_leaves_warnings(capsys: Any) -> None:
    console.configure(quiet=True)
    console.say("not said")
    console.warn("said")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "warning: said\n"


def test_json_results_hold_arrays_and_paths(capsys: Any) -> None:
    console.configure(json=True)
    console.say("on stderr")
    console.result({"a": np.arange(2), "b": Path("x"), "c": np.float64(0.5)})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [0, 1], "b": "x", "c": 0.5}
    assert captured.err == "on stderr\n"
