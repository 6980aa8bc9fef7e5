"""The folder of fetched shards: under its bound at any time, whoever reads, fetches or dies."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from medssml.readers.inflate import crc32
from medssml.store.cache import DamagedEntry
from medssml.store.shard_folder import DamagedShard, ShardFolder
from medssml.store.shards import Shard, ShardError, Storage

SIZE = 50_000


def content(number: int) -> bytes:
    return np.random.default_rng(number).bytes(SIZE)


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    """Ten shards in a folder that is fetched from."""
    (tmp_path / "store").mkdir()
    found = []
    for number in range(10):
        shard = Shard(f"train-{number:05d}-{number:016x}.shard", SIZE, crc32(content(number)))
        (tmp_path / "store" / shard.name).write_bytes(content(number))
        found.append(shard)
    return found


def folder(tmp_path: Path, room: int, timeout_s: float = 20.0) -> ShardFolder:
    return ShardFolder(Storage(f"file://{tmp_path}/store"), tmp_path / "kept", room * SIZE, timeout_s)


def size_of(path: Path) -> int:
    """Bytes of what is kept and of what is on its way. Nothing begins or is removed meanwhile; what is renamed counts once."""
    path.mkdir(exist_ok=True)
    sizes = {}
    with (path / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for pattern in (".*.part", "*.shard"):
            for file in path.glob(pattern):
                with contextlib.suppress(FileNotFoundError):
                    stat = file.stat()
                    sizes[stat.st_ino] = stat.st_size
    return sum(sizes.values())


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*.shard"))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, shards: list[Shard]) -> None:
    kept = folder(tmp_path, 3)
    for shard in shards[:3]:
        assert bytes(kept.map(shard)) == content(shards.index(shard))
        time.sleep(0.01)
    kept.map(shards[0])
    kept.map(shards[3])
    assert names(tmp_path / "kept") == [shards[i].name for i in (0, 2, 3)]
    time.sleep(0.01)
    kept.touch([shards[2], shards[0]])
    kept.map(shards[4])
    kept.map(shards[5])
    assert names(tmp_path / "kept") == [shards[i].name for i in (2, 4, 5)]


def test_what_is_being_read_is_never_removed(tmp_path: Path, shards: list[Shard]) -> None:
    kept = folder(tmp_path, 1, timeout_s=0.2)
    array = np.frombuffer(memoryview(kept.map(shards[0]))[100:200], np.uint8)
    with pytest.raises(ShardError, match=r"no room for a shard of 50,000 bytes: .* fix: a larger shards.gib"):
        kept.map(shards[1])
    assert names(tmp_path / "kept") == [shards[0].name] and bytes(array) == content(0)[100:200]
    del array
    assert bytes(kept.map(shards[1])) == content(1) and names(tmp_path / "kept") == [shards[1].name]


def test_a_reader_that_ends_makes_room_for_who_waits(tmp_path: Path, shards: list[Shard]) -> None:
    kept = folder(tmp_path, 1)
    held = [kept.map(shards[0])]
    threading.Timer(0.3, held.clear).start()
    started = time.monotonic()
    kept.map(shards[1])
    assert 0.2 < time.monotonic() - started < 10


def test_a_shard_larger_than_the_bound_is_refused_at_once(tmp_path: Path, shards: list[Shard]) -> None:
    with pytest.raises(ShardError, match="no room"):
        folder(tmp_path, 0).map(shards[0])


def test_what_a_killed_process_was_fetching_is_removed_and_what_is_being_fetched_is_not(
    tmp_path: Path, shards: list[Shard]
) -> None:
    kept = folder(tmp_path, 2)
    kept.map(shards[0])
    for shard in shards[8:]:
        (tmp_path / "kept" / f".{shard.name}.part").write_bytes(bytes(SIZE // 2))
    with (tmp_path / "kept" / f".{shards[9].name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept.map(shards[1])
    assert [path.name for path in (tmp_path / "kept").glob(".*.part")] == [f".{shards[9].name}.part"]
    assert size_of(tmp_path / "kept") <= kept.limit
    assert bytes(kept.map(shards[9])) == content(9) and not list((tmp_path / "kept").glob(".*.part"))


def test_two_that_want_one_shard_fetch_it_once(
    tmp_path: Path, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], Storage.read

    def slow(storage: Storage, name: str, start: int | None = None, end: int | None = None) -> bytes:
        asked.append(name)
        time.sleep(0.2)
        return read(storage, name, start, end)

    monkeypatch.setattr(Storage, "read", slow)
    kept = folder(tmp_path, 3)
    threads = [threading.Thread(target=kept.map, args=(shards[0],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [shards[0].name]


def test_a_shard_that_is_damaged_is_fetched_twice_and_leaves_nothing(
    tmp_path: Path, shards: list[Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, *a: asked.append(a) or read(self, *a))
    (tmp_path / "store" / shards[0].name).write_bytes(content(1))
    kept = folder(tmp_path, 3)
    with pytest.raises(DamagedShard, match="twice"):
        kept.map(shards[0])
    assert len(asked) == 2 and size_of(tmp_path / "kept") == 0


def test_a_kept_shard_of_another_size_is_noticed(tmp_path: Path, shards: list[Shard]) -> None:
    kept = folder(tmp_path, 3)
    kept.map(shards[0])
    (tmp_path / "kept" / shards[0].name).write_bytes(b"")
    with pytest.raises(DamagedEntry, match="0 bytes in place of 50,000"):
        kept.map(shards[0])


def _reads(tmp_path: Path, shards: list[Shard], seed: int, answers: multiprocessing.Queue) -> None:
    kept, right = folder(tmp_path, 4), 0
    for number in np.random.default_rng(seed).integers(0, len(shards), 120):
        right += bytes(kept.map(shards[number])) == content(int(number))
    answers.put(right)


def test_several_processes_stay_under_the_bound_together(tmp_path: Path, shards: list[Shard]) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=_reads, args=(tmp_path, shards, seed, answers)) for seed in range(3)]
    for process in processes:
        process.start()
    highest = 0
    while any(process.is_alive() for process in processes):
        highest = max(highest, size_of(tmp_path / "kept"))
        time.sleep(0.001)
    assert [answers.get(timeout=10) for _ in processes] == [120, 120, 120]
    assert 3 * SIZE <= highest <= 4 * SIZE
