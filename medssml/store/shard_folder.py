"""Shards that were fetched, in a local folder that stays under a bound; several processes share it.

Whoever maps a shard holds a shared lock on its file, which ends with the last array that looks into it; whoever makes
room needs the exclusive one, and passes over a file where it does not get it. The longest unused goes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from medssml.files import private_folder
from medssml.readers.inflate import crc32
from medssml.store.cache import DamagedEntry
from medssml.store.shards import Shard, ShardError, Storage

#: Bytes that are asked for at once.
_BLOCK = 16 << 20
#: s between two looks whether a file is still being read.
_WAIT_S = 0.02


class DamagedShard(ValueError):
    """A shard that is not what was written, twice."""


class ShardFolder:
    """Maps shards, fetching what is not there.

    Args:
        storage: where the shards are.
        folder: where they are kept; made where it is not there.
        limit: most bytes of shards in the folder, those that are being fetched included.
        timeout_s: s to wait for room while everything in the folder is being read.
    """

    def __init__(self, storage: Storage, folder: Path, limit: int, timeout_s: float = 60.0) -> None:
        self.storage, self.folder, self.limit, self.timeout_s = storage, folder, limit, timeout_s

    def map(self, shard: Shard) -> mmap.mmap:
        """The bytes of a shard; it stays in the folder as long as these, or a view of them, are referred to.

        Raises:
            DamagedEntry: another size than it should have. DamagedShard: fetched twice, it was damaged twice.
            ShardError: no room. OSError: not there, or not reached.
        """
        while True:
            try:
                return self._map(shard)
            except FileNotFoundError:
                self.fetch(shard)

    def _map(self, shard: Shard) -> mmap.mmap:
        with (self.folder / shard.name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(file.fileno())
            # The map has a descriptor of its own to the same open file, and with it the lock.
            return mapped(file, shard)

    def has(self, shard: Shard) -> bool:
        """Whether it is here."""
        return (self.folder / shard.name).exists()

    def touch(self, shards: Iterable[Shard]) -> None:
        """Marks shards as used, the first as the last to be removed."""
        for shard in reversed(list(shards)):
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.folder / shard.name)

    def remove(self, shard: Shard) -> None:
        """Removes a shard that turned out damaged; who reads it goes on to do so."""
        (self.folder / shard.name).unlink(missing_ok=True)

    def fetch(self, shard: Shard, sparing: Iterable[Shard] | None = None) -> bool:
        """Fetches a shard, unless it is here or another process fetches it.

        Args:
            sparing: ahead of its time, for which these are not removed, nor is room waited for.

        Returns:
            whether it is here.

        Raises:
            as `map`.
        """
        private_folder(self.folder.parent)  # the cache that it lies in
        private_folder(self.folder)
        with _locked(self._lock_of(shard.name)):
            if self.has(shard):
                return True
            part = self._part_of(shard.name)
            if sparing is None:
                self._reserve(part, shard.nbytes)
            elif not self._reserved(part, shard.nbytes, {spared.name for spared in sparing}):
                return False
            try:
                if not (self._download(shard, part) or self._download(shard, part)):
                    raise DamagedShard("fetched twice, and its size or checksum was wrong both times")
                os.replace(part, self.folder / shard.name)
                return True
            finally:
                part.unlink(missing_ok=True)

    def _download(self, shard: Shard, part: Path) -> bool:
        """Whether the file is now what was written. Its size does not change on the way: others count it."""
        done, checksum = 0, 0
        with part.open("r+b") as file:
            while done < shard.nbytes:
                block = self.storage.read(shard.name, done, min(done + _BLOCK, shard.nbytes))
                if not block:
                    return False
                file.write(block)
                done, checksum = done + len(block), crc32(block, checksum)
        return done == shard.nbytes and checksum == shard.crc32

    def _reserve(self, part: Path, nbytes: int) -> None:
        """Makes `part` as large as it will be, once there is room for it.

        Raises:
            ShardError: there is none.
        """
        end = time.monotonic() + self.timeout_s
        while not self._reserved(part, nbytes):
            if nbytes > self.limit or time.monotonic() > end:
                raise ShardError(
                    f"no room for a shard of {nbytes:,} bytes: {self.folder} may hold {self.limit:,}, and what is in it is "
                    f"being read; fix: a larger shards.gib"
                )
            time.sleep(_WAIT_S)

    def _reserved(self, part: Path, nbytes: int, spared: Collection[str] = ()) -> bool:
        with _locked(self.folder / ".lock"):
            if not self._make_room(nbytes, spared):
                return False
            with part.open("wb") as file:
                file.truncate(nbytes)
            return True

    def _make_room(self, nbytes: int, spared: Collection[str]) -> bool:
        """Whether `nbytes` more fit, after the removal of what is neither read nor spared, the longest unused first."""
        for abandoned in self.folder.glob(".*.part"):
            self._remove_abandoned(abandoned)
        # First those on their way: one that arrives meanwhile is counted twice, and not left out.
        coming, kept = self._files(".*.part"), sorted(self._files("*.shard"))
        used = sum(size for _, size, _ in [*coming, *kept])
        for _, size, path in kept:
            if used + nbytes <= self.limit:
                break
            used -= size if path.name not in spared and _removed(path) else 0
        return used + nbytes <= self.limit

    def _files(self, names: str) -> list[tuple[int, int, Path]]:
        """(time of the last use, bytes, path) of files."""
        found = []
        for path in self.folder.glob(names):
            with contextlib.suppress(FileNotFoundError):  # removed or renamed since
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        return found

    def _remove_abandoned(self, part: Path) -> None:
        """Removes what a killed process was fetching: its lock is free."""
        with contextlib.suppress(BlockingIOError), _locked(self._lock_of(part.name[1:-5]), wait=False):
            part.unlink(missing_ok=True)

    def _lock_of(self, name: str) -> Path:
        return self.folder / f".{name}.lock"

    def _part_of(self, name: str) -> Path:
        return self.folder / f".{name}.part"


def mapped(file: IO[bytes], shard: Shard) -> mmap.mmap:
    """The bytes of a file that holds `shard`.

    Raises:
        DamagedEntry: it has another size.
    """
    size = os.fstat(file.fileno()).st_size
    if size != shard.nbytes:
        raise DamagedEntry(f"the shard has {size:,} bytes in place of {shard.nbytes:,}")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _removed(path: Path) -> bool:
    """Removes a shard unless somebody reads it."""
    with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(path, wait=False, make=False):
        path.unlink(missing_ok=True)
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = True, make: bool = True) -> Iterator[None]:
    """Inside, nobody else has the lock of `path`; it ends with the process, however that ends.

    Raises:
        BlockingIOError: somebody has it, and `wait` is False.
    """
    with path.open("ab" if make else "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield
        finally:
            # By hand: a process that was forked meanwhile has the same open file, and closing ours would not release it.
            fcntl.flock(file, fcntl.LOCK_UN)
