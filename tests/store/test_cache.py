"""The cache: never stale, never damaged, never a pickle, safe for several processes."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from medssml.store.cache import Cache, DamagedEntry, content_hash, read_entry, source_identity, write_entry

ARRAYS = {
    "hu": np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6),
    "notes": np.frombuffer(b"a note", dtype=np.uint8),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "wide": np.array([1.5, np.nan]),
}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )


def test_an_entry_is_made_once_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    made = []
    for cache in (Cache(tmp_path), Cache(tmp_path)):
        for _ in range(2):
            entry = cache.get("ab12", lambda: made.append(1) or ARRAYS)
            assert same(entry.arrays, ARRAYS) and entry.content == content_hash(ARRAYS)
    assert len(made) == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_entry(tmp_path / "a.safetensors", ARRAYS)
    assert same(load_file(tmp_path / "a.safetensors"), ARRAYS)


def test_another_parameter_version_or_file_is_another_key(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    cache = Cache(tmp_path / "cache")
    spec = {"class": "CT", "settings": {"spacing": [1.0, 1.0, 2.0]}, "versions": {"monai": "1.6"}}
    first = cache.key(spec, file)
    assert cache.key(spec, file) == first
    assert cache.key(spec | {"settings": {"spacing": [1.0, 1.0, 2.5]}}, file) != first
    assert cache.key(spec | {"versions": {"monai": "1.7"}}, file) != first
    os.utime(file, ns=(10**18, 10**18 + 1))
    assert cache.key(spec, file) != first
    file.write_bytes(b"three")
    os.utime(file, ns=(10**18, 10**18))
    assert cache.key(spec, file) != first


def test_content_of_the_same_size_and_time_is_seen_where_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    keys = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(10**18, 10**18))
        keys.append(Cache(tmp_path, hash_content=True).key({}, file))
    assert keys[0] != keys[1]
    moved = tmp_path / "sub.nii"
    file.rename(moved)
    assert Cache(tmp_path, hash_content=True).key({}, moved) == keys[1]


def test_a_slice_more_in_a_folder_or_a_companion_file_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1.dcm").write_bytes(b"x")
    before = source_identity(folder)
    (folder / "2.dcm").write_bytes(b"x")
    assert source_identity(folder) != before
    (tmp_path / "a.set").write_bytes(b"x")
    (tmp_path / "a.fdt").write_bytes(b"x")
    before = source_identity(tmp_path / "a.set")
    (tmp_path / "a.fdt").write_bytes(b"xx")
    assert source_identity(tmp_path / "a.set") != before
    assert source_identity("text") != source_identity("texts")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "garbage"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    Cache(tmp_path).get("ab12", lambda: ARRAYS)
    path = Cache(tmp_path).path("ab12")
    good = path.read_bytes()
    body = bytearray(good)
    if damage == "flip":
        body[-3] ^= 1
    elif damage == "header":
        body = bytearray(good.replace(b"[4, 5, 6]", b"[5, 4, 6]"))
    path.write_bytes({"cut": good[:-7], "empty": b"", "garbage": b"\xff" * 99}.get(damage, bytes(body)))
    with pytest.raises(DamagedEntry):
        read_entry(path)
    with caplog.at_level(logging.WARNING):
        assert same(Cache(tmp_path).get("ab12", lambda: ARRAYS).arrays, ARRAYS)
    assert "made again" in caplog.text
    assert path.read_bytes() == good


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails() -> dict[str, np.ndarray]:
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        Cache(tmp_path).get("ab12", fails)
    with pytest.raises(TypeError, match="object"):
        Cache(tmp_path).get("ab12", lambda: {"a": np.array([None])})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="bytes needed.*--cache or MEDSSML_CACHE") as caught:
        Cache(tmp_path).get("ab12", lambda: ARRAYS)
    assert caught.value.errno == errno.ENOSPC
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def _many(folder: Path) -> None:
    for number in range(40):
        Cache(folder).get(f"ab{number}", lambda: ARRAYS)


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 40
    for path in files:
        assert same(read_entry(path).arrays, ARRAYS)


def test_memory_holds_what_fits(tmp_path: Path) -> None:
    cache = Cache(tmp_path, memory_mb=1)
    big = {"a": np.zeros(2**21, dtype=np.uint8)}
    cache.get("small", lambda: ARRAYS)
    cache.get("big", lambda: big)
    for path in list(tmp_path.rglob("*.safetensors")):
        path.unlink()
    assert same(cache.get("small", lambda: {}).arrays, ARRAYS)
    assert cache.get("big", dict).arrays == {}


def test_without_a_folder_nothing_is_stored() -> None:
    made = []
    cache = Cache(None)
    for _ in range(2):
        cache.get("a", lambda: made.append(1) or ARRAYS)
    assert len(made) == 2 and not cache.has("a")


def test_equal_content_is_known_as_a_duplicate() -> None:
    assert content_hash(ARRAYS) == content_hash(ARRAYS | {"notes": np.zeros(3, np.uint8)})
    assert content_hash(ARRAYS) != content_hash(ARRAYS | {"hu": ARRAYS["hu"] + np.int16(1)})
    assert content_hash({"a": np.zeros((2, 3), np.int16)}) != content_hash({"a": np.zeros((3, 2), np.int16)})


def test_a_small_entry_is_read_in_under_a_millisecond(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    arrays = {"hu": np.zeros((48, 48, 40), np.int16)}
    cache.get("ab12", lambda: arrays)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        cache.get("ab12", lambda: arrays)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3
