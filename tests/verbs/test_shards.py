"""`medssml prepare --shards`, and training from what it wrote."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medssml import cli

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
FEW = ["--set", "trainer.max_steps=3", "--set", "trainer.validate_every=0", "--quiet"]


@pytest.fixture(scope="module")
def place(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort, one of whose files is damaged, its cache, and its shards under the ids of the manifest."""
    folder = tmp_path_factory.mktemp("streamed")
    shutil.copytree(cohort.parent, folder / "cohort")
    row = next(row for row in rows(folder) if row["ct"] and row["split"] == "train")
    (folder / "cohort" / row["ct"]).write_bytes(b"no volume")
    assert prepare(folder, "shards", "--plain-ids") == 0
    return folder


def rows(place: Path) -> list[dict[str, str]]:
    with (place / "cohort" / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def prepare(place: Path, name: str, *flags: str) -> int:
    return cli.main(
        ["prepare", "--config", str(SMOKE / "pretrain.yaml"), "--manifest", str(place / "cohort" / "manifest.csv"),
         "--cache", str(place / "cache"), "--problems", str(place / "problems.csv"), "--workers", "0",
         "--shards", str(place / name), "--shard-mb", "2", *flags]
    )  # fmt: skip


def pretrain(place: Path, out: str, *flags: str) -> int:
    return cli.main(
        ["pretrain", "--config", str(SMOKE / "pretrain.yaml"), "--out", str(place / out), "--cache", str(place / "cache"),
         *FEW, *flags]
    )  # fmt: skip


def weights(run: Path) -> dict:
    from safetensors.numpy import load_file

    return load_file(run / "model" / "model.safetensors")


def test_what_is_written_is_said_and_a_damaged_study_is_listed_and_left_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert prepare(place, "shards", "--plain-ids", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["new_shards"] == 0 and said["shards"] >= 4 and said["sharded"] == 23
    sizes = [path.stat().st_size for path in (place / "shards").glob("*.shard")]
    assert len(sizes) == said["shards"] and sum(sizes) == said["shard_bytes"]
    with (place / "problems.csv").open(newline="") as stream:
        (problem,) = csv.DictReader(stream)
    assert problem["column"] == "ct" and problem["action"] == "quarantined"


def assert_the_same_answers(place: Path, run: str, shards: list[str]) -> None:
    """evaluate, predict, embed and impact say of shards what they say of the files."""
    import pandas as pd

    files = ["--manifest", str(place / "cohort" / "manifest.csv"), "--plain-ids"]
    said = []
    for name, source in (("of_files", files), ("of_shards", [*shards, "--plain-ids"])):
        asked = ["--checkpoint", str(place / run), *source, "--cache", str(place / "cache"), "--quiet"]
        out = place / f"{run}_{name}"
        assert cli.main(["evaluate", *asked, "--out", str(out), "--bootstrap", "20", "--split", "all"]) == 0
        assert cli.main(["predict", *asked, "--out", str(out / "all.csv")]) == 0
        assert cli.main(["embed", *asked, "--out", str(out / "all.parquet")]) == 0
        split = ["--split", "all", "--bootstrap", "20", "--no-sweep", "--unlabelled"]
        assert cli.main(["impact", *asked, "--out", str(out), "--task", "malignant", *split]) == 0
        shares = json.loads((out / "impact.json").read_text())["modalities"]
        predictions = pd.read_csv(out / "all.csv", dtype={"study_id": str}).sort_values(["study_id", "task"])
        embeddings = pd.read_parquet(out / "all.parquet").sort_values("study_id")
        metrics = json.loads((out / "metrics.json").read_text())
        estimates = {
            (task, subset): figures["auroc"]["estimate"]
            for task, found in metrics["tasks"].items()
            for subset, figures in found["subsets"].items()
            if "auroc" in figures
        }
        estimates |= {(name, "impact"): entry["shapley"]["estimate"] for name, entry in shares.items()}
        said.append((predictions, embeddings, estimates))
    (ours, our_embeddings, our_metrics), (theirs, their_embeddings, their_metrics) = said
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), theirs.reset_index(drop=True), atol=1e-6)
    pd.testing.assert_frame_equal(
        our_embeddings.reset_index(drop=True), their_embeddings.reset_index(drop=True), atol=1e-5
    )
    assert our_metrics.keys() == their_metrics.keys() and len(our_metrics) > 3
    assert all(our_metrics[name] == pytest.approx(their_metrics[name], abs=1e-5, nan_ok=True) for name in our_metrics)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_training_from_shards_is_training_from_files(place: Path, scheme: str) -> None:
    """In the order of the shards, and with a window that holds all of them, to the bit."""
    import pandas as pd

    (studies,) = (place / "shards").glob("*.parquet")
    order = list(pd.read_parquet(studies)["study_id"])
    table = pd.read_csv(place / "cohort" / "manifest.csv", dtype=str, keep_default_na=False).set_index("study_id")
    table.loc[order].reset_index().to_csv(place / "cohort" / "ordered.csv", index=False)
    files, streamed = f"files{len(scheme)}", f"streamed{len(scheme)}"
    assert pretrain(place, files, "--manifest", str(place / "cohort" / "ordered.csv")) == 0
    shards = ["--shards", f"{scheme}{place / 'shards'}"]
    assert pretrain(place, streamed, *shards, "--set", "data.num_workers=1") == 0
    ours, theirs = weights(place / streamed), weights(place / files)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert (place / "cache" / "shards").exists() == (scheme != "")
    tuned = ["finetune", "--checkpoint", str(place / streamed), *shards, "--cache", str(place / "cache")]
    assert cli.main([*tuned, "--task", "malignant", "--out", str(place / f"tuned{len(scheme)}"), *FEW]) == 0
    if scheme:
        assert_the_same_answers(place, f"tuned{len(scheme)}", shards)
    # The same command again has nothing to do; other settings of the order are another run.
    assert pretrain(place, streamed, *shards, "--set", "data.num_workers=1") == 0
    assert pretrain(place, streamed, *shards, "--set", "shards.window=3") == 5


