"""SeLaVi's labels against averaged log probabilities and equal parts in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from medssml.objectives import SeLaVi
from tests.examples import step_of, study, ten_studies, tiny_model


def test_labels_are_equal_parts_of_what_the_modalities_say_together():
    model = tiny_model().eval()
    objective = SeLaVi(model, clusters=3, heads=2).eval()
    step = step_of(model, objective, ten_studies())
    for head in range(2):
        log_p = np.zeros((10, 3))
        for number in range(10):
            said = [
                objective.heads[f"{name}_{head}"](part.pooled[step.batch.rows(name).tolist().index(number)])
                for name, part in step.encoded.items()
                if number in step.batch.rows(name).tolist()
            ]
            if said:
                log_p[number] = torch.stack([x.log_softmax(0) for x in said]).mean(0).detach().numpy()
        having = [n for n in range(10) if n != 8]  # study 8 has nothing
        plan = np.exp(20 * log_p[having])
        for _ in range(100):
            plan /= plan.sum(0, keepdims=True)
            plan /= plan.sum(1, keepdims=True)
        labels = objective.assigned.of_study[head]
        assert labels[having].tolist() == plan.argmax(1).tolist()
        np.testing.assert_allclose(plan.sum(0), 3, rtol=1e-3)


def test_the_loss_is_the_plain_mean_over_studies_heads_and_modalities():
    model = tiny_model().eval()
    objective = SeLaVi(model, clusters=3, heads=2).eval()
    step = step_of(model, objective, ten_studies())
    means = []
    for head in range(2):
        for name, part in step.encoded.items():
            labels = objective.assigned.of_study[head][step.batch.rows(name)]
            means.append(float(F.cross_entropy(objective.heads[f"{name}_{head}"](part.pooled), labels)))
    assert float(objective(step)["loss"].detach()) == pytest.approx(sum(means) / len(means), rel=1e-5)


def test_clusters_stay_of_equal_size_where_every_study_looks_the_same():
    """Where DeepCluster would find one cluster, the studies are still divided; a head keeps what it has learned."""
    model = tiny_model().eval()
    objective = SeLaVi(model, modalities=["ct"], clusters=3, heads=1)
    before = objective.heads["ct_0"][0].weight.clone()
    step_of(model, objective, [study(n, ("ct",)) for n in range(30)])
    sizes = torch.bincount(objective.assigned.of_study[0], minlength=3).tolist()
    assert min(sizes) >= 7
    assert torch.equal(objective.heads["ct_0"][0].weight, before)


def test_heads_are_several_clusterings():
    model = tiny_model().eval()
    objective = SeLaVi(model, clusters=3, heads=4)
    step_of(model, objective, ten_studies())
    assert len({tuple(row) for row in objective.assigned.of_study.tolist()}) > 1
    with pytest.raises(ValueError, match="heads is 0"):
        SeLaVi(model, heads=0)
