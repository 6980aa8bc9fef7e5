"""XDC against the cross-entropy of one modality's clusters, named by another, study by study."""

from __future__ import annotations

import math

import pytest
import torch

from medssml.objectives import XDC, Step
from tests.examples import MODALITIES, batch_of, step_of, study, ten_studies, tiny_model


def test_each_modality_names_the_clusters_of_each_other():
    model = tiny_model().eval()
    objective = XDC(model, clusters=3).eval()
    step = step_of(model, objective, ten_studies())
    means = []
    for a in MODALITIES:
        for b in MODALITIES:
            labels = objective.assigned.of_study[MODALITIES.index(a)]
            sizes = torch.bincount(labels[labels >= 0], minlength=3).tolist()
            assert all((labels[n] >= 0) == (a in one["inputs"]) for n, one in enumerate(ten_studies()))
            terms, weights = [], []
            for place, number in enumerate(step.batch.rows(b).tolist()):
                c = int(labels[number])
                if a == b or c < 0:
                    continue
                logits = objective.heads[f"{a}_to_{b}"](step.encoded[b].pooled[place]).tolist()
                weights.append(sum(sizes) / (sizes[c] * sum(s > 0 for s in sizes)))
                terms.append(weights[-1] * (math.log(sum(map(math.exp, logits))) - logits[c]))
            if terms:
                means.append(sum(terms) / sum(weights))
    assert len(means) == 12
    assert float(objective(step)["loss"].detach()) == pytest.approx(sum(means) / 12, rel=1e-5)


def test_the_labels_of_a_modality_come_from_it_alone():
    model = tiny_model().eval()
    objective = XDC(model, modalities=["ct", "xray"], clusters=3)
    found = []
    for changed in (None, "ct", "xray"):
        studies = [study(n, ("ct", "xray")) for n in range(9)]
        for n, one in enumerate(studies):
            if changed is not None:
                one["inputs"][changed] = study(20 + n, (changed,))["inputs"][changed]
        step_of(model, objective, studies)
        found.append(objective.assigned.of_study.tolist())
    (ct, xray), (other_ct, same_xray), (same_ct, other_xray) = found
    assert ct == same_ct and xray == same_xray and ct != other_ct and xray != other_xray


def test_heads_begin_anew_with_each_clustering_and_a_validation_has_no_clusters():
    model = tiny_model().eval()
    objective = XDC(model, clusters=3)
    before = {name: head.weight.clone() for name, head in objective.heads.items()}
    step_of(model, objective, ten_studies())
    assert all(not torch.equal(head.weight, before[name]) for name, head in objective.heads.items())
    batch = batch_of(ten_studies())
    assert objective(Step(model, type(batch)(**{**batch.__dict__, "index": None}))) is None


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="XDC needs two"):
        XDC(tiny_model(), modalities=["ct"])
