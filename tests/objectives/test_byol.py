"""BYOL against the paper's equation, study by study; who learns and who does not."""

import math

import pytest
import torch

from medssml.objectives import BYOL, Clock, Ramp, Step, Teacher
from tests.examples import batch_of, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def two_looks(studies):
    """A batch whose second look is unlike the first, so that it matters which meets which."""
    batch = batch_of(studies, views=2)
    batch.views[0].inputs["ct"].mul_(-3)
    eeg = batch.views[0].inputs["eeg"]
    eeg["signal"] = eeg["signal"].flip(-1) * 5
    return batch


@pytest.fixture(scope="module")
def asked(model):
    """The objective, another model as its teacher with heads of its own, and the step."""
    torch.manual_seed(1)
    objective, twin = (BYOL(model, modalities=["ct", "eeg"], dim=6, hidden=12).eval() for _ in range(2))
    other = tiny_model(seed=9).eval()
    step = Step(model, two_looks(ten_studies()), teacher=Teacher(other, {objective: twin}))
    return objective, twin, other, step


def test_is_two_less_two_cosines_of_each_look_and_the_other(model, asked):
    objective, twin, other, step = asked
    views, total, studies = (step.batch, step.batch.views[0]), 0.0, 0
    for name in ("ct", "eeg"):
        z = [objective.project[name](model.encode(view)[name].pooled) for view in views]
        q = [objective.predict[name](part).tolist() for part in z]
        target = [twin.project[name](other.encode(view)[name].pooled).tolist() for view in views]
        for looking, looked_at in ((0, 1), (1, 0)):
            for a, b in zip(q[looking], target[looked_at], strict=True):
                unit_a = [x / math.hypot(*a) for x in a]
                unit_b = [x / math.hypot(*b) for x in b]
                total += sum((x - y) ** 2 for x, y in zip(unit_a, unit_b, strict=True))
        studies += len(q[0])
    assert float(objective(step)["loss"].detach()) == pytest.approx(total / studies, rel=1e-5)


def test_no_gradient_reaches_the_teacher(asked):
    objective, twin, other, step = asked
    objective(step)["loss"].backward()
    assert all(p.grad is None for p in [*twin.parameters(), *other.parameters()])
    assert all(p.grad is not None and bool(p.grad.any()) for p in objective.parameters())
    objective.zero_grad()


def test_the_teacher_ends_as_a_fixed_model(model):
    momentum = BYOL(model, dim=6, hidden=12).teacher
    assert isinstance(momentum, Ramp)
    assert [momentum.at(Clock(step, 100)) for step in (0, 50, 100)] == pytest.approx([0.996, 0.998, 1.0])


def test_studies_of_one_subject_are_learned_from_as_well(model, asked):
    objective, *_, step = asked
    studies = [{**one, "subject": 5, "content": dict.fromkeys(one["content"], 1)} for one in ten_studies()]
    alike = Step(model, two_looks(studies), teacher=step._teacher)
    torch.testing.assert_close(objective(alike)["loss"], objective(step)["loss"])
