"""Remedies for labels as a user asks for them: the loss of a fine-tuning config, suspicious labels, weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medssml.config import ConfigError
from medssml.manifest.refusal import ManifestError
from medssml.verbs.finetune import finetune

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
GCE = ["loss.class_path=GeneralisedCrossEntropy", "loss.init_args.q=1.0"]


def first_loss(cohort: Path, out: Path, cache: Path, *overrides: str) -> float:
    finetune(
        checkpoint="none", architecture=SMOKE / "pretrain.yaml", config=SMOKE / "finetune.yaml", manifest=cohort, out=out,
        task=["malignant"], cache=cache, track=False,
        overrides=["trainer.max_steps=1", "trainer.validate_every=0", *overrides],
    )  # fmt: skip
    rows = list(csv.DictReader((out / "history.csv").open()))
    return next(float(row["train/loss"]) for row in rows if row.get("train/loss"))


def test_the_loss_of_the_config_is_what_is_learned(cohort: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    entropy = first_loss(cohort, tmp_path / "plain", cache)
    error = first_loss(cohort, tmp_path / "gce", cache, *GCE)
    # A fresh head answers about 1/2: log 2, and the mean absolute error.
    assert entropy == pytest.approx(0.69, abs=0.08) and error == pytest.approx(0.5, abs=0.05)
    assert "GeneralisedCrossEntropy" in (tmp_path / "gce" / "config.yaml").read_text()


def test_a_loss_that_is_none_and_one_that_contradicts_smoothing_are_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Supervised.*is no StudyLoss|expected.*StudyLoss"):
        first_loss(cohort, tmp_path / "a", tmp_path, "loss.class_path=Supervised")
    with pytest.raises(ConfigError, match="GeneralisedCrossEntropi.*did you mean 'GeneralisedCrossEntropy'"):
        first_loss(cohort, tmp_path / "b", tmp_path, "loss.class_path=GeneralisedCrossEntropi")
    with pytest.raises((ConfigError, ValueError), match="label_smoothing is of the cross-entropy.*fix"):
        first_loss(cohort, tmp_path / "c", tmp_path, "label_smoothing=0.1", *GCE)
    with pytest.raises(ConfigError, match="q is 2.0; fix"):
        first_loss(cohort, tmp_path / "d", tmp_path, GCE[0], "loss.init_args.q=2.0")
    assert list(tmp_path.iterdir()) == [], "before anything is written"


# Suspicious labels, and weights.


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A cohort of 60 small studies with tables of which some labels are turned, its pretraining, its cache."""
    from medssml.verbs.phantom import phantom
    from medssml.verbs.pretrain import pretrain

    folder = tmp_path_factory.mktemp("suspects")
    phantom(out=folder / "cohort", studies=60, seed=0, preset="small", workers=1)
    manifest = folder / "cohort" / "manifest.csv"
    run = pretrain(
        config=SMOKE / "pretrain.yaml", manifest=manifest, out=folder / "run", cache=folder / "cache", track=False,
        overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    return manifest, Path(str(run)), folder / "cache"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_suspects_are_listed_and_the_table_with_weights_is_what_finetune_heeds(
    sixty: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medssml.verbs.suspects import suspects

    manifest, run, cache = sixty
    weighted = manifest.parent / "weighted.csv"
    out = suspects(
        checkpoint=str(run), manifest=manifest, out=tmp_path / "out", task=["effusion"], weights=weighted, cache=cache
    )
    listed, said = (
        rows_of(Path(str(out)) / "suspects.csv"),
        json.loads((tmp_path / "out" / "suspects.json").read_text()),
    )
    before, after = rows_of(manifest), rows_of(weighted)
    entry = said["tasks"]["effusion"]
    assert entry["suspects"] == len(listed) > 0 and said["protocol"]["splits"] == ["train", "val"]
    assert entry["labels"] == sum(r["label_effusion"] != "" and r["split"] != "test" for r in before)
    turned = {row["study_id"] for row in listed}
    for old, new in zip(before, after, strict=True):
        assert new == {**old, "weight_effusion": "0" if old["study_id"] in turned else "1"}
        if old["study_id"] in turned:
            (row,) = [row for row in listed if row["study_id"] == old["study_id"]]
            assert old["split"] != "test" and row["label"] == old["label_effusion"] != row["likeliest"]
            assert before[int(row["row"]) - 2] is old
    sure = [float(row["probability_of_label"]) for row in listed]
    assert sure == sorted(sure) and sure[-1] < 0.5

    capsys.readouterr()
    finetune(
        checkpoint=str(run), config=SMOKE / "finetune.yaml", manifest=weighted, out=tmp_path / "tuned", task=["effusion"],
        cache=cache, track=False, overrides=["trainer.max_steps=1"],
    )  # fmt: skip
    assert f"weight_effusion leaves out {len(listed)} of {entry['labels']} labels" in capsys.readouterr().out
    counted = json.loads((tmp_path / "tuned" / "labels.json").read_text())["tasks"]["effusion"]["splits"]
    assert counted["train"]["labels"] + counted["val"]["labels"] == entry["labels"] - len(listed)
    with pytest.raises(
        ValueError, match="was trained on the labels of effusion.*fix: --checkpoint with the pretraining"
    ):
        suspects(checkpoint=str(tmp_path / "tuned"), manifest=manifest, out=tmp_path / "again", cache=cache)


def test_labels_of_less_weight_pull_less_and_a_wrong_weight_is_refused_with_its_row(
    cohort: Path, tmp_path: Path
) -> None:
    from medssml.manifest.manifest import Manifest
    from medssml.runs.labels import label_weights, without_discarded

    rows = rows_of(cohort)
    for row in rows:
        row["weight_malignant"] = {"train": "0.25", "val": "0", "test": "0"}[row["split"]]
    rows[0]["weight_malignant"] = ""

    def written(cells: list[dict[str, str]]) -> Manifest:
        path = tmp_path / "table.csv"
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(cells[0]))
            writer.writeheader()
            writer.writerows(cells)
        return Manifest.read(path, cohort.parent)

    table = written(rows)
    train = table.split("train")
    expected = [1.0 if study == rows[0]["study_id"] else 0.25 for study in train.study_ids]
    assert label_weights(table, ["malignant", "effusion"]) == {"malignant": expected}
    left = without_discarded(table, ["malignant", "effusion"])
    gone = ~np.isfinite(left.targets["malignant"]) & np.isfinite(table.targets["malignant"])
    assert set(left.splits[gone]) == {"val"} and np.isnan(left.targets["malignant"][left.splits == "val"]).all()
    np.testing.assert_array_equal(left.targets["effusion"], table.targets["effusion"])

    rows[3]["weight_malignant"], rows[5]["weight_malignant"] = "-1", "half"
    bad = written(rows)
    for asked in (label_weights, without_discarded):
        train_only = [n for n in (3, 5) if asked is without_discarded or rows[n]["split"] == "train"]
        for n in train_only:
            with pytest.raises(ManifestError, match=rf"row {n + 2}, column 'weight_malignant'.*fix"):
                asked(bad, ["malignant"])


def test_a_modulation_of_the_config_changes_what_the_encoders_learn(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    manifest, run, cache = sixty
    weights = []
    for name, given in (
        ("plain", []),
        ("modulated", ["modulation.class_path=GradientModulation", "modulation.init_args.noise=false"]),
    ):
        finetune(
            checkpoint=str(run), config=SMOKE / "finetune.yaml", manifest=manifest, out=tmp_path / name, task=["effusion"],
            cache=cache, track=False, overrides=["trainer.max_steps=2", "trainer.validate_every=0", "optim.name=sgd", *given],
        )  # fmt: skip
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    moved = [name for name, value in weights[0].items() if not bool((value == weights[1][name]).all())]
    assert any(name.startswith("encoders.") for name in moved)


def test_co_teaching_takes_the_place_of_the_labels_and_nothing_is_passed_over(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, run, cache = sixty
    options = {
        "checkpoint": str(run), "config": SMOKE / "finetune.yaml", "manifest": manifest, "task": ["effusion"],
        "cache": cache, "track": False,
    }  # fmt: skip
    two = ["trainer.max_steps=1", "trainer.validate_every=0", "objectives=[{class_path: CoTeaching}]"]
    assert finetune(**options, out=tmp_path / "two", overrides=two) == tmp_path / "two"
    columns = set(rows_of(tmp_path / "two" / "history.csv")[0])
    assert "train/co_teaching/loss" in columns and not any(name.startswith("train/supervised") for name in columns)
    with pytest.raises(ValueError, match="CoTeaching takes the place of the labels, and loss would not count; fix"):
        finetune(**options, out=tmp_path / "both", overrides=[*two, *GCE])
