"""Product and mixture of experts against their formulas, study by study."""

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax
from scipy.stats import norm

from medssml.fusion import MixtureOfExperts, ProductOfExperts
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def experts_of(fusion, encoded, study):
    """mu (D,) and log variance (D,) of each expert that is there."""
    weight, bias = numbers(fusion.experts.weight), numbers(fusion.experts.bias)
    return [np.split(x @ weight[m] + bias[m], 2) for m, x in vectors_of(encoded, EVERY, study).items()]


def test_a_product_of_experts_weighs_by_precision_with_the_prior_among_them():
    fusion, encoded = stirred(ProductOfExperts(NAMES, 16)), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        top, bottom = np.zeros(16), np.ones(16)  # the prior: mean 0, precision 1
        for mu, log_variance in experts_of(fusion, encoded, study):
            precision = 1 / (np.exp(log_variance) + 1e-8)
            top, bottom = top + precision * mu, bottom + precision
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), top / bottom, rtol=1e-3, atol=1e-4)
        found = fused.extra["log_variance"][study].detach().numpy()
        np.testing.assert_allclose(found, np.log(1 / bottom), rtol=1e-3, atol=1e-4)
    assert torch.equal(fused.extra["mean"], fused.pooled)


def test_it_is_the_density_that_is_proportional_to_the_product():
    """log of the product of normal densities at three points: equal to log N(mean, variance) but for a constant."""
    fusion, encoded = stirred(ProductOfExperts(NAMES, 16), 0.1), encodings()
    fused, study = fusion(encoded, EVERY), 7
    points = np.array([-0.5, 0.2, 1.3])
    experts = experts_of(fusion, encoded, study)
    mean = fused.extra["mean"][study].detach().double().numpy()
    sd = np.exp(fused.extra["log_variance"][study].detach().double().numpy() / 2)
    for feature in range(16):
        product = norm.logpdf(points)
        for mu, log_variance in experts:
            product = product + norm.logpdf(points, mu[feature], np.exp(log_variance[feature] / 2))
        rest = product - norm.logpdf(points, mean[feature], sd[feature])
        np.testing.assert_allclose(rest, rest[0], atol=1e-3)


def test_one_more_modality_never_makes_less_sure_and_nothing_is_the_prior():
    fusion, encoded = ProductOfExperts(NAMES, 16), encodings()
    fused = fusion(encoded, EVERY)
    assert bool((fused.pooled[0] == 0).all()) and bool((fused.extra["log_variance"][0] == 0).all())
    assert bool((fused.extra["log_variance"][1:] < 0).all())


def test_a_mixture_of_experts_is_its_formula():
    fusion, encoded = stirred(MixtureOfExperts(NAMES, 16, hidden=5)), encodings()
    fused = fusion(encoded, EVERY)
    first, second = fusion.experts[0], fusion.experts[2]
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        whole = np.concatenate([x.get(m, np.zeros(16)) for m in range(3)])
        scores = whole @ numbers(fusion.gate.weight).T + numbers(fusion.gate.bias)
        gate = dict(zip(x, softmax([scores[m] for m in x]), strict=True)) if x else {}
        expected = numbers(fusion.base).copy()
        for m, share in gate.items():
            hidden = x[m] @ numbers(first.weight)[m] + numbers(first.bias)[m]
            hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
            expected += share * (hidden @ numbers(second.weight)[m] + numbers(second.bias)[m])
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-4)
        shown = [gate.get(m, 0.0) for m in range(3)]
        np.testing.assert_allclose(fused.extra["gate"][study].detach().numpy(), shown, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("study", [1, 2, 4])
def test_one_that_is_alone_has_all_the_weight(study):
    fusion, encoded = stirred(MixtureOfExperts(NAMES, 16)), encodings()
    assert float(fusion(encoded, EVERY).extra["gate"][study].detach().max()) == 1.0
    assert MixtureOfExperts(("ct",), 16).gate is None and fusion.experts[0].weight.shape == (3, 16, 32)
