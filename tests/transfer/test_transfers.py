"""Each transfer against a second implementation or a closed form; who is counted, what is shown, and that no teacher learns."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.encoders import ResNet
from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel, Task
from medssml.objectives import Step, Supervised
from medssml.objectives.divergence import soft_label_divergence, tempered_divergence
from medssml.objectives.step import Teacher
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim
from medssml.transfer import (
    ContrastiveTransfer,
    CyclicTransfer,
    FeatureTransfer,
    LogitTransfer,
    PrivilegedTransfer,
    RelationTransfer,
)
from medssml.transfer.base import Lesson, Transfer
from medssml.transfer.methods import METHODS, transfer_called
from medssml.transfer.relations import angle_loss, distance_loss
from medssml.transfer.unpaired import UnpairedTransfer
from tests.examples import batch_of, fused_from, others_in, ten_studies, tiny_model

RICH_TO_POOR: dict[str, Any] = {"source": ("ct", "report"), "target": ("xray",)}
#: Of the ten studies, those with a radiograph, and with a CT or a report.
BOTH = [0, 5, 6, 7]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step(student: MultimodalModel, teacher: MultimodalModel, batch: Batch | None = None) -> Step:
    return Step(student, batch_of(ten_studies()) if batch is None else batch, teacher=Teacher(teacher))


# Answers.


def test_the_divergence_of_answers_is_torchs() -> None:
    s, t = numbers(6, 3), numbers(6, 3, seed=1)
    found = tempered_divergence(Task("multiclass", 3), s, t, 2.5)
    expected = 2.5**2 * F.kl_div((s / 2.5).log_softmax(1), (t / 2.5).softmax(1), reduction="none").sum(1)
    torch.testing.assert_close(found, expected)
    # A binary answer is one of two classes, of which one has the logit 0.
    two = tempered_divergence(Task(), s[:, 0], t[:, 0], 2.5)
    wide = [torch.stack([torch.zeros_like(x[:, 0]), x[:, 0]], 1) for x in (s, t)]
    torch.testing.assert_close(two, tempered_divergence(Task("multiclass", 2), *wide, 2.5))


def test_at_high_temperature_logits_are_matched() -> None:
    """Hinton et al., section 2.1: the gradient tends to (s - t) / K of centred logits, whatever T, thanks to the factor T^2."""
    s, t = numbers(4, 5).requires_grad_(), numbers(4, 5, seed=1)
    centred = (s - s.mean(1, keepdim=True)) - (t - t.mean(1, keepdim=True))
    loss = tempered_divergence(Task("multiclass", 5), s, t, 1000.0).sum()
    (gradient,) = torch.autograd.grad(loss, s)
    torch.testing.assert_close(gradient, centred.detach() / 5, rtol=1e-2, atol=1e-3)
    one = tempered_divergence(Task(), s[:, 0].detach(), t[:, 0], 1000.0)
    torch.testing.assert_close(one, (s[:, 0].detach() - t[:, 0]).square() / 8, rtol=1e-3, atol=1e-6)


def test_soft_labels_have_the_gradient_of_their_cross_entropy() -> None:
    s, t = numbers(6).requires_grad_(), numbers(6, seed=1)
    (found,) = torch.autograd.grad(soft_label_divergence(Task(), s, t, 2.0).sum(), s)
    loss = F.binary_cross_entropy_with_logits(s, torch.sigmoid(t / 2), reduction="sum")
    torch.testing.assert_close(found, torch.autograd.grad(loss, s)[0])
    torch.testing.assert_close(soft_label_divergence(Task(), t / 2, t, 2.0), torch.zeros(6, dtype=torch.float64))


def test_a_regression_is_compared_in_standard_deviations() -> None:
    task = Task("regression", sd=4.0)
    for loss in (tempered_divergence, soft_label_divergence):
        assert loss(task, torch.tensor([10.0]), torch.tensor([2.0]), 3.0).item() == pytest.approx(4.0)


@pytest.mark.parametrize("kind", [LogitTransfer, PrivilegedTransfer])
def test_answers_are_the_mean_over_tasks_of_studies_that_both_see(
    student: MultimodalModel, teacher: MultimodalModel, kind: Any
) -> None:
    batch = batch_of(ten_studies())
    poor, rich = fused_from(student, batch, "xray"), fused_from(teacher, batch, "ct", "report")
    objective = kind(student, **RICH_TO_POOR, temperature=3.0)
    found = objective(step(student, teacher))
    means = []
    for name, task in student.tasks.items():
        s, t = (model.heads[name](fused)[BOTH] for model, fused in ((student, poor), (teacher, rich)))
        means.append(kind.imitation(task, s, t, 3.0).mean())
        torch.testing.assert_close(found[f"loss/{name}"], means[-1].detach())
    torch.testing.assert_close(found["loss"], torch.stack(means).mean())


def test_a_teacher_without_the_task_is_refused(student: MultimodalModel) -> None:
    other = tiny_model(seed=5).eval()
    other.drop_task("grade")
    with pytest.raises(ValueError, match="the teacher knows no task 'grade'"):
        LogitTransfer(student, **RICH_TO_POOR)(step(student, other))
    assert LogitTransfer(student, tasks=["finding"], **RICH_TO_POOR)(step(student, other)) is not None


# Vectors.


def test_features_are_regressed(student: MultimodalModel, teacher: MultimodalModel) -> None:
    objective = FeatureTransfer(student, **RICH_TO_POOR)
    batch = batch_of(ten_studies())
    s, t = (fused_from(*who).pooled[BOTH] for who in ((student, batch, "xray"), (teacher, batch, "ct", "report")))
    wanted = (t - t.mean(1, keepdim=True)) / (t.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = (objective.regressor(s) - wanted).square().mean()
    torch.testing.assert_close(objective(step(student, teacher))["loss"], expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_of_large_features_weighs_no_more(
    student: MultimodalModel, teacher: MultimodalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is regressed is normalised, whatever the teacher's fusion ends with."""
    objective, now = FeatureTransfer(student, **RICH_TO_POOR), step(student, teacher)
    s, t = objective.vectors(now)
    before = objective(now)["loss"]
    monkeypatch.setattr(objective, "vectors", lambda _: (s, 30 * t + 7))
    torch.testing.assert_close(objective(now)["loss"], before, rtol=1e-3, atol=1e-4)


