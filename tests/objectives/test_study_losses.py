"""Losses for unreliable and for unbalanced labels: closed forms, what they keep of each study, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from medssml.model import Task
from medssml.objectives import (
    BalancedSoftmax,
    Clock,
    CrossEntropy,
    EarlyLearning,
    GeneralisedCrossEntropy,
    Step,
    StudyLoss,
    Supervised,
    SymmetricCrossEntropy,
)
from medssml.objectives.per_study import PerStudy
from medssml.objectives.study_loss import log_probabilities
from tests.examples import STUDY_LOSSES, batch_of, ten_studies, tiny_model

BINARY = Task(counts={"train": {"0": 90, "1": 10}})
THREE = Task("multiclass", 3, counts={"train": {"0": 60, "1": 30, "2": 0}})
Z = torch.tensor([-3.0, -0.2, 0.0, 0.7, 4.0, 1.5])
Y = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
Z3 = torch.tensor([[2.0, 0.1, -1.0], [0.0, 0.0, 0.0], [-1.0, 3.0, 0.5], [0.3, -2.0, 1.0]])
Y3 = torch.tensor([0.0, 2.0, 0.0, 1.0])
CASES: list[tuple[Task, Tensor, Tensor]] = [(BINARY, Z, Y), (THREE, Z3, Y3)]


def probabilities(task: Task, logits: Tensor) -> np.ndarray:
    """(n, K), in numpy."""
    z = logits.double().numpy()
    if task.kind == "binary":
        positive = 1 / (1 + np.exp(-z))
        return np.stack([1 - positive, positive], 1)
    e = np.exp(z)
    return e / e.sum(1, keepdims=True)


def labels_of(y: Tensor) -> list[int]:
    return [int(v) for v in y]


def by_study(
    loss: StudyLoss, task: Task, logits: Tensor, targets: Tensor, index: Sequence[int] | None = None
) -> list[float]:
    known = None if index is None else torch.tensor(index)
    return loss.for_task("sick", task)(task, logits, targets, known).tolist()


@pytest.mark.parametrize(("task", "logits", "targets"), CASES, ids=["binary", "three classes"])
def test_generalised_cross_entropy_is_its_closed_form(task: Task, logits: Tensor, targets: Tensor) -> None:
    p = [row[y] for row, y in zip(probabilities(task, logits), labels_of(targets), strict=True)]
    for q in (0.3, 0.7):
        expected = [(1 - v**q) / q for v in p]
        assert by_study(GeneralisedCrossEntropy(q), task, logits, targets) == pytest.approx(expected, rel=1e-5)
    # Its ends: the mean absolute error, and the cross-entropy.
    assert by_study(GeneralisedCrossEntropy(1.0), task, logits, targets) == pytest.approx([1 - v for v in p], rel=1e-5)
    entropy = by_study(CrossEntropy(), task, logits, targets)
    assert by_study(GeneralisedCrossEntropy(1e-5), task, logits, targets) == pytest.approx(entropy, rel=1e-3)


@pytest.mark.parametrize(("task", "logits", "targets"), CASES, ids=["binary", "three classes"])
def test_the_gradient_of_generalised_cross_entropy_is_weakened_by_p_to_the_q(
    task: Task, logits: Tensor, targets: Tensor
) -> None:
    z = logits.clone().requires_grad_()
    (ours,) = torch.autograd.grad(GeneralisedCrossEntropy(0.7)(task, z, targets).sum(), z)
    (entropy,) = torch.autograd.grad(CrossEntropy()(task, z, targets).sum(), z)
    p = torch.tensor([r[y] for r, y in zip(probabilities(task, logits), labels_of(targets), strict=True)])
    weight = (p**0.7).float()
    torch.testing.assert_close(ours, entropy * (weight if z.ndim == 1 else weight[:, None]), rtol=1e-4, atol=1e-6)


def looked(loss: StudyLoss, task: Task, logits: Tensor, targets: Tensor, index: Sequence[int], clock: Clock) -> None:
    """One step of a run in which these studies are seen."""
    loss.look(task, logits, targets, torch.tensor(index), clock.step)
    loss.after_step(clock)


def test_truncation_prunes_whom_the_model_contradicted_once_an_epoch_and_not_before_its_time() -> None:
    loss = GeneralisedCrossEntropy(0.7, k=0.5, prune_after=0.5).for_task("sick", BINARY)
    plain = by_study(GeneralisedCrossEntropy(0.7), BINARY, Z, Y)
    cut = (1 - 0.5**0.7) / 0.7
    index = [4, 0, 2, 1, 5, 3]
    p = [row[y] for row, y in zip(probabilities(BINARY, Z), labels_of(Y), strict=True)]
    expected = [cut if v <= 0.5 else value for v, value in zip(p, plain, strict=True)]
    assert expected != plain

    def now() -> list[float]:
        return loss(BINARY, Z, Y, torch.tensor(index)).tolist()

    looked(loss, BINARY, Z, Y, index, Clock(0, 8, 0))
    looked(loss, BINARY, Z, Y, index, Clock(2, 8, 1))
    assert now() == pytest.approx(plain), "a new epoch, but too early"
    looked(loss, BINARY, Z, Y, index, Clock(4, 8, 2))
    assert now() == pytest.approx(expected)
    # Answered otherwise in the meantime: pruned until the next epoch, then not.
    for step in (5, 6):
        looked(loss, BINARY, 10 * (2 * Y - 1), Y, index, Clock(step, 8, 2))
        assert now() == pytest.approx(expected)
    looked(loss, BINARY, Z, Y, index, Clock(7, 8, 3))
    assert now() == pytest.approx(plain)
    # A study that nobody knows is not pruned, and a validation knows none.
    assert loss(BINARY, Z, Y, torch.tensor([-1] * 6)).tolist() == pytest.approx(plain)
    assert loss(BINARY, Z, Y).tolist() == pytest.approx(plain)


def test_a_pruned_study_has_no_gradient() -> None:
    loss = GeneralisedCrossEntropy(k=0.5, prune_after=0.0).for_task("sick", BINARY)
    looked(loss, BINARY, Z, Y, [0, 1, 2, 3, 4, 5], Clock(0, 8, 0))
    looked(loss, BINARY, Z, Y, [0, 1, 2, 3, 4, 5], Clock(1, 8, 1))
    z = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(BINARY, z, Y, torch.arange(6)).sum(), z)
    p = torch.tensor([r[y] for r, y in zip(probabilities(BINARY, Z), labels_of(Y), strict=True)])
    assert torch.equal(gradient != 0, p > 0.5)


@pytest.mark.parametrize(("task", "logits", "targets"), CASES, ids=["binary", "three classes"])
def test_symmetric_cross_entropy_sums_over_classes_both_ways(task: Task, logits: Tensor, targets: Tensor) -> None:
    expected = []
    for row, y in zip(probabilities(task, logits), labels_of(targets), strict=True):
        forward = -math.log(row[y])
        reverse = -sum(v * (0.0 if k == y else -4.0) for k, v in enumerate(row))
        expected.append(0.1 * forward + 1.0 * reverse)
    assert by_study(SymmetricCrossEntropy(), task, logits, targets) == pytest.approx(expected, rel=1e-5)
    only = by_study(SymmetricCrossEntropy(1.0, 0.0), task, logits, targets)
    assert only == pytest.approx(by_study(CrossEntropy(), task, logits, targets), rel=1e-5)


@pytest.mark.parametrize(("task", "logits", "targets"), CASES, ids=["binary", "three classes"])
def test_early_learning_keeps_a_running_mean_of_each_study(task: Task, logits: Tensor, targets: Tensor) -> None:
    loss = EarlyLearning(3.0, 0.7).for_task("sick", task)
    n = len(targets)
    index = [2 * i for i in range(n)]
    t = np.zeros((n, task.n_classes))
    for step in range(3):
        z = logits * (step + 1)
        p = probabilities(task, z).clip(1e-4, 1 - 1e-4)
        t = 0.7 * t + 0.3 * p / p.sum(1, keepdims=True)
        entropy = by_study(CrossEntropy(), task, z, targets)
        expected = [ce + 3.0 * math.log(1 - float(a @ b)) for ce, a, b in zip(entropy, t, p, strict=True)]
        assert loss(task, z, targets, torch.tensor(index)).tolist() == pytest.approx(expected, rel=1e-4)
        looked(loss, task, z, targets, index, Clock(step, 9))
    # One that was never seen has a target of its own answer alone; one without a place has the cross-entropy.
    alone = by_study(EarlyLearning(), task, logits, targets, [2 * i + 1 for i in range(n)])
    assert loss(task, logits, targets, torch.tensor([2 * i + 1 for i in range(n)])).tolist() == pytest.approx(alone)
    entropy = by_study(CrossEntropy(), task, logits, targets)
    assert loss(task, logits, targets, torch.tensor([-1] * n)).tolist() == pytest.approx(entropy)
    assert loss(task, logits, targets).tolist() == pytest.approx(entropy)


def test_early_learning_does_not_memorise_a_label_that_contradicts_what_was_learned() -> None:
    """Where the target says the opposite of the label, the pull towards the label is taken away."""
    logit, label = torch.tensor([2.0], requires_grad=True), torch.tensor([0.0])
    loss = EarlyLearning(3.0, 0.7).for_task("sick", BINARY)
    (entropy,) = torch.autograd.grad(CrossEntropy()(BINARY, logit, label).sum(), logit)
    for step in range(20):
        looked(loss, BINARY, torch.tensor([4.0]), label, [0], Clock(step, 20))
    (held,) = torch.autograd.grad(loss(BINARY, logit, label, torch.tensor([0])).sum(), logit)
    assert float(entropy) > 0.8 and float(held) < 0


def test_rows_of_studies_are_the_mean_of_what_was_offered_and_of_no_skipped_step() -> None:
    kept = PerStudy()
    assert torch.equal(kept.of(torch.tensor([3, -1]), 2), torch.zeros(2, 2)) and kept.taken() is None
    kept.offer(torch.tensor([9]), torch.tensor([[7.0]]), at=0)
    kept.offer(torch.tensor([3, 1, 3]), torch.tensor([[1.0], [5.0], [2.0]]), at=1)
    index, rows = kept.taken()
    assert index.tolist() == [1, 3] and rows.tolist() == [[5.0], [1.5]], (
        "that of step 0, which was skipped, is forgotten"
    )
    kept.write(index, rows)
    assert kept.of(torch.tensor([3, 0, 1, -1, 99]), 1).tolist() == [[1.5], [0.0], [5.0], [0.0], [0.0]]
    again = PerStudy()
    again.load_state_dict(kept.state_dict())
    assert torch.equal(again.rows, kept.rows)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_balanced_softmax_counts_the_classes(tau: float) -> None:
    n3 = [60**tau, 30**tau, 1]
    expected = []
    for z, y in zip(Z3.double().tolist(), labels_of(Y3), strict=True):
        e = [n * math.exp(v) for n, v in zip(n3, z, strict=True)]
        expected.append(-math.log(e[y] / sum(e)))
    assert by_study(BalancedSoftmax(tau), THREE, Z3, Y3) == pytest.approx(expected, rel=1e-5)
    expected = []
    for z, y in zip(Z.double().tolist(), labels_of(Y), strict=True):
        e = [90**tau, 10**tau * math.exp(z)]
        expected.append(-math.log(e[y] / sum(e)))
    assert by_study(BalancedSoftmax(tau), BINARY, Z, Y) == pytest.approx(expected, rel=1e-4)


def test_where_nothing_tells_the_classes_apart_balanced_answers_are_even() -> None:
    targets = torch.tensor([0.0] * 90 + [1.0] * 10)

    def bias(loss: StudyLoss) -> float:
        value = torch.zeros(1, requires_grad=True)
        optimiser = torch.optim.LBFGS([value], max_iter=50)

        def closure() -> Tensor:
            optimiser.zero_grad()
            mean = loss.for_task("sick", BINARY)(BINARY, value.expand(100), targets).mean()
            mean.backward()
            return mean

        optimiser.step(closure)
        return float(value)

    assert bias(CrossEntropy()) == pytest.approx(math.log(10 / 90), abs=1e-3)
    assert bias(BalancedSoftmax()) == pytest.approx(0.0, abs=1e-3)


def test_balanced_softmax_needs_counts() -> None:
    with pytest.raises(
        ValueError, match="task 'grade' says not how many training studies each class has; fix: medssml"
    ):
        BalancedSoftmax().for_task("grade", Task("multiclass", 3))


@pytest.mark.parametrize("label", [name for name in STUDY_LOSSES if name != "cross-entropy"])
def test_a_number_is_refused_before_anything_is_learned(label: str) -> None:
    model = tiny_model()
    model.add_task("age", {"kind": "regression"})
    with pytest.raises(ValueError, match=r"for classes, and task 'age' is a number; fix: CrossEntropy"):
        Supervised(model, ["age"], loss=STUDY_LOSSES[label]())


@pytest.mark.parametrize("label", STUDY_LOSSES)
def test_labels_average_each_loss_over_the_labelled(label: str) -> None:
    model = tiny_model().eval()
    tasks = {"finding": Task(counts=BINARY.counts), "grade": Task("multiclass", 3, counts=THREE.counts)}
    for name in list(model.tasks):
        model.tasks[name] = tasks[name]
    supervised = Supervised(model, loss=STUDY_LOSSES[label]()).eval()
    step = Step(model, batch_of(ten_studies()))
    means = []
    for name, task in tasks.items():
        known = torch.isfinite(step.batch.targets[name])
        loss = STUDY_LOSSES[label]().for_task(name, task)
        logits = model.heads[name](step.fused)[known]
        means.append(loss(task, logits, step.batch.targets[name][known], step.batch.index[known]).mean())
    torch.testing.assert_close(supervised(step)["loss"], torch.stack(means).mean())


def test_each_task_keeps_its_own_targets_and_only_labelled_studies_move_them() -> None:
    model = tiny_model()
    supervised = Supervised(model, loss=EarlyLearning(), unimodal_weight=1.0)
    step = Step(model, batch_of(ten_studies()))
    supervised(step)
    assert all(loss.targets.rows.numel() == 0 for loss in supervised.losses), "not before the step is taken"
    supervised.after_step(step.clock)
    for loss, (name, task) in zip(supervised.losses, model.tasks.items(), strict=True):
        known = torch.isfinite(step.batch.targets[name])
        p = log_probabilities(task, model.heads[name](step.fused)).exp().detach()
        expected = torch.where(known[:, None], 0.3 * p, 0.0)
        # The last study may be unlabelled: then there is no row of it.
        torch.testing.assert_close(loss.targets.of(step.batch.index, task.n_classes), expected, rtol=1e-4, atol=1e-5)
    supervised.eval()
    before = [loss.targets.rows.clone() for loss in supervised.losses]
    supervised(step)
    supervised.after_step(step.clock)
    assert all(torch.equal(b, loss.targets.rows) for b, loss in zip(before, supervised.losses, strict=True))


WRONG: list[tuple[Callable[[], StudyLoss], str]] = [
    (lambda: GeneralisedCrossEntropy(0.0), "q is 0.0; fix: above 0 and at most 1"),
    (lambda: GeneralisedCrossEntropy(1.1), "q is 1.1; fix"),
    (lambda: GeneralisedCrossEntropy(k=1.0), "k is 1.0; fix: a probability"),
    (lambda: GeneralisedCrossEntropy(k=0.5, prune_after=1.5), "prune_after is 1.5; fix"),
    (lambda: SymmetricCrossEntropy(-0.1), "alpha is -0.1"),
    (lambda: SymmetricCrossEntropy(0.0, 0.0), "one of them above 0"),
    (lambda: SymmetricCrossEntropy(log_zero=0.0), "log_zero is 0.0; fix: a number below 0"),
    (lambda: EarlyLearning(-1.0), "strength is -1.0; fix"),
    (lambda: EarlyLearning(momentum=1.0), "momentum is 1.0; fix"),
    (lambda: BalancedSoftmax(-1.0), "tau is -1.0; fix"),
]


@pytest.mark.parametrize(("make", "said"), WRONG)
def test_a_number_out_of_range_is_told_the_way_out(make: Callable[[], StudyLoss], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
