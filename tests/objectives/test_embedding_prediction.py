"""Prediction of one modality's embedding from another's, study by study; who is asked, who learns."""

import math

import pytest
import torch

from medssml.config import LeftOut
from medssml.objectives import EmbeddingPrediction, Step, Teacher
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def asked(model, studies, **options):
    torch.manual_seed(1)
    objective = EmbeddingPrediction(model, **options)
    other = tiny_model(seed=9).eval()
    return objective, other, Step(model, batch_of(studies), teacher=Teacher(other))


def by_hand(distance, q, y):
    if distance == "cosine":
        return 2 - 2 * sum(a * b for a, b in zip(q, y, strict=True)) / (math.hypot(*q) * math.hypot(*y))
    mean = sum(y) / len(y)
    sd = math.sqrt(sum((v - mean) ** 2 for v in y) / len(y) + 1e-5)
    return sum((a - (v - mean) / sd) ** 2 for a, v in zip(q, y, strict=True)) / len(q)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_is_the_mean_over_directions_and_studies_that_have_both(model, distance):
    objective, other, step = asked(model, ten_studies(), directions=["ct->report", "eeg->ct"], distance=distance)
    errors = []
    for number, one in enumerate(ten_studies()):
        alone = batch_of([one])
        for m, n in (("ct", "report"), ("eeg", "ct")):
            if {m, n} <= set(one["inputs"]):
                q = objective.heads[f"{m}->{n}"](model.encode(alone)[m].pooled)[0].tolist()
                errors.append((number, by_hand(distance, q, other.encode(alone)[n].pooled[0].tolist())))
    assert [number for number, _ in errors] == [0, 0, 1, 3, 6]
    expected = sum(error for _, error in errors) / len(errors)
    assert float(objective(step)["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_the_seen_modality_learns_and_neither_the_other_nor_the_teacher(model):
    objective, other, step = asked(model, ten_studies(), directions=["ct->report"])
    model.zero_grad()
    objective(step)["loss"].backward()
    moved = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == {"ct"}
    assert all(p.grad is None for p in other.parameters())


def test_nobody_has_both(model):
    objective, _, step = asked(model, [study(0, ("ct",)), study(1, ("report",))])
    assert objective(step) is None


def test_directions_follow_the_modalities_that_are_left(model):
    assert len(EmbeddingPrediction(model).directions) == 12
    kept = EmbeddingPrediction.restricted_to({"directions": ["ct->report", "eeg->ct"]}, ["ct", "report"])
    assert kept == {"directions": ["ct->report"]}
    with pytest.raises(LeftOut, match="needs eeg->ct"):
        EmbeddingPrediction.restricted_to({"directions": ["eeg->ct"]}, ["ct", "report"])
    with pytest.raises(LeftOut, match="two modalities"):
        EmbeddingPrediction.restricted_to({}, ["ct"])
    for wrong in (["ct->ct"], ["ct+report"], []):
        with pytest.raises(ValueError, match="known: ct->xray"):
            EmbeddingPrediction(model, directions=wrong)
    with pytest.raises(ValueError, match="accepted: cosine, mse"):
        EmbeddingPrediction(model, distance="l1")
