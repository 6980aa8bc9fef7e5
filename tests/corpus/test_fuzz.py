"""Mutation fuzzing of the readers: some hundred inputs here, 20,000 on demand (MEDSSML_FUZZ_INPUTS=20000)."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medssml.readers import ReadError
from tests.corpus import fuzz

INPUTS = int(os.environ.get("MEDSSML_FUZZ_INPUTS", "360"))
SEED = int(os.environ.get("MEDSSML_FUZZ_SEED", "0"))


@pytest.mark.slow
@pytest.mark.timeout(max(600, INPUTS))
def test_whatever_is_broken_a_reader_reads_or_refuses_in_time_and_memory() -> None:
    summary = fuzz.fuzz(INPUTS, SEED)
    assert summary.failures == []
    assert sum(sum(counts.values()) for counts in summary.counts.values()) == INPUTS
    assert summary.slowest_s < fuzz.LIMIT_S and summary.most_bytes < fuzz.LIMIT_BYTES
    outcomes = sum(summary.counts.values(), start=Counter[str]())
    assert outcomes["read"] > 0.1 * INPUTS and outcomes["refused"] > 0.1 * INPUTS
    assert len(summary.counts) >= 15


def test_an_input_follows_from_seed_and_number(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("No pleural effusion. " * 20)
    chosen = fuzz.Seed("report", "txt", tmp_path / "source" / "a.txt")
    texts = []
    for number in (1, 1, 2):
        path = fuzz.mutated(chosen, [chosen], np.random.default_rng([0, number]), tmp_path)
        texts.append(path.read_bytes())
    assert texts[0] == texts[1] != texts[2] and chosen.path.read_text().startswith("No pleural")


def broken(path: Path) -> None:
    text = Path(path).read_text()
    if "crash" in text:
        os._exit(3)
    if "memory" in text:
        bytearray(200 << 20)
        raise ReadError(path, "is too large")
    if "error" in text:
        raise IndexError("list index out of range")
    while "hang" in text:
        pass


@pytest.mark.parametrize("fault", ["crash", "hang", "error", "memory"])
def test_the_gauge_sees_a_crash_a_hang_an_exception_and_memory(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instrument itself: a reader that fails in each way is told from one that refuses."""
    from medssml import readers

    monkeypatch.setattr(fuzz, "_SILENCE_S", 3.0)
    monkeypatch.setattr(fuzz, "LIMIT_BYTES", 100 << 20)
    fork = multiprocessing.get_context("fork")  # the worker has the broken reader, too
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: fork)
    for table in (readers.READERS, readers.HEADERS):
        monkeypatch.setitem(table, "report", broken)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.txt").write_text("sound")
    monkeypatch.setattr(fuzz, "seeds", lambda folder: [fuzz.Seed("report", "txt", _copied(tmp_path / "a", folder))])
    monkeypatch.setattr(fuzz, "_MUTATIONS", (lambda data, rng, others: fault.encode(),))
    summary = fuzz.fuzz(2)
    assert [failure.number for failure in summary.failures] == [0, 1]
    said = {"crash": "crash", "hang": "hang", "error": "IndexError", "memory": "refused"}[fault]
    assert {failure.outcome for failure in summary.failures} == {said}


def _copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder / "a")
    return folder / "a" / "a.txt"
