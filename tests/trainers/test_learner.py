"""The hooks of a learner: teachers, kept parts, ramps, epochs, accumulation; and that a stopped run has them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.model import MultimodalModel, Task
from medssml.objectives import Clock, CrossModalContrast, Objective, Ramp, Step
from medssml.spaces import SharedSpace
from medssml.standardise import Standardise
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings

from .toy import ToyLoader, toy_model, tuner

CPU: dict[str, Any] = {"device": "cpu", "precision": "32"}


class Momentum(Objective):
    """The student's fused vector towards the teacher's, through a head and its twin; a queue of what the teacher said."""

    teacher = 0.9

    def __init__(self, model: MultimodalModel, *, weight: float | Ramp = 1.0) -> None:
        super().__init__(model, weight=weight)
        self.head = nn.Linear(model.dim, 4)
        self.register_buffer("queue", torch.zeros(6, 4))
        self.register_buffer("centre", torch.zeros(4))
        self.queue: Tensor
        self.centre: Tensor
        self.waiting: Tensor | None = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        twin = step.twin(self)
        target = twin.head(step.teacher.fused.pooled).detach()  # type: ignore[operator, union-attr]
        self.waiting = target[:2] if self.training else None
        away = self.queue.mean(0) + self.centre
        return {"loss": (self.head(step.fused.pooled) - target + 0.1 * away).square().mean()}

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        assert not model.training and not torch.is_grad_enabled()
        seen = torch.cat([model.fuse(model.encode(b), b.present).pooled for b in map(model.align, studies)])
        self.centre.copy_(seen[torch.randperm(len(seen))[:3], :4].mean(0))

    def after_step(self, clock: Clock) -> None:
        if self.waiting is not None:
            self.queue.copy_(torch.cat([self.waiting + 0.01 * torch.randn(2, 4), self.queue[:-2]]))


def learner_of(seed: int = 0, weight: float | Ramp = 1.0) -> Learner:
    model = toy_model(seed, dropout=0.2)
    torch.manual_seed(7)
    return Learner(model, [Momentum(model, weight=weight)], Optim(lr=0.01), seed=3)


def run(folder: Path, learner: Learner, **settings: Any) -> Learner:
    torch.set_num_threads(1)
    options = {"max_epochs": 4, "save_every_steps": 3, **CPU, **settings}
    fit(learner, ToyLoader(), folder, TrainerSettings(**options), studies=ToyLoader())
    return learner


@pytest.mark.parametrize("cut", [4, 6, 9])
def test_a_stopped_run_has_its_queue_its_teacher_and_its_epochs(tmp_path: Path, cut: int) -> None:
    """Step 6 is the edge of the first epoch of six batches, where `begin_epoch` must be called once and not twice."""
    whole = run(tmp_path / "whole", learner_of())

    class Cut(ToyLoader):
        def take(self) -> Batch:
            if self.step == cut:
                raise KeyboardInterrupt
            return super().take()

    settings = TrainerSettings(max_epochs=4, save_every_steps=1, **CPU)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(learner_of(), Cut(), tmp_path / "cut", settings, studies=ToyLoader())
    resumed = run(tmp_path / "cut", learner_of(), save_every_steps=1)
    theirs = resumed.state_dict()
    assert whole.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.state_dict().items())
    assert bool(whole.objectives[0].queue.any()) and bool(whole.objectives[0].centre.any())  # type: ignore[union-attr, operator]


def test_the_teacher_begins_as_the_student_and_follows_by_the_closed_form(tmp_path: Path) -> None:
    learner = learner_of()
    head = learner.objectives[0].head  # type: ignore[union-attr]
    assert learner.teacher is not None
    expected = head.weight.detach().clone()
    torch.testing.assert_close(learner.teacher.objectives[0].head.weight, expected)  # type: ignore[union-attr]
    seen = []
    follow = learner.teacher.update

    def watch(model: MultimodalModel, objectives: Any, decay: float) -> None:
        seen.append(head.weight.detach().clone())
        assert decay == 0.9
        follow(model, objectives, decay)

    learner.teacher.update = watch  # type: ignore[method-assign]
    run(tmp_path, learner, max_epochs=1)
    for weights in seen:
        expected = 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(learner.teacher.objectives[0].head.weight, expected)  # type: ignore[union-attr]
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    assert not learner.teacher.train().model.training


def test_two_teachers_of_different_decay_are_refused_and_so_is_one_without_a_model() -> None:
    model = toy_model()
    slow = Momentum(model)
    slow.teacher = 0.99
    with pytest.raises(ValueError, match="different decay"):
        Learner(model, [type("Other", (Momentum,), {})(model), slow], Optim())
    asks = Momentum(model)
    asks.teacher = "given"
    with pytest.raises(ValueError, match=r"asks another model; fix: teacher: \{checkpoint"):
        Learner(model, [asks], Optim())
    given = Learner(model, [asks], Optim(), given=toy_model(5))
    step = given.validation_step_of(ToyLoader().batch(torch.arange(4)))
    assert not torch.allclose(step.teacher.fused.pooled, step.fused.pooled)
    assert not [name for name in given.state_dict() if name.startswith("given")]


def test_a_ramp_of_the_weight_follows_the_clock() -> None:
    learner = learner_of(weight=Ramp(0.0, 1.0)).eval()
    learner.total = 10
    batch = ToyLoader().batch(torch.arange(8))
    losses = []
    for batches in (0, 5, 10):
        learner.batches = batches
        losses.append(float(learner.terms(batch)["loss"]))
    assert losses[0] == 0.0 and losses[1] == pytest.approx(losses[2] / 2)


def test_the_space_of_a_contrast_is_kept_as_it_was_trained(tmp_path: Path) -> None:
    """Batch norm included: the cosine of what was trained and what is loaded is 1."""
    for ema in (None, 0.9):
        model = toy_model(dropout=0.0)
        torch.manual_seed(1)
        learner = Learner(model, [CrossModalContrast(model, dim=6)], Optim(lr=0.02), seed=3)
        fit(learner, ToyLoader(), tmp_path / str(ema), TrainerSettings(max_epochs=3, ema=ema, **CPU))
        batch = ToyLoader(seed=4).batch(torch.arange(24))
        objective = learner.objectives[0].eval()
        step = Step(learner.model.eval(), batch)
        with torch.no_grad():
            trained = {m: objective.space(m, step.encoded[m].pooled) for m in ("ct", "report")}  # type: ignore[operator, union-attr]
        learner.model.save(tmp_path / f"model-{ema}")
        # The toy's encoder is of no public class: the plugin is this test's own package.
        loaded = MultimodalModel.load(tmp_path / f"model-{ema}", plugins=(type(model.encoders["ct"]).__module__,))
        space = loaded.kept["space"]
        assert isinstance(space, SharedSpace)
        for modality, vectors in trained.items():
            with torch.no_grad():
                found = space(modality, loaded.encode(batch)[modality].pooled)
            assert float((found * vectors).sum(1).min()) >= 0.9999


def test_fine_tuning_leaves_the_space_behind_unless_all_but_the_heads_stays() -> None:
    for freeze, kept in (("none", False), ("encoders", False), ("all_but_heads", True)):
        model = toy_model()
        model.keep({"space": SharedSpace(model.dim, 4, ["ct", "report"])})
        learner = tuner(model, None, Optim(), freeze=freeze)
        assert ("space" in learner.model.kept) == kept
        assert not any(p.requires_grad for p in learner.model.kept.parameters())


@pytest.mark.parametrize("labels", [1.0, 0.4])
def test_accumulation_is_the_step_of_the_larger_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: float
) -> None:
    """Also where the small batches hold different numbers of labels: each label weighs the same."""
    # Only the first statistics follow every batch, so they stay as they are here.
    monkeypatch.setattr(Standardise, "follow", lambda *_: None)
    weights, losses = [], []
    for size, accumulate in ((16, 1), (4, 4)):
        learner = tuner(toy_model(dropout=0.0), None, Optim(lr=0.01, clip_norm=0), unimodal_weight=0.5)
        settings = TrainerSettings(max_steps=3, accumulate=accumulate, log_every=1, **CPU)
        fit(learner, ToyLoader(size=size, labels=labels), tmp_path / str(size), settings)
        weights.append(torch.cat([p.detach().flatten() for p in learner.model.parameters()]))
        from medssml.trainers.history import read

        losses.append([row["train/loss"] for row in read(tmp_path / str(size) / "history.csv") if "train/loss" in row])
    torch.testing.assert_close(weights[0], weights[1], atol=1e-5, rtol=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


class Placed(Objective):
    """Says whether it knows which of the training studies it is asked about."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        return {"loss": torch.tensor(0.0 if step.batch.index is None else 1.0)}


