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


def test_quiet_keeps_warnings_back_until_the_verb_fails(capsys: Any) -> None:
    for code, err in ((0, ""), (4, "warning: said\n")):
        console.configure(quiet=True)
        console.say("not said")
        console.warn("said")
        assert console.result("check", code) == code
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err == err


def test_a_result_is_one_object_with_what_was_told(capsys: Any) -> None:
    console.configure(json=True)
    console.say("on stderr")
    console.tell({"a": np.arange(2), "b": Path("x"), "c": np.float64(0.5), "d": float("nan"), "e": (1, None)})
    console.result("report", Path("page.html"))
    captured = capsys.readouterr()
    told = {"a": [0, 1], "b": "x", "c": 0.5, "d": None, "e": [1, None]}
    assert json.loads(captured.out) == {"verb": "report", "exit_code": 0, "written": "page.html", **told}
    assert captured.err == "on stderr\n"
    console.tell({"a": 1}, anew=True)
    assert console.result("check", {"exit_code": 3}) == 3
    assert json.loads(capsys.readouterr().out) == {"verb": "check", "exit_code": 3, "a": 1}


def test_without_json_nothing_that_was_told_is_kept(capsys: Any) -> None:
    console.configure()
    console.tell({"large": 1})
    console.configure(json=True)
    console.result("check", 0)
    assert json.loads(capsys.readouterr().out) == {"verb": "check", "exit_code": 0}


def test_what_was_asked_for_has_stdout_to_itself(capsys: Any) -> None:
    console.configure(piped=True)
    console.say("aside")
    console.payload("seed: 0")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("seed: 0\n", "aside\n")
