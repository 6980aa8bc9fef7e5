"""RINCE against pairs taken one by one, its two limits, and what it makes of a wrong pair."""

from __future__ import annotations

import math

import pytest
import torch

from medssml.losses import info_nce
from medssml.losses.info_nce import cosine_logits
from medssml.losses.robust_info_nce import robust_terms
from medssml.objectives import CrossModalContrast, RobustContrast, Step
from tests.examples import batch_of, ten_studies, tiny_model

Q, BALANCE = 0.4, 0.05


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_agrees_with_pairs_taken_one_by_one(model) -> None:
    torch.manual_seed(0)
    objective = RobustContrast(
        model, dim=8, q=Q, balance=BALANCE, temperature=0.5, pairs=["ct+report"], share=0.75
    ).eval()
    studies = ten_studies()
    studies[5]["subject"] = studies[0]["subject"]
    vector = {}
    for n, one in enumerate(studies):
        for m, part in Step(model, batch_of([one])).encoded.items():
            if m in objective.space.modalities:
                vector[n, m] = torch.nn.functional.normalize(objective.space(m, part.pooled)[0].detach(), dim=0)

    def score(i: int, j: int, first: str, second: str) -> float:
        return (float(vector[i, first] @ vector[j, second]) - 1) / 0.5

    total, terms = 0.0, 0.0
    for first, second, share in (("ct", "report", 0.75), ("report", "ct", 0.25)):
        for i in (n for n, m in vector if m == first and (n, second) in vector):
            others = [n for n, m in vector if m == second and n != i and {i, n} != {0, 5}]
            own = math.exp(score(i, i, first, second))
            every = own + sum(math.exp(score(i, n, first, second)) for n in others)
            total += share * (-(own**Q) / Q + (BALANCE * every) ** Q / Q)
            terms += share
    answer = objective(Step(model, batch_of(studies)))
    assert answer["loss"].item() == pytest.approx(total / terms, rel=1e-5)
    assert answer["temperature"].item() == pytest.approx(0.5) and not objective.scale.log.requires_grad


def sides(n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 5, dtype=torch.float64, requires_grad=True), torch.randn(n, 5, dtype=torch.float64)


def robust(a: torch.Tensor, b: torch.Tensor, q: float, balance: float = BALANCE) -> torch.Tensor:
    match = torch.eye(len(a), dtype=torch.bool)
    return robust_terms(cosine_logits(a, b, 2.0) - 2.0, match, ~match, q=q, share_of_all=balance).total


def test_towards_q_0_it_is_info_nce() -> None:
    a, b = sides()
    match = torch.eye(len(a), dtype=torch.bool)
    logits = cosine_logits(a, b, 2.0)
    nce = torch.nn.functional.cross_entropy(logits, match.long().argmax(1), reduction="sum")
    assert robust(a, b, 1e-7).item() == pytest.approx(nce.item() + len(a) * math.log(BALANCE), rel=1e-5)
    (of_nce,) = torch.autograd.grad(nce, a, retain_graph=True)
    assert torch.allclose(torch.autograd.grad(robust(a, b, 1e-7), a)[0], of_nce, rtol=1e-4, atol=1e-8)
    back = robust_terms((logits - 2.0).T, match, ~match, q=1e-7, share_of_all=1.0).total
    (of_halves,) = torch.autograd.grad((robust(a, b, 1e-7) + back) / 2, a)
    (of_both,) = torch.autograd.grad(info_nce(a, b, scale=2.0).total, a)
    assert torch.allclose(of_halves, of_both, rtol=1e-4, atol=1e-8), "both directions, half each"


def test_at_q_1_it_is_a_difference_of_exponentials() -> None:
    a, b = sides()
    powers = (cosine_logits(a, b, 2.0) - 2.0).exp()
    own = powers.diagonal()
    expected = (-(1 - BALANCE) * own + BALANCE * (powers.sum(1) - own)).sum()
    assert robust(a, b, 1.0).item() == pytest.approx(expected.item(), rel=1e-9)


def test_an_unlike_pair_pulls_less_than_in_info_nce() -> None:
    """The pull of a wrong pair beside that of a right one: cosines -0.9 and 0.7 with their matches, the same negatives."""
    pulls = {}
    for q in (1e-6, 0.5, 1.0):
        for name, cosine in (("wrong", -0.9), ("right", 0.7)):
            own = torch.tensor([[cosine]], dtype=torch.float64, requires_grad=True)
            logits = torch.cat([own, torch.zeros(1, 6, dtype=torch.float64)], 1) / 0.5 - 2.0
            match = torch.zeros(1, 7, dtype=torch.bool)
            match[0, 0] = True
            (gradient,) = torch.autograd.grad(robust_terms(logits, match, ~match, q=q, share_of_all=0.1).total, own)
            pulls[q, name] = -gradient.item()
    ratio = {q: pulls[q, "wrong"] / pulls[q, "right"] for q in (1e-6, 0.5, 1.0)}
    assert ratio[1e-6] > 1 > ratio[0.5] > ratio[1.0] > 0


def test_numbers_out_of_range_are_refused_and_a_contrast_it_is(model) -> None:
    for arguments, message in (
        ({"q": 0.0}, "q of RobustContrast is 0.0"),
        ({"balance": 1.5}, "balance of RobustContrast"),
    ):
        with pytest.raises(ValueError, match=message):
            RobustContrast(model, **arguments)
    assert isinstance(RobustContrast(model), CrossModalContrast) and set(RobustContrast(model).kept()) == {"space"}
