"""AGM: Shapley values of logits, and the factor of each encoder's gradient, step by step from the published formula."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.objectives import AdaptiveGradientModulation, Clock, Step
from medssml.objectives.adaptive_gradient_modulation import shapley_logits, shapley_weights
from medssml.trainers.learner import Learner
from medssml.trainers.optim import optimiser, parameter_groups
from medssml.trainers.settings import Optim
from tests.examples import batch_of, ten_studies, tiny_model
from tests.trainers.toy import ToyLoader, toy_model, tuner


def learner(alpha: float = 0.7, until: float = 1.0) -> Learner:
    made = tuner(
        toy_model(dropout=0.0), None, Optim(clip_norm=0.0), modulation=AdaptiveGradientModulation(alpha, until), seed=3
    )
    with torch.no_grad():
        made.model.heads["sick"].linear.weight.mul_(20)
    made.total = 10
    return made


def batch(seed: int) -> Batch:
    made = ToyLoader(studies=24, seed=seed).batch(torch.arange(24))
    targets = made.targets["sick"].clone()
    targets[5] = torch.nan
    return replace(made, targets={"sick": targets})


def gradients(of: Learner, seen: Batch) -> dict[str, Tensor | None]:
    of.zero_grad()
    of.terms(seen)["loss"].backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in of.model.named_parameters()}


def entropies(of: Learner, seen: Batch) -> tuple[float, float]:
    """Mean cross-entropy of the contributions of CT and report over the labelled studies that have both, one by one."""
    of.eval()  # as the training saw it: a pass in training moves what features are standardised by
    whole, ct, report = (
        of.model(given)["sick"].tolist() for given in (seen, seen.without("report"), seen.without("ct"))
    )
    of.train()
    found = []
    for i, y in enumerate(seen.targets["sick"].tolist()):
        if y != y or not bool(seen.present[i].all()):
            continue
        own = 0.5 * (whole[i] - report[i] + ct[i]), 0.5 * (whole[i] - ct[i] + report[i])
        found.append([math.log(1 + math.exp(-value if y == 1 else value)) for value in own])
    assert len(found) > 3
    return tuple(np.mean(found, axis=0).tolist())  # type: ignore[return-value]


def test_gradients_are_multiplied_with_the_published_factor_of_each_modality() -> None:
    made = learner(alpha=0.7)
    optimizer = optimiser(parameter_groups(made, made.optim), made.optim)
    means, seen = np.zeros(2), 0
    for turn in range(4):
        given = batch(turn)
        before, scores = gradients(made, given), np.array(entropies(made, given))
        made.configure_gradient_clipping(optimizer)
        expected = {"ct": 1.0, "report": 1.0}
        if seen:
            r = math.exp(scores[1] - scores[0]), math.exp(scores[0] - scores[1])
            tau = math.exp(means[1] - means[0]), math.exp(means[0] - means[1])
            expected = {m: math.exp(-0.7 * (r[j] - tau[j])) for j, m in enumerate(("ct", "report"))}
            # The one that gained on the other is held back, the other is pushed.
            assert min(expected.values()) < 1 < max(expected.values())
        for name, parameter in made.model.named_parameters():
            if parameter.grad is None:
                continue
            scale = expected[name.split(".")[1]] if name.startswith("encoders.") else 1.0
            torch.testing.assert_close(parameter.grad, before[name] * scale, rtol=1e-4, atol=1e-7, msg=name)
        made._after_step()
        means, seen = (means * seen + scores) / (seen + 1), seen + 1


def test_contributions_are_the_mean_over_all_orders_in_which_modalities_come() -> None:
    model = tiny_model().eval()
    torch.manual_seed(4)
    for task in model.tasks:
        torch.nn.init.normal_(model.heads[task].linear.weight)
    given = batch_of(ten_studies())
    found = shapley_logits(Step(model, given), model.tasks)
    with torch.no_grad():
        for row, name in ((0, "grade"), (3, "finding"), (6, "grade"), (2, "finding")):
            here = [j for j in range(4) if bool(given.present[row, j])]

            def value(coalition: list[int], row: int = row, name: str = name) -> Tensor:
                gone = [m for j, m in enumerate(given.modalities) if j not in coalition]
                answer = model(given.without(*gone))[name][row]
                return answer if coalition else torch.zeros_like(answer)

            expected = {j: torch.zeros_like(value([])) for j in range(4)}
            orders = list(permutations(here))
            for order in orders:
                for place, j in enumerate(order):
                    marginal = value(list(order[: place + 1])) - value(list(order[:place]))
                    expected[j] = expected[j] + marginal / len(orders)
            for j in range(4):
                torch.testing.assert_close(found[name][j, row], expected[j], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[name][:, row].sum(0), value(here), rtol=1e-4, atol=1e-5)
    assert not any(bool(values[:, 8].any()) for values in found.values()), "a study without anything"


def test_weights_of_coalitions_are_the_closed_form_of_two() -> None:
    # Nothing, the first, the second, both.
    assert shapley_weights(2).tolist() == [[-0.5, 0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, 0.5]]


def test_factors_of_three_modalities_are_means_over_the_pairs_that_are_there() -> None:
    modulation = AdaptiveGradientModulation(alpha=0.3)
    nan = float("nan")
    score = torch.tensor([[9.0, 0.4, 0.9], [0.6, 9.0, nan], [0.2, nan, 9.0]], dtype=torch.float64)
    assert modulation.factors(score).tolist() == [1.0, 1.0, 1.0], "no mean before"
    modulation._last = torch.tensor([[9.0, 0.7, 0.7], [0.5, 9.0, nan], [0.7, nan, 9.0]], dtype=torch.float64)
    modulation.after_step(Clock())
    now = [(0.6 - 0.4 + 0.2 - 0.9) / 2, 0.4 - 0.6, 0.9 - 0.2]
    before = [(0.5 - 0.7 + 0.7 - 0.7) / 2, 0.7 - 0.5, 0.7 - 0.7]
    expected = [math.exp(0.3 * (math.exp(b) - math.exp(n))) for n, b in zip(now, before, strict=True)]
    assert modulation.factors(score).tolist() == pytest.approx(expected)
    alone = torch.full((3, 3), nan, dtype=torch.float64)
    assert modulation.factors(alone).tolist() == [1.0, 1.0, 1.0], "no study has two"


def test_means_are_kept_in_the_state_and_a_skipped_step_leaves_them() -> None:
    made = learner()
    gradients(made, batch(0))
    made._before_step()
    made._after_step()
    modulation = made.objectives[0].modulation
    again = AdaptiveGradientModulation(0.7)
    again.load_state_dict(modulation.state_dict())
    assert again.mean.shape == (2, 2) and torch.equal(again.mean, modulation.mean) and int(again.steps[0, 1]) == 1
    gradients(made, batch(1))
    made._before_step()
    kept = modulation.mean.clone()
    # Nothing follows a step that was skipped; the next one has its own.
    made.batches += 1
    gradients(made, batch(2))
    made._before_step()
    made._after_step()
    third = np.array(entropies(made, batch(2)))
    expected = (float(kept[0, 1]) + third[0]) / 2
    assert float(modulation.mean[0, 1]) == pytest.approx(expected, rel=1e-5)


def test_it_ends_with_its_share_of_the_run_and_is_not_there_in_validation() -> None:
    made = learner(until=0.3)
    for batches in (0, 3):
        made.batches = batches
        before = gradients(made, batch(batches))
        made._before_step()
        assert all(before[n] is None or torch.equal(p.grad, before[n]) for n, p in made.model.named_parameters())
        made._after_step()
    assert int(made.objectives[0].modulation.steps[0, 1]) == 1
    with pytest.raises(ValueError, match="alpha is 0; fix: above 0"):
        AdaptiveGradientModulation(0)
    with pytest.raises(ValueError, match="until is 2; fix"):
        AdaptiveGradientModulation(until=2)
