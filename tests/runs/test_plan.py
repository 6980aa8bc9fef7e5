"""A plan: what follows from sizes, lengths and coverage, and that it is a config."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medssml.config import load_config
from medssml.manifest.manifest import Manifest
from medssml.runs.plan import AFFORDS, Plan, plan
from medssml.runs.run_folder import to_yaml
from medssml.runs.training_config import PretrainConfig
from medssml.shipped_configs import config_path


def cohort(folder: Path, patterns: dict[str, int]) -> Manifest:
    """Training studies of patterns such as {"ct+report": 40}; the files are empty, a plan does not read them."""
    rows: list[dict[str, str]] = []
    for pattern, count in patterns.items():
        for _ in range(count):
            number = len(rows)
            files = {name: f"{name}{number}.bin" for name in pattern.split("+")}
            for file in files.values():
                (folder / file).write_bytes(b"")
            rows.append({"subject_id": f"p{number}", "study_id": f"s{number}", "split": "train", **files})
    return Manifest.from_table(pd.DataFrame(rows), folder)


def numbers(**given: float) -> dict[str, Any]:
    return {name: np.full(20, value, dtype=float) for name, value in given.items()}


CT = {
    "spacing in plane, mm": np.full(20, 0.8),
    "spacing of slices, mm": np.full(20, 2.0),
    "slices": np.full(20, 150.0),
    "field of view, mm": np.full(20, 400.0),
}
XRAY = {"height, pixels": np.full(20, 2000.0), "width, pixels": np.full(20, 100.0)}
EEG = {"sampling rate, Hz": np.full(20, 256.0), "length, s": np.full(20, 8.5), "channels": np.full(20, 19.0)}
REPORT = {"length, words": np.full(200, 40.0)}


def arguments(made: Plan, part: str, modality: str) -> dict[str, Any]:
    where = made.config["model"]["init_args"]["encoders"] if part == "encoders" else made.config[part]
    return where[modality]["init_args"]  # type: ignore[no-any-return]


def classes(made: Plan) -> list[str]:
    return [node["class_path"] for node in made.config["objectives"]]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_plan_is_a_config(tmp_path: Path, device: str) -> None:
    table = cohort(tmp_path, {"ct+report": 60, "xray+report": 40, "eeg": 30, "table+xray": 25})
    made = plan(table, {"ct": CT, "xray": XRAY, "eeg": EEG, "report": REPORT}, ["crp", "ldh"], device)
    (tmp_path / "plan.yaml").write_text(to_yaml(made.config))
    load_config(tmp_path / "plan.yaml", PretrainConfig)
    assert list(made.config["transforms"]) == ["ct", "xray", "eeg", "report", "table"]


def test_a_volume_that_cannot_be_afforded_becomes_coarser_and_keeps_its_field_of_view(tmp_path: Path) -> None:
    table = cohort(tmp_path, {"ct": 40})
    for device in ("cpu", "cuda"):
        found = arguments(plan(table, {"ct": CT}, [], device), "transforms", "ct")
        field = [s * n for s, n in zip(found["spacing"], found["size"], strict=True)]
        assert math.prod(found["size"]) <= 1.3 * AFFORDS[device]["voxels"]
        assert all(seen >= whole for seen, whole in zip(field, (400, 400, 300), strict=True))
    small = {**CT, "slices": np.full(20, 12.0), "field of view, mm": np.full(20, 32.0)}
    made = plan(table, {"ct": small}, [], "cpu")
    assert arguments(made, "transforms", "ct")["spacing"] == [0.8, 0.8, 2.0]
    assert arguments(made, "transforms", "ct")["size"] == [40, 40, 16]
    assert any(choice.what == "ct spacing, mm" and choice.why == "the median" for choice in made.choices)


def test_sizes_and_lengths_follow_what_was_found_within_what_is_affordable(tmp_path: Path) -> None:
    table = cohort(tmp_path, {"xray+report": 30, "eeg": 30})
    made = plan(table, {"xray": XRAY, "eeg": EEG, "report": REPORT}, [], "cpu")
    assert arguments(made, "transforms", "xray")["size"] == 96  # the shorter side, in steps of 32
    eeg = arguments(made, "transforms", "eeg")
    assert (eeg["sfreq"], eeg["window_s"], eeg["eval_window_s"], eeg["max_channels"]) == (100, 8.0, 8.0, 19)
    assert arguments(made, "encoders", "eeg")["sfreq"] == 100
    assert arguments(made, "transforms", "report")["max_length"] == 64  # 40 words, 1.4 pieces each, and two marks
    large = {
        "xray": numbers(**{"height, pixels": 3000, "width, pixels": 3000}),
        "report": numbers(**{"length, words": 900}),
    }
    made = plan(table, large, [], "cpu")
    assert arguments(made, "transforms", "xray")["size"] == 128
    assert arguments(made, "transforms", "report")["max_length"] == 192


def test_what_is_learned_follows_from_what_occurs_together(tmp_path: Path) -> None:
    measured = {"ct": CT, "xray": XRAY, "report": REPORT}
    made = plan(cohort(tmp_path, {"ct+report": 30, "xray+report": 19}), measured, [], "cpu")
    words, contrast = made.config["objectives"][:2]
    assert (words["class_path"], words["init_args"]["modalities"]) == ("BagOfWords", ["ct"])
    assert (contrast["class_path"], contrast["init_args"]["pairs"]) == ("CrossModalContrast", ["ct+report"])
    assert classes(made)[2:] == ["VICReg"]
    assert made.config["objectives"][2]["init_args"]["modalities"] == ["ct", "xray", "report"]
    alone = plan(cohort(tmp_path, {"xray": 40}), measured, [], "cpu")
    assert classes(alone) == ["VICReg"] and list(alone.config["transforms"]) == ["xray"]


def test_a_plan_is_the_default_recipe_with_what_the_cohort_has(tmp_path: Path) -> None:
    recipe = load_config(config_path("default", "pretrain"), PretrainConfig)
    measured = {"ct": CT, "xray": XRAY, "eeg": EEG, "report": REPORT}
    made = plan(cohort(tmp_path, {"ct+xray+eeg+report": 40}), measured, [], "cpu")
    assert made.config["model"]["init_args"]["fusion"] == recipe.model["init_args"]["fusion"]
    assert classes(made) == [node["class_path"] for node in recipe.objectives]
    for planned, said in zip(made.config["objectives"], recipe.objectives, strict=True):
        own = {"modalities", "pairs"}
        assert {k: v for k, v in planned["init_args"].items() if k not in own} == {
            k: v for k, v in said["init_args"].items() if k not in own
        }
    assert made.config["optim"] == {"lr": recipe.optim.lr, "weight_decay": 0.05, "warmup": 0.1}


def test_rare_modalities_are_drawn_more_often_and_small_cohorts_get_small_batches(tmp_path: Path) -> None:
    measured = {"ct": CT, "report": REPORT}
    uneven = plan(cohort(tmp_path, {"ct+report": 10, "report": 200}), measured, [], "cpu").config
    assert uneven["data"] == {"batch_size": 32, "balance": "modality"}
    even = plan(cohort(tmp_path, {"ct+report": 20}), measured, [], "cpu").config
    assert even["data"] == {"batch_size": 4} and even["trainer"]["max_epochs"] == 200


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    table = cohort(tmp_path, {"xray+eeg": 30})
    made = plan(table, {"xray": XRAY}, [], "cpu")
    assert [choice.chosen for choice in made.choices if choice.what == "left out"] == ["eeg"]
    with pytest.raises(ValueError, match="no training study has a readable file"):
        plan(table, {}, [], "cpu")
