"""Noisy correspondence: the loss written out, wrong pairs that are found, and a judgement that no batch moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.objectives import RectifiedPairs, Step, rectified_pairs
from medssml.objectives.clock import Clock
from medssml.objectives.rectified_pairs import clean_posterior
from tests.examples import batch_of, study, ten_studies, tiny_model

AFTER = Clock(step=5, total=10)


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def numbered(studies: list[Any], start: int = 0) -> Batch:
    """A batch that knows which study is which."""
    return replace(batch_of(studies), index=torch.arange(start, start + len(studies)))


def objective_of(model: Any, **arguments: Any) -> RectifiedPairs:
    torch.manual_seed(0)
    # In training, where a pair may be doubted, and without norms, which would see the batch.
    return RectifiedPairs(model, dim=8, pairs=["ct+report"], batch_norm=False, **arguments).train()


@pytest.mark.parametrize("clock", [Clock(), AFTER], ids=["warm-up", "after it"])
def test_agrees_with_pairs_taken_one_by_one(model: Any, clock: Clock) -> None:
    objective = objective_of(model)
    studies = ten_studies()
    studies[5]["subject"] = studies[0]["subject"]
    wrong = torch.rand(10, 1)
    objective.wrong.write(torch.arange(10), wrong)
    vector = {}
    for n, one in enumerate(studies):
        for m, part in Step(model, batch_of([one])).encoded.items():
            if m in ("ct", "report"):
                vector[n, m] = F.normalize(objective.space(m, part.pooled)[0].detach(), dim=0)
    total = believed = 0.0
    for first, second in (("ct", "report"), ("report", "ct")):
        for i in (n for n, m in vector if m == first and (n, second) in vector):
            y = 1 - float(wrong[i])
            margin = 0.2 * (10**y - 1) / 9
            own = float(vector[i, first] @ vector[i, second])
            others = [n for n, m in vector if m == second and n != i and {i, n} != {0, 5}]
            short = [max(0.0, margin - own + float(vector[i, first] @ vector[n, second])) for n in others]
            total += y * (sum(short) / len(short) if clock.done < 0.2 else max(short))
            believed += y
    step = Step(model, numbered(studies), clock=clock)
    assert objective(step)["loss"].item() == pytest.approx(total / believed, rel=1e-5)


def test_a_pair_that_is_not_believed_moves_nothing(model: Any) -> None:
    objective = objective_of(model)
    studies = [study(n, ("ct", "report")) for n in range(4)]
    objective.wrong.write(torch.arange(4), torch.tensor([[1.0], [0.0], [1.0], [1.0]]))

    def of(others: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = objective(Step(model, numbered(others), clock=AFTER))
        return found

    assert of(studies)["believed_ct+report"].item() == pytest.approx(0.25)
    objective.eval()
    assert of(studies)["believed_ct+report"].item() == 1, "validation believes all"


class Plain(nn.Module):
    """A space in which vectors are where they are."""

    modalities = ("ct", "report")

    def forward(self, name: str, vectors: Tensor) -> Tensor:
        return vectors


def judged(model: Any, monkeypatch: pytest.MonkeyPatch, x: Tensor, y: Tensor, clock: Clock = AFTER) -> Tensor:
    """(n,) how probable it is that pairs are wrong, of vectors of two modalities of n studies."""
    objective, index = objective_of(model), torch.arange(len(x))
    objective.space = Plain()  # type: ignore[assignment]

    def found(model: Any, studies: Any, modalities: Any, owner: str) -> dict[str, tuple[Tensor, Tensor]]:
        list(studies)
        return {"ct": (index, x), "report": (index, y)}

    class Noted:
        subject = index = torch.arange(len(x))

    monkeypatch.setattr(rectified_pairs, "features_of", found)
    objective.begin_epoch(clock, model, [Noted()])  # type: ignore[list-item]
    return objective.wrong.rows[:, 0] if len(objective.wrong.rows) else torch.zeros(0)


def test_wrong_pairs_are_found(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three in ten studies have the report of the next of them; cosines of right pairs are about 0.7."""
    torch.manual_seed(3)
    shown = torch.randn(200, 64)
    x, y = (shown + 0.6 * torch.randn(200, 64) for _ in range(2))
    moved = torch.arange(200) % 10 < 3
    y[moved] = y[moved].roll(1, 0)
    wrong = judged(model, monkeypatch, x, y)
    assert wrong[moved].mean() > 0.9 and wrong[~moved].mean() < 0.1
    assert len(judged(model, monkeypatch, x, y, Clock(step=1, total=10))) == 0, "in the warm-up nobody judges"


def test_who_is_in_a_batch_decides_nothing(model: Any) -> None:
    """The same judgement of batches of three and of eleven; a subject's other study is nobody to compare with."""
    studies = [study(n, ("ct", "report") if n % 5 else ("ct",)) for n in range(33)]
    for n, one in enumerate(studies):
        one["subject"] = n // 2
    found = []
    for size in (3, 11):
        objective = objective_of(model, warm_up=0.0).eval()
        batches = [numbered(studies[start : start + size], start) for start in range(0, 33, size)]
        with torch.no_grad():
            objective.begin_epoch(AFTER, model, batches)
        found.append(objective.wrong.rows)
    assert found[0].shape == (33, 1) and 0 < found[0].max() <= 1 and found[0].min() == 0
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert (found[0][::5] == 0).all(), "no pair, no doubt"


def test_the_posterior_is_that_of_the_smaller_kind() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.normal(0.05, 0.01, 700), rng.normal(0.4, 0.1, 300)
    clean = clean_posterior(np.concatenate([right, wrong]))
    assert clean[:700].mean() > 0.98 and clean[700:].mean() < 0.05
    assert (clean_posterior(np.array([-5.0, *right, *wrong]))[0]) == 1, "a very small loss is no reason to doubt"
    assert (clean_posterior(np.full(50, 0.3)) == 1).all() and (clean_posterior(wrong[:19]) == 1).all()
    assert len(clean_posterior(np.zeros(0))) == 0


@pytest.mark.parametrize("arguments", [{"margin": 0.0}, {"base": 1.0}, {"warm_up": 1.5}])
def test_numbers_out_of_range_are_refused(model: Any, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} of RectifiedPairs"):
        RectifiedPairs(model, **arguments)
