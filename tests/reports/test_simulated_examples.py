"""Pictures and reports of retrieval examples: of a simulated cohort, and of no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssml.manifest.manifest import Manifest
from medssml.privacy import pseudonyms
from medssml.reports import write_report
from medssml.reports.simulated_examples import examples_seen, is_phantom
from medssml.verbs.phantom import phantom


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    phantom(out=folder, studies=6, seed=0, preset="small", missing=0.0)
    return folder


def test_only_what_the_phantom_wrote_is_simulated(cohort: Path, tmp_path: Path) -> None:
    assert is_phantom(cohort / "manifest.csv")
    (tmp_path / "manifest.csv").write_bytes((cohort / "manifest.csv").read_bytes())
    assert not is_phantom(tmp_path / "manifest.csv")
    (tmp_path / "truth.csv").write_bytes((cohort / "truth.csv").read_bytes())
    assert not is_phantom(tmp_path / "manifest.csv"), "a truth alone may lie beside real studies"


def test_the_page_shows_the_query_and_what_was_found(cohort: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(cohort / "manifest.csv", ids=pseudonyms(False))
    codes = [str(code) for code in manifest.study_codes]
    hits = [{"study_id": code, "similarity": 0.5, "hit": code == codes[0]} for code in codes[1:3]]
    pairs = {name: [{"query": codes[0], "rank": 4.0, "top": hits}] for name in ("ct->report", "eeg->xray")}
    seen = examples_seen(manifest, pairs)
    assert set(seen) == {"ct", "report", "eeg", "xray"}
    assert set(seen["ct"]) == {codes[0]} and set(seen["report"]) == set(codes[1:3])
    report = " ".join((cohort / "report" / f"{codes[1]}.txt").read_text().split())
    assert report.startswith(seen["report"][codes[1]].removesuffix(" …"))
    assert seen["eeg"][codes[0]].startswith("data:image/png;base64,")
    (tmp_path / "retrieval.json").write_text(json.dumps({"space": "s", "pairs": pairs, "seen": seen}))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.count("<blockquote>") == 2 and text.count("<img ") == 4 and "the right one has rank 4" in text
    (tmp_path / "retrieval.json").write_text(json.dumps({"space": "s", "pairs": pairs}))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<blockquote>" not in text and "<img " not in text
