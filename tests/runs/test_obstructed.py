"""Obstacles in training: the studies of training and validation suffer, those of the test do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssml.config import ConfigError, load_config
from medssml.obstacles import DamageAtSites
from medssml.runs.obstructed import obstructed
from medssml.runs.training_config import FinetuneConfig
from tests.obstacles.cohorts import cohort

STUDIES = cohort(600)
TAUGHT = STUDIES.splits != "test"


def test_without_obstacles_the_table_is_the_same_object() -> None:
    assert obstructed(STUDIES, []).table is STUDIES


def test_the_test_studies_stay_as_they_are() -> None:
    nodes = [
        {"class_path": "Absent", "init_args": {"severity": 1.0}},
        {"class_path": "LabelsSymmetric", "init_args": {"severity": 0.3}},
    ]
    left, damages, said = obstructed(STUDIES, nodes)
    assert damages == ()
    assert [line.split(": ")[0] for line in said] == ["absent, severity 1", "labels_symmetric, severity 0.3"]
    assert left.table[~TAUGHT].equals(STUDIES.table[~TAUGHT])
    assert (left.present[TAUGHT].sum(1) <= 1).all()
    before, after = STUDIES.targets["grade"][TAUGHT], left.targets["grade"][TAUGHT]
    assert (before != after).mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / TAUGHT.sum()))


def test_obstacles_follow_each_other() -> None:
    hidden = {"class_path": "LabelsHidden", "init_args": {"severity": 1.0, "tasks": ["sick"]}}
    left = obstructed(STUDIES, [{"class_path": "Mispaired", "init_args": {"severity": 1.0}}, hidden]).table
    assert np.isnan(left.targets["sick"][TAUGHT]).all() and np.isfinite(left.targets["sick"][~TAUGHT]).any()
    moved = (left.table["ct"] != STUDIES.table["ct"]).to_numpy()
    assert moved.any() and not moved[~TAUGHT].any()


def test_training_studies_can_go_and_no_others() -> None:
    scarce = {"class_path": "ClassScarce", "init_args": {"severity": 0.5, "task": "sick"}}
    left = obstructed(STUDIES, [scarce, {"class_path": "LabelsSymmetric", "init_args": {"severity": 0.3}}]).table
    stay = np.isin(STUDIES.study_ids, left.study_ids)
    train, sick = STUDIES.splits == "train", STUDIES.targets["sick"] == 1
    assert stay[~(train & sick)].all() and 0 < stay[train & sick].mean() < 0.3
    assert list(left.study_ids) == list(STUDIES.study_ids[stay]), "the order of the table stays"
    assert left.table[left.splits == "test"].equals(STUDIES.table[~TAUGHT])


def test_a_damage_is_handed_on_and_changes_no_cell() -> None:
    dose = {"class_path": "CTDose", "init_args": {"severity": 0.4}}
    sited = {"class_path": "DamageAtSites", "init_args": {"obstacle": dose, "share": 0.5}}
    table, (first, second), said = obstructed(STUDIES, [dose, sited])
    assert len(said) == 2 and all("in training and validation" in line for line in said)
    assert table is STUDIES and first.severity == second.severity == 0.4
    assert isinstance(second, DamageAtSites) and second.sites.hit(STUDIES).any(), "it knows the cohort"
    several = {"class_path": "Together", "init_args": {"parts": [dose]}}
    with pytest.raises(ValueError, match="key 'data.obstacles.0': ct_dose befalls neither .*; fix: its parts"):
        obstructed(STUDIES, [several])


def test_a_config_names_them_and_refuses_what_is_none(tmp_path: Path) -> None:
    file = tmp_path / "finetune.yaml"
    node = "data: {obstacles: [{class_path: %s, init_args: {severity: %s}}]}\n"
    file.write_text(node % ("AbsentByLabel", 0.5))
    config = load_config(file, FinetuneConfig)
    assert config.data.obstacles[0]["init_args"]["severity"] == 0.5
    assert "obstacles" not in config.data.loading and config.data.loading["batch_size"] == 32
    assert config.data.obstacles[0]["class_path"].endswith("AbsentByLabel")
    for name, match in (("ViT", "Obstacle"), ("AbsentByLable", "AbsentByLabel")):
        file.write_text(node % (name, 0.5))
        with pytest.raises(ConfigError, match=match):
            load_config(file, FinetuneConfig)


def test_what_it_cannot_act_on_is_said_with_the_key() -> None:
    node = {"class_path": "AbsentByLabel", "init_args": {"severity": 0.5, "task": "cough"}}
    with pytest.raises(ValueError, match="key 'data.obstacles.0': absent_by_label: no label_cough"):
        obstructed(STUDIES, [node])
    with pytest.raises(ValueError, match="severity of absent is 2"):
        obstructed(STUDIES, [{"class_path": "Absent", "init_args": {"severity": 2}}])
