"""What lies under a folder: its files, listed once, and the rows of its tables, each of which is accounted for."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from medssml.files import original
from medssml.importers.account import Account, LayoutError

_TEXT_LIMIT = 16 * 1024**2
_ZIP_FOLDERS = frozenset({"__MACOSX", "__pycache__"})


class Row:
    """One row of a table: cells by column name, "" where the table has no such column; `id` is its place in the account."""

    __slots__ = ("_cells", "_columns", "id", "number")

    def __init__(self, id: int, number: int, columns: dict[str, int], cells: list[str]) -> None:
        self.id, self.number, self._columns, self._cells = id, number, columns, cells

    def __getitem__(self, column: str) -> str:
        place = self._columns.get(column)
        return "" if place is None else self._cells[place].strip()

    def items(self) -> Iterator[tuple[str, str]]:
        """(column, cell) in the order of the table."""
        for column, place in self._columns.items():
            yield column, self._cells[place].strip()


class Tree:
    """The files under `root`, as paths relative to it with forward slashes.

    Hidden files, folders that archives leave behind, `skip`, and links that leave the root are no part of it; the last
    are accounted for. `only` is the root's name where it is a file; `root` is then its folder.
    """

    def __init__(self, root: Path, account: Account, *, allow_outside: bool = False, skip: Path | None = None) -> None:
        if not root.exists():
            raise LayoutError(root, "no such folder", "give the dataset's folder")
        self.only = root.name if root.is_file() else ""
        root = root.parent if self.only else root
        self.root = root
        self.account = account
        self._real = os.path.realpath(root)
        self.allow_outside = allow_outside
        #: Called with how many files were looked into, where that takes a while.
        self.progress: Callable[[int], None] | None = None
        self._tails: dict[int, dict[str, str]] = {}
        self._skip = None if skip is None else os.path.realpath(skip)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """All paths, sorted; the folder is walked when they are first asked for."""
        return tuple(sorted(self._walk()))

    def _walk(self) -> Iterator[str]:
        for parent, folders, names in os.walk(self.root):
            if self._skip is not None and os.path.realpath(parent) == self._skip:
                folders.clear()
                continue
            base = os.path.relpath(parent, self.root)
            prefix = "" if base == "." else base.replace(os.sep, "/") + "/"
            for name in [name for name in folders if os.path.islink(os.path.join(parent, name))]:
                self.account.file(prefix + name, "a link to a folder, not followed")
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _ZIP_FOLDERS]
            for name in names:
                if name.startswith("."):
                    continue
                path = prefix + name
                reason = self._unusable(os.path.join(parent, name), path)
                if reason:
                    self.account.file(path, reason)
                else:
                    yield path

    def _unusable(self, full: str, path: str) -> str:
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            return "its name is not UTF-8"
        if not os.path.islink(full):
            return ""
        if not os.path.exists(full):
            return "a link that leads nowhere"
        inside = os.path.commonpath([self._real, os.path.realpath(full)]) == self._real
        return "" if inside or self.allow_outside else "a link that leaves the root; fix: --allow-outside"

    @cached_property
    def known(self) -> frozenset[str]:
        """All files, for look-up."""
        return frozenset(self.files)

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """File name -> its paths."""
        return self._by(2)

    def find(self, path: str) -> str | None:
        """The file that a table calls `path`: from the root, or from some folder above or below it; None where none is.

        Folders above are those that the table names and the user left out: at most four names at the end must agree.
        """
        path = slashed(path)
        if not path or path in self.known:
            return path or None
        parts = min(4, path.count("/") + 1)
        if parts not in self._tails:
            tails: dict[str, str] = {}
            for file in self.files:
                names = file.rsplit("/", parts)
                if len(names) >= parts:
                    tails.setdefault("/".join(names[-parts:]), file)
            self._tails[parts] = tails
        return self._tails[parts].get("/".join(path.split("/")[-parts:]))

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        return self._by(0)

    def _by(self, part: Literal[0, 2]) -> dict[str, list[str]]:
        """All paths, by their folder (0) or by their name (2)."""
        found: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            found[path.rpartition("/")[part]].append(path)
        return dict(found)

    def beside(self, path: str) -> list[str]:
        """The files in the folder of `path`."""
        return self._folders.get(path.rpartition("/")[0], [])

    def matching(self, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
        """(path, match) of every file that the regular expression finds; case does not matter."""
        compiled = re.compile(pattern, re.IGNORECASE)
        for path in self.files:
            match = compiled.search(path)
            if match:
                yield path, match

    def tables(self, pattern: str) -> list[str]:
        """Tables whose name, an ending .gz aside, the expression matches; those nearest to the root first."""
        compiled = re.compile(rf"(?:{pattern})(?:\.gz)?", re.IGNORECASE)
        found = [path for name, paths in self.by_name.items() if compiled.fullmatch(name) for path in paths]
        return sorted(found, key=lambda path: (path.count("/"), path))

    def rows(self, path: str, required: Sequence[str] = ()) -> Iterator[Row]:
        """The rows of a table; a row that cannot be read is accounted for and left out.

        Raises:
            LayoutError: a required column is missing, or the file is no table.
        """
        return table_rows(self.root / path, path, self.account, required)

    def lines(self, path: str) -> Iterator[tuple[int, str]]:
        """(id in the account, line) of every line of a list that is not empty."""
        self.account.read(path)
        with (self.root / path).open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield self.account.row(path, number), line.strip()

    def text(self, path: str) -> str:
        """A file as text.

        Raises:
            LayoutError: larger than 16 MiB.
        """
        self.account.read(path)
        full = self.root / path
        if full.stat().st_size > _TEXT_LIMIT:
            raise LayoutError(full, "is larger than 16 MiB", "leave it out of the folder")
        return _decoded(full.read_bytes())


def table_rows(file: Path, name: str, account: Account, required: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a .csv or .tsv, gzipped or not, entered into the account under `name`.

    Raises:
        LayoutError: a required column is missing, or the file is no table.
    """
    account.read(name)
    lines = _cells(file)
    header = next(lines, None)
    if header is None:
        raise LayoutError(file, "is empty", "download it again")
    columns: dict[str, int] = {}
    for place, column in enumerate(header):
        columns.setdefault(column.strip(), place)
    columns.pop("", None)
    for column in required:
        if column not in columns:
            raise LayoutError(
                file, f"has no column {column!r}", f"check the table; it has {', '.join(list(columns)[:20])}"
            )
    number = 1
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        id = account.row(name, number)
        if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
            account.leave_out(id, f"the row has {len(cells)} cells, the header has {len(header)}")
        else:
            yield Row(id, number, columns, cells)


