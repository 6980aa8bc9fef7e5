"""Joint clusters against loops in numpy; what is known to be wrong elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel
from medssml.objectives import Clock, CrossModalContrast, JointClusters, Step
from medssml.objectives.clustering import spherical_k_means
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


@pytest.mark.parametrize("each", [True, False])
def test_the_loss_is_the_margin_softmax_among_the_centres(model, monkeypatch, each):
    centres = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    monkeypatch.setattr("medssml.objectives.joint_clusters.spherical_k_means", lambda *_, **__: centres)
    objective = JointClusters(model, dim=8, each=each, margin=0.05, temperature=0.2, batch_norm=False).eval()
    step = Step(model, batch_of(ten_studies()))
    z = {name: objective.space(name, part.pooled).detach().numpy() for name, part in step.encoded.items()}
    terms = []
    for number in range(10):
        own = [z[name][step.batch.rows(name).tolist().index(number)] for name in z if number in step.batch.rows(name)]
        if not own:
            continue
        fused = np.mean(own, axis=0)
        fused /= np.linalg.norm(fused)
        label = int(np.argmax(centres.numpy() @ fused))
        for vector in own if each else [fused]:
            s = centres.numpy() @ vector
            s[label] -= 0.05
            s = s / 0.2
            terms.append(-s[label] + np.log(np.exp(s).sum()))
    assert float(objective(step)["loss"].detach()) == pytest.approx(float(np.mean(terms)), rel=1e-5)


def test_the_centres_are_those_of_queue_and_batch(model, monkeypatch):
    seen = []

    def watched(points, clusters, *, seed):
        seen.append(points)
        return spherical_k_means(points, clusters, seed=seed)

    monkeypatch.setattr("medssml.objectives.joint_clusters.spherical_k_means", watched)
    objective = JointClusters(model, dim=8, clusters=3, queue=12).train()
    step = Step(model, batch_of(ten_studies()))
    objective(step)
    objective.after_step(Clock())
    objective(Step(model, batch_of(ten_studies())))
    assert [len(points) for points in seen] == [9, 18]
    torch.testing.assert_close(seen[1].norm(dim=1), torch.ones(18))


def test_clusters_are_found_by_cosine():
    directions = F.normalize(torch.tensor([[1.0, 0.1], [-1.0, 0.2], [0.1, -1.0]]), dim=1)
    truth = torch.arange(30) % 3
    points = F.normalize(
        directions[truth] + 0.05 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), dim=1
    )
    centres = spherical_k_means(points, 3, seed=1)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(3))
    found = (points @ centres.T).argmax(1)
    assert len({(int(a), int(b)) for a, b in zip(truth, found, strict=True)}) == 3
    assert len(spherical_k_means(torch.ones(5, 2) / 2**0.5, 3, seed=0)) == 1


def test_nothing_before_its_epoch_and_nothing_from_studies_that_do_not_differ(model):
    objective = JointClusters(model, dim=8, clusters=3, start_epoch=2).eval()
    assert objective(Step(model, batch_of(ten_studies()), clock=Clock(9, 10, 1))) is None
    assert objective(Step(model, batch_of(ten_studies()), clock=Clock(9, 10, 2))) is not None
    assert JointClusters(model, dim=8, clusters=3).eval()(Step(model, batch_of([study(0, ("ct",))]))) is None


@pytest.mark.parametrize(("temperature", "least", "most"), [(0.1, 0.0, 0.01), (1.0, 1.3, 2.0)])
def test_the_softmax_over_centres_is_not_flat(model, monkeypatch, temperature, least, most):
    """Nine studies, each on a centre of its own: found for certain, but for logits within [-1, 1] as in the papers' code."""
    monkeypatch.setattr("medssml.objectives.joint_clusters.spherical_k_means", lambda *_, **__: torch.eye(9))
    objective = JointClusters(model, modalities=["ct"], dim=9, temperature=temperature)
    monkeypatch.setattr(objective.space, "forward", lambda name, pooled: torch.eye(9))
    assert least <= float(objective(Step(model, batch_of([study(n, ("ct",)) for n in range(9)])))["loss"]) <= most


def test_five_modalities_and_all_their_pairs():
    """ConCluGen's released code raises above three modalities and contrasts a ring of pairs."""
    from medssml.encoders import TableEncoder

    names = ("a", "b", "c", "d", "e")
    torch.manual_seed(0)
    five = MultimodalModel({name: TableEncoder(5, 16, 1, 2) for name in names}, AdditiveFusion(names, 16, 1, 2)).eval()
    studies = [study(n, ("table",)) for n in range(6)]
    for one in studies:
        one["inputs"] = dict.fromkeys(names, one["inputs"]["table"])
    rows = batch_of([{**one, "inputs": {"table": one["inputs"]["a"]}} for one in studies], modalities=("table",))
    batch = type(rows)(
        inputs=dict.fromkeys(names, rows.inputs["table"]), present=torch.ones(6, 5, dtype=torch.bool), modalities=names,
        study_id=rows.study_id, subject=rows.subject, key=rows.key, index=rows.index,
    )  # fmt: skip
    assert float(JointClusters(five, dim=8, clusters=3).eval()(Step(five, batch))["loss"].detach()) > 0
    assert len(CrossModalContrast(five, dim=8).pairs) == 10
