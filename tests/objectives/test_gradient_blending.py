"""Gradient blending: the published weights, measured study by study; whom the held-out subjects teach nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives import Clock, GradientBlending, Step
from medssml.objectives.draws import uniform
from medssml.objectives.gradient_blending import blending_weights
from tests.examples import MODALITIES, batch_of, study, ten_studies, tiny_model

BRANCHES = (*MODALITIES, "all")


@pytest.fixture
def model() -> MultimodalModel:
    torch.manual_seed(3)
    model = tiny_model().eval()
    for task in model.tasks:
        torch.nn.init.normal_(model.heads[task].linear.weight)
    return model


def losses(model: MultimodalModel, studies: list, branch: str) -> list[Tensor]:
    """The mean over the labelled studies of each task from one branch, one study at a time; None where there is none."""
    found: dict[str, list[Tensor]] = {"finding": [], "grade": []}
    for one in studies:
        seen = [m for m in one["inputs"] if branch in ("all", m)]
        if not seen:
            continue
        batch = batch_of([one])
        answer = model(batch.without(*[m for m in MODALITIES if m not in seen]))
        for task, y in one["targets"].items():
            if y == y and task == "finding":
                found[task].append(F.binary_cross_entropy_with_logits(answer[task][0], torch.tensor(y)))
            elif y == y:
                found[task].append(F.cross_entropy(answer[task], torch.tensor([int(y)])))
    return [torch.stack(each).mean() for each in found.values() if each]


def held(studies: list, share: float) -> list[bool]:
    subjects = torch.tensor([one["subject"] for one in studies])
    return (uniform(subjects, 1, "gradient blending")[:, 0] < share).tolist()


def test_weights_are_gain_over_squared_growth_of_the_gap() -> None:
    before = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.1, 1.2, 1.0, 1.0]], dtype=torch.float64)
    after = torch.tensor([[0.5, 0.2, 0.9, 0.9], [0.8, 0.9, 1.2, float("nan")]], dtype=torch.float64)
    first = (1.1 - 0.8) / ((0.8 - 0.5) - (1.1 - 1.0)) ** 2
    second = (1.2 - 0.9) / ((0.9 - 0.2) - (1.2 - 1.0)) ** 2
    expected = torch.tensor([first, second, 0.0, 0.0], dtype=torch.float64) / (first + second)
    given = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(blending_weights(before, after, given), expected)
    # As much gained, less learned by heart: more weight.
    assert expected[0] > 4 * expected[1] > 0
    # Nobody gained, or nothing was measured before: the weights stay.
    assert torch.equal(blending_weights(after, before.clamp(min=2), given), given)
    assert torch.equal(blending_weights(torch.full((2, 4), float("nan")).double(), after, given), given)


def test_losses_are_measured_for_each_branch_on_both_parts(model: MultimodalModel) -> None:
    studies = [study(n, p) for n, p in enumerate([("ct", "report"), ("ct",), ("xray", "report"), ("report",)] * 4)]
    objective = GradientBlending(model, share=0.4)
    objective.begin_epoch(Clock(epoch=0), model, [batch_of(studies[:5]), batch_of(studies[5:])])
    apart = held(studies, 0.4)
    assert 3 < sum(apart) < 13
    for part in (0, 1):
        chosen = [one for one, out in zip(studies, apart, strict=True) if out == bool(part)]
        for column, branch in enumerate(BRANCHES):
            found = losses(model, chosen, branch)
            value = objective.measured[part, column]
            if not found:
                assert branch == "eeg" and bool(value.isnan())
                continue
            torch.testing.assert_close(value, torch.stack(found).mean().double(), rtol=1e-4, atol=1e-6)
    assert torch.equal(objective.weights, torch.full((5,), 0.2, dtype=torch.float64)), (
        "measured once: nothing to compare"
    )


def test_weights_follow_what_was_measured_every_so_many_epochs(model: MultimodalModel) -> None:
    batches = [batch_of([study(n, ("ct", "report")) for n in range(12)])]
    objective = GradientBlending(model, every=2, share=0.4)
    objective.begin_epoch(Clock(epoch=0), model, batches)
    before = objective.measured.clone()
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.mul_(0.5)
    objective.begin_epoch(Clock(epoch=1), model, batches)
    assert torch.equal(objective.measured[:, [0, 3, 4]], before[:, [0, 3, 4]])
    objective.begin_epoch(Clock(epoch=2), model, batches)
    after = objective.measured
    assert not torch.equal(after[:, 0], before[:, 0])
    expected = blending_weights(before, after, torch.full((5,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(objective.weights, expected)
    again = GradientBlending(model, every=2, share=0.4)
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.weights, objective.weights)


def test_the_loss_is_the_weighted_sum_of_the_branches(model: MultimodalModel) -> None:
    objective = GradientBlending(model).eval()
    objective.weights = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64)
    found = objective(Step(model, batch_of(ten_studies())))
    assert found is not None
    total = torch.zeros(())
    for weight, branch in zip(objective.weights.tolist(), BRANCHES, strict=True):
        studies = ten_studies() if branch == "all" else [s for s in ten_studies() if branch in s["inputs"]]
        of_branch = losses(model, studies, branch)
        if branch == "all":  # the loss of all together counts a study that has nothing, too
            answer = model(batch_of(ten_studies()))
            targets = batch_of(ten_studies()).targets
            a, b = (torch.isfinite(targets[task]) for task in ("finding", "grade"))
            of_branch = [
                F.binary_cross_entropy_with_logits(answer["finding"][a], targets["finding"][a]),
                F.cross_entropy(answer["grade"][b], targets["grade"][b].long()),
            ]
        mean = torch.stack(of_branch).mean()
        torch.testing.assert_close(found[f"loss/{branch}"], mean.detach(), rtol=1e-4, atol=1e-6)
        total = total + weight * mean
    torch.testing.assert_close(found["loss"], total, rtol=1e-4, atol=1e-6)


def test_held_out_subjects_teach_nothing_in_training(model: MultimodalModel) -> None:
    studies = [study(n, ("ct", "report")) for n in range(10)]
    apart = torch.tensor(held(studies, 0.4))
    assert 0 < int(apart.sum()) < 10
    batch = batch_of(studies)
    turned = {name: torch.where(apart, 1 - y.clamp(max=1), y) for name, y in batch.targets.items()}
    objective = GradientBlending(model, share=0.4)
    answers = {}
    for mode in (True, False):
        objective.train(mode)
        answers[mode] = [
            float(objective(Step(model, given))["loss"].detach())  # type: ignore[index]
            for given in (batch, replace(batch, targets=turned))
        ]
    assert answers[True][0] == answers[True][1]
    assert answers[False][0] != answers[False][1], "in a validation everybody counts"


def test_numbers_out_of_range_are_told_the_way_out(model: MultimodalModel) -> None:
    for wrong in ({"every": 0}, {"share": 1.0}):
        with pytest.raises(ValueError, match="fix: at least one epoch, a share between 0 and 1"):
            GradientBlending(model, **wrong)  # type: ignore[arg-type]
