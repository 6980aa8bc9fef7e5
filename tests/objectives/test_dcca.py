"""DCCA: who is counted, what is added up, and that what two modalities share is found."""

import numpy as np
import pytest
import torch

from medssml.objectives import DCCA, Step
from tests.examples import batch_of, step_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_is_what_correlations_lack_averaged_over_pairs(model):
    objective = DCCA(model, modalities=["ct", "xray", "report"], dim=2, regulariser=0.01).eval()
    studies = ten_studies()
    placed = {}
    for name in ("ct", "xray", "report"):
        for n, one in enumerate(studies):
            if name in one["inputs"]:
                encoded = model.encode(batch_of([one]))
                placed[name, n] = objective.heads[name](encoded[name].pooled)[0].detach().double().numpy()
    missing = []
    for a, b in (("ct", "xray"), ("ct", "report"), ("xray", "report")):
        both = [n for n in range(10) if (a, n) in placed and (b, n) in placed]
        assert len(both) >= 3
        x, y = (np.stack([placed[name, n] for n in both]) for name in (a, b))
        x, y = x - x.mean(0), y - y.mean(0)
        xx, yy = (part.T @ part / (len(both) - 1) + 0.01 * np.eye(2) for part in (x, y))
        xy = x.T @ y / (len(both) - 1)
        # The squares of the correlations are the eigenvalues of Hotelling's matrix.
        squares = np.linalg.eigvals(np.linalg.solve(xx, xy) @ np.linalg.solve(yy, xy.T)).real
        missing.append(2 - np.sqrt(squares.clip(0)).sum())
    answer = objective(step_of(model, objective, studies))
    assert float(answer["loss"].detach()) == pytest.approx(np.mean(missing), rel=1e-3)
    assert float(answer["correlation_ct+report"]) == pytest.approx((2 - missing[1]) / 2, rel=1e-3)


def test_a_pair_that_a_single_study_has_takes_no_part(model):
    objective = DCCA(model, pairs=["ct+report", "ct+xray"], dim=2).eval()
    pairs = [study(n, ("ct", "report")) for n in range(5)]
    alone = objective(step_of(model, objective, pairs))
    with_one = objective(step_of(model, objective, [*pairs, study(8, ("xray",))]))
    torch.testing.assert_close(alone["loss"], with_one["loss"])
    assert set(with_one) == {"loss", "correlation_ct+report"}
    assert objective(step_of(model, objective, [study(0, ("ct", "xray"))])) is None


def test_learning_raises_the_correlation():
    model = tiny_model()
    torch.manual_seed(0)
    objective = DCCA(model, pairs=["ct+xray"], dim=2)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
    batch, found = batch_of([study(n, ("ct", "xray")) for n in range(16)]), []
    for _ in range(40):
        optimiser.zero_grad()
        answer = objective(Step(model, batch))
        answer["loss"].backward()
        optimiser.step()
        found.append(float(answer["correlation_ct+xray"]))
    assert found[0] < 0.7 and found[-1] > 0.9


def test_a_regulariser_that_is_none_is_refused(model):
    with pytest.raises(ValueError, match="above 0"):
        DCCA(model, regulariser=0.0)


def test_no_head_has_a_bias_that_the_mean_takes_away(model):
    """Its gradient is what rounding leaves, so that whether it moves would depend on the processor."""
    last = {name: head[-1] for name, head in DCCA(model, dim=4).heads.items()}
    assert last and all(layer.bias is None for layer in last.values())
