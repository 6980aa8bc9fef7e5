"""Levels: one table decides what becomes of a study, the documents have it, and a change of a value is never hidden."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

from medssml.checks.inspection import Job, inspect
from medssml.checks.limits import Limits
from medssml.manifest.levels import CODES, LEVELS, fix_of, level_of
from medssml.manifest.problems import ACTIONS, Problem, account, grouped, write_problems
from medssml.readers.errors import Flag, Note
from tests.corpus.eeg import SIGNAL, edf

DOCS = Path(__file__).resolve().parents[2] / "docs" / "check.md"


def test_the_documents_have_the_table() -> None:
    text = DOCS.read_text("utf-8")
    for code, (level, meaning, passes) in CODES.items():
        assert f"| `{code}` | {level} | {passes} | {meaning} |" in text
    for level, meaning in LEVELS.items():
        assert f"| {level} | {meaning} |" in text
    assert ACTIONS == ("refused", "quarantined", "flagged", "fixed", "note")


def test_the_code_alone_decides() -> None:
    assert [level_of(code) for code in ("table", "units", "rescaled", "fixed", "several")] == list(ACTIONS)
    assert level_of("never heard of") == "flagged" and fix_of("never heard of") == "look at the file"
    assert fix_of("several") == fix_of("fixed") == "nothing to do"
    lines = [Problem(n, "s", "ct", "f", code, "p", "f") for n, code in enumerate(CODES, start=2)]
    shown = [group[0].action for group in grouped(lines)]
    assert shown == sorted(shown, key=ACTIONS.index)
    assert account(len(lines), lines).accepted == sum(code.level not in ACTIONS[:2] for code in CODES.values())


def test_a_note_keeps_its_code_between_processes() -> None:
    for line, code in ((Note("n"), "noted"), (Flag("f"), "odd"), (Flag("g", "cut"), "cut")):
        again = pickle.loads(pickle.dumps(line))  # noqa: S301 - our own
        assert (again, again.code) == (line, code)


def test_what_was_multiplied_is_flagged_with_both_figures(tmp_path: Path) -> None:
    path = edf(tmp_path, SIGNAL / 1000, unit="")
    found = {f.code: f for f in inspect(Job(path, "eeg"), deep=True, limits=Limits()).findings}
    assert found["rescaled"].action == "flagged" and "multiplied by 1000, it is " in found["rescaled"].problem


def test_the_list_has_the_level(tmp_path: Path) -> None:
    path = write_problems([Problem(0, "", "ct", "", "several", "p", "f")], tmp_path / "p.csv")
    (line,) = csv.DictReader(path.open(encoding="utf-8", newline=""))
    assert (line["row"], line["action"]) == ("", "note")