def test_a_cycle_goes_there_and_back_and_only_the_translations_carry_a_gradient(
    student: MultimodalModel, teacher: MultimodalModel
) -> None:
    objective = CyclicTransfer(student, **RICH_TO_POOR, translation=2.0, cycle=0.5)
    batch = batch_of(ten_studies())
    s, t = (fused_from(*who).pooled[BOTH] for who in ((student, batch, "xray"), (teacher, batch, "ct", "report")))

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    made = objective.there(s)
    there, back = (made - norm(t)).square().mean(), (objective.back(made) - norm(s).detach()).square().mean()
    found = objective(step(student, teacher))
    torch.testing.assert_close(found["loss"], 2 * there + 0.5 * back, rtol=1e-4, atol=1e-5)
    # The encoder learns by way of what was made: the second error has no gradient through its own target.
    weight = student.project["xray"].weight
    (mine,) = torch.autograd.grad(found["loss"], weight)
    (theirs,) = torch.autograd.grad(2 * there + 0.5 * back, weight)
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def written_out(student: np.ndarray, teacher: np.ndarray) -> tuple[float, float]:
    """The two terms of RKD, pair by pair and triple by triple."""

    def huber(x: float) -> float:
        return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5

    def angle(x: np.ndarray, i: int, j: int, k: int) -> float:
        a, b = x[i] - x[j], x[k] - x[j]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    n = len(student)
    pairs = list(permutations(range(n), 2))
    d = [np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs]) for x in (student, teacher)]
    apart = np.mean([huber(s / d[0].mean() - t / d[1].mean()) for s, t in zip(*d, strict=True)])
    triples = [(i, j, k) for j in range(n) for i in range(n) for k in range(n) if i != j != k and (i != k)]
    turned = np.mean([huber(angle(student, *t) - angle(teacher, *t)) for t in triples])
    return float(apart), float(turned)


def test_relations_are_those_of_pairs_and_triples() -> None:
    s, t = numbers(6, 4), numbers(6, 7, seed=1)
    apart, turned = written_out(s.numpy(), t.numpy())
    assert distance_loss(s, t).item() == pytest.approx(apart)
    assert angle_loss(s, t).item() == pytest.approx(turned)


def test_relations_do_not_mind_place_turn_and_scale() -> None:
    t = numbers(6, 4)
    turn, _ = torch.linalg.qr(numbers(4, 4, seed=2))
    moved = 3.0 * t @ turn + 5.0
    assert distance_loss(moved, t).item() == pytest.approx(0, abs=1e-12)
    assert angle_loss(moved, t).item() == pytest.approx(0, abs=1e-12)


def test_equal_vectors_have_a_finite_gradient() -> None:
    s = torch.ones(5, 3, requires_grad=True)
    loss = distance_loss(s, numbers(5, 3).float()) + angle_loss(s, numbers(5, 3).float())
    assert bool(torch.autograd.grad(loss, s)[0].isfinite().all())


def test_contrast_is_the_cross_entropy_of_finding_each_other(
    student: MultimodalModel, teacher: MultimodalModel
) -> None:
    objective = ContrastiveTransfer(student, **RICH_TO_POOR, dim=8)
    batch = batch_of(ten_studies())
    s, t = (fused_from(*who).pooled[BOTH] for who in ((student, batch, "xray"), (teacher, batch, "ct", "report")))
    logits = F.normalize(objective.student_head(s), dim=1) @ F.normalize(objective.teacher_head(t), dim=1).T / 0.07
    own = torch.arange(4)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(objective(step(student, teacher))["loss"], expected, rtol=1e-4, atol=1e-5)
    # Two studies of one subject are not each other's negatives.
    subject = batch.subject.clone()
    subject[5] = subject[0]
    again = objective(step(student, teacher, replace(batch, subject=subject)))["loss"]
    logits[[0, 1], [1, 0]] = -torch.inf
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-5)


