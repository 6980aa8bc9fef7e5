"""What a check says: one line per problem, what becomes of the study, and where every row went."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medssml.files import read_rows, write_rows
from medssml.foreign_text import one_line, printable
from medssml.manifest.levels import LEVELS, level_of

ACTIONS = tuple(LEVELS)
COLUMNS = ("row", "study_id", "column", "file", "code", "problem", "action", "fix")


@dataclass(frozen=True)
class Problem:
    """One line of problems.csv.

    row: in the table's file, the header being row 1; 0 = the table as a whole. file: as the table names it.
    code: of `medssml.manifest.levels`, which says what becomes of the study.
    """

    row: int
    study_id: str
    column: str
    file: str
    code: str
    problem: str
    fix: str

    @property
    def action(self) -> str:
        """refused, quarantined, flagged, fixed or note."""
        return level_of(self.code)

    def line(self) -> dict[str, str | int]:
        """The cells of problems.csv, by `COLUMNS`."""
        cells = {name: printable(str(getattr(self, name))) for name in COLUMNS}
        said = {name: one_line(cells[name], 2000) for name in ("problem", "fix")}
        return cells | said | {"row": self.row or ""}


class Accounting(NamedTuple):
    """accepted + quarantined + refused = rows."""

    rows: int
    accepted: int
    quarantined: int
    refused: int


class Finding(NamedTuple):
    """What is wrong with one file, whatever rows name it."""

    code: str
    problem: str
    fix: str

    @property
    def action(self) -> str:
        """refused, quarantined, flagged, fixed or note."""
        return level_of(self.code)


def grouped(problems: Iterable[Problem]) -> list[list[Problem]]:
    """Problems of one kind together, the grave kinds first, then the frequent ones.

    One kind: action, column, code, and a text that is the same but for numbers, quotes and what
    stands in parentheses.
    """
    groups: dict[tuple[str, str, str, str], list[Problem]] = {}
    for problem in problems:
        text = re.sub(r"'[^']*'|\([^)]*\)|[-\d.,]*\d", "#", problem.problem)
        groups.setdefault((problem.action, problem.column, problem.code, text), []).append(problem)
    return sorted(groups.values(), key=_gravity)


def _gravity(group: Sequence[Problem]) -> tuple[int, int, str, int]:
    """Sorts kinds: by what becomes of the study; leaks first, what is no fault of a file last; then by column and number."""
    first = group[0]
    urgency = {"leak": 0, "duplicate": 0, "template": 2, "several": 2}.get(first.code, 1)
    return ACTIONS.index(first.action), urgency, first.column, -len(group)


def account(rows: int, problems: Iterable[Problem]) -> Accounting:
    """Where each of `rows` rows went; a refusal of the table as a whole refuses them all."""
    problems = list(problems)
    refused = {p.row for p in problems if p.action == "refused"}
    quarantined = {p.row for p in problems if p.action == "quarantined"} - refused
    if refused & {0, 1} or (refused and not rows):
        return Accounting(rows, 0, 0, rows)
    return Accounting(rows, rows - len(quarantined) - len(refused), len(quarantined), len(refused))


def write_problems(problems: Iterable[Problem], path: str | Path, verb: str = "") -> Path:
    """problems.csv, whole or not at all; a header alone where there are none.

    Args:
        verb: of verbs that may share a folder with others, the one that writes: a last column; see `own_list`.
    """
    if not verb:
        return write_rows(path, COLUMNS, (problem.line() for problem in problems))
    return write_rows(path, (*COLUMNS, "verb"), ({**problem.line(), "verb": verb} for problem in problems))


def own_list(folder: Path, verb: str) -> Path:
    """Where a verb lists problems in a folder of results: problems.csv, or problems_VERB.csv where that is another verb's."""
    path = folder / "problems.csv"
    if not path.exists():
        return path
    header = path.read_text(encoding="utf-8-sig").partition("\n")[0].strip().split(",")
    others = header[-1] != "verb" or any(line["verb"] != verb for line in read_rows(path))
    return folder / f"problems_{verb}.csv" if others else path


def read_problems(path: str | Path) -> list[Problem]:
    """What `write_problems` wrote."""
    told = ("study_id", "column", "file", "code", "problem", "fix")
    return [Problem(int(line["row"] or 0), *(line[name] for name in told)) for line in read_rows(path)]
