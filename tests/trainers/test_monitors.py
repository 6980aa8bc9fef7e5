"""Signs of collapse and the online probe, where their values are known."""

from __future__ import annotations

import pytest
import torch

from medssml.trainers.monitors import (
    _ridge,
    collapse_metrics,
    feature_spread,
    probe_metrics,
    rankme,
    ridge_probe,
    uniformity,
)


def test_rankme_is_the_number_of_equal_directions() -> None:
    assert rankme(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert rankme(torch.ones(10, 6)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.zeros(4, 4)) == 1.0


def test_rankme_weighs_directions_by_their_singular_values() -> None:
    # Shares 3/4 and 1/4: exp of their entropy; of the squares it would be 1.38.
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(4 / 3**0.75, rel=1e-4)


def test_spread_is_one_on_an_even_sphere_and_zero_when_constant() -> None:
    assert feature_spread(torch.randn(4000, 32)) == pytest.approx(1.0, abs=0.02)
    assert feature_spread(torch.ones(10, 4)) == pytest.approx(0.0, abs=1e-6)


def test_uniformity_of_two_opposite_points() -> None:
    # |x - y|^2 = 4, so log exp(-2 * 4) = -8.
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(-8.0)
    assert uniformity(torch.ones(3, 4)) == pytest.approx(0.0, abs=1e-5)


def test_one_study_has_no_spread() -> None:
    assert collapse_metrics(torch.randn(1, 4)) == {}


def test_the_probe_finds_what_is_linear_and_nothing_in_noise() -> None:
    x = torch.randn(200, 5)
    targets = (x[:, 0] > 0).long()
    groups = torch.arange(200)
    assert ridge_probe(x, targets, groups) > 0.97
    assert abs(ridge_probe(torch.randn(200, 5), targets, groups) - 0.5) < 0.15


@pytest.mark.parametrize("penalty", [0.5, 1.0, 3.0])
def test_the_ridge_is_that_of_the_normal_equations(penalty: float) -> None:
    x, y, new = (torch.randn(*shape, dtype=torch.float64) for shape in ((9, 3), (9, 2), (4, 3)))
    centred = x - x.mean(0)
    gram = centred.T @ centred + penalty * 3 * torch.eye(3, dtype=torch.float64)
    expected = (new - x.mean(0)) @ torch.linalg.solve(gram, centred.T @ (y - y.mean(0))) + y.mean(0)
    torch.testing.assert_close(_ridge(x, y, penalty)(new), expected)


def test_the_probe_shrinks_so_that_many_features_of_noise_do_not_drown_the_one_that_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 79, generator=generator)
    targets = (x[:, :8].mean(1) > 0).long()
    # As many features as studies: without a penalty the solution explodes.
    probed = ridge_probe(x, targets, torch.arange(80))
    loose = ridge_probe(x, targets, torch.arange(80), penalty=1e-6)
    assert probed is not None and loose is not None and probed > loose + 0.05


def test_the_probe_never_scores_a_subject_it_has_seen() -> None:
    # Features that name the subject and labels that are its own: seen subjects would give an AUROC of 1.
    groups = torch.arange(40).repeat_interleave(5)
    targets = torch.randint(0, 2, (40,)).repeat_interleave(5)
    features = torch.nn.functional.one_hot(groups, 40).float()
    assert ridge_probe(features, targets, groups) < 0.7


def test_several_classes_missing_labels_and_too_few() -> None:
    x = torch.randn(150, 4)
    three = x[:, :3].argmax(1).float()
    three[:20] = float("nan")
    targets = {"three": three, "rare": torch.cat([torch.ones(2), torch.zeros(148)]), "age": torch.rand(150) * 80}
    metrics = probe_metrics(x, targets, torch.arange(150))
    assert set(metrics) == {"probe_auroc/three"} and metrics["probe_auroc/three"] > 0.9
