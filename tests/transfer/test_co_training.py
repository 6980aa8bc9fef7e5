"""Co-training: what each of the two learns, study by study; who learns, and what stays as it is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from medssml.model import MultimodalModel
from medssml.objectives import Step, Supervised
from medssml.trainers.finetune import finetuner
from medssml.trainers.settings import Optim
from medssml.transfer import CoTraining
from medssml.transfer.base import Lesson
from tests.examples import batch_of, fused_from, ten_studies, tiny_model

BOTH = [0, 5, 6, 7]
RICH_TO_POOR: dict[str, Any] = {"source": ("ct", "report"), "target": ("xray",)}


def pair() -> tuple[MultimodalModel, MultimodalModel]:
    """Student and teacher whose answers lie far enough apart for some to be sure and some not."""
    student, teacher = tiny_model().eval(), tiny_model(seed=5).eval()
    with torch.no_grad():
        for model in (student, teacher):
            for _, head in model.heads.items():
                head.linear.weight.mul_(60)
    return student, teacher


def seen(model: MultimodalModel, *modalities: str) -> Any:
    batch = batch_of(ten_studies())
    return model.predict_from(fused_from(model, batch, *modalities))


def cost(probabilities: list[float], label: int) -> float:
    return -math.log(max(probabilities[label], 1e-12))


def test_each_learns_what_the_other_is_sure_of_and_the_partner_its_labels() -> None:
    student, teacher = pair()
    poor, rich = seen(student, "xray"), seen(teacher, "ct", "report")
    targets = batch_of(ten_studies()).targets
    confidence, expected, told = 0.7, 0.0, 0
    means: dict[str, list[float]] = {"told": [], "taught": []}
    for name in student.tasks:
        binary = poor[name].ndim == 1
        told_of, taught_of = [], []
        for place in BOTH:
            answers = []
            for logits in (poor[name][place], rich[name][place]):
                p = torch.sigmoid(logits).item() if binary else 0.0
                answers.append([1 - p, p] if binary else logits.softmax(0).tolist())
            mine, theirs = answers
            label = targets[name][place].item()
            if math.isfinite(label):
                taught_of.append(cost(theirs, int(label)))
                continue
            loss = 0.0
            if max(theirs) >= confidence:
                loss, told = loss + cost(mine, theirs.index(max(theirs))), told + 1
            if max(mine) >= confidence:
                loss, told = loss + cost(theirs, mine.index(max(mine))), told + 1
            told_of.append(loss)
        for key, found in (("told", told_of), ("taught", taught_of)):
            means[key] += [sum(found) / len(found)] if found else []
    expected = sum(sum(part) / len(part) for part in means.values())
    objective = CoTraining(student, partner=teacher, confidence=confidence, **RICH_TO_POOR)
    found = objective(Step(student, batch_of(ten_studies())))
    assert told, "nobody is sure, so that nothing is tried here"
    assert found["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_who_is_never_sure_teaches_nothing() -> None:
    """At a threshold of 1 the student learns nothing of its partner, who learns the labels all the same."""
    student, teacher = tiny_model().eval(), tiny_model(seed=5).eval()
    objective = CoTraining(student, partner=teacher, confidence=1.0, **RICH_TO_POOR)
    found = objective(Step(student, batch_of(ten_studies())))
    assert found["sure_student"] == 0 and found["sure_partner"] == 0
    found["loss"].backward()
    assert not any(p.grad is not None and bool(p.grad.any()) for p in student.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in objective.peer.parameters())


def test_both_learn_and_the_teacher_itself_does_not() -> None:
    student, teacher = pair()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = CoTraining.of(student, Lesson(teacher.requires_grad_(False), ["ct"], ["finding"], 2.0))
    assert objective.weight == 2.0 and list(objective.tasks) == ["finding"]
    learner = finetuner(student, Supervised(student, ["finding"]), Optim(), others=[objective])
    optimiser = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-2)
    first = [model.project[name].weight.clone() for model, name in ((student, "xray"), (objective.peer, "ct"))]
    learner.terms(batch_of(ten_studies()))["loss"].backward()
    optimiser.step()
    now = [student.project["xray"].weight, objective.peer.project["ct"].weight]
    assert not any(torch.equal(a, b) for a, b in zip(first, now, strict=True))
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_what_co_training_is_not_for_is_refused() -> None:
    student, teacher = tiny_model(), tiny_model(seed=5)
    teacher.drop_task("grade")
    with pytest.raises(ValueError, match=r"the teacher does not know grade \(multiclass.*but finding"):
        CoTraining(student, partner=teacher, **RICH_TO_POOR)
    with pytest.raises(ValueError, match="confidence is 0"):
        CoTraining(student, confidence=0.0, **RICH_TO_POOR)
    student.add_task("age", {"kind": "regression"})
    with pytest.raises(ValueError, match="'age' is a number"):
        CoTraining(student, **RICH_TO_POOR)
