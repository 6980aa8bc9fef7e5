"""Several tasks with missing labels, frozen parts, modality dropout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medssml.batch import Batch
from medssml.model import Task
from medssml.objectives.study_loss import CrossEntropy
from medssml.objectives.supervised import hide_modalities
from medssml.trainers.freezing import freeze_parts
from medssml.trainers.judges import task_metrics
from medssml.trainers.learner import Learner
from medssml.trainers.optim import optimiser, parameter_groups
from medssml.trainers.settings import Optim

from .toy import ToyLoader, toy_model
from .toy import tuner as toy_tuner

NAN = float("nan")


def batch_with(**targets: list[float]) -> Batch:
    size = len(next(iter(targets.values())))
    batch = ToyLoader().batch(torch.arange(size))
    return replace(batch, targets={task: torch.tensor(values) for task, values in targets.items()})


def tuner(tasks: tuple[str, ...] = ("a", "b"), **options: object) -> Learner:
    return toy_tuner(toy_model(tasks=tasks, dropout=0.0), None, Optim(), **options)  # type: ignore[arg-type]


def study_losses(task: Task, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    return CrossEntropy(label_smoothing)(task, logits, targets)


def test_the_loss_is_the_mean_over_tasks_of_the_mean_over_labelled_studies() -> None:
    learner = tuner()
    batch = batch_with(a=[1, 0, NAN, 1], b=[NAN, NAN, 0, NAN])
    found = learner.terms(batch)
    logits = learner.model(batch)
    a = F.binary_cross_entropy_with_logits(logits["a"][[0, 1, 3]], torch.tensor([1.0, 0.0, 1.0]))
    b = F.binary_cross_entropy_with_logits(logits["b"][[2]], torch.tensor([0.0]))
    torch.testing.assert_close(found["supervised/loss/a"], a.detach())
    torch.testing.assert_close(found["loss"], (a + b) / 2)


def test_each_modality_alone_is_the_loss_of_the_batch_without_the_others() -> None:
    plain, both = tuner(), tuner(unimodal_weight=0.5)
    both.load_state_dict(plain.state_dict())
    batch = batch_with(a=[1, 0, NAN, 1, 0, 1], b=[NAN, NAN, 0, NAN, 1, 1])
    alone = []
    for modality in batch.modalities:
        others = batch.without(*(name for name in batch.modalities if name != modality))
        has = batch.present[:, batch.column(modality)]
        seen = replace(others, targets={t: torch.where(has, v, torch.nan) for t, v in batch.targets.items()})
        found = plain.terms(seen)
        if found:
            alone.append(found["loss"])
    expected = plain.terms(batch)["loss"] + 0.5 * torch.stack(alone).mean()
    torch.testing.assert_close(both.terms(batch)["loss"], expected)


def test_a_task_nobody_is_labelled_for_is_left_out_and_its_head_has_no_gradient() -> None:
    learner = tuner()
    found = learner.terms(batch_with(a=[1, 0, 1], b=[NAN, NAN, NAN]))
    found["loss"].backward()
    assert "supervised/loss/b" not in found
    assert all(parameter.grad is None for parameter in learner.model.heads["b"].parameters())
    gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert learner.terms(batch_with(a=[NAN], b=[NAN])) == {}


def test_an_unlabelled_study_moves_nothing() -> None:
    learner = tuner(("a",))
    learner.model.standardise.eval()  # an unlabelled study is one of those whose statistics are followed
    batch = batch_with(a=[1, 0, NAN, NAN])
    learner.terms(batch)["loss"].backward()
    gradient = learner.model.heads["a"].linear.weight.grad.clone()
    learner.zero_grad()
    learner.terms(batch_with(a=[1, 0]))["loss"].backward()
    torch.testing.assert_close(learner.model.heads["a"].linear.weight.grad, gradient)


def test_class_weights_and_smoothing_are_the_textbook_ones() -> None:
    logits, targets = torch.randn(6), torch.tensor([1.0, 0, 1, 0, 0, 0])
    smoothed = study_losses(Task("binary"), logits, targets, 0.2)
    torch.testing.assert_close(
        smoothed, F.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1, reduction="none")
    )
    many, classes = torch.randn(6, 3), torch.tensor([0.0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(
        study_losses(Task("multiclass", 3), many, classes, 0.1),
        F.cross_entropy(many, classes.long(), reduction="none", label_smoothing=0.1),
    )
    torch.testing.assert_close(study_losses(Task("regression"), logits, targets), (logits - targets) ** 2)

    learner = tuner(("a",), class_weights={"a": [1.0, 3.0]})
    batch = batch_with(a=[1, 0, NAN, 1])
    each = study_losses(Task("binary"), learner.model(batch)["a"][[0, 1, 3]], torch.tensor([1.0, 0, 1]))
    torch.testing.assert_close(learner.terms(batch)["loss"], (each * torch.tensor([3.0, 1, 3])).sum() / 7)


def test_a_label_counts_as_much_as_its_study_weighs() -> None:
    learner = tuner(("a",), study_weights={"a": [0.5, 3.0, 1.0, 0.0]}, class_weights={"a": [1.0, 2.0]})
    batch = batch_with(a=[1, 0, NAN, 1])
    each = study_losses(Task("binary"), learner.model(batch)["a"][[0, 1, 3]], torch.tensor([1.0, 0, 1]))
    torch.testing.assert_close(learner.terms(batch)["loss"], (each * torch.tensor([1.0, 3.0, 0.0])).sum() / 4)
    # In another order, and without a place: then it is 1.
    turned = replace(batch, index=torch.tensor([3, 0, 2, -1]))
    expected = (each * torch.tensor([0.0, 0.5, 2.0])).sum() / 2.5
    torch.testing.assert_close(learner.terms(turned)["loss"], expected)
    plain = (each * torch.tensor([2.0, 1.0, 2.0])).sum() / 5
    torch.testing.assert_close(learner.terms(replace(batch, index=None))["loss"], plain)


def after_a_step(learner: Learner) -> dict[str, bool]:
    """Which parameters moved."""
    before = {name: value.detach().clone() for name, value in learner.model.named_parameters()}
    optimizer = optimiser(parameter_groups(learner, Optim(lr=0.1)), Optim(lr=0.1))
    loss: Tensor = learner.terms(batch_with(a=[1, 0, 1, 0, 1, 0], b=[1, 1, 0, 0, 1, 0]))["loss"]
    loss.backward()
    optimizer.step()
    return {name: not torch.equal(value, before[name]) for name, value in learner.model.named_parameters()}


@pytest.mark.parametrize(
    ("freeze", "still"),
    [
        ("none", ()),
        ("encoders", ("encoders.",)),
        ("all_but_heads", ("encoders.", "project.", "fusion.")),
        (1, ("encoders.ct.blocks.0", "encoders.report.blocks.0")),
        ("2", ("encoders.",)),
        (0, ()),
    ],
)
def test_what_is_frozen_does_not_move_and_everything_else_does(freeze: str | int, still: tuple[str, ...]) -> None:
    moved = after_a_step(tuner(freeze=freeze))
    absent = "fusion.absent"  # moves only where a modality is absent
    assert not any(moved[name] for name in moved if name.startswith(still)) if still else True
    assert all(moved[name] for name in moved if not name.startswith((*still, absent)))


def test_only_the_heads_of_the_chosen_tasks_learn() -> None:
    learner = toy_tuner(toy_model(tasks=("a", "b")), ["a"], Optim())
    assert not any(parameter.requires_grad for parameter in learner.model.heads["b"].parameters())
    with pytest.raises(ValueError, match="'c'"):
        toy_tuner(toy_model(), ["c"], Optim())


def test_frozen_encoders_have_no_dropout_while_the_rest_trains() -> None:
    learner = toy_tuner(toy_model(dropout=0.5), None, Optim(), freeze="encoders")
    learner.train()
    assert learner.model.fusion.training and not learner.model.encoders["ct"].dropout.training
    batch = ToyLoader().batch(torch.arange(4))
    torch.testing.assert_close(learner.model.encode_raw(batch)["ct"], learner.model.encode_raw(batch)["ct"])


def test_a_wrong_freeze_is_told_the_way_out() -> None:
    with pytest.raises(ValueError, match="accepted: none"):
        freeze_parts(toy_model(), "fusion")
    with pytest.raises(ValueError, match="has 2 blocks"):
        freeze_parts(toy_model(), 3)


def test_modality_dropout_never_hides_all_and_belongs_to_the_study() -> None:
    present = torch.rand(500, 4) > 0.4
    present[:, 0] |= ~present.any(1)
    key = torch.arange(500) * 31
    kept = hide_modalities(present, key, 0.5)
    assert bool(kept.any(1).all()) and not bool((kept & ~present).any())
    several = present.sum(1) == 3
    # Of three, each is hidden with probability 1/2, except that the last one stays: 1/2 - 1/8 / 3.
    rate = 1 - float(kept[several].sum() / present[several].sum())
    assert rate == pytest.approx(0.5 - 1 / 24, abs=0.06)
    order = torch.randperm(500)
    assert torch.equal(hide_modalities(present[order], key[order], 0.5), kept[order])
    assert not torch.equal(hide_modalities(present, key, 0.5, seed=1), kept)
    assert torch.equal(hide_modalities(present, key, 0.0), present)


def test_dropout_of_modalities_only_while_training() -> None:
    learner = tuner(("a",), modality_dropout=0.9)
    batch = batch_with(a=[1.0] * 12)
    full = F.binary_cross_entropy_with_logits(learner.model(batch)["a"], torch.ones(12))
    learner.eval()
    torch.testing.assert_close(learner.terms(batch)["loss"], full)
    learner.train()
    assert not torch.allclose(learner.terms(batch)["loss"], full)


def test_validation_needs_enough_labels_to_decide() -> None:
    logits = torch.arange(20.0) - 10
    targets = (logits > 0).float()
    metrics = task_metrics("a", Task("binary"), logits, targets)
    assert metrics["auroc/a"] == 1.0 and metrics["supervised/loss/a"] > 0
    assert "auroc/a" not in task_metrics("a", Task("binary"), logits, torch.tensor([1.0] * 3 + [0.0] * 17))
    assert task_metrics("a", Task("binary"), logits[:5], targets[:5]) == {}
    assert set(task_metrics("a", Task("regression"), logits, targets)) == {"supervised/loss/a", "mse/a"}

    learner = tuner(("a",))
    assert learner.judge.score({"auroc": 0.7, "loss": 0.1}) == 0.7
    assert learner.judge.score({"loss": 0.1}) == -0.1
    assert learner.judge.score({}) is None
