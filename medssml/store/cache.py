"""Prepared studies on disk: an entry is found by all that its content depends on, and checked when it is read.

An entry is one safetensors file: no pickle, mapped into memory rather than read. It is written under a temporary name
and renamed, so several processes may fill one cache, and a killed one leaves no half entry under a final name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.files import private_folder, write_bytes
from medssml.readers.inflate import crc32

Arrays = dict[str, NDArray[Any]]

FORMAT = 1
#: An array of this name is for people: it is no part of an entry's content.
NOTES = "notes"
_DTYPES = {
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "I32": np.int32,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
#: Formats that keep their samples in a second file of the same stem.
_COMPANIONS = frozenset({".vhdr", ".set"})
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """arrays: name -> array, read-only. content: int64 hash of them: equal numbers are duplicates."""

    arrays: Arrays
    content: int


class DamagedEntry(ValueError):
    """An entry that is not what was written."""


class Cache:
    """Prepared arrays in a folder.

    Args:
        folder: where entries lie; None = nothing is stored.
        memory_mb: MiB of entries that are also kept in memory, for cohorts that fit.
        hash_content: recognise a file by its bytes instead of by path, size and time: slower, but the entries survive
            a move of the files.
    """

    def __init__(self, folder: str | Path | None, *, memory_mb: float = 0.0, hash_content: bool = False) -> None:
        self.folder = None if folder is None else Path(folder)
        self.hash_content = hash_content
        self._room = int(memory_mb * 2**20)
        self._memory: dict[str, Entry] = {}
        self._checked: set[str] = set()

    def key(self, spec: Mapping[str, Any], source: Path | str) -> str:
        """Name of the entry of `source` prepared as `spec` says; another file, parameter or version is another name.

        Raises:
            OSError: the file cannot be looked at.
        """
        identity = {"format": FORMAT, "spec": spec, "source": source_identity(source, self.hash_content)}
        text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def path(self, key: str) -> Path:
        """Where an entry lies. Subfolders keep each folder small.

        Raises:
            ValueError: this cache has no folder.
        """
        if self.folder is None:
            raise ValueError("this cache has no folder; build it as Cache(folder)")
        return self.folder / key[:2] / f"{key[2:]}.safetensors"

    def get(self, key: str, make: Callable[[], Arrays], about: Mapping[str, Any] | None = None) -> Entry:
        """The entry `key`; where there is none, or a damaged one, `make()` is stored and returned.

        Args:
            about: modality, class and settings of what prepares it, for those who look after the folder.

        Raises:
            OSError: no space or no permission, with what is needed. And whatever `make` raises.
        """
        kept = self._memory.get(key)
        if kept is not None:
            return kept
        if self.folder is None:
            arrays = make()
            return self._keep(key, Entry(arrays, content_hash(arrays)))
        path = self.path(key)
        try:
            return self._keep(key, self._read(key, path))
        except FileNotFoundError:
            pass
        except DamagedEntry as damage:
            _log.warning("cache entry %s is damaged (%s): it is made again", key, damage)
        arrays = make()
        private_folder(self.folder)
        write_entry(path, arrays, about)
        self._checked.discard(key)
        return self._keep(key, self._read(key, path))

    def has(self, key: str) -> bool:
        """Whether there is an entry; it is not checked."""
        return key in self._memory or (self.folder is not None and self.path(key).is_file())

    def _read(self, key: str, path: Path) -> Entry:
        # Once per process is enough: a page that was read does not change under a map of a file that nobody rewrites.
        entry = read_entry(path, check=key not in self._checked)
        self._checked.add(key)
        return entry

    def _keep(self, key: str, entry: Entry) -> Entry:
        size = sum(array.nbytes for array in entry.arrays.values())
        if size <= self._room:
            self._room -= size
            entry = Entry({name: np.array(array) for name, array in entry.arrays.items()}, entry.content)
            self._memory[key] = entry
        return entry


def source_identity(source: Path | str, hash_content: bool = False) -> list[Any]:
    """What tells one source from another: a text by its hash; a file or folder by names, sizes and times, or by bytes.

    Raises:
        OSError: no such file.
    """
    if isinstance(source, str):
        return ["text", hashlib.blake2b(source.encode("utf-8"), digest_size=20).hexdigest()]
    files = _files(source)
    if hash_content:
        return ["content", [[_below(file, source), _digest(file)] for file in files]]
    where = os.path.abspath(source)
    stats = [(file, file.stat()) for file in files]
    return ["file", where, [[_below(file, source), stat.st_size, stat.st_mtime_ns] for file, stat in stats]]


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(Path(folder, name) for folder, _, names in os.walk(source) for name in names)
    if source.suffix.lower() in _COMPANIONS:
        return sorted(path for path in source.parent.iterdir() if path.stem == source.stem and path.is_file())
    return [source]


def _below(file: Path, source: Path) -> str:
    return os.path.relpath(file, source) if source.is_dir() else file.suffix


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=20)).hexdigest()


def content_hash(arrays: Arrays) -> int:
    """int64 hash of all arrays but the notes: names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(arrays):
        if name != NOTES:
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            digest.update(array.tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def write_entry(path: Path, arrays: Arrays, about: Mapping[str, Any] | None = None) -> None:
    """Writes one safetensors file, whole or not at all, with a checksum of header and values.

    Args:
        about: how the arrays were prepared.

    Raises:
        OSError: no space or no permission. TypeError: an array of a type that is not stored.
    """
    layout, body, offset = {}, [], 0
    # Largest items first: every array then starts at a multiple of its item size.
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        array = np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape)
        if array.dtype not in _NAMES:
            raise TypeError(f"array {name!r} is {array.dtype}; a cache stores {', '.join(sorted(_DTYPES))}")
        end = offset + array.nbytes
        layout[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        body.append(array.tobytes())
        offset = end
    values = b"".join(body)
    meta = {"format": str(FORMAT), "content": str(content_hash(arrays)), "crc32": str(_checksum(layout, values))}
    if about is not None:
        meta["about"] = json.dumps(about, sort_keys=True)
    header = json.dumps({"__metadata__": meta, **layout}).encode()
    header += b" " * (-len(header) % 8)
    _write(path, struct.pack("<Q", len(header)) + header + values)


def _write(path: Path, content: bytes) -> None:
    try:
        # Not flushed: an entry has a checksum, and one that a power cut damaged is made again.
        write_bytes(path, content, durable=False)
    except OSError as error:
        reason = (
            f"the cache in {path.parent.parent} cannot be written ({error.strerror}): {len(content):,} bytes needed"
        )
        raise OSError(
            error.errno, f"{reason}; fix: free space, or name another folder with --cache or MEDSSML_CACHE"
        ) from error


def read_entry(path: Path, check: bool = True) -> Entry:
    """One file of `write_entry`, its arrays mapped into memory.

    Raises:
        FileNotFoundError: none. DamagedEntry: not what was written.
    """
    with path.open("rb") as stream:
        try:
            mapped: mmap.mmap = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise DamagedEntry("empty file") from error
    return parse_entry(memoryview(mapped), check)


def parse_entry(content: memoryview, check: bool = True) -> Entry:
    """The bytes of one entry, its arrays views of them.

    Raises:
        DamagedEntry: not what was written.
    """
    try:
        (length,) = struct.unpack_from("<Q", content)
        layout = json.loads(bytes(content[8 : 8 + length]))
        meta = layout.pop("__metadata__")
        values = content[8 + length :]
        if check and _checksum(layout, values) != int(meta["crc32"]):
            raise DamagedEntry("the checksum does not match")
        arrays = {name: _view(values, place) for name, place in layout.items()}
        return Entry(arrays, int(meta["content"]))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise error if isinstance(error, DamagedEntry) else DamagedEntry(f"{type(error).__name__}: {error}") from error


def _view(values: memoryview, place: dict[str, Any]) -> NDArray[Any]:
    start, end = place["data_offsets"]
    dtype = np.dtype(_DTYPES[place["dtype"]])
    return np.frombuffer(values[start:end], dtype=dtype).reshape(place["shape"])


def _checksum(layout: dict[str, Any], values: bytes | memoryview) -> int:
    return crc32(values, crc32(json.dumps(layout, sort_keys=True).encode()))
