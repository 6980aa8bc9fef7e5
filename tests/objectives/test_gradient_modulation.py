"""OGM-GE: the gradients of the right modality's encoder, by the published factor, between backward and step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.objectives import Clock, GradientModulation
from medssml.trainers.learner import Learner
from medssml.trainers.optim import optimiser, parameter_groups
from medssml.trainers.settings import Optim
from tests.trainers.toy import ToyLoader, toy_model, tuner


def learner(**modulation: Any) -> Learner:
    """One whose CT head answers labels well: what CT says is on the scale of the labels, the report's vector is noise."""
    model = toy_model(dropout=0.0)
    made = tuner(model, None, Optim(clip_norm=0.0), modulation=GradientModulation(**modulation), seed=3)
    made.total = 10
    return made


def batch() -> Batch:
    made = ToyLoader(studies=24).batch(torch.arange(24))
    targets = made.targets["sick"].clone()
    targets[5] = torch.nan
    return replace(made, targets={"sick": targets})


def gradients(of: Learner) -> dict[str, Tensor | None]:
    of.zero_grad()
    of.terms(batch())["loss"].backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in of.model.named_parameters()}


def alone(of: Learner, modality: str) -> list[float]:
    """The probability that each study's label has from one modality; NaN where it lacks it or has no label."""
    seen = batch()
    others = [name for name in seen.modalities if name != modality]
    p = torch.sigmoid(of.model(seen.without(*others))["sick"]).tolist()
    has, y = seen.present[:, seen.column(modality)].tolist(), seen.targets["sick"].tolist()
    return [
        (value if label == 1 else 1 - value) if present and label == label else math.nan
        for value, present, label in zip(p, has, y, strict=True)
    ]


def test_the_encoder_that_answers_better_is_slowed_by_the_published_factor_and_no_other() -> None:
    made = learner(alpha=0.5, noise=False)
    before = gradients(made)
    optimizer = optimiser(parameter_groups(made, made.optim), made.optim)
    made.configure_gradient_clipping(optimizer)

    both = [(a, b) for a, b in zip(alone(made, "ct"), alone(made, "report"), strict=True) if a == a and b == b]
    assert 3 < len(both) < 24
    rho = sum(a for a, _ in both) / sum(b for _, b in both)
    better, ratio = ("ct", rho) if rho > 1 else ("report", 1 / rho)
    factor = 1 - math.tanh(0.5 * ratio)
    assert factor < 0.6
    for name, parameter in made.model.named_parameters():
        if parameter.grad is None:
            continue
        scale = factor if name.startswith(f"encoders.{better}.") else 1.0
        torch.testing.assert_close(parameter.grad, before[name] * scale, rtol=1e-5, atol=1e-8, msg=name)


def test_factors_of_three_modalities_are_the_mean_of_one_against_each() -> None:
    sure = torch.tensor([[9.0, 6.0, 0.0], [3.0, 9.0, 4.0], [0.0, 2.0, 9.0]], dtype=torch.float64)
    rho = [6 / 3, (3 / 6 + 4 / 2) / 2, 2 / 4]  # the first and the third are never there together
    expected = [1 - math.tanh(0.3 * r) if r > 1 else 1.0 for r in rho]
    assert GradientModulation(0.3).factors(sure).tolist() == pytest.approx(expected)
    assert GradientModulation().factors(torch.zeros(3, 3)).tolist() == [1.0, 1.0, 1.0]


def test_noise_has_the_spread_of_each_matrix_gradient_and_follows_from_the_step() -> None:
    still, noisy = learner(noise=False), learner(noise=True)
    plain, added = [], []
    for made in (still, noisy, noisy):
        gradients(made)
        made._before_step()
        found = {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}
        (plain if made is still else added).append(found)
    assert all(torch.equal(value, added[1][name]) for name, value in added[0].items())
    for name, value in added[0].items():
        noise = value - plain[0][name]
        if not name.startswith("encoders.") or value.ndim < 2:
            assert not noise.any(), name
            continue
        spread = gradients(still)[name].std()
        assert 0.6 < float(noise.std() / spread) < 1.5, name


def test_it_ends_with_its_share_of_the_run_and_is_not_there_in_validation() -> None:
    made = learner(noise=True, until=0.5)
    made.batches = 5
    before = gradients(made)
    made._before_step()
    assert all(before[n] is None or torch.equal(p.grad, before[n]) for n, p in made.model.named_parameters())
    made.batches = 0
    made.eval()
    gradients(made)
    assert made.objectives[0].modulation.modulate(Clock(0, 10), made.model) == {}


def test_a_number_out_of_range_is_told_the_way_out() -> None:
    with pytest.raises(ValueError, match="alpha is 0; fix: above 0"):
        GradientModulation(0)
    with pytest.raises(ValueError, match="until is 0.0; fix"):
        GradientModulation(until=0.0)
