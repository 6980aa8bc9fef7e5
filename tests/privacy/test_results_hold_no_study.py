"""No file below a folder of results holds the text of a report or the pixels of a study, unless somebody asks for it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import sqlite3
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medssml import cli
from tests.privacy.planted import finds, spellings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: A word of one report, and a sentence of all of them.
TOKEN, SENTENCE = "zqxrareword", "the heart is enlarged and both lungs are clear"
STUDIES, SIDE = 24, 48


class Story(NamedTuple):
    root: Path
    words: dict[str, set[bytes]]
    prepared: dict[Path, int]

    def found(self, *parts: str) -> set[str]:
        """What of the studies is found below a folder."""
        return {find.rpartition(": ")[2] for find in finds(self.root.joinpath(*parts), self.words)}


def pixels(study: int) -> np.ndarray:
    """(48, 48) uint8 radiograph: noise of its own, so that a row of it is found nowhere by chance."""
    return np.random.default_rng(study).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


def plant(root: Path) -> Path:
    """A table with radiographs as files and reports in its cells."""
    root.mkdir()
    rows = []
    for study in range(STUDIES):
        Image.fromarray(pixels(study)).save(root / f"{study}.png")
        text = f"{SENTENCE}. {TOKEN if study == 3 else 'no'} effusion. finding {study}."
        split = "test" if study % 3 == 0 else "val" if study % 3 == 1 and study < 12 else "train"
        ids = {"subject_id": f"p{study}", "study_id": f"s{study}", "split": split, "label_ill": study // 3 % 2}
        rows.append({**ids, "xray": f"{study}.png", "report_text": text})
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / "manifest.csv"


def rows_of_pixels(cache: Path) -> set[bytes]:
    """Half a row of every study as its file has it, as the cache has it, and as the model gets it: 0 to 1."""
    from medssml.store.cache import read_entry

    found = {pixels(study)[SIDE // 2, : SIDE // 2].tobytes() for study in range(STUDIES)}
    for path in cache.rglob("*.safetensors"):
        for array in read_entry(path).arrays.values():
            if array.ndim >= 2:
                row = np.squeeze(np.asarray(array))[SIDE // 2, : SIDE // 2]
                found |= {row.tobytes(), row.astype(np.float32).tobytes(), (row.astype(np.float32) / 255).tobytes()}
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """All verbs that read studies, none of which is told where the cache is to be."""
    root = tmp_path_factory.mktemp("results")
    given = ["--manifest", str(plant(root / "data"))]
    runs, results, quick = root / "runs", root / "results", ["--set", "trainer.max_epochs=1"]
    tuned = ["--checkpoint", str(runs / "tuned"), *given]
    few = ["--bootstrap", "20"]
    prepared: dict[Path, int] = {}
    commands = [
        ["pretrain", "--config", "smoke/pretrain", *given, "--out", str(runs / "pretrain"), *quick],
        ["finetune", "--config", "smoke/finetune", "--checkpoint", str(runs / "pretrain"), *given, "--task", "ill",
         "--out", str(runs / "tuned"), *quick],
        ["evaluate", "--checkpoint", str(runs / "pretrain"), *given, *few, "--out", str(results / "pretrain")],
        ["evaluate", *tuned, *few, "--out", str(results / "tuned")],
        ["impact", *tuned, *few, "--task", "ill", "--donors", "2", "--out", str(results / "tuned")],
        ["predict", *tuned, "--out", str(results / "predictions.csv")],
        ["embed", *tuned, "--out", str(results / "embeddings.parquet")],
        ["report", str(results / "tuned")],
        ["report", str(runs / "tuned")],
    ]  # fmt: skip
    for command in commands:
        assert cli.main(command) == 0, command
        prepared = prepared or entries(root)
    words = {"token": spellings(TOKEN), "sentence": spellings(SENTENCE), "pixels": rows_of_pixels(runs / "cache")}
    return Story(root, words, prepared)


def entries(root: Path) -> dict[Path, int]:
    """Prepared studies below a folder, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors") if path.parent.name != "model"}


def test_no_file_of_results_has_a_text_or_a_pixel(story: Story) -> None:
    written = {path.name for path in story.root.rglob("*") if path.is_file()}
    assert written >= {
        "mlflow.db", "last.ckpt", "model.safetensors", "tokenizer.json", "log.txt", "predictions.csv", "report.html",
        "impact.html", "impact.csv", "metrics.json", "retrieval.json", "embedding_map.csv", "embeddings.parquet",
    }  # fmt: skip
    for parts in (("results",), ("runs", "pretrain"), ("runs", "tuned")):
        assert story.found(*parts) == set(), finds(story.root.joinpath(*parts), story.words)


def test_there_is_one_cache_and_it_was_filled_once(story: Story) -> None:
    cache = story.root / "runs" / "cache"
    assert len(story.prepared) == 2 * STUDIES and entries(story.root) == story.prepared
    assert all(path.is_relative_to(cache) for path in story.prepared) and cache.stat().st_mode & 0o777 == 0o700
    assert story.found("runs", "cache") == {"token", "sentence", "pixels"}, "or the search above finds nothing"


def test_who_asks_for_it_gets_it(story: Story, tmp_path: Path) -> None:
    asked = [
        "--checkpoint",
        str(story.root / "runs" / "tuned"),
        "--manifest",
        str(story.root / "data" / "manifest.csv"),
    ]
    assert cli.main(["predict", *asked, "--cache", str(tmp_path / "c"), "--out", str(tmp_path / "p.csv")]) == 0
    assert {find.rpartition(": ")[2] for find in finds(tmp_path, story.words)} == set(story.words)


def test_the_search_looks_into_packed_files(story: Story, tmp_path: Path) -> None:
    text, row = f"Dr. {TOKEN}", pixels(0)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(text.encode()))
    pd.DataFrame({"text": [text] * 3}).to_parquet(tmp_path / "b.parquet", compression="zstd")
    with contextlib.closing(sqlite3.connect(tmp_path / "c.db")) as database:
        database.execute("create table t (text)")
        database.execute("insert into t values (?)", (text,))
        database.commit()
    Image.fromarray(row).save(tmp_path / "d.png")
    np.savez_compressed(tmp_path / "e.npz", x=row)
    found = {find.split(" ")[0]: find.rpartition(": ")[2] for find in finds(tmp_path, story.words)}
    assert found == {"a.json.gz": "token", "b.parquet": "token", "c.db": "token", "d.png": "pixels", "e.npz": "pixels"}
