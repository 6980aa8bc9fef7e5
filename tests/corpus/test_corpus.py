"""The fault corpus: every input has its verdict, in time, with the file and a fix, and runs no code.

Deterministic: the same bytes each time. Families: files of each modality, manifests, configs, caches, checkpoints.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import pytest

from medssml.readers import READERS, ReadError
from medssml.readers.errors import Flag
from tests.corpus import eeg, radiographs, texts, volumes
from tests.corpus.case import Case

LIMIT_S = 5.0
READABLE = [case for part in (volumes, radiographs, eeg, texts) for case in part.cases()]


def identifier(case: Case) -> str:
    return re.sub(r"[^\w.-]+", "_", f"{case.family}-{case.verdict}-{case.name}")


@pytest.mark.parametrize("case", READABLE, ids=identifier)
def test_a_file_has_its_verdict(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    start = time.perf_counter()
    try:
        result = READERS[case.family](path)
    except ReadError as error:
        assert case.verdict == "refused", f"refused: {error}"
        message = str(error)
        near = (str(path), str(path.with_suffix("")))  # a recording of several files: the one beside it
        assert error.file.startswith(near) and re.search(case.says, message), message
        assert "fix: " in message and "\n" not in message
        assert "ecret" not in message
    else:
        assert case.verdict != "refused", f"accepted in silence, notes {result.notes}"
        flagged = any(isinstance(note, Flag) for note in result.notes)
        notes = " | ".join(result.notes)
        assert re.search(case.says, notes), notes
        assert flagged == (case.verdict == "flagged"), notes
        assert bool(result.notes) == (case.verdict != "accepted"), notes
        if case.oracle is not None:
            case.oracle(result)
    assert time.perf_counter() - start < LIMIT_S
    assert not list(tmp_path.rglob("CODE_RAN"))


def test_names_are_unique_and_the_corpus_is_large() -> None:
    counts = Counter(identifier(case) for case in READABLE)
    assert [name for name, count in counts.items() if count > 1] == []
