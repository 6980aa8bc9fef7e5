"""VICReg: what it adds up, over whom, and that it holds features up."""

import pytest
import torch

from medssml.objectives import Step, VICReg
from tests.examples import batch_of, step_of, study, ten_studies, tiny_model
from tests.losses.test_vicreg import by_hand


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_is_the_weighted_sum_of_the_terms_averaged_over_modalities(model):
    objective = VICReg(model, modalities=["ct", "xray"], dim=6).eval()
    step = Step(model, batch_of(ten_studies(), views=2))
    expected = []
    for name in ("ct", "xray"):
        looks = [objective.expanders[name](view.encoded[name].pooled).detach().double().numpy() for view in step.views]
        invariance, variance, covariance = by_hand(*looks)
        expected.append(25 * invariance + 25 * variance + 1 * covariance)
    assert float(objective(step)["loss"].detach()) == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_the_expander_is_three_layers_of_the_published_width(model):
    objective = VICReg(model, modalities=["ct"])
    linear = [part for part in objective.expanders["ct"] if isinstance(part, torch.nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linear] == [(16, 8192), (8192, 8192), (8192, 8192)]


def test_one_study_of_a_modality_has_no_statistics(model):
    objective = VICReg(model, dim=6)
    one_ct = [study(0, ("ct", "report")), study(1, ("report",)), study(2, ("report",))]
    answer = objective(step_of(model, objective, one_ct))
    assert set(answer) == {"loss", "spread_report"}
    assert objective(step_of(model, objective, one_ct[:1])) is None


def test_without_the_variance_term_features_collapse_and_with_it_they_do_not():
    spreads = {}
    for variance in (0.0, 25.0):
        model = tiny_model()
        torch.manual_seed(0)
        objective = VICReg(model, modalities=["ct"], dim=8, variance=variance, covariance=0.0)
        optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
        step = batch_of(ten_studies(), views=2)
        for _ in range(80):
            optimiser.zero_grad()
            answer = objective(Step(model, step))
            answer["loss"].backward()
            optimiser.step()
        spreads[variance] = float(answer["spread_ct"])
    assert spreads[0.0] < 0.3 < 0.8 < spreads[25.0]


def test_a_negative_share_is_refused(model):
    with pytest.raises(ValueError, match="none below 0"):
        VICReg(model, dim=6, covariance=-1.0)