def test_a_dry_run_reads_shards(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain(place, "never", "--shards", str(place / "shards"), "--dry-run") == 0
    assert not (place / "never").exists()


def test_refusals(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*flags: str) -> str:
        capsys.readouterr()
        assert pretrain(place, "refused", *flags) in (2, 3)
        return capsys.readouterr().err

    shards = ["--shards", str(place / "shards")]
    assert "fix: give --manifest or --shards" in told()
    assert "fix: give --manifest or --shards" in told(*shards, "--manifest", str(place / "cohort" / "manifest.csv"))
    assert "no prepared shards in" in told("--shards", str(place / "nowhere"))
    other = told(*shards, "--set", "transforms.xray.0.size=64")
    assert "transforms.xray prepares with size = 64, the shards in" in other and "written with 60; fix: " in other
    assert "shards.gib is 1e-06" in told("--shards", f"file://{place / 'shards'}", "--set", "shards.gib=1e-6")
    assert "shards.window is 0; fix" in told(*shards, "--set", "shards.window=0")
    capsys.readouterr()
    assert prepare(place, "shards", "--shard-mb", "0") == 2 and "--shard-mb is 0; fix" in capsys.readouterr().err


def test_a_student_is_taught_from_shards(place: Path) -> None:
    """Student and teacher read from shards what they read from the files of the manifest; a damaged study is in neither."""
    assert pretrain(place, "teacher", "--shards", str(place / "shards"), "--set", "privacy.strict=false") == 0
    told = [
        "transfer", "--teacher", str(place / "teacher"), "--student", "xray", "--source", "ct", "--source", "report",
        "--task", "effusion", "--method", "features", "--seeds", "1", "--bootstrap", "20", "--precision", "32",
        "--cache", str(place / "cache"), "--set", "trainer.max_steps=2", "--set", "data.batch_size=4",
        "--set", "privacy.strict=false", "--no-track", "--quiet",
    ]  # fmt: skip
    table = str(place / "cohort" / "manifest.csv")
    assert cli.main([*told, "--shards", str(place / "shards"), "--out", str(place / "streamed")]) == 0
    assert cli.main([*told, "--manifest", table, "--out", str(place / "tabled")]) == 0
    counts = [
        json.loads((place / run / "transfer_gain.json").read_text())["protocol"]["studies"]
        for run in ("streamed", "tabled")
    ]
    damaged = next(row for row in rows(place) if row["ct"] and row["split"] == "train")
    assert damaged["xray"] and counts[0]["labelled"] > 0
    assert {name: counts[1][name] - counts[0][name] for name in ("labelled", "seen by both", "test")} == {
        "labelled": 1, "seen by both": 1, "test": 0
    }  # fmt: skip
    assert cli.main([*told, "--out", str(place / "neither")]) == 2
    assert cli.main([*told, "--manifest", table, "--shards", str(place / "shards"), "--out", str(place / "both")]) == 2
