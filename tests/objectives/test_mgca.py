"""MGCA against loops in numpy: contrast, codes and swapped predictions, pair by pair and study by study."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssml.config import build, load_config
from medssml.model import MultimodalModel
from medssml.objectives import MGCA, Clock, CrossModalContrast, Objective, Step, TokenAlignment
from medssml.runs.training_config import PretrainConfig
from tests.examples import batch_of, study, ten_studies, tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def loss_of(objective: Objective, step: Step) -> float:
    return float(objective(step)["loss"].detach())


def made(model: MultimodalModel, **options) -> MGCA:
    torch.manual_seed(3)
    return MGCA(model, **{"dim": 8, "prototypes": 5, "batch_norm": False, **options}).eval()


def codes_of(scores: np.ndarray, epsilon: float = 0.05) -> np.ndarray:
    """Algorithm 1 of SwAV: three times, all prototypes the same mass, then all studies."""
    q = np.exp(scores / epsilon)
    for _ in range(3):
        q = q / q.sum(0) / q.shape[1]
        q = q / q.sum(1)[:, None] / q.shape[0]
    return q * q.shape[0]


def vectors_of(objective: MGCA, step: Step) -> dict[str, dict[int, np.ndarray]]:
    """Modality -> number of a study -> its unit vector."""
    out = {}
    for name, part in step.encoded.items():
        z = objective.space.heads[name](part.pooled).detach().double().numpy()
        out[name] = {int(n): v / np.linalg.norm(v) for n, v in zip(step.batch.rows(name), z, strict=True)}
    return out


def cross_entropy(target: np.ndarray, logits: np.ndarray) -> float:
    return float(-(target * (logits - np.log(np.exp(logits).sum()))).sum())


def prototypes_by_hand(objective: MGCA, step: Step, temperature: float = 0.2) -> float:
    c = objective.prototypes.weight.detach().double().numpy()
    c = c / np.linalg.norm(c, axis=1, keepdims=True)
    z, terms = vectors_of(objective, step), []
    codes = {m: dict(zip(part, codes_of(np.stack(list(part.values())) @ c.T), strict=True)) for m, part in z.items()}
    for m, n in permutations(z, 2):
        for number in z[m]:
            if number in z[n]:
                terms.append(cross_entropy(codes[m][number], c @ z[n][number] / temperature))
    return float(np.mean(terms))


def contrast_by_hand(objective: MGCA, step: Step) -> float:
    z, terms = vectors_of(objective, step), []
    for m, n in permutations(z, 2):
        for number in z[m]:
            if number in z[n]:
                others = list(z[n])
                logits = np.array([z[m][number] @ z[n][other] / 0.07 for other in others])
                terms.append(cross_entropy(np.array([float(other == number) for other in others]), logits))
    return float(np.mean(terms))


def test_the_loss_is_contrast_and_swapped_predictions_of_every_pair(model):
    objective, step = made(model), Step(model, batch_of(ten_studies()))
    found = objective(step)
    ita, cpa = contrast_by_hand(objective, step), prototypes_by_hand(objective, step)
    assert float(found["loss_contrast"]) == pytest.approx(ita, rel=1e-5)
    assert float(found["loss_prototypes"]) == pytest.approx(0.5 * cpa, rel=1e-5)
    assert float(found["loss"].detach()) == pytest.approx(ita + 0.5 * cpa, rel=1e-5)
    other = made(model, alignment=2.0, prototype_temperature=0.1)
    assert float(other(step)["loss_prototypes"]) == pytest.approx(2 * prototypes_by_hand(other, step, 0.1), rel=1e-5)


def test_pairs_that_are_not_named_are_no_terms_and_without_prototypes_it_is_the_contrast(model):
    step = Step(model, batch_of(ten_studies()))
    named = made(model, pairs=["ct+report"])
    only = Step(model, batch_of(ten_studies()).without("xray", "eeg"))
    expected = contrast_by_hand(named, only) + 0.5 * prototypes_by_hand(named, only)
    assert loss_of(named, step) == pytest.approx(expected, rel=1e-5)
    torch.manual_seed(3)
    contrast = CrossModalContrast(model, dim=8, batch_norm=False, learn_temperature=False).eval()
    assert loss_of(made(model, alignment=0.0), step) == pytest.approx(loss_of(contrast, step), rel=1e-6)


def test_a_study_with_one_modality_is_no_term_but_balances_the_codes(model):
    objective = made(model, pairs=["ct+report"])
    both = [study(n, ("ct", "report")) for n in range(4)]
    whole = float(objective(Step(model, batch_of(both)))["loss_prototypes"])
    with_one = float(objective(Step(model, batch_of([*both, study(9, ("ct",))])))["loss_prototypes"])
    assert with_one != pytest.approx(whole, rel=1e-6)
    assert objective(Step(model, batch_of([study(1, ("ct",)), study(2, ("report",))]))) is None


def test_one_pair_alone_has_prototypes_and_no_contrast(model):
    found = made(model)(Step(model, batch_of([study(1, ("ct", "report"))])))
    assert "loss_contrast" not in found and float(found["loss"].detach()) == float(found["loss_prototypes"]) > 0


def test_both_parts_move_one_space(model):
    objective, step = made(model), Step(model, batch_of(ten_studies()))
    for part in (objective._contrasted, objective._aligned):
        loss = part(step, objective._embeddings(step))["loss"]
        gradients = torch.autograd.grad(loss, list(objective.space.heads["ct"].parameters()))
        assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)


def test_no_gradient_passes_through_the_codes(model):
    """Against the gradient of the loss whose codes are numbers, from numpy."""
    objective = made(model, pairs=["ct+report"], alignment=1.0)
    step = Step(model, batch_of([study(n, ("ct", "report")) for n in range(5)]), clock=Clock(0, 1, 1))
    vectors = {n: F.normalize(torch.randn(5, 8), dim=1).requires_grad_() for n in ("ct", "report")}
    found = torch.autograd.grad(objective._aligned(step, vectors)["loss"], list(vectors.values()))
    c = F.normalize(objective.prototypes.weight.detach(), dim=1)
    codes = {n: torch.from_numpy(codes_of((v.detach() @ c.T).double().numpy())).float() for n, v in vectors.items()}
    loss = 0.0
    for m, n in (("ct", "report"), ("report", "ct")):
        loss = loss - (codes[m] * (vectors[n] @ c.T / 0.2).log_softmax(1)).sum() / 10
    for one, other in zip(found, torch.autograd.grad(loss, list(vectors.values())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_prototypes_stay_in_the_first_epoch_and_are_unit_vectors_after_each_step(model):
    objective = made(model)
    for epoch in (0, 1):
        step = Step(model, batch_of(ten_studies()), clock=Clock(5, 10, epoch))
        (gradient,) = torch.autograd.grad(objective(step)["loss"], [objective.prototypes.weight], allow_unused=True)
        assert (gradient is not None) == (epoch == 1)
    with torch.no_grad():
        objective.prototypes.weight.mul_(3)
    objective.after_step(Clock())
    torch.testing.assert_close(objective.prototypes.weight.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("folder", ["pretrain", "smoke"])
def test_the_config_has_the_weights_of_the_paper(folder, model):
    config = load_config(ROOT / "configs" / folder / "mgca.yaml", PretrainConfig)
    objectives = [build(node, Objective, model=model) for node in config.objectives]
    assert [type(objective) for objective in objectives] == [MGCA, TokenAlignment]
    assert (objectives[0].weight, objectives[0].alignment, objectives[1].weight) == (1.0, 0.5, 0.7)


def test_published_defaults(model):
    objective = MGCA(model)
    assert objective.prototypes.weight.shape == (500, 128)
    assert float(1 / objective.scale()) == pytest.approx(0.07) and not objective.scale.log.requires_grad
    assert (objective.prototype_temperature, objective.epsilon, objective.freeze_epochs) == (0.2, 0.05, 1)


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="prototypes is 1; fix: 2 or more"):
        made(model, prototypes=1)
    with pytest.raises(ValueError, match="prototype_temperature is 0"):
        made(model, prototype_temperature=0)
    with pytest.raises(ValueError, match="alignment is -1"):
        made(model, alignment=-1)