def test_a_study_of_the_validation_is_none_of_the_training_studies() -> None:
    """Both count from 0: the number of one must not stand for the other."""
    learner = Learner(toy_model(), [Placed(toy_model())], Optim())
    batch = replace(ToyLoader().batch(torch.arange(4)), index=torch.arange(4))
    step = learner.validation_step_of(batch)
    assert float(learner.terms(batch)["loss"]) == 1.0
    assert float(learner.sum_of(step, learner.validated_objectives)["loss"]) == 0.0


def test_a_regression_that_only_gets_worse_keeps_the_mean_that_it_began_with(tmp_path: Path) -> None:
    """A rate at which nothing is learned: what is kept answers the mean of the training targets, R2 0 and not far below."""
    model = toy_model(tasks=(), dropout=0.0)
    model.add_task("sick", Task("regression", mean=0.5, sd=0.5))
    learner = tuner(model, None, Optim(lr=3.0, warmup=0.0, clip_norm=0))
    outcome = fit(
        learner, ToyLoader(), tmp_path, TrainerSettings(max_epochs=3, **CPU), val=ToyLoader(studies=64, seed=9)
    )
    assert outcome.score is not None
    batch = ToyLoader(studies=64, seed=9).batch(torch.arange(64))
    with torch.no_grad():
        answers, targets = learner.model(batch)["sick"].double(), batch.targets["sick"].double()
    r2 = 1 - float((answers - targets).square().sum() / (targets - targets.mean()).square().sum())
    assert r2 > float(1 - (0.5 - targets).square().sum() / (targets - targets.mean()).square().sum()) - 0.05
