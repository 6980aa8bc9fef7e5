"""What a fine-tuning config learns beside the labels."""

from __future__ import annotations

import logging

import pytest

from medssml.config import ConfigError, load_config
from medssml.fusion import MaskedAttention
from medssml.model import MultimodalModel, Task
from medssml.objectives import MaskedModality, SubsetDistillation, Supervised
from medssml.runs.finetuning import learner_of
from medssml.runs.training_config import Finetuning
from medssml.shipped_configs import config_path
from tests.examples import batch_of, ten_studies, tiny_model
from tests.objectives.vectors import AsItIs

DISTILLATION = {"class_path": "SubsetDistillation", "init_args": {"temperature": 2.0}}
MASKED = {"class_path": "MaskedModality", "init_args": {"weight": 0.5, "heads": 2}}


def test_objectives_of_the_config_are_learned_beside_the_labels() -> None:
    config = Finetuning(tasks=["finding"], objectives=[DISTILLATION, MASKED])
    learner = learner_of(config, tiny_model(), None)
    assert [type(objective) for objective in learner.objectives] == [Supervised, SubsetDistillation, MaskedModality]
    numbers = learner.eval().terms(batch_of(ten_studies()))
    parts = [numbers[f"{name}/loss"] for name in ("supervised", "subset_distillation", "masked_modality")]
    assert float(numbers["loss"].detach()) == pytest.approx(float(parts[0] + parts[1] + 0.5 * parts[2]))


def test_one_that_this_model_gives_nothing_to_do_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    model = MultimodalModel({"ct": AsItIs(8)}, MaskedAttention(["ct"], 8, 1, 2), {"finding": Task()})
    with caplog.at_level(logging.INFO):
        learner = learner_of(Finetuning(tasks=["finding"], objectives=[DISTILLATION]), model, None)
    assert [type(objective) for objective in learner.objectives] == [Supervised]
    assert "SubsetDistillation is left out: it needs two modalities" in caplog.text


def test_what_an_objective_refuses_names_its_key() -> None:
    wrong = {"class_path": "SubsetDistillation", "init_args": {"p": 2.0}}
    with pytest.raises(ConfigError, match=r"objectives\.1.*SubsetDistillation: .*fix: p between 0 and 1"):
        learner_of(Finetuning(tasks=["finding"], objectives=[MASKED, wrong]), tiny_model(), None)


def test_the_shipped_config_distils() -> None:
    config = load_config(config_path("distillation", "finetune"), Finetuning)
    assert [node["class_path"].rpartition(".")[2] for node in config.objectives] == ["SubsetDistillation"]
