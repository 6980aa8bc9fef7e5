"""Signs of collapse and the online probe, where their values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medssml.trainers.monitors import (
    _ridge,
    class_auroc,
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


def test_rankme_adds_its_epsilon_and_spread_and_uniformity_normalise_first() -> None:
    values = torch.tensor([3.0, 1.0])
    p = values / 4 + 0.1
    assert rankme(torch.diag(values), eps=0.1) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=1e-5)
    assert rankme(torch.diag(values).half()) == pytest.approx(rankme(torch.diag(values)), rel=1e-3)
    # Two directions at right angles, of any length: a mean of 1/2 and a deviation of 1/2 in each of two dimensions.
    x = torch.tensor([[5.0, 0.0], [0.0, 0.1]])
    assert feature_spread(x) == pytest.approx(0.5 * 2**0.5, rel=1e-5) == feature_spread(x.double())
    assert uniformity(x) == pytest.approx(-2.0 * 2, rel=1e-5) and uniformity(x, t=3.0) == pytest.approx(-6.0, rel=1e-5)
    three = torch.cat([x, -x[:1]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(three) == pytest.approx(expected, rel=1e-5)


def test_the_signs_of_collapse_are_the_three() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert collapse_metrics(x) == {
        "rankme": rankme(x), "feature_spread": feature_spread(x), "uniformity": uniformity(x)
    }  # fmt: skip
    assert set(collapse_metrics(x[:2])) == {"rankme", "feature_spread", "uniformity"}


def probe_by_hand(x: torch.Tensor, y: torch.Tensor, groups: torch.Tensor, folds: int, penalty: float) -> torch.Tensor:
    """(N, K) scores, each study's by a ridge on the folds without its subject."""
    x = x.double()
    x = (x - x.mean(0)) / x.std(0, unbiased=False)
    fold = torch.unique(groups, return_inverse=True)[1] % folds
    onehot = torch.nn.functional.one_hot(y).double()
    scores = torch.zeros_like(onehot)
    for part in range(folds):
        rest = fold != part
        centre, level = x[rest].mean(0), onehot[rest].mean(0)
        a, b = x[rest] - centre, onehot[rest] - level
        weights = torch.linalg.solve(a.T @ a + penalty * x.shape[1] * torch.eye(x.shape[1]).double(), a.T @ b)
        scores[~rest] = (x[~rest] - centre) @ weights + level
    return scores


@pytest.mark.parametrize(("options", "folds", "penalty"), [({}, 5, 1.0), ({"folds": 3, "penalty": 9.0}, 3, 9.0)])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_the_ridge_of_each_fold(options: dict, folds: int, penalty: float, classes: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x = 3 + 7 * torch.randn(60, 4, generator=generator)
    # In thirds or halves of what the first feature says with some noise.
    y = (x[:, 0] + 5 * torch.randn(60, generator=generator)).argsort().argsort() * classes // 60
    groups = torch.arange(60) // 2 * 5
    scores = probe_by_hand(x, y, groups, folds, penalty)
    if classes == 2:
        expected = roc_auc_score(y, scores[:, 1])
    else:
        expected = sum(roc_auc_score(y == k, scores[:, k]) for k in range(classes)) / classes
    found = ridge_probe(x, y, groups, **options)
    assert 0.55 < expected < 0.98 and found == pytest.approx(expected)
    # Classes are names: others in their place, the same answer.
    assert ridge_probe(x, 2 * y + 1, groups, **options) == pytest.approx(expected)
    # And features have no unit.
    assert ridge_probe(x / 1000, y, groups, **options) == pytest.approx(expected)


def test_five_studies_of_each_class_are_enough_and_four_are_not() -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(20)
    assert ridge_probe(x, (groups < 5).long(), groups) is not None
    assert ridge_probe(x, (groups < 4).long(), groups) is None
    assert ridge_probe(x, torch.zeros(20).long(), groups) is None
    # A feature that does not vary, and fewer subjects than folds.
    assert ridge_probe(torch.cat([x, torch.ones(20, 1)], 1), (groups < 5).long(), groups % 3) is not None


def test_a_probe_is_of_classes_alone() -> None:
    x, groups = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), torch.arange(200)
    few, many = (groups % 20).float(), (groups % 21).float()
    nobody, halves = torch.full((200,), torch.nan), (groups % 2).float() / 2
    targets = {"nobody": nobody, "halves": halves, "many": many, "few": few}
    found = probe_metrics(x, targets, groups)
    assert list(found) == ["probe_auroc/few"]
    assert found["probe_auroc/few"] == pytest.approx(ridge_probe(x, few.long(), groups))
    some = (groups % 2).float()
    some[50:] = torch.nan
    assert probe_metrics(x, {"some": some}, groups)["probe_auroc/some"] == pytest.approx(
        ridge_probe(x[:50], some[:50].long(), groups[:50])
    )


def test_class_auroc_reads_the_columns_by_their_classes() -> None:
    targets = np.array([1, 1, 4, 4, 4])
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    assert class_auroc(targets, scores, np.array([1, 4])) == pytest.approx(5 / 6)
    three, wide = np.array([0, 2, 5, 5]), np.eye(3)[[0, 1, 2, 0]]
    expected = np.mean([roc_auc_score(three == k, wide[:, j]) for j, k in enumerate((0, 2, 5))])
    assert class_auroc(three, wide, np.array([0, 2, 5])) == pytest.approx(expected)
