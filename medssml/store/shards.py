"""Prepared studies in shards, in a folder or an object store: what lies there, and how one study is found.

    index.json              format, transforms, privacy, kinds of the tasks, name, size and CRC-32 of every other file
    studies-HASH.parquet    a row per study: ids, split, source, groups, labels; per modality where its entry lies
    train-00000-HASH.shard  entries of `medssml.store.cache`, one after the other, modality by modality

A shard holds studies of one split, drawn at random from it. Names follow from content, so that nothing is ever changed
under a reader; the index is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from medssml.files import write_bytes
from medssml.manifest.columns import in_order
from medssml.manifest.labels import Label, parse_labels
from medssml.manifest.manifest import Manifest
from medssml.privacy import Coded, Pseudonyms
from medssml.store.engines import MissingExtra

FORMAT = 1
INDEX = "index.json"
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*(://|::)", re.I)
_NAME = re.compile(r"(train|val|test)-\d+-[0-9a-f]{16}\.shard|studies-[0-9a-f]{16}\.parquet")
#: Packages that fsspec asks for, and the extra that brings them.
_EXTRAS = {"s3fs": "s3", "gcsfs": "gcs"}


class ShardError(ValueError):
    """Shards that are not there, are of another kind, or cannot be used."""

    exit_code = 3


class NotReached(OSError):
    """A store that does not answer, or refuses."""

    exit_code = 3


class Shard(NamedTuple):
    """One file of the index. crc32: of all its bytes."""

    name: str
    nbytes: int
    crc32: int


class Place(NamedTuple):
    """Where an entry lies: bytes start to start + nbytes of a shard, which is its number in the index."""

    shard: int
    start: int
    nbytes: int


class Storage:
    """A folder or an object store. Every file is written whole or not at all.

    Args:
        url: a path, or any URL of fsspec, such as s3://bucket/folder. Credentials come from the environment.

    Raises:
        ShardError: the URL holds credentials, or no such protocol. MissingExtra: its package is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url).rstrip("/")
        if re.search(r"://[^/]*@", self.url):
            # A command line is seen by others, and an error message shows it again.
            raise ShardError("the URL of the shards holds credentials; fix: leave them out and set them as environment")
        #: The folder, where the files need not be fetched. file:// has them fetched as from a store.
        self.folder = None if _SCHEME.match(self.url) else Path(self.url)
        self._connect()

    def _connect(self) -> tuple[Any, str]:
        """The filesystem and the path in it. Asked for anew each time: a connection does not survive a fork."""
        import fsspec

        try:
            system, path = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            package = next((name for name in _EXTRAS if name in str(error)), None)
            fix = f"pip install 'medssml[{_EXTRAS[package]}]'" if package else f"install what fsspec asks for: {error}"
            missing = f"package {package!r} is not installed" if package else "a package is not installed"
            raise MissingExtra(f"shards {self.url}: {missing}; fix: {fix}") from error
        except OSError as error:
            raise NotReached(f"{self.url}: {error}; fix: look at network and credentials") from error
        except ValueError as error:
            raise ShardError(f"shards {self.url}: {error}; fix: a folder, or a URL that fsspec knows") from error
        return system, path.rstrip("/")

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """A file, or a part of it.

        Raises:
            OSError: not there, or not reached.
        """
        return bytes(self._ask(lambda system, path: system.cat_file(f"{path}/{name}", start=start, end=end)))

    def ranges(self, parts: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Several (file, start, end) at once, side by side where the store can.

        Raises:
            OSError: not there, or not reached.
        """
        names, starts, ends = (list(column) for column in zip(*parts, strict=True))

        def ask(system: Any, path: str) -> Any:
            return system.cat_ranges([f"{path}/{name}" for name in names], starts, ends, on_error="raise")

        return [bytes(part) for part in self._ask(ask)]

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of the files that are there.

        Raises:
            OSError: not reached.
        """

        def ask(system: Any, path: str) -> Any:
            system.invalidate_cache()
            return system.ls(path, detail=True)

        try:
            return {file["name"].rpartition("/")[2]: int(file["size"] or 0) for file in self._ask(ask)}
        except FileNotFoundError:
            return {}

    def _ask(self, question: Callable[[Any, str], Any]) -> Any:
        system, path = self._connect()
        try:
            return question(system, path)
        except FileNotFoundError:
            raise
        except Exception as error:  # the clients of stores have exceptions of their own
            said = " ".join(str(error).split())
            raise NotReached(
                f"{self.url}: {type(error).__name__}: {said}; fix: look at network and credentials"
            ) from error

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, replacing one of that name.

        Raises:
            OSError: no space or no permission.
        """
        if self.folder is None:
            self._ask(lambda system, path: system.makedirs(path, exist_ok=True))
            self._ask(lambda system, path: system.pipe_file(f"{path}/{name}", content))
            return
        write_bytes(self.folder / name, content)


class Index:
    """What lies in the shards of one place.

    Args:
        storage: the place.

    Raises:
        ShardError: no shards there, or such as this version cannot read. OSError: not reached.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        content = _read_index(storage)
        said = json.loads(content)
        if said.get("format") != FORMAT:
            raise ShardError(
                f"the shards in {storage.url} have format {said.get('format')!r}, expected {FORMAT}; "
                "fix: write them again with medssml prepare --shards"
            )
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            self.made_of = str(said["made_of"])
            self.shards = [_shard(shard) for shard in said["shards"]]
            #: modality -> what its arrays depend on.
            self.specs: dict[str, dict[str, Any]] = dict(said["transforms"])
            self._studies, self._kinds, self._ids = _shard(said["studies"]), _labels(said["tasks"]), dict(said["ids"])
        except (KeyError, TypeError, ValueError) as error:
            raise ShardError(f"{INDEX} in {storage.url} is damaged ({error}); fix: write the shards again") from error

    @property
    def files(self) -> list[Shard]:
        """The shards and the table of the studies."""
        return [*self.shards, self._studies]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in their order."""
        return in_order(self.specs)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per study, those of one shard together.

        Raises:
            ShardError: it is damaged.
        """
        content = self.storage.read(self._studies.name)
        if not whole(content, self._studies):
            raise ShardError(f"{self._studies.name} in {self.storage.url} is damaged; fix: write the shards again")
        return pd.read_parquet(io.BytesIO(content))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {study: row for row, study in enumerate(self.table["study_id"])}

    @cached_property
    def _places(self) -> dict[str, tuple[Any, Any, Any]]:
        columns = {m: [self.table[name].to_numpy() for name in place_columns(m)] for m in self.modalities}
        return {m: (self.table["shard"].to_numpy(), start, nbytes) for m, (start, nbytes) in columns.items()}

    def place(self, study_id: str, modality: str) -> Place:
        """Where the entry of one modality of a study lies.

        Raises:
            KeyError: no such study.
        """
        row = self._rows[study_id]
        return Place(*(int(column[row]) for column in self._places[modality]))

    def shard_of(self, study_ids: Any) -> Any:
        """(n,) int64 number of the shard of each study."""
        shard = self.table["shard"].to_numpy(dtype=np.int64)
        return np.array([shard[self._rows[study]] for study in study_ids], dtype=np.int64)

    def manifest(
        self,
        modalities: Iterable[str] | None = None,
        ids: Pseudonyms | None = None,
        tasks: Mapping[str, str | Label] | None = None,
    ) -> Manifest:
        """The studies as a table, in the order of the shards; the cell of a modality is the name of its shard.

        Args:
            modalities: names; by default those that the shards have.
            ids: what studies are called in whatever is written, where the shards have their ids as they are.
            tasks: what is said of tasks, in place of what the shards say of them.

        Raises:
            ShardError: a label that does not fit.
        """
        text = self.table.set_index("row").rename_axis(None).astype(object)
        names = np.array([shard.name for shard in self.shards], dtype=object)[text.pop("shard").to_numpy(dtype=int)]
        for modality in self.modalities:
            nbytes = text[place_columns(modality)[1]].to_numpy(dtype=np.int64)
            text[modality] = np.where(nbytes > 0, names, "")
            text = text.drop(columns=list(place_columns(modality)))
        labels, problems = parse_labels(text, {**self._kinds, **(tasks or {})})
        if problems:
            column, reason = problems[0][1:]
            raise ShardError(f"the labels in {self.storage.url} cannot be read: {column}: {reason}")
        coded = Coded(mark=self._ids["key"]) if self._ids["strict"] else ids or Pseudonyms()
        own = in_order(self.modalities if modalities is None else modalities)
        return Manifest(text, own, labels, Path(), self.sha256, ids=coded)

    def require(self, specs: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Modalities whose shards were written with other versions of the libraries, which is no fault.

        Args:
            specs: modality -> what the arrays of its transform depend on.

        Raises:
            ShardError: a transform prepares something else than what lies here.
        """
        for modality in (m for m in in_order(specs) if m in self.specs):
            ours, theirs = specs[modality], self.specs[modality]
            for key in sorted({*ours, *theirs} - {"versions", "settings"}):
                self._same(modality, key, ours.get(key), theirs.get(key))
            settings, stored = ours.get("settings", {}), theirs.get("settings", {})
            for name in sorted({*settings, *stored}):
                self._same(modality, name, settings.get(name), stored.get(name))
        return [m for m in specs if m in self.specs and specs[m].get("versions") != self.specs[m].get("versions")]

    def _same(self, modality: str, name: str, ours: Any, theirs: Any) -> None:
        if ours != theirs:
            raise ShardError(
                f"transforms.{modality} prepares with {name} = {ours!r}, the shards in {self.storage.url} were written with "
                f"{theirs!r}; fix: the settings that they were written with, or other shards by medssml prepare --shards"
            )


def _shard(said: Any) -> Shard:
    name, nbytes, crc = said
    # The name becomes that of a local file.
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a shard")
    return Shard(name, int(nbytes), int(crc))


def _labels(said: Mapping[str, Any]) -> dict[str, str | Label]:
    """Task -> its kind, or all that the index says of it."""
    found: dict[str, str | Label] = {}
    for task, label in said.items():
        found[task] = label if isinstance(label, str) else Label(**{**label, "classes": tuple(label["classes"])})
    return found


def _read_index(storage: Storage) -> bytes:
    try:
        content = storage.read(INDEX)
        if not isinstance(json.loads(content), dict):
            raise ValueError("no mapping")
        return content
    except FileNotFoundError as error:
        fix = "fix: medssml prepare --shards writes them, and the index last"
        raise ShardError(f"no prepared shards in {storage.url}: it has no {INDEX}; {fix}") from error
    except ValueError as error:
        raise ShardError(f"{INDEX} in {storage.url} is damaged; fix: write the shards again") from error


def whole(content: bytes, file: Shard) -> bool:
    """Whether these are the bytes of `file`."""
    from medssml.readers.inflate import crc32

    return len(content) == file.nbytes and crc32(content) == file.crc32


def place_columns(modality: str) -> tuple[str, str]:
    """The columns of the studies that say where the entry of a modality starts and how long it is, 0 = absent."""
    return f"start:{modality}", f"bytes:{modality}"
