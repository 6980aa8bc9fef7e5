"""What a step does with its randomness and with gradients that are not finite."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.model import MultimodalModel
from medssml.objectives import Clock, Objective, Step
from medssml.privacy import short_code
from medssml.trainers.learner import Learner, NonFiniteError, step_seed
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings

from .toy import ToyLoader, toy_model

CPU: dict[str, Any] = {"device": "cpu", "precision": "32"}


class Draws(Objective):
    """Remembers what it drew, in each of its hooks."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__(model)
        self.head = nn.Linear(model.dim, 1)
        self.drawn: dict[str, list[float]] = {"step": [], "begin": [], "after": []}

    def forward(self, step: Step) -> dict[str, Tensor]:
        self.drawn["step"].append(float(torch.rand(())))
        return {"loss": self.head(step.fused.pooled).square().mean()}

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        self.drawn["begin"].append(float(torch.rand(())))

    def after_step(self, clock: Clock) -> None:
        assert not torch.is_grad_enabled()
        self.drawn["after"].append(float(torch.rand(())))


def test_what_an_objective_draws_follows_from_the_seed_and_the_batch_alone(tmp_path: Path) -> None:
    def drawn(seed: int, name: str) -> list[dict[str, list[float]]]:
        model = toy_model(dropout=0.0)
        objectives = [Draws(model), Draws(model)]
        learner = Learner(model, objectives, Optim(lr=0.01), seed=seed)
        torch.manual_seed(len(name))
        settings = TrainerSettings(max_steps=8, **CPU)
        fit(learner, ToyLoader(), tmp_path / name, settings, studies=ToyLoader())
        return [objective.drawn for objective in objectives]

    first, again, other = drawn(3, "a"), drawn(3, "another"), drawn(4, "b")
    assert first == again
    for mine, theirs in zip(first, other, strict=True):
        assert [len(mine[name]) for name in ("step", "begin", "after")] == [8, 2, 8]
        values = [value for numbers in (*mine.values(), *theirs.values()) for value in numbers]
        assert len(set(values)) == len(values), "every hook of every batch has numbers of its own"
    # The hooks of two objectives differ, too.
    for name in ("begin", "after"):
        assert not set(first[0][name]) & set(first[1][name])
    torch.manual_seed(step_seed(3, 6, -1))
    assert first[0]["begin"][1] == float(torch.rand(()))


class Infinite(Objective):
    """A loss that is infinite, and whose gradient is not."""

    def __init__(self, model: MultimodalModel, start: int) -> None:
        super().__init__(model)
        self.head = nn.Linear(model.dim, 1)
        self.start = start

    def forward(self, step: Step) -> dict[str, Tensor]:
        loss = self.head(step.fused.pooled).square().mean()
        return {"loss": loss + (torch.inf if step.clock.step >= self.start else 0.0)}


def test_a_loss_that_is_infinite_is_a_step_that_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = toy_model(dropout=0.0)
    learner = Learner(model, [Infinite(model, 3)], Optim(lr=0.01))
    weights = []
    learner.on_bad = lambda studies: weights.append(learner.objectives[0].head.weight.detach().clone())  # type: ignore[union-attr]
    with caplog.at_level(logging.WARNING, "medssml"), pytest.raises(NonFiniteError) as caught:
        fit(learner, ToyLoader(), tmp_path, TrainerSettings(max_steps=9, bad_steps=2, **CPU))
    assert str(caught.value) == (
        "no finite gradient in 2 steps in a row, up to step 4: the last checkpoint is good; fix: look at the studies "
        "named in problems.csv, or lower optim.lr"
    )
    assert torch.equal(weights[0], weights[1])
    loader = ToyLoader()
    loader.load_state_dict({"epoch": 0, "batch": 3})
    codes = [", ".join(short_code(name) for name in loader.take().study_id) for _ in range(2)]
    assert [r.getMessage() for r in caplog.records if r.name == "medssml.trainers.learner"] == [
        f"step {step} skipped: loss or gradient is not finite; studies {codes[step - 3]}" for step in (3, 4)
    ]


def test_a_gradient_that_is_not_finite_names_all_studies_of_the_step() -> None:
    model = toy_model()
    learner, named = Learner(model, [Infinite(model, 0)], Optim()), []
    learner.on_bad = named.append
    head = learner.objectives[0].head  # type: ignore[union-attr]
    optimizer = learner.configure_optimizers()
    learner._seen, learner._suspects = ["a", "b", "a"], []
    head.weight.grad = torch.full_like(head.weight, torch.nan)
    learner.configure_gradient_clipping(optimizer)
    assert named == [("a", "b")] and head.weight.grad is None and learner.bad_in_a_row == 1 and learner.numbers == {}
    learner._seen, learner._suspects = ["a", "b"], ["b"]
    head.weight.grad = torch.full_like(head.weight, torch.inf)
    learner.configure_gradient_clipping(optimizer)
    assert named[1] == ("b",) and learner.bad_in_a_row == 2
    head.weight.grad = torch.full_like(head.weight, 3.0)
    learner.configure_gradient_clipping(optimizer)
    assert learner.bad_in_a_row == 0 and (learner._seen, learner._suspects) == ([], [])
    assert float(learner.numbers["grad_norm"]) == pytest.approx(3 * head.weight.numel() ** 0.5)
    assert float(head.weight.grad.norm()) == pytest.approx(1.0, rel=1e-4)
    head.weight.grad = None
    learner.configure_gradient_clipping(optimizer)
    assert float(learner.numbers["grad_norm"]) == 0.0
