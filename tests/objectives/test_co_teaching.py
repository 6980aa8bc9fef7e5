"""Co-teaching: who chooses for whom, how many, and that two models learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from medssml.objectives import Clock, CoTeaching, Step
from medssml.trainers.optim import parameter_groups
from medssml.trainers.settings import Optim
from tests.examples import batch_of, ten_studies, tiny_model


def study_losses(model, name, batch):  # type: ignore[no-untyped-def]
    """Loss of each labelled study, one by one; NaN where there is no label."""
    out = []
    for logit, label in zip(model(batch)[name], batch.targets[name], strict=True):
        if not torch.isfinite(label):
            out.append(math.nan)
        elif name == "finding":
            out.append(F.binary_cross_entropy_with_logits(logit, label).item())
        else:
            out.append(F.cross_entropy(logit[None], label.long()[None]).item())
    return out


@pytest.mark.parametrize(("done", "kept"), [(0, 1.0), (1, 0.8), (2, 0.6), (7, 0.6)])
def test_each_model_learns_the_studies_that_the_other_finds_easy(done: int, kept: float) -> None:
    model = tiny_model().eval()
    torch.manual_seed(1)
    objective = CoTeaching(model, forget=0.4, until=0.25).eval()
    with torch.no_grad():
        for parameter in objective.peer.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    batch = batch_of(ten_studies())
    terms = []
    for name in ("finding", "grade"):
        mine, theirs = (study_losses(one, name, batch) for one in (model, objective.peer))
        labelled = [i for i, value in enumerate(mine) if value == value]
        count = math.ceil(round(kept * len(labelled), 6))
        by_me = sorted(labelled, key=lambda i: mine[i])[:count]
        by_them = sorted(labelled, key=lambda i: theirs[i])[:count]
        assert kept == 1 or set(by_me) != set(by_them) or name == "grade"
        terms.append(sum(mine[i] for i in by_them) / count + sum(theirs[i] for i in by_me) / count)
    found = objective(Step(model, batch, clock=Clock(done, 8)))
    assert float(found["loss"]) == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_a_label_that_both_find_hard_moves_neither_model() -> None:
    model = tiny_model().eval()
    objective = CoTeaching(model, ["finding"], forget=0.3, until=0.1).eval()
    clock, batch = Clock(5, 10), batch_of(ten_studies())

    def gradients(targets: torch.Tensor) -> list[torch.Tensor]:
        batch.targets["finding"] = targets
        loss = objective(Step(model, batch, clock=clock))["loss"]
        return list(
            torch.autograd.grad(
                loss, [model.heads["finding"].linear.weight, objective.peer.heads["finding"].linear.weight]
            )
        )

    with torch.no_grad():  # both are sure of one class
        for one in (model, objective.peer):
            one.heads["finding"].linear.bias.fill_(3.0)
    targets = torch.ones(10)
    targets[4] = 0.0
    with_it = gradients(targets)
    assert all(bool(g.any()) for g in with_it)
    targets = targets.clone()
    targets[4] = torch.nan
    # Seven of ten, and seven of nine: the same but for the share, so both are asked for seven.
    objective.forget = 1 - 7 / 9
    for a, b in zip(with_it, gradients(targets), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_the_second_model_has_the_rates_of_the_first_and_is_frozen_like_it() -> None:
    from medssml.trainers.finetune import finetuner

    model = tiny_model()
    optim = Optim(lr=1.0, scales={"encoders": 0.1, "heads": 0.5})
    learner = finetuner(model, CoTeaching(model), optim, freeze="encoders")
    rates = {id(p): group["base_lr"] for group in parameter_groups(learner, optim) for p in group["params"]}
    peer = learner.objectives[0].peer
    pairs = list(zip(model.named_parameters(), peer.named_parameters(), strict=True))
    assert all(rates.get(id(a)) == rates.get(id(b)) for (_, a), (_, b) in pairs)
    assert all((id(b) in rates) != name.startswith("encoders.") for name, b in peer.named_parameters())


def test_it_is_refused_for_numbers_and_wrong_shares() -> None:
    model = tiny_model()
    model.add_task("age", {"kind": "regression"})
    with pytest.raises(ValueError, match="CoTeaching is for classes, and task 'age' is a number"):
        CoTeaching(model)
    with pytest.raises(ValueError, match="forget is 1.0; fix"):
        CoTeaching(model, ["finding"], forget=1.0)
    with pytest.raises(ValueError, match="until is 0; fix"):
        CoTeaching(model, ["finding"], until=0)
