"""Alignment without pairs: moments and matches written out; no study with two modalities is needed for any of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.losses import coral, mmd
from medssml.model import MultimodalModel
from medssml.objectives import MomentMatching, PseudoPairs, Step, SwAV
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


UNPAIRED = [study(n, ("ct",) if n % 2 else ("report",)) for n in range(9)]


@pytest.mark.parametrize(("name", "distance"), [("mmd", mmd), ("coral", coral)])
def test_moments_are_those_of_all_studies_of_each_modality(model, name, distance):
    objective = MomentMatching(model, distance=name, dim=8).eval()
    step = Step(model, batch_of(ten_studies()))
    z = {m: objective.space(m, part.pooled) for m, part in step.encoded.items()}
    names = model.modalities
    means = [distance(z[m], z[n]) for i, m in enumerate(names) for n in names[i + 1 :]]
    assert float(objective(step)["loss"].detach()) == pytest.approx(float(torch.stack(means).mean().detach()), rel=1e-5)


def test_no_pair_is_needed_and_two_studies_of_each_side_are(model):
    step = Step(model, batch_of(UNPAIRED))
    assert set(MomentMatching(model, dim=8)(step)) == {"loss", "distance_ct+report"}
    assert PseudoPairs(model, dim=8)(step) is not None
    one = Step(model, batch_of([study(0, ("ct",)), study(1, ("report",)), study(2, ("report",))]))
    assert MomentMatching(model, dim=8)(one) is None and PseudoPairs(model, dim=8)(one) is None
    views = Step(model, batch_of(UNPAIRED, views=2))
    assert SwAV(model, across="looks", prototypes=4, dim=8)(views) is not None


def reference(objective: PseudoPairs, step: Step, plan_of) -> float:
    """The mean over those that are matched, both ways, of one pair of modalities."""
    ct, report = (objective.space(m, step.encoded[m].pooled).detach().double().numpy() for m in ("ct", "report"))
    has = [set(step.batch.rows(m).tolist()) for m in ("ct", "report")]
    a = [i for i, n in enumerate(sorted(has[0])) if n not in has[1]]
    b = [i for i, n in enumerate(sorted(has[1])) if n not in has[0]]
    cosines = ct[a] @ report[b].T
    plan, terms = plan_of(cosines), []
    for logits, target in ((cosines, plan), (cosines.T, plan.T)):
        for s, t in zip(logits / 0.1, target, strict=True):
            if t.sum() > 0:
                terms.append(-(t / t.sum()) @ (s - np.log(np.exp(s).sum())))
    return float(np.mean(terms))


def test_matches_by_transport_are_the_plan_of_pot(model):
    ot = pytest.importorskip("ot")
    objective = PseudoPairs(
        model, modalities=["ct", "report"], dim=8, iterations=3000, epsilon=0.1, batch_norm=False
    ).eval()
    step = Step(model, batch_of([*ten_studies(), *[study(n, ("report",)) for n in (20, 21)]]))

    def plan_of(cosines):
        n, m = cosines.shape
        return ot.sinkhorn(np.full(n, 1 / n), np.full(m, 1 / m), 1 - cosines, 0.1, numItermax=5000, stopThr=1e-12)

    assert float(objective(step)["loss"].detach()) == pytest.approx(reference(objective, step, plan_of), rel=1e-4)


def test_mutual_matches_are_each_others_nearest(model):
    objective = PseudoPairs(model, modalities=["ct", "report"], dim=8, match="mutual", batch_norm=False).eval()
    step = Step(model, batch_of(UNPAIRED))

    def plan_of(cosines):
        pairs = [(i, int(row.argmax())) for i, row in enumerate(cosines)]
        plan = np.zeros_like(cosines)
        for i, j in pairs:
            plan[i, j] = cosines[:, j].argmax() == i
        assert 0 < plan.sum() < len(pairs)
        return plan

    assert float(objective(step)["loss"].detach()) == pytest.approx(reference(objective, step, plan_of), rel=1e-4)


def test_who_has_both_is_left_to_those_who_know_the_pair(model):
    objective = PseudoPairs(model, modalities=["ct", "report"], dim=8, batch_norm=False).eval()
    paired = [study(n, ("ct", "report")) for n in (30, 31, 32)]
    alone, beside = (objective(Step(model, batch_of(some)))["loss"] for some in (UNPAIRED, [*UNPAIRED, *paired]))
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)
    assert objective(Step(model, batch_of(paired))) is None


def test_moments_of_two_modalities_come_to_agree():
    """A report's words say nothing of which CT is whose; still both spaces are used alike in the end."""
    model = tiny_model()
    torch.manual_seed(0)
    objective = MomentMatching(model, modalities=["ct", "report"], dim=8)
    optimiser = torch.optim.Adam(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = objective(Step(model, batch_of(UNPAIRED)))["loss"]
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_what_cannot_be_is_refused(model):
    for kind, options, message in (
        (MomentMatching, {"distance": "kl"}, "distance is 'kl'"),
        (MomentMatching, {"modalities": ["ct"]}, "needs two"),
        (PseudoPairs, {"match": "best"}, "match is 'best'"),
        (PseudoPairs, {"modalities": ["ct"]}, "needs two"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(model, **options)
