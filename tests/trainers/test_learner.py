"""The hooks of a learner: teachers, kept parts, ramps, epochs, accumulation; and that a stopped run has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.encoders import Descriptor
from medssml.model import MultimodalModel, Task
from medssml.objectives import Clock, CrossModalContrast, Objective, Ramp, Step
from medssml.spaces import SharedSpace
from medssml.standardise import Standardise
from medssml.trainers.learner import Learner, evaluating, objective_names
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings
from medssml.trainers.stream import Portion

from .toy import WIDTH, ToyLoader, toy_model, tuner

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


class Scaled(Descriptor):
    """The numbers of a vector, in standard deviations of those that were seen."""

    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH)
        self.rows: list[Tensor] = []

    def measure(self, inputs: Any) -> Tensor:
        return inputs

    def see(self, inputs: Any, subjects: Tensor) -> None:
        self.rows.append(inputs)

    def learn(self) -> None:
        x = torch.cat(self.rows).double().numpy()
        self._fit(np.diag(1 / x.std(0)), x.mean(0) / x.std(0))


def described(seed: int = 0) -> Learner:
    """As `learner_of`, with a descriptor beside one encoder."""
    toy = toy_model(seed)
    model = MultimodalModel(dict(toy.encoders), toy.fusion, descriptors={"ct": Scaled()})
    return Learner(model, [Momentum(model)], Optim(lr=0.01), seed=3)


def test_what_is_measured_is_fitted_to_all_studies_before_the_first_step_and_not_again(tmp_path: Path) -> None:
    learner, seen = described(), []
    encode = learner.model.encode

    def watch(batch: Batch, chunk: int | None = None) -> Any:
        if learner.training:
            teacher = learner.teacher.model.descriptors["ct"]  # type: ignore[union-attr]
            seen.append((learner.model.descriptors["ct"].directions.clone(), teacher.directions.clone()))  # type: ignore[union-attr, operator]
        return encode(batch, chunk)

    learner.model.encode = watch  # type: ignore[method-assign]
    run(tmp_path, learner)
    rows = ToyLoader().x[:, 0][ToyLoader().present[:, 0]]
    expected = torch.diag(1 / rows.std(0, correction=0))
    assert len(seen) == 24
    for own, teachers in seen:
        torch.testing.assert_close(own, expected)
        assert torch.equal(own, teachers)


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


def told(make: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:
        make()
    return str(caught.value)


def asks(model: MultimodalModel, teacher: Any, name: str = "Momentum") -> Objective:
    made: Objective = type(name, (Momentum,), {})(model)
    made.teacher = teacher
    return made


def test_a_learner_that_cannot_be_is_told_with_the_way_out() -> None:
    model = toy_model()
    assert told(lambda: Learner(model, [], Optim())) == "no objective; fix: list at least one under `objectives`"
    assert told(lambda: Learner(model, [asks(model, 0.9, "A"), asks(model, 0.8, "B")], Optim())) == (
        "A, B want teachers of different decay ([0.9, 0.8]); fix: give them the same"
    )
    assert told(lambda: Learner(model, [asks(model, None, "A"), asks(model, "given", "B")], Optim())) == (
        "B asks another model; fix: teacher: {checkpoint: RUN} in the config"
    )
    both = [asks(model, 0.9, "A"), asks(model, "given", "B")]
    assert told(lambda: Learner(model, both, Optim(), given=toy_model(5))) == (
        "A, B: one teacher follows the student and one is given; fix: one of the two"
    )
    # A given model that nobody asks for, and one decay that two share, are fine.
    assert Learner(model, [asks(model, None)], Optim(), given=toy_model(5)).momentum is None
    assert (
        Learner(model, [asks(model, 0.9, "A"), asks(model, 0.9, "B"), asks(model, None, "C")], Optim()).momentum == 0.9
    )


def test_a_given_teacher_stays_as_it_is() -> None:
    model, given = toy_model(), toy_model(5)
    learner = Learner(model, [asks(model, "given")], Optim(), given=given.train())
    assert learner.teacher is None and not given.training and not any(p.requires_grad for p in given.parameters())
    assert learner._teacher(learner.objectives).model is given  # type: ignore[union-attr]
    assert Learner(model, [asks(model, None)], Optim())._teacher([]) is None


class Two(Momentum):
    """Wants two looks."""

    views = 2


def test_what_compares_looks_has_no_term_where_there_is_one_look() -> None:
    model = toy_model()
    learner = Learner(model, [Momentum(model), Two(model)], Optim()).eval()
    batch = ToyLoader().batch(torch.arange(4))
    assert learner.views == 2 and learner.names == ["momentum", "two"]
    assert set(learner.terms(batch)) == {"loss", "momentum/loss"}
    assert set(learner.terms(replace(batch, views=(batch,)))) == {"loss", "momentum/loss", "two/loss"}


def test_objectives_of_a_kind_are_numbered_from_the_second_on() -> None:
    model = toy_model()
    kinds = [
        type(name, (Momentum,), {})(model) for name in ("SimCLR", "MaskedMean", "MaskedMean", "Masked", "MaskedMean")
    ]
    assert objective_names(kinds) == ["sim_clr", "masked_mean", "masked_mean_2", "masked_3", "masked_mean_3"]


class Keeps(Momentum):
    """Has a space to keep, and another part of its own."""

    def kept(self) -> dict[str, nn.Module]:
        return {"space": self.head, type(self).__name__: nn.Identity()}


def test_the_first_of_a_name_is_kept_under_it_and_others_with_their_objectives() -> None:
    model = toy_model()
    objectives = [Momentum(model), type("A", (Keeps,), {})(model), type("B", (Keeps,), {})(model)]
    kept = Learner(model, objectives, Optim()).kept()
    assert list(kept) == ["space", "A", "b/space", "B"]
    assert kept["space"] is objectives[1].head and kept["b/space"] is objectives[2].head


def test_the_weights_to_keep_are_a_copy_of_those_that_count() -> None:
    learner = learner_of()
    learner.keep_average(0.9)
    assert learner.decay == 0.9 and learner.average is not None and learner.average.begin_after_first
    with torch.no_grad():
        for parameter in learner.average.parameters():
            parameter += 1
    kept = learner.weights_to_keep()
    assert list(kept) == ["model", "momentum"] and not any(
        v.requires_grad for part in kept.values() for v in part.values()
    )
    before = learner.model.state_dict()["project.ct.weight"].clone()
    head = learner.objectives[0].head.weight.detach().clone()  # type: ignore[union-attr]
    learner.load_weights_to_keep(kept)
    torch.testing.assert_close(learner.model.project["ct"].weight, before + 1)
    torch.testing.assert_close(learner.objectives[0].head.weight, head + 1)  # type: ignore[union-attr]
    with torch.no_grad():
        learner.average.model.project["ct"].weight.zero_()
    assert bool(kept["model"]["project.ct.weight"].any()), "what is kept is a copy"


def test_what_is_saved_of_a_learner_is_what_it_goes_on_from() -> None:
    learner, other = learner_of(), learner_of(seed=9)
    learner.batches, learner.bad_in_a_row = 7, 2
    other.load_learning_state(learner.learning_state())
    assert (other.batches, other.bad_in_a_row) == (7, 2)
    assert all(
        torch.equal(a, b) for a, b in zip(learner.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_the_clock_counts_steps_and_epochs() -> None:
    learner = learner_of()
    assert learner.clock == Clock(0, 1, 0) and learner.step == 0
    learner.batches, learner.accumulate, learner.per_epoch, learner.total = 23, 4, 6, 9
    assert learner.clock == Clock(5, 9, 3)


def test_the_batches_of_a_step_are_moved_once_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, moved = learner_of(), []
    monkeypatch.setattr(Batch, "to", lambda self, device: (moved.append(device), self)[1])
    group = tuple(ToyLoader().batch(torch.arange(n, n + 2)) for n in (0, 2))
    device = torch.device("cpu")
    for place in (0, 1):
        portion = learner.transfer_batch_to_device(Portion(place, group), device, 0)
        assert portion.batch is group[place] and portion.group == group
    assert moved == [device, device]
    later = tuple(ToyLoader().batch(torch.arange(n, n + 2)) for n in (4, 6))
    assert learner.transfer_batch_to_device(Portion(0, later), device, 0).batch is later[0]


def test_evaluating_leaves_every_part_as_it_was() -> None:
    learner = learner_of()
    learner.model.fusion.eval()
    with pytest.raises(KeyError), evaluating(learner):
        assert not any(part.training for part in learner.modules()) and not torch.is_grad_enabled()
        raise KeyError
    assert learner.training and learner.model.training and not learner.model.fusion.training and torch.is_grad_enabled()
