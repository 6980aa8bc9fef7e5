"""`medssml cache`: what is there, what is damaged, and that no file goes which is not an entry, or not without a yes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from medssml import cli
from medssml.store.cache import Cache

CT = {"class": "CTTransform", "settings": {"spacing": [1.0, 1.0, 1.0]}, "modality": "ct"}
COARSE = {"class": "CTTransform", "settings": {"spacing": [2.0, 2.0, 2.0]}, "modality": "ct"}
XRAY = {"class": "XrayTransform", "settings": {"size": 64}, "modality": "xray"}


def arrays(value: int) -> dict[str, np.ndarray]:
    return {"values": np.full(1000, value, np.int16)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three CT entries, one at another spacing, two of radiographs, one by somebody who says nothing of it."""
    cache = Cache(tmp_path / "cache")
    for number, about in enumerate([CT, CT, CT, COARSE, XRAY, XRAY, None]):
        cache.get(cache.key(about or {}, str(number)), lambda number=number: arrays(number), about)
    return tmp_path / "cache"


def run(capsys: pytest.CaptureFixture[str], folder: Path, *argv: str) -> tuple[int, dict, str]:
    code = cli.main(["cache", *argv, "--cache", str(folder), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_ls_counts_by_modality_and_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result, said = run(capsys, folder, "ls")
    assert code == 0 and result["entries"] == 7
    assert result["bytes"] == sum(path.stat().st_size for path in files(folder))
    counted = {(g["modality"], g["transform"], g["settings"]): g["entries"] for g in result["groups"]}
    assert counted == {
        ("ct", "CTTransform", "spacing=[1.0,1.0,1.0]"): 3,
        ("ct", "CTTransform", "spacing=[2.0,2.0,2.0]"): 1,
        ("xray", "XrayTransform", "size=64"): 2,
        ("", "", ""): 1,
    }
    assert "XrayTransform" in said and "(unknown)" in said
    assert run(capsys, folder, "ls", "--transform", "XrayTransform")[1]["entries"] == 2


def test_verify_names_each_damaged_entry_and_clear_removes_it_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, _ = run(capsys, folder, "verify")
    assert code == 0 and result["damaged"] == []
    flipped, cut, garbage = files(folder)[:3]
    body = bytearray(flipped.read_bytes())
    body[-3] ^= 1
    flipped.write_bytes(bytes(body))
    cut.write_bytes(cut.read_bytes()[:-7])
    garbage.write_bytes(b"\xff" * 99)
    code, result, said = run(capsys, folder, "verify")
    assert code == 3
    assert {bad["file"] for bad in result["damaged"]} == {str(p.relative_to(folder)) for p in (flipped, cut, garbage)}
    assert "the checksum does not match" in said and said.count("fix:") == 3
    code, result, _ = run(capsys, folder, "clear", "--damaged", "--yes")
    assert code == 0 and result["removed"] == 3 and len(files(folder)) == 4
    assert run(capsys, folder, "verify")[0] == 0


def test_clear_asks_and_filters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, folder, "clear")
    assert code == 2 and "7 entries" in said and "--yes" in said and len(files(folder)) == 7
    old = files(folder)[0]
    os.utime(old, (time.time() - 10 * 86_400,) * 2)
    assert run(capsys, folder, "clear", "--older-than-days", "9", "--yes")[1]["removed"] == 1
    assert not old.exists() and len(files(folder)) == 6
    left = run(capsys, folder, "ls", "--transform", "XrayTransform")[1]["entries"]
    assert run(capsys, folder, "clear", "--transform", "XrayTransform", "--yes")[1]["removed"] == left
    assert run(capsys, folder, "clear", "--yes")[1]["removed"] == 6 - left and files(folder) == []


def test_clear_touches_nothing_but_entries_and_what_the_dead_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [folder / "model.safetensors", folder / "ab" / "model.safetensors", folder / "ab" / "notes.txt"]
    (folder / "ab").mkdir(exist_ok=True)
    for other in others:
        other.write_bytes(b"mine")
    fresh, old = (folder / "ab" / f".{'0' * 38}.safetensors.{pid}.{'0' * 8}.tmp" for pid in (1, 2))
    for temporary in (fresh, old):
        temporary.write_bytes(b"half")
    busy, dead = folder / ".reading-busy", folder / ".reading-dead"
    for notes in (busy, dead):
        notes.mkdir()
        (notes / "17").write_text("[0, 1]")
    for path in (old, busy, dead / "17", dead):
        os.utime(path, (time.time() - 7200,) * 2)
    assert run(capsys, folder, "verify")[1]["unfinished"] == 2
    assert run(capsys, folder, "clear", "--yes")[1]["removed"] == 7
    assert all(other.exists() for other in [*others, fresh, busy / "17"])
    assert not old.exists() and not dead.exists()


def test_who_reads_an_entry_goes_on_reading_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = Cache(folder)
    key = cache.key(CT, "0")
    held = cache.get(key, dict).arrays["values"]
    assert cache.has(key)
    assert run(capsys, folder, "clear", "--yes")[0] == 0
    assert (held == 0).all() and len(held) == 1000
    made = cache.get(key, lambda: arrays(9), CT).arrays["values"]
    assert (made == 9).all() and (held == 0).all()


def test_no_such_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(capsys, tmp_path / "none", "ls")
    assert code == 2 and "no such cache" in said and "fix:" in said
