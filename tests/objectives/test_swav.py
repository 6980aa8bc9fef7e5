"""SwAV against loops in numpy, pair by pair and study by study."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives import Clock, Step, SwAV
from medssml.objectives.recent_vectors import RecentVectors
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def codes_of(scores: np.ndarray) -> np.ndarray:
    q = np.exp(scores.T / 0.05)
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdims=True) * q.shape[0]
        q /= q.sum(0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


def reference(objective: SwAV, step: Step, earlier: dict[str, np.ndarray] | None = None) -> float:
    """The mean over studies and ordered pairs of modalities of one look."""
    prototypes = F.normalize(objective.prototypes.weight.detach(), dim=1).double().numpy()
    scores, codes = {}, {}
    for name, part in step.encoded.items():
        scores[name] = objective.space(name, part.pooled).detach().double().numpy() @ prototypes.T
        every = scores[name]
        if earlier is not None:
            every = np.concatenate([every, earlier[name] @ prototypes.T])
        codes[name] = codes_of(every)
    terms = []
    rows = {name: step.batch.rows(name).tolist() for name in scores}
    for number in range(len(step.batch)):
        having = [name for name in scores if number in rows[name]]
        for source in having:
            for target in having:
                if source != target:
                    q = codes[source][rows[source].index(number)]
                    s = scores[target][rows[target].index(number)] / 0.1
                    terms.append(-float(q @ (s - np.log(np.exp(s).sum()))))
    return float(np.mean(terms))


def test_every_pair_of_modalities_swaps_its_codes(model):
    objective = SwAV(model, prototypes=5, dim=8, batch_norm=False).eval()
    step = Step(model, batch_of(ten_studies()))
    assert float(objective(step)["loss"]) == pytest.approx(reference(objective, step), rel=1e-5)


def test_two_looks_are_the_papers_loss(model):
    objective = SwAV(model, modalities=["ct"], across="looks", prototypes=4, dim=8, batch_norm=False).eval()
    step = Step(model, batch_of(ten_studies(), views=2))
    c = F.normalize(objective.prototypes.weight, dim=1).detach()
    a, b = (objective.space("ct", view.encoded["ct"].pooled).detach() @ c.T for view in step.views)
    expected = [
        -(torch.from_numpy(codes_of(x.double().numpy())) * (y.double() / 0.1).log_softmax(1)).sum(1).mean()
        for x, y in ((a, b), (b, a))
    ]
    assert float(objective(step)["loss"]) == pytest.approx(float(sum(expected) / 2), rel=1e-5)


def test_a_study_with_one_modality_is_no_term_but_balances_the_codes(model):
    objective = SwAV(model, modalities=["ct", "report"], prototypes=4, dim=8).eval()
    both = [study(n, ("ct", "report")) for n in range(4)]
    whole = float(objective(Step(model, batch_of(both)))["loss"])
    assert float(objective(Step(model, batch_of([*both, study(9, ("ct",))])))["loss"]) != pytest.approx(whole, rel=1e-6)
    assert objective(Step(model, batch_of([study(1, ("ct",)), study(2, ("report",))]))) is None


def test_the_queue_is_scored_with_the_present_prototypes_once_it_is_full(model):
    objective = SwAV(model, prototypes=5, dim=8, batch_norm=False, queue=6, queue_from_epoch=1).eval()
    step, later = (Step(model, batch_of(ten_studies()), clock=Clock(0, 1, epoch)) for epoch in (0, 1))
    vectors = F.normalize(torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1)), dim=2)
    objective.queue.rows.copy_(vectors)
    objective.queue.filled.fill_(5)
    alone = reference(objective, step)
    assert float(objective(later)["loss"]) == pytest.approx(alone, rel=1e-5), "not yet full"
    objective.queue.filled.fill_(6)
    assert float(objective(step)["loss"]) == pytest.approx(alone, rel=1e-5), "not yet its epoch"
    for _ in range(2):
        with torch.no_grad():
            objective.prototypes.weight.add_(torch.randn(5, 8) * 0.5)
        earlier = {name: vectors[i].double().numpy() for i, name in enumerate(model.modalities)}
        found = float(objective(later)["loss"])
        assert found == pytest.approx(reference(objective, step, earlier), rel=1e-5)
        assert found != pytest.approx(reference(objective, step), rel=1e-4)


def test_prototypes_stay_in_the_first_epoch_and_are_unit_vectors_after_each_step(model):
    objective = SwAV(model, prototypes=5, dim=8)
    for epoch in (0, 1):
        step = Step(model, batch_of(ten_studies()), clock=Clock(5, 10, epoch))
        (gradient,) = torch.autograd.grad(objective(step)["loss"], [objective.prototypes.weight], allow_unused=True)
        assert (gradient is not None) == (epoch == 1)
    with torch.no_grad():
        objective.prototypes.weight.mul_(3)
    objective.after_step(Clock())
    torch.testing.assert_close(objective.prototypes.weight.norm(dim=1), torch.ones(5))


def test_no_gradient_passes_through_the_codes(model):
    """With a code that depends on z, the gradient of the loss in z has two parts; here it is that of the prediction alone."""
    objective = SwAV(model, modalities=["ct", "xray"], prototypes=4, dim=8, batch_norm=False)
    step = Step(model, batch_of([study(n, ("ct", "xray")) for n in range(4)]))
    pooled = {name: part.pooled.detach().requires_grad_() for name, part in step.encoded.items()}
    step.__dict__["encoded"] = {name: part._replace(pooled=pooled[name]) for name, part in step.encoded.items()}
    c = F.normalize(objective.prototypes.weight, dim=1).detach()
    scores = {name: objective.space(name, pooled[name]) @ c.T for name in pooled}
    codes = {name: torch.from_numpy(codes_of(s.detach().double().numpy())).float() for name, s in scores.items()}
    loss = -sum(
        (codes[a] * (scores[b] / 0.1).log_softmax(1)).sum(1).mean() for a, b in (("ct", "xray"), ("xray", "ct"))
    )
    expected = torch.autograd.grad(loss / 2, list(pooled.values()))
    found = torch.autograd.grad(objective(step)["loss"], list(pooled.values()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_queue_keeps_the_newest_and_never_takes_what_a_skipped_step_offered(model):
    queue, batch = RecentVectors(1, 3, 2).train(), batch_of(ten_studies()[:2])
    queue.offer(Step(model, batch, clock=Clock(0)), [torch.full((2, 2), 9.0)])  # this step is skipped
    step = Step(model, batch, clock=Clock(1))
    queue.offer(step, [torch.tensor([[1.0, 1], [2, 2]])])
    queue.advance()
    assert not queue.full(0) and queue.of(0)[:, 0].tolist() == [1, 2]
    queue.eval().offer(step, [torch.full((1, 2), 7.0)])  # a validation
    queue.train().advance()
    queue.offer(step, [torch.tensor([[3.0, 3], [4, 4]])])
    queue.advance()
    assert queue.full(0) and queue.of(0)[:, 0].tolist() == [2, 3, 4]
    again = RecentVectors(1, 3, 2)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.of(0), queue.of(0))


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="across is 'all'"):
        SwAV(model, across="all")
    with pytest.raises(ValueError, match="needs two"):
        SwAV(model, modalities=["ct"])
    with pytest.raises(ValueError, match="2 or more"):
        SwAV(model, prototypes=1)