def slashed(path: str) -> str:
    """A path as a table writes it, in the form that `Tree` has: forward slashes, no leading `./`."""
    path = path.strip().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:]
    return path


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _cells(path: Path) -> Iterator[list[str]]:
    """The cells of each line of a .csv or .tsv, gzipped or not; the separator is read off the header."""
    csv.field_size_limit(_TEXT_LIMIT)
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as raw:
            head = raw.read(1 << 16)
            raw.seek(0)
            # Newlines within quotes stay; what follows a byte that is not UTF-8 is kept, too.
            encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            with io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="") as text:  # type: ignore[type-var]
                first = head.decode(encoding, errors="replace").split("\n", 1)[0]
                mark = max(",\t;", key=first.count)
                for line in csv.reader(text, delimiter=mark):
                    yield [original(_mended(cell)) for cell in line]
    except (EOFError, gzip.BadGzipFile, csv.Error, UnicodeError) as error:
        raise LayoutError(path, f"cannot be read as a table ({error})", "download it again") from error


def _mended(cell: str) -> str:
    """A cell whose bytes were not UTF-8, read as Windows-1252."""
    if cell.isascii() or not any("\udc80" <= c <= "\udcff" for c in cell):
        return cell
    return cell.encode("utf-8", "surrogateescape").decode("cp1252", errors="replace")
