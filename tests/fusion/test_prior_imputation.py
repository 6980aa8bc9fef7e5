"""What is filled in from the prior: the mixture in numpy, k-means that keeps its order, and noise in training alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor

from medssml.fusion import ConcatFusion, CrossModalAttention, PriorImputation
from medssml.fusion.prior_imputation import k_means_from
from tests.fusion.test_imputation import DIM, NAMES, filled_in, given, related


def prior(**options: float) -> PriorImputation:
    torch.manual_seed(2)
    made = PriorImputation(NAMES, DIM, ConcatFusion(NAMES, DIM), believe=True, **options).eval()  # type: ignore[arg-type]
    assert made.believed is not None
    torch.nn.init.normal_(made.believed.weight)
    return made


def fitted(count: int = 120, seed: int = 1, **options: float) -> PriorImputation:
    fusion = prior(**options)
    table, present = related(count, seed)
    fusion.fit([(given(table[:50], present[:50]), present[:50]), (given(table[50:], present[50:]), present[50:])])
    return fusion


def test_it_is_the_mixture_of_centres_that_the_auxiliary_network_says_in_numpy() -> None:
    fusion = fitted(centres=6)
    table, present = related(9, 5)
    found = filled_in(fusion, table, present).numpy()
    state = {name: value.double().numpy() for name, value in fusion.state_dict().items()}
    for row in range(9):
        there = present[row].nonzero().flatten().tolist()
        own = [table[row, n].double().numpy() @ state["present.weight"][n] + state["present.bias"][n] for n in there]
        mean = np.mean(own, axis=0)
        seen = mean * 0.5 * (1 + erf(mean / np.sqrt(2)))
        scores = (state["weights.weight"] @ seen + state["weights.bias"]).reshape(3, 6)
        for column in range(3):
            weights = np.exp(scores[column]) / np.exp(scores[column]).sum()
            expected = weights @ state["centres"][column]
            wanted = table[row, column].numpy() if column in there else expected
            np.testing.assert_allclose(found[row, column], wanted, rtol=1e-5, atol=1e-5)
    # And the fused vector as far as it is believed.
    with torch.no_grad():
        fused = fusion(given(table, present), present)
        inside = fusion.fusion(given(torch.from_numpy(found), present | True), present | True).pooled.double().numpy()
    believed = np.log1p(np.exp(inside @ state["believed.weight"].T + state["believed.bias"]))
    np.testing.assert_allclose(fused.pooled.numpy(), inside * believed, rtol=1e-4, atol=1e-5)
    at_first = prior().believed.bias.detach().numpy()  # type: ignore[union-attr]
    assert np.log1p(np.exp(at_first)) == pytest.approx(1.0, abs=1e-6), "at first all of it"
    fusion.believed = None
    with torch.no_grad():
        np.testing.assert_allclose(fusion(given(table, present), present).pooled.numpy(), inside, rtol=1e-4, atol=1e-5)
    assert PriorImputation(NAMES, DIM, ConcatFusion(NAMES, DIM)).believed is None, "by default all of it, always"


def inertia(vectors: Tensor, centres: Tensor) -> float:
    return float(torch.cdist(vectors, centres).min(1).values.square().sum())


def test_each_centre_is_the_mean_of_the_vectors_that_are_nearest_to_it() -> None:
    fusion = fitted(centres=5)
    table, present = related(120, 1)
    for column in range(3):
        vectors, centres = table[present[:, column], column], fusion.centres[column]
        nearest = torch.cdist(vectors, centres).argmin(1)
        means = torch.stack([vectors[nearest == k].mean(0) for k in range(5)])
        torch.testing.assert_close(means, centres, rtol=1e-4, atol=1e-4)
        assert inertia(vectors, centres) < 0.7 * inertia(vectors, vectors.mean(0, keepdim=True))


def test_a_further_fit_begins_where_the_last_one_ended_so_that_a_weight_keeps_its_meaning() -> None:
    fusion = fitted(centres=5)
    before = fusion.centres.clone()
    # The same studies in another order; begun anew, other numbers would stand for the same centres.
    table, present = (part.flip(0) for part in related(120, 1))
    fusion.fit([(given(table, present), present)])
    torch.testing.assert_close(fusion.centres, before, rtol=1e-4, atol=1e-4)
    shuffled = table[present[:, 0], 0]
    again = k_means_from(shuffled, before[0], 5)
    torch.testing.assert_close(again, before[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(k_means_from(shuffled, before[0][:0], 5), before[0], atol=1e-3)


def test_few_vectors_are_fewer_centres_and_what_nobody_had_stays_absent() -> None:
    fusion = prior(centres=10)
    table, present = related(6, 1, rate=0.0)
    present[:, 2] = False
    present[:3, 1] = False
    fusion.fit([(given(table, present), present)])
    assert fusion.known.sum(1).tolist() == [6, 3, 0]
    asked, there = related(4, 5, rate=1.0)
    found = filled_in(fusion, asked, there)
    assert bool(found[:, :2].isfinite().all()) and bool(found[:, 2].isnan().all())
    # A mixture of three studies, and of nothing that stands beside them.
    low, high = table[3:, 1].min(0).values, table[3:, 1].max(0).values
    assert bool(((found[:, 1] >= low - 1e-5) & (found[:, 1] <= high + 1e-5)).all())


def test_before_the_first_fit_and_for_a_study_without_anything_nothing_is_filled_in() -> None:
    table, present = related(6, 5)
    assert torch.equal(filled_in(prior(), table, present).isfinite().all(-1), present)
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert bool(filled_in(fitted(), table[:1], nothing).isnan().all())


def test_noise_is_of_training_and_as_large_as_it_says() -> None:
    fusion = fitted(noise=0.5)
    table, present = related(6, 5)
    present[:, 2] = False
    still = filled_in(fusion, table, present)
    assert torch.equal(filled_in(fusion, table, present).nan_to_num(), still.nan_to_num())
    draws = torch.stack([filled_in(fusion.train(), table, present)[:, 2] for _ in range(400)])
    expected = 0.5 * fusion.centres[2].square().sum(0).sqrt()
    torch.testing.assert_close(draws.std(0), expected.expand_as(draws[0]), rtol=0.2, atol=0.0)
    torch.testing.assert_close(draws.mean(0), still[:, 2], rtol=0.0, atol=0.5)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="fills in pooled vectors, and CrossModalAttention reads tokens"):
        PriorImputation(NAMES, DIM, CrossModalAttention(NAMES, DIM, 1, 2))
    for wrong in ({"centres": 0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match="fix: at least one centre"):
            prior(**wrong)