# What all have in common.


def made(method: str, student: MultimodalModel) -> Transfer:
    torch.manual_seed(1)
    others = {"others": others_in(16)} if issubclass(METHODS[method], UnpairedTransfer) else {}
    return METHODS[method](student, **others, **RICH_TO_POOR)


#: What learns of labels, too, or of studies that only the student sees; their own tests say what they learn of whom.
UNPAIRED = {method for method, kind in METHODS.items() if not kind.paired}
OTHERWISE = {"co-training", *UNPAIRED}


@pytest.mark.parametrize("method", sorted(set(METHODS) - OTHERWISE))
def test_studies_without_labels_count(student: MultimodalModel, teacher: MultimodalModel, method: str) -> None:
    batch = batch_of(ten_studies())
    bare = replace(batch, targets={name: torch.full_like(value, torch.nan) for name, value in batch.targets.items()})
    objective = made(method, student)
    assert torch.equal(
        objective(step(student, teacher, batch))["loss"], objective(step(student, teacher, bare))["loss"]
    )
    assert Supervised(student)(step(student, teacher, bare)) is None


@pytest.mark.parametrize("method", sorted(set(METHODS) - UNPAIRED))
def test_only_what_both_see_counts_and_each_sees_its_own(
    student: MultimodalModel, teacher: MultimodalModel, method: str
) -> None:
    """The studies that have both give the loss alone; the EEG is shown to nobody."""
    studies, objective = ten_studies(), made(method, student)
    whole = objective(step(student, teacher))["loss"]
    both = objective(step(student, teacher, batch_of([studies[place] for place in BOTH])))["loss"]
    torch.testing.assert_close(whole, both, rtol=1e-4, atol=1e-5)
    unseen = objective(step(student, teacher, batch_of(studies).without("eeg")))["loss"]
    torch.testing.assert_close(whole, unseen, rtol=1e-4, atol=1e-5)
    assert objective(step(student, teacher, batch_of(studies).without("xray"))) is None
    assert objective(step(student, teacher, batch_of(studies).without("ct", "report"))) is None


@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_reaches_the_teacher_and_training_leaves_it_as_it_is(method: str) -> None:
    student, teacher = tiny_model(), tiny_model(seed=5)
    objective = made(method, student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    learner = Learner(student, [Supervised(student), objective], Optim(lr=1e-2), given=teacher)
    optimiser = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        learner.terms(batch_of(ten_studies()))["loss"].backward()
        optimiser.step()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in learner.parameters()}
    moved = [p for p in student.encoders["xray"].parameters() if p.grad is not None and bool(p.grad.any())]
    assert moved


def test_a_run_without_a_teacher_is_refused() -> None:
    student = tiny_model()
    with pytest.raises(ValueError, match="LogitTransfer asks another model"):
        Learner(student, [LogitTransfer(student, **RICH_TO_POOR)], Optim())


def test_a_source_that_the_teacher_does_not_read_is_refused(student: MultimodalModel, teacher: MultimodalModel) -> None:
    with pytest.raises(ValueError, match=r"source \['ct', 'mri'\]; the teacher reads"):
        LogitTransfer(student, source=["ct", "mri"], target=["xray"])(step(student, teacher))
    with pytest.raises(ValueError, match="source is 'ct'"):
        LogitTransfer(student, source="ct")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"target": ["mri"]}, "mri"),
        ({"weight": -1.0}, "weight"),
    ],
)
def test_settings_out_of_range_are_refused(student: MultimodalModel, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LogitTransfer(student, source=["ct"], **arguments)
    if "temperature" in arguments:
        with pytest.raises(ValueError, match=said):
            ContrastiveTransfer(student, source=["ct"], **arguments)
    with pytest.raises(ValueError, match="cycle"):
        CyclicTransfer(student, source=["ct"], cycle=-1.0)
    with pytest.raises(ValueError, match="distance"):
        RelationTransfer(student, source=["ct"], distance=0.0, angle=0.0)


def test_methods_by_name() -> None:
    wide = tiny_model(seed=5)
    for method in METHODS:
        pupil = MultimodalModel(
            {"xray": ResNet(2, 12, widths=(8, 8, 8, 8))}, AdditiveFusion(["xray"], 16, 0), {"finding": Task()}
        )
        transfer_called(method).prepare(pupil, wide)
        shown = [batch_of(ten_studies())]
        lesson = Lesson(wide, ["ct"], ["finding"], 2.0, studies=shown, sentences=shown)
        found = transfer_called(method).of(pupil, lesson)
        assert type(found) is METHODS[method] and found.weight == 2.0
    assert {method for method, kind in METHODS.items() if kind.asks_answers} == {"logits", "privileged", "co-training"}
    with pytest.raises(ValueError, match="accepted: logits, privileged"):
        transfer_called("osmosis")
