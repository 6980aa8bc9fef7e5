"""Barlow Twins: which sides it compares, over whom, and that features come to agree and to differ from each other."""

import pytest
import torch

from medssml.objectives import BarlowTwins, Step
from tests.examples import batch_of, step_of, study, ten_studies, tiny_model
from tests.losses.test_barlow import by_hand


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def expanded(model, objective, studies, look, name):
    """study -> expanded vector of a modality in a look, each study encoded by itself."""
    out = {}
    for n, one in enumerate(studies):
        step = Step(model, batch_of([one], views=2))
        if name in step.views[look].encoded:
            out[n] = objective.expanders[name](step.views[look].encoded[name].pooled)[0].detach().double()
    return out


@pytest.mark.parametrize(
    ("across", "pairs"),
    [
        ("looks", [((0, "ct"), (1, "ct")), ((0, "xray"), (1, "xray"))]),
        ("modalities", [((0, "ct"), (0, "xray"))]),
        (
            "both",
            [
                ((0, "ct"), (1, "ct")), ((0, "xray"), (1, "xray")), ((0, "ct"), (0, "xray")), ((1, "ct"), (1, "xray")),
            ],
        ),
    ],
)  # fmt: skip
def test_is_the_mean_over_pairs_of_sides_of_the_studies_that_have_both(model, across, pairs):
    objective = BarlowTwins(model, modalities=["ct", "xray"], across=across, dim=4, off_diagonal=0.2).eval()
    studies, costs = ten_studies(), []
    for a, b in pairs:
        first, second = (expanded(model, objective, studies, *side) for side in (a, b))
        both = sorted(first.keys() & second.keys())
        assert len(both) > 2
        costs.append(by_hand(*(torch.stack([part[n] for n in both]).numpy() for part in (first, second)), 0.2))
    found = objective(step_of(model, objective, studies))["loss"]
    assert float(found.detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-3)


def test_a_pair_that_a_single_study_has_takes_no_part(model):
    objective = BarlowTwins(model, modalities=["ct", "xray", "report"], across="modalities", dim=4).eval()
    pairs = [study(n, ("ct", "report")) for n in range(3)]
    alone = objective(step_of(model, objective, pairs))["loss"]
    with_one = objective(step_of(model, objective, [*pairs, study(3, ("xray",))]))["loss"]
    torch.testing.assert_close(alone, with_one)
    assert objective(step_of(model, objective, [study(0, ("ct", "xray"))])) is None


def test_learning_brings_the_same_features_together_and_others_apart():
    model = tiny_model()
    torch.manual_seed(0)
    objective = BarlowTwins(model, modalities=["ct", "xray"], across="modalities", dim=4, off_diagonal=0.5)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
    batch, agreement = batch_of([study(n, ("ct", "xray")) for n in range(12)]), []
    for _ in range(80):
        optimiser.zero_grad()
        answer = objective(Step(model, batch))
        answer["loss"].backward()
        optimiser.step()
        agreement.append(float(answer["agreement"]))
    assert agreement[0] < 0.3 and agreement[-1] > 0.6
    assert float(answer["loss"].detach()) < 1.0


def test_a_negative_weight_and_a_single_modality_across_modalities_are_refused(model):
    with pytest.raises(ValueError, match="0 or more"):
        BarlowTwins(model, dim=4, off_diagonal=-1.0)
    with pytest.raises(ValueError, match="needs two"):
        BarlowTwins(model, modalities=["ct"], across="modalities", dim=4)
