"""A fine-tuning that calibrates at its end: what is written, said, killed and gone on with, and passed on to a transfer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medssml.manifest.manifest import Manifest
from medssml.predictor import load
from medssml.runs.finetuning import counted_labels
from medssml.runs.presence_weights import by_modality
from medssml.runs.training_config import Finetuning
from medssml.verbs.finetune import finetune

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def tuned(cohort: Path, out: Path, cache: Path, *overrides: str, **options: Any) -> Path:
    finetune(
        checkpoint="none", config=SMOKE / "finetune.yaml", architecture=SMOKE / "pretrain.yaml", manifest=cohort, out=out,
        cache=cache, track=False, task=["effusion", "malignant"], overrides=[*overrides], **options,
    )  # fmt: skip
    return out


def weights(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run / "model" / "model.safetensors")  # type: ignore[no-any-return]


def test_the_weights_are_those_of_the_same_training_and_answers_are_scaled(
    cohort: Path, cache: Path, tmp_path: Path
) -> None:
    plain, calibrated = (
        tuned(cohort, tmp_path / name, cache, f"calibrate={name}", "trainer.max_steps=4") for name in ("false", "true")
    )
    before, after = weights(plain), weights(calibrated)
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    assert {name for name in after if name not in before} == {
        f"heads.{task}.calibration.{part}" for task in ("effusion", "malignant") for part in ("scale", "shift")
    }
    assert float(np.abs(after["heads.effusion.calibration.shift"]).max()) > 0
    assert "effusion: calibrated per subset on" in (calibrated / "log.txt").read_text()
    assert "calibrated on validation studies" in (calibrated / "model" / "README.md").read_text()
    assert "calibrated" not in (plain / "model" / "README.md").read_text()
    study = {"report": "No acute findings."}
    of_plain, of_calibrated = (load(run).predict(study, "effusion")["effusion"] for run in (plain, calibrated))
    subset = 1 << load(calibrated).modalities.index("report")
    scale, shift = (after[f"heads.effusion.calibration.{part}"][subset] for part in ("scale", "shift"))
    wanted = np.log(of_plain / (1 - of_plain)) * float(scale) + float(np.ravel(shift)[0])
    assert np.log(of_calibrated / (1 - of_calibrated)) == pytest.approx(wanted, abs=1e-4)


def test_one_that_was_stopped_before_is_calibrated_as_one_that_was_not(
    cohort: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["calibrate=true", "trainer.max_steps=4"]
    whole = weights(tuned(cohort, tmp_path / "whole", cache, *settings))

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medssml.runs.calibration.calibrate", dies)
        with pytest.raises(KeyboardInterrupt):
            tuned(cohort, tmp_path / "parts", cache, *settings)
    assert not (tmp_path / "parts" / "model").exists()
    parts = weights(tuned(cohort, tmp_path / "parts", cache, *settings))
    assert whole.keys() == parts.keys() and all(np.array_equal(value, parts[name]) for name, value in whole.items())


def test_a_continued_training_is_of_the_uncalibrated_answers(cohort: Path, cache: Path, tmp_path: Path) -> None:
    first = tuned(cohort, tmp_path / "first", cache, "calibrate=true", "trainer.max_steps=2")
    finetune(
        checkpoint=str(first), config=SMOKE / "finetune.yaml", manifest=cohort, out=tmp_path / "second", cache=cache,
        track=False, task=["effusion"], overrides=["trainer.max_steps=2"],
    )  # fmt: skip
    assert not any("calibration" in name for name in weights(tmp_path / "second"))


@pytest.mark.parametrize("weighed", [True, False])
def test_classes_are_balanced_where_presence_is_weighed_with_the_weights_of_both_splits(
    cohort: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weighed: bool
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("medssml.runs.calibration.calibrate", lambda *args: given.extend(args) or {})
    begun: list[Any] = []
    monkeypatch.setattr("medssml.trainers.probe_first.fit_heads", lambda *args: begun.extend(args) or {})
    settings = ["calibrate=true", "probe_first=true", "trainer.max_steps=1", f"presence_weights={str(weighed).lower()}"]
    tuned(cohort, tmp_path / "run", cache, *settings)
    *_, held_out, learned, weights, balanced = given
    assert balanced is weighed
    counts = weights["effusion"]
    assert {*learned.study_id, *held_out.study_id} <= {*counts.whole.index}
    assert (counts.whole.nunique() > 1) is weighed
    # The probes that heads begin as know the training studies alone.
    assert {*begun[-1]["effusion"].whole.index} == {*learned.study_id}
    assert (begun[-1]["effusion"].whole.nunique() > 1) is weighed


def test_validation_studies_are_weighed_by_presence_too_and_labels_by_their_column(cohort: Path) -> None:
    table = Manifest.read(cohort)
    config = Finetuning(tasks=["effusion"], presence_weights=True)
    found = counted_labels(config, table, ("train", "val"))["effusion"]
    parts = [table.split(split) for split in ("train", "val")]
    studies = [str(study) for part in parts for study in part.study_codes]
    assert list(found.whole.index) == studies and found.whole.nunique() > 1 and (found.label == 1).all()
    present, y = (
        np.concatenate(both) for both in zip(*((p.present, p.targets["effusion"]) for p in parts), strict=True)
    )
    np.testing.assert_allclose(found.factors(studies, table.modalities), by_modality(present, y))
    plain = counted_labels(Finetuning(tasks=["effusion"]), table, ("train", "val"))["effusion"]
    assert (plain.whole == 1).all() and (plain.seen == 1).all(axis=None)
    halved = replace(table, table=table.table.assign(weight_effusion="0.5"))
    weighed = counted_labels(config, halved, ("train", "val"))["effusion"]
    train = [str(study) for study in parts[0].study_codes]
    assert (weighed.of_label(train) == 0.5).all() and (weighed.of_label(studies[len(train) :]) == 1).all()
    np.testing.assert_allclose(weighed.of_whole(train), found.of_whole(train) / 2)
    assert (found.of_whole(["nobody"]) == 1).all() and (found.factors(["nobody"], ["ct", "unknown"]) == 1).all()
