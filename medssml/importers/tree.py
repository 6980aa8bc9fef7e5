"""What lies under a folder: its files, listed once, and the rows of its tables, each of which is accounted for."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from medssml.files import original
from medssml.importers.account import Account, Aside, LayoutError
from medssml.importers.same_name import in_annotations, in_derived, looks_like_labels, pixels, same_bytes
from medssml.readers.encodings import utf8_or_latin

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

    def __init__(self, root: Path, account: Account, *, allow_outside: bool = False, skip: Sequence[Path] = ()) -> None:
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
        self._tails: dict[int, dict[str, list[str]]] = {}
        self._chosen: dict[tuple[str, ...], str | None] = {}
        self._skip = {os.path.realpath(path) for path in skip}

    @cached_property
    def files(self) -> tuple[str, ...]:
        """All paths, sorted; the folder is walked when they are first asked for."""
        return tuple(sorted(self._walk()))

    def _walk(self) -> Iterator[str]:
        for parent, folders, names in os.walk(self.root):
            if os.path.realpath(parent) in self._skip:
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
                if self._skip and os.path.realpath(os.path.join(parent, name)) in self._skip:
                    continue
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

    def find(self, path: str, least: int = 4) -> str | None:
        """The file that a table calls `path`: from the root, or from some folder above or below it; None where none is.

        Folders that the table names and the disk has not, or the other way round, do no harm: of the names at the end as many
        as possible must agree, and at least `least`, or all where the table gives fewer.
        """
        path = slashed(path)
        if not path or path in self.known:
            return path or None
        names = path.split("/")
        for parts in range(len(names), min(least, len(names)) - 1, -1):
            found = self._tail(parts).get("/".join(names[-parts:]))
            if found:
                return self.one_of(found)
        return None

    def _tail(self, parts: int) -> dict[str, list[str]]:
        """The last `parts` names of a path -> the files that end so."""
        if parts not in self._tails:
            tails: dict[str, list[str]] = defaultdict(list)
            for file in self.files:
                names = file.rsplit("/", parts)
                if len(names) >= parts:
                    tails["/".join(names[-parts:])].append(file)
            self._tails[parts] = dict(tails)
        return self._tails[parts]

    def one_of(self, paths: Sequence[str]) -> str | None:
        """Of several files under one name the one that is meant: no mask, no smaller or otherwise derived copy; then the
        one that lies nearest to the root. The others are accounted for. None where all are masks."""
        key = tuple(paths)
        if key not in self._chosen:
            self._chosen[key] = self._choose(paths)
        return self._chosen[key]

    def _choose(self, paths: Sequence[str]) -> str | None:
        images = [path for path in paths if not in_annotations(self._below(path))]
        for path in paths:
            if path not in images:
                self.account.file(path, Aside("a mask or another annotation, as its folder says"))
        if len(images) < 2:
            return images[0] if images else None
        best, *rest = self._in_order(images)
        for path in rest:
            if same_bytes(self.root / best, self.root / path):
                self.account.file(path, Aside(f"a copy of {best}, byte for byte"))
                continue
            self.account.file(path, Aside(f"{best} has the same name, and was taken"))
            self.account.note(
                "some names belong to several files that differ: masks, smaller and derived copies come last, then deeper "
                "folders; import_report.csv names what was not taken"
            )
        return best

    def _in_order(self, paths: Sequence[str]) -> list[str]:
        """Files under one name: originals before derived ones, larger before smaller, images before labels, then the ones
        nearest to the root. Content is decoded only where the rest does not tell."""
        ranked = {path: (in_derived(self._below(path)), -pixels(self.root / path)) for path in paths}
        first = min(ranked.values())
        alike = [path for path in paths if ranked[path] == first]
        if len(alike) > 1 and not all(same_bytes(self.root / alike[0], self.root / path) for path in alike[1:]):
            labels = {path for path in alike if looks_like_labels(self.root / path)}
        else:
            labels = set()
        return sorted(paths, key=lambda path: (ranked[path], path in labels, path.count("/"), path))

    def is_made(self, path: str) -> bool:
        """Whether the folders of a file, or its name, say that it was made of another: a mask, a smaller copy."""
        return in_annotations(self._below(path), name=True) or in_derived(self._below(path), name=True)

    def _below(self, path: str) -> str:
        """The path from the folder on that all files share: what that is called says nothing about the one file."""
        return path.removeprefix(self._shared)

    @cached_property
    def _shared(self) -> str:
        folders = [path.rpartition("/")[0] for path in self.files]
        shared = os.path.commonpath(folders) if folders and all(folders) else ""
        return f"{shared}/" if shared else ""

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

    def unique(self, pattern: str, *groups: int | str) -> Iterator[tuple[str, re.Match[str]]]:
        """As `matching`, but of files whose `groups` (the file's name where none is given) are the same only the one that is
        meant, see `one_of`."""
        found: dict[tuple[str | None, ...], list[tuple[str, re.Match[str]]]] = defaultdict(list)
        for path, match in self.matching(pattern):
            key = tuple(match[group] for group in groups) if groups else (path.rpartition("/")[2],)
            found[key].append((path, match))
        for pairs in found.values():
            best = self.one_of([path for path, _ in pairs])
            yield from ((path, match) for path, match in pairs if path == best)

    def wanted(self, what: str, found: Sequence[str], without: str) -> list[str]:
        """`found` as it is; where nothing is, a note says that the dataset has `what`, and what its absence means."""
        if not found:
            self.account.note(f"{what}: not found below the root; {without}")
        return list(found)

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
    strange: Counter[str] = Counter()
    lines = _cells(file, strange)
    header = next(lines, None)
    if header is None:
        raise LayoutError(file, "is empty", "download it again")
    columns = _columns(file, header)
    nameless = [place for place, column in enumerate(header) if not column.strip()]
    unread = 0
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
            unread += sum(bool(cells[place].strip()) for place in nameless)
            yield Row(id, number, columns, cells)
    if strange:
        account.note(
            f"{name}: {strange.total():,} cells are not UTF-8; read as Windows-1252, or with the wrong bytes alone"
        )
    if unread:
        where = ", ".join(str(place + 1) for place in nameless[:10])
        account.note(f"{name}: column {where} has no name; its {unread:,} cells are left out")


def _columns(file: Path, header: Sequence[str]) -> dict[str, int]:
    """Name of a column -> its place.

    Raises:
        LayoutError: a name twice: which of the columns is meant nobody can tell.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, column in enumerate(header):
        places[column.strip()].append(place)
    places.pop("", None)
    twice = [(name, found) for name, found in places.items() if len(found) > 1]
    if twice:
        named = "; ".join(
            f"{name!r} in columns {', '.join(str(place + 1) for place in found)}" for name, found in twice[:5]
        )
        raise LayoutError(file, f"has a column name more than once: {named}", "rename or remove all but one")
    return {name: found[0] for name, found in places.items()}


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
        return utf8_or_latin(data)


def _cells(path: Path, strange: Counter[str]) -> Iterator[list[str]]:
    """The cells of each line of a .csv or .tsv, gzipped or not; the separator is read off the header. Those that were not
    UTF-8 are added to `strange`."""
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
                    yield [original(_mended(cell, strange)) for cell in line]
    except (EOFError, gzip.BadGzipFile, csv.Error, UnicodeError) as error:
        raise LayoutError(path, f"cannot be read as a table ({error})", "download it again") from error


def _mended(cell: str, strange: Counter[str]) -> str:
    """A cell whose bytes were not UTF-8, read with the least loss, and counted in `strange`."""
    if cell.isascii() or not any("\udc80" <= c <= "\udcff" for c in cell):
        return cell
    strange["cells"] += 1
    return utf8_or_latin(cell.encode("utf-8", "surrogateescape"))
