"""The inheritance principle of BIDS: a sidecar holds for every recording below it whose name has all of its entities.

Of several the one in the closest folder counts, and in one folder the one with the most entities; JSON files are put together,
key by key, in that order. BIDS specification 1.10, "The Inheritance Principle"; the same walk as in the BIDS validator.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from medssml.importers.tree import Tree
from medssml.readers.json_text import json_value

#: What describes an EEG recording. Others of these suffixes (participants, scans) are of the data set or the subject.
KINDS = frozenset(
    f"{suffix}.{ending}"
    for suffix, endings in {
        "channels": ("tsv", "json"),
        "coordsystem": ("json",),
        "eeg": ("json",),
        "electrodes": ("tsv", "json"),
        "events": ("tsv", "json"),
    }.items()
    for ending in endings
)
_NAME = re.compile(r"(?P<entities>(?:[A-Za-z]+-[A-Za-z0-9]+_)*)(?P<kind>[A-Za-z]+\.(?:tsv|json))")
#: Positions in several coordinate systems are of one recording; its name has none.
_SPACE = "space-"


class _Sidecar(NamedTuple):
    path: str
    kind: str
    entities: frozenset[str]


class Sidecars:
    """The sidecars of a tree.

    Args:
        tree: whose root is the data set, or above it.

    Attributes:
        known: paths of all of them. broken: of those that were to be read and could not be.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._in: dict[str, list[_Sidecar]] = defaultdict(list)
        for path in tree.files:
            folder, _, name = path.rpartition("/")
            match = _NAME.fullmatch(name)
            if match is not None and match["kind"] in KINDS:
                self._in[folder].append(_Sidecar(path, match["kind"], _entities(match["entities"])))
        for found in self._in.values():
            found.sort(key=lambda sidecar: (-len(sidecar.entities), sidecar.path))
        self.known = {sidecar.path for found in self._in.values() for sidecar in found}
        self.broken: set[str] = set()
        self._read: dict[str, Any] = {}

    def of(self, recording: str) -> dict[str, list[str]]:
        """Kind ("channels.tsv") -> the sidecars that hold for the file `recording`, the one that counts first."""
        folder, _, name = recording.rpartition("/")
        mine = _entities(name.rpartition("_")[0])
        found: dict[str, list[str]] = defaultdict(list)
        for above in _upwards(folder):
            for sidecar in self._in.get(above, []):
                if sidecar.entities <= mine:
                    found[sidecar.kind].append(sidecar.path)
        return dict(found)

    def merged(self, paths: list[str]) -> dict[str, Any]:
        """JSON sidecars as one object: of a key that several have, the first one's value."""
        merged: dict[str, Any] = {}
        for path in reversed(paths):
            merged |= self._object(path)
        return merged

    def rows(self, path: str) -> list[dict[str, str]]:
        """The rows of a tab-separated sidecar; cells that are not there are empty."""
        if path not in self._read:
            lines = csv.DictReader(io.StringIO(self._tree.text(path), newline=""), delimiter="\t", restval="")
            self._read[path] = [{str(name).strip(): str(cell).strip() for name, cell in line.items()} for line in lines]
        found: list[dict[str, str]] = self._read[path]
        return found

    def _object(self, path: str) -> dict[str, Any]:
        if path not in self._read:
            try:
                read = json_value(self._tree.text(path))
            except (ValueError, RecursionError):
                read = None
            if not isinstance(read, dict):
                self._tree.account.note("a JSON sidecar that cannot be read says nothing: import_report.csv names it")
                self._tree.account.file(path, "no JSON object")
                self.broken.add(path)
            self._read[path] = read if isinstance(read, dict) else {}
        found: dict[str, Any] = self._read[path]
        return found


def _entities(text: str) -> frozenset[str]:
    return frozenset(part for part in text.split("_") if part and not part.startswith(_SPACE))


def _upwards(folder: str) -> Iterator[str]:
    """The folder, those above it, and the root."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""
