"""Factors that modalities measure: against the conditional distribution of a joint normal one, and what they are for."""

import numpy as np
import pytest
import torch
from torch import nn

from medssml.batch import Encoded
from medssml.fusion import AdditiveFusion, FactorFusion
from medssml.statistics.metrics import auroc
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def test_mean_and_variance_are_those_of_factors_given_noisy_measurements():
    """The joint normal distribution of one factor and its measurements, conditioned by solving with its covariance."""
    fusion, encoded = stirred(FactorFusion(NAMES, 16, factors=3)), encodings()
    fused = fusion(encoded, EVERY)
    weight, bias = numbers(fusion.measure.weight), numbers(fusion.measure.bias)
    noise = 1 / np.log1p(np.exp(numbers(fusion.precision)))
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        there = list(x)
        for k in range(3):
            said = np.array([x[m] @ weight[m, :, k] + bias[m, k] for m in there])
            covariance = np.ones((len(there), len(there))) + np.diag(noise[there, k])
            solved = (
                np.linalg.solve(covariance, np.stack([said, np.ones(len(there))], 1)) if there else np.zeros((0, 2))
            )
            mean, left = solved.sum(0) if there else (0.0, 0.0)
            assert float(fused.extra["mean"].detach()[study, k]) == pytest.approx(mean, rel=1e-3, abs=1e-4)
            assert float(fused.extra["variance"].detach()[study, k]) == pytest.approx(1 - left, rel=1e-3, abs=1e-4)


def test_what_is_read_is_linear_in_the_natural_parameter_and_a_perceptron_beside():
    fusion, encoded = stirred(FactorFusion(NAMES, 16, factors=3, hidden=5)), encodings()
    fused = fusion(encoded, EVERY)
    mean, variance = fused.extra["mean"], fused.extra["variance"]
    hidden = nn.functional.gelu(nn.functional.linear(torch.cat([mean, variance], 1), *fusion.together[0].parameters()))
    expected = nn.functional.linear(mean / variance, *fusion.linear.parameters()) + nn.functional.linear(
        hidden, *fusion.together[2].parameters()
    )
    torch.testing.assert_close(fused.pooled, expected)


@pytest.mark.parametrize("factors", [0, 17])
def test_factors_that_do_not_fit_are_refused(factors):
    with pytest.raises(ValueError, match=rf"factors: {factors}; fix: 1 to 16"):
        FactorFusion(NAMES, 16, factors=factors)


def test_it_begins_as_the_sum_of_what_it_is_given_whatever_it_was_before():
    fusion, encoded = stirred(FactorFusion(NAMES, 16, factors=3)), encodings()
    rng = np.random.default_rng(0)
    maps = [
        {"ct": (rng.normal(size=16), 0.5), "report": (rng.normal(size=16), -1.0)},
        {"xray": (rng.normal(size=16), 0.1)},
    ]
    fusion.begin(maps)
    fused = fusion(encoded, EVERY).pooled.detach().double().numpy()
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        for k, given in enumerate(maps):
            said = [x[m] @ given[name][0] + given[name][1] for m, name in enumerate(NAMES) if m in x and name in given]
            assert fused[study, k] == pytest.approx(sum(said), rel=1e-3, abs=1e-4)
    with pytest.raises(ValueError, match="no room for 4 numbers; room: 3"):
        fusion.begin([{}] * 4)


def taught(fusion: nn.Module, x: torch.Tensor, present: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Fusion and head of dimension 1 after 400 steps on all studies."""
    model = nn.ModuleDict({"fusion": fusion, "head": nn.Linear(16, 1)})
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.01)
    for _ in range(400):
        loss = nn.functional.binary_cross_entropy_with_logits(answers(model, x, present), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def answers(model: nn.ModuleDict, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    encoded = {}
    for column, name in enumerate(NAMES):
        rows = x[present[:, column], column]
        encoded[name] = Encoded(rows[:, None], torch.ones(len(rows), 1, dtype=torch.bool), rows)
    return model["head"](model["fusion"](encoded, present).pooled)[:, 0]


def test_it_learns_what_two_modalities_say_together_from_studies_that_lack_a_third_each():
    """y is the sign of the product of two hidden numbers; ct and xray both show the first, report the second. No study of
    training has all three, so that ct with report and xray with report are learned from different studies."""
    torch.manual_seed(0)
    hidden, noise = torch.randn(1200, 2), 0.3 * torch.randn(1200, 3, 16)
    direction = torch.randn(3, 16) / 4
    x = torch.stack([hidden[:, [0]], hidden[:, [0]], hidden[:, [1]]], 1) * direction + noise / 4
    y = (hidden.prod(1) > 0).float()
    present = torch.ones(1200, 3, dtype=torch.bool)
    present[torch.arange(1200), torch.arange(1200) % 3] = False
    train, test = slice(0, 800), slice(800, 1200)
    whole = torch.ones(400, 3, dtype=torch.bool)
    found = {}
    for name, fusion in (
        ("factors", FactorFusion(NAMES, 16)),
        ("sums", AdditiveFusion(NAMES, 16, 0)),
    ):
        model = taught(fusion, x[train], present[train], y[train])
        with torch.no_grad():
            score = answers(model, x[test], whole).double().numpy()
        found[name] = float(auroc(y[test].double().numpy(), score, np.ones((1, 400)))[0])
    assert found["factors"] > 0.9
    assert 0.4 < found["sums"] < 0.6
