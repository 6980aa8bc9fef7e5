"""Zero-shot: the class whose sentences are nearest, per subset of modalities; and what of a file of prompts is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medssml.batch import Encoded
from medssml.config import ConfigError
from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.probing import Target
from medssml.evaluation.zero_shot import (
    chosen_prompts,
    probabilities,
    read_prompts,
    rows_of,
    why_not,
    zero_shot_tasks,
)
from medssml.shipped_configs import prompts_path

TARGETS = {
    "sick": Target("sick", "binary", 2, ("no", "yes")),
    "grade": Target("grade", "multiclass", 3, ("a", "b", "c")),
    "age": Target("age", "regression"),
}


class Space(torch.nn.Module):
    """A space that leaves its vectors as they are."""

    modalities = ("ct", "report")

    def forward(self, modality: str, pooled: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(pooled, dim=1)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("medssml.evaluation.zero_shot.shared_space", lambda model: model)
    return Space()


def studies() -> EncodedStudies:
    """40 studies: the ct of the sick points along the first axis, reports are noise; every fourth has no ct."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2.0
    ct = np.c_[np.where(y == 1, 1.0, -1.0), rng.normal(0, 0.1, (40, 1))].astype(np.float32)
    report = rng.normal(size=(40, 2)).astype(np.float32)
    has = np.ones((40, 2), bool)
    has[::4, 0] = False
    encoded = {
        name: Encoded(torch.tensor(values[:, None]), torch.ones(len(values), 1, dtype=torch.bool), torch.tensor(values))
        for name, values in (("ct", ct[has[:, 0]]), ("report", report))
    }
    y[-1] = np.nan
    return EncodedStudies(
        encoded, torch.tensor(has), ("ct", "report"), tuple(f"s{i}" for i in range(40)), np.arange(40), {"sick": y},
        {}, {},
    )  # fmt: skip


def test_a_study_is_of_the_class_that_it_lies_nearest_to_in_every_subset(model: Any) -> None:
    asked: list[Any] = []

    def directions(classes: Any) -> Any:
        asked.append(classes)
        return np.array([[-1.0, 0.0], [1.0, 0.0]])

    prompts = chosen_prompts({"sick": {"yes": ["Ill."], "no": ["Well."]}}, TARGETS, ["sick"])
    found = zero_shot_tasks(studies(), model, prompts, TARGETS, directions, n=20)
    assert asked == [{"no": ["Well."], "yes": ["Ill."]}]
    task = found["tasks"]["sick"]
    assert task["classes"] == ["no", "yes"] and list(task["subsets"]) == ["ct", "report", "ct+report"]
    assert {name: entry["n"] for name, entry in task["subsets"].items()} == {"ct": 29, "report": 39, "ct+report": 29}
    assert task["subsets"]["ct"]["auroc"]["estimate"] == 1.0 and task["subsets"]["ct"]["positives"] == 19
    noise = task["subsets"]["report"]["auroc"]
    assert 0.2 < noise["estimate"] < 0.8 and noise["ci_low"] < noise["ci_high"]
    assert noise["estimate"] < task["subsets"]["ct+report"]["auroc"]["estimate"] <= 1
    assert [row[:4] for row in rows_of(found)][0] == ("sick", "ct", 29, 19)
    turned = zero_shot_tasks(studies(), model, prompts, TARGETS, lambda _: np.array([[1.0, 0.0], [-1.0, 0.0]]), n=20)
    assert turned["tasks"]["sick"]["subsets"]["ct"]["auroc"]["estimate"] == 0.0


def test_probabilities_are_a_softmax_of_cosines() -> None:
    found = probabilities(np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), temperature=0.5)
    np.testing.assert_allclose(found[0], np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum())
    np.testing.assert_allclose(found[1], 0.5)


def test_a_model_without_reports_in_its_space_says_so_in_a_line(model: Any) -> None:
    assert why_not(model) is None
    model.modalities = ("ct", "xray")
    said = str(why_not(model))
    assert "no space in which reports meet" in said and "fix: evaluate the pretrained run" in said and "\n" not in said


def test_prompts_are_yaml_or_json_and_their_classes_texts(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("sick:\n  no: Well.\n  yes: [Ill., Very ill.]\n")
    expected = {"sick": {"no": ["Well."], "yes": ["Ill.", "Very ill."]}}
    assert read_prompts(file) == expected
    (tmp_path / "p.json").write_text(json.dumps(expected))
    assert read_prompts(tmp_path / "p.json") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no prompts; fix: TASK"),
        ("sick: Ill.", "p.yaml: sick: expected two classes or more"),
        ("sick: {yes: Ill.}", "sick: expected two classes or more"),
        ("sick: {yes: [], no: Well.}", "sick.yes: expected a sentence"),
        ("sick: {yes: {a: b}, no: Well.}", "sick.yes: expected a sentence"),
        ("sick: [", "fix: a YAML or JSON file"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_prompts(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"sik": {"no": ["a"], "yes": ["b"]}}, "did you mean 'sick'"),
        ({"sick": {"0": ["a"], "1": ["b"]}}, "prompts of sick are for 0, 1; fix: the manifest has no, yes"),
        ({"age": {"young": ["a"], "old": ["b"]}}, "the manifest has numbers"),
        ({"sick": {"no": ["a"], "yes": ["b"]}}, "no prompts for grade"),
    ],
)
def test_prompts_for_another_manifest_are_refused(prompts: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen_prompts(prompts, TARGETS, ["grade"])


def test_the_shipped_prompts_are_for_the_tasks_of_the_simulated_cohort(tmp_path: Path) -> None:
    from medssml.phantom import TASKS

    prompts = read_prompts(prompts_path("phantom"))
    targets = {name: Target(name, "binary", 2, ("0", "1")) for name in TASKS}
    assert list(chosen_prompts(prompts, targets, list(targets))) == ["malignant", "effusion", "cardiomegaly"]
    with pytest.raises(ConfigError, match="none shipped; fix: a path, or one of phantom"):
        prompts_path("fantom")
    (tmp_path / "phantom").write_text("")
    assert prompts_path(tmp_path / "phantom") == tmp_path / "phantom"
