"""The account of an import: every row of every table, and every file, with what became of it and why."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

IMPORTED, LEFT_OUT = "imported", "left out"
#: A word of a reason that is of one case only; a limit is not.
_PARTICULAR = re.compile(r"(?<!fewer than )\S*[/\d]\S*")
UNMATCHED = "nothing on disk belongs to it"
UNDECIDED = "the import was refused before anything became of it"


class LayoutError(ValueError):
    """A folder or table that is not what its importer expects: what, where, the fix."""

    exit_code = 3

    def __init__(self, where: str | Path, reason: str, fix: str) -> None:
        super().__init__(f"{where}: {reason}; fix: {fix}")
        self.where, self.reason, self.fix = where, reason, fix


class LostError(ValueError):
    """An import that would lose more than it may: what, why, and how to accept it."""

    exit_code = 4


class Aside(str):
    """A reason that is no loss: what is left out for it is wanted by nobody, or is there already."""


class Line(NamedTuple):
    """One line of import_report.csv.

    source: a table, or "" for a file that no table names. row: in the table, the header being row 1; 0 for a file.
    column: where it went in the manifest. status: "imported" or "left out".
    """

    source: str
    row: int
    file: str
    study_id: str
    column: str
    status: str
    reason: str


@dataclass
class Tally:
    """What became of the rows of one table, or of the files that no table names. lost: reason -> how often; what was put
    aside is not counted."""

    imported: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Lost, of all."""
        lost = self.lost.total()
        return lost / (lost + self.imported) if lost else 0.0


class _Fate(NamedTuple):
    file: str
    study_id: str
    column: str
    status: str
    reason: str


class Account:
    """Rows are entered when they are read and stay open until something becomes of them; what is open in the end is left out.

    The first word counts: a row that was left out stays so, unless it is taken into a study.
    """

    def __init__(self) -> None:
        self._read: set[str] = set()
        self._rows: list[tuple[str, int]] = []
        self._fates: list[_Fate | None] = []
        self._files: dict[str, _Fate] = {}
        self._named: dict[str, tuple[str, int]] = {}
        #: (table, column) -> why files that the table names for the column are not there.
        self.missing: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.notes: list[str] = []
        #: What is said of rows of which nothing became.
        self.unmatched = UNMATCHED

    def note(self, text: str) -> None:
        """Something that the person who imports should know; said once."""
        if text not in self.notes:
            self.notes.append(text)

    def read(self, path: str) -> None:
        """A table, or another file that was read."""
        self._read.add(path)

    def row(self, table: str, number: int) -> int:
        """Enters a row and returns its id."""
        self._rows.append((table, number))
        self._fates.append(None)
        return len(self._rows) - 1

    def leave_out(self, id: int, reason: str, file: str = "", study_id: str = "") -> None:
        """The row is left out."""
        if self._fates[id] is None:
            self._fates[id] = _Fate(file, study_id, "", LEFT_OUT, reason)

    def take(self, id: int, study_id: str, column: str, file: str = "") -> None:
        """The row is part of a study."""
        self._fates[id] = _Fate(file, study_id, column, IMPORTED, "")

    def file(self, path: str, reason: str, named_in: tuple[str, int] = ("", 0), column: str = "") -> None:
        """The file is left out; the first reason counts. named_in: the table and row that name it; column: for what."""
        if named_in[0] and not isinstance(reason, Aside):
            self.missing[named_in[0], column][reason] += 1
        if path not in self._files:
            self._files[path] = _Fate(path, "", column, LEFT_OUT, reason)
            self._named[path] = named_in

    def take_file(self, path: str, study_id: str, column: str) -> None:
        """The file is part of a study."""
        self._files[path] = _Fate(path, study_id, column, IMPORTED, "")

    def is_known(self, path: str) -> bool:
        """Whether something has become of the file, or it was read as a table."""
        return path in self._files or path in self._read

    @property
    def inputs(self) -> frozenset[str]:
        """Tables that were read, and files that are part of a study."""
        return frozenset(self._read | {path for path, fate in self._files.items() if fate.status == IMPORTED})

    @property
    def is_empty(self) -> bool:
        """Whether nothing was entered at all."""
        return not self._rows and not self._files

    def lines(self) -> Iterator[Line]:
        """Rows in the order in which they were read, then files by name."""
        for (table, number), fate in zip(self._rows, self._fates, strict=True):
            yield Line(table, number, *(fate or _Fate("", "", "", LEFT_OUT, self.unmatched)))
        for path, fate in sorted(self._files.items()):
            yield Line(*self._named.get(path, ("", 0)), *fate)

    def _all(self) -> Iterator[_Fate]:
        open_row = _Fate("", "", "", LEFT_OUT, self.unmatched)
        yield from (fate or open_row for fate in self._fates)
        yield from self._files.values()

    def counts(self) -> dict[str, int]:
        """How many lines were imported and left out."""
        counted = Counter(fate.status for fate in self._all())
        return {status: counted[status] for status in (IMPORTED, LEFT_OUT)}

    def tallies(self) -> dict[str, Tally]:
        """Table -> what became of its rows; "" -> of the files that no table names."""
        found: dict[str, Tally] = defaultdict(Tally)
        for (table, _), fate in zip(self._rows, self._fates, strict=True):
            _add(found[table], fate or _Fate("", "", "", LEFT_OUT, self.unmatched))
        for path, fate in self._files.items():
            if not self._named.get(path, ("", 0))[0]:
                _add(found[""], fate)
        return dict(found)

    def table_of(self, id: int) -> str:
        """The table that a row is of."""
        return self._rows[id][0]

    def reasons(self) -> list[tuple[str, int]]:
        """Why something was left out, the most frequent first, with how often; see `plain`."""
        exact = Counter(fate.reason for fate in self._all() if fate.status == LEFT_OUT)
        counted: Counter[str] = Counter()
        for reason, count in exact.items():
            counted[plain(reason)] += count
        return counted.most_common()


def plain(reason: str) -> str:
    """A reason without what is of one case only: rows, ids and paths are for the report alone, not for the screen."""
    return _PARTICULAR.sub("...", reason)


def _add(tally: Tally, fate: _Fate) -> None:
    if fate.status == IMPORTED:
        tally.imported += 1
    elif not isinstance(fate.reason, Aside):
        tally.lost[fate.reason] += 1
