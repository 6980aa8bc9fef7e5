"""What a fine-tuning config learns beside the labels."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from medssml.config import ConfigError, load_config
from medssml.fusion import MaskedAttention
from medssml.model import MultimodalModel, Task
from medssml.objectives import MaskedModality, Ramp, SubsetDistillation, Supervised
from medssml.runs.finetuning import learner_of
from medssml.runs.training_config import FinetuneConfig, Finetuning
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


def test_weights_of_the_config_may_change_as_the_run_goes_on() -> None:
    late = "fused_weight={class_path: Ramp, init_args: {start: 0.0, end: 2.0, until: 0.5}}"
    config = replace(load_config(None, Finetuning, [late, "unimodal_weight=0.5"]), tasks=["finding"])
    learner = learner_of(config, tiny_model(), None).eval()
    learner.total = 20
    for step, factor in ((0, 0.0), (5, 1.0), (10, 2.0), (15, 2.0)):
        learner.batches = step
        numbers = learner.terms(batch_of(ten_studies()))
        alone = [float(value) for name, value in numbers.items() if name.endswith(" alone")]
        expected = factor * float(numbers["supervised/loss/finding"]) + 0.5 * sum(alone) / len(alone)
        assert len(alone) == 4 and float(numbers["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    dropout = "modality_dropout={class_path: Ramp, init_args: {start: 0.0, end: 0.5}}"
    labels = learner_of(replace(load_config(None, Finetuning, [dropout]), tasks=["finding"]), tiny_model(), None)
    assert labels.objectives[0].modality_dropout == Ramp(0.0, 0.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["fused_weight={class_path: Ramp, init_args: {start: -1.0, end: 1.0}}"],
            "fused_weight is -1.0; fix: 0 or more",
        ),
        (["modality_dropout={class_path: Ramp, init_args: {start: 0.0, end: 1.0}}"], "modality_dropout is 1.0; fix"),
        (["unimodal_weight={class_path: Ramp, init_args: {start: 0.0, ends: 1.0}}"], "'ends'.*did you mean 'end'"),
        (["unimodal_weight=much"], "unimodal_weight.*received 'much'"),
        (["fused_weight=0.0"], "are 0, and nothing is learned; fix"),
    ],
)
def test_weights_out_of_range_are_refused_by_their_key(given: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, FinetuneConfig, given)


def test_the_shipped_config_distils() -> None:
    config = load_config(config_path("distillation", "finetune"), Finetuning)
    assert [node["class_path"].rpartition(".")[2] for node in config.objectives] == ["SubsetDistillation"]
