import math

import pytest
import torch

from medssml.losses import Alike
from medssml.objectives import MILNCE, Step
from medssml.objectives.mil_nce import mil_nce, segments
from medssml.objectives.pairs import Sides
from tests.examples import batch_of, study, tiny_model


def sides(n, m, alike=()):
    """Row i of n is row i of m, as far as both go; `alike` pairs are no negatives."""
    partner = torch.tensor([i if i < m else -1 for i in range(n)])
    left, right = torch.arange(n), torch.arange(m) + 100
    for number, (i, j) in enumerate(alike):
        left[i] = right[j] = -1 - number
    return Sides((torch.arange(n), torch.arange(m)), partner, Alike(left[:, None], right[:, None]))


def test_a_bag_of_positives_stands_once_in_the_denominator():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 3, generator=g), torch.randn(3, 2, 3, generator=g)
    real = torch.tensor([[True, True], [True, False], [True, True]])
    y[1, 1] = torch.nan  # a segment that is not there
    expected = 0.0
    for i in range(3):
        score = lambda a, b: sum(math.exp(float(x[a] @ y[b, k])) for k in range(2) if real[b, k])  # noqa: E731
        texts = [j for j in range(3) if j != i and (i, j) != (0, 2)]
        images = [j for j in range(4) if j != i and (j, i) != (0, 2)]
        positive = score(i, i)
        negatives = sum(score(i, j) for j in texts) + sum(score(j, i) for j in images)
        expected -= math.log(positive / (positive + negatives))
    found = mil_nce(x, torch.nan_to_num(y), real, sides(4, 3, alike=[(0, 2)]))
    assert found.total.item() == pytest.approx(expected, rel=1e-5) and found.terms == 3


def test_the_least_loss_is_zero_and_not_log_2():
    """The released loss has its positives twice in the denominator."""
    x = 10 * torch.eye(3)
    found = mil_nce(x, x[:, None], torch.ones(3, 1, dtype=torch.bool), sides(3, 3))
    assert found.total.item() == pytest.approx(0, abs=1e-6) and found.correct == 3


def test_segments_are_means_of_words_in_a_row_whatever_the_padding():
    tokens = torch.arange(7.0)[None, :, None].repeat(1, 1, 2)
    mask = torch.tensor([[False, True, True, True, False, True, False]])
    tokens[~mask] = torch.nan
    means, real = segments(tokens, mask, 2)
    assert real.tolist() == [[True, True, False, False]]
    assert means[0, :2, 0].tolist() == [1.5, 4.0]


def test_the_objective_pairs_images_with_segments_of_their_own_reports():
    model = tiny_model().eval()
    objective = MILNCE(model, modalities=["ct"], dim=8, words=3).eval()
    studies = [study(n, ("ct", "report")) for n in range(3)] + [study(4, ("report",))]
    x, bags = [], []
    for one in studies:
        alone = Step(model, batch_of([one])).encoded
        if "ct" in alone:
            x.append(objective.heads["ct"](alone["ct"].pooled)[0])
        words = alone["report"].tokens[0, 1:-1]
        bags.append([objective.heads["report"](words[k : k + 3].mean(0)) for k in range(0, len(words), 3)])
    total = 0.0
    for i in range(3):
        score = lambda a, b: sum(math.exp(float(x[a] @ y)) for y in bags[b])  # noqa: E731
        negatives = sum(score(i, j) for j in range(4) if j != i) + sum(score(j, i) for j in range(3) if j != i)
        total -= math.log(score(i, i) / (score(i, i) + negatives))
    found = objective(Step(model, batch_of(studies)))
    assert found["loss"].item() == pytest.approx(total / 3, rel=1e-4)
    assert objective(Step(model, batch_of([study(0, ("ct",)), study(1, ("report",))]))) is None
    with pytest.raises(ValueError, match="words is 0"):
        MILNCE(model, words=0)
