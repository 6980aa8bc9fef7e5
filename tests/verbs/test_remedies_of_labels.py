"""Remedies for labels as a user asks for them: the loss of a fine-tuning config."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medssml.config import ConfigError
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
