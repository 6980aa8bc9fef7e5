"""Agreement of shared features and what specific ones tell, pair by pair and modality by modality, in numpy."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, log_softmax

from medssml.config import LeftOut
from medssml.fusion import SharedSpecificFusion
from medssml.model import MultimodalModel
from medssml.objectives import SharedSpecific, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture
def model() -> MultimodalModel:
    return tiny_model(fusion=lambda names, dim: SharedSpecificFusion(names, dim)).eval()


def kept(model: MultimodalModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch = batch_of(ten_studies())
    fused = model.fuse(model.encode(batch), batch.present)
    shared, specific = (fused.extra[name].detach().double().numpy() for name in ("shared", "specific"))
    return shared, specific, batch.present.numpy()


@pytest.mark.parametrize("alignment", ["l1", "jsd"])
@pytest.mark.parametrize("separation", ["domain", "cosine"])
def test_is_the_mean_over_what_each_study_has(model: MultimodalModel, alignment: str, separation: str) -> None:
    torch.manual_seed(1)
    objective = SharedSpecific(model, alignment=alignment, separation=separation, align=0.3, separate=0.7)  # type: ignore[arg-type]
    s, r, present = kept(model)
    apart, told = [], []
    for row in range(10):
        columns = np.flatnonzero(present[row])
        for m, n in combinations(columns, 2):
            if alignment == "l1":
                apart.append(np.abs(s[row, m] - s[row, n]).mean())
            else:
                p, q = expit(s[row, m]), expit(s[row, n])
                apart.append(np.mean([jensenshannon([a, 1 - a], [b, 1 - b]) ** 2 for a, b in zip(p, q, strict=True)]))
        for m in columns:
            if objective.classifier is not None:
                weight, bias = (p.detach().double().numpy() for p in objective.classifier.parameters())
                told.append(-log_softmax(weight @ r[row, m] + bias)[m])
            else:
                a, b = r[row, m], s[row, m]
                told.append(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))
    assert (len(apart), len(told)) == (6 + 1 + 1 + 1 + 3 + 1 + 1, int(present.sum()))
    found = objective(Step(model, batch_of(ten_studies())))
    assert found is not None
    expected = 0.3 * np.mean(apart) + 0.7 * np.mean(told)
    assert float(found["loss"].detach()) == pytest.approx(expected, rel=1e-3)


def test_one_modality_has_nothing_to_agree_with_and_nothing_is_no_term(model: MultimodalModel) -> None:
    objective = SharedSpecific(model)
    found = objective(Step(model, batch_of([study(0, ("ct",))])))
    assert found is not None and found["alignment"] == 0 and found["separation"] > 0
    assert objective(Step(model, batch_of([study(0, ())]))) is None


def test_a_step_in_two_batches_weighs_pairs_and_modalities_each_by_their_number(model: MultimodalModel) -> None:
    torch.manual_seed(1)
    objective = SharedSpecific(model)
    studies = ten_studies()
    parts = [batch_of(studies[:2]), batch_of(studies[2:])]
    found = [objective(Step(model, part, group=parts)) for part in parts]
    whole = objective(Step(model, batch_of(studies)))
    assert whole is not None and all(one is not None for one in found)
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, whole["loss"])  # type: ignore[index]


def test_learning_it_makes_the_shared_alike_and_the_specific_known(model: MultimodalModel) -> None:
    objective = SharedSpecific(model, align=1.0, separate=1.0)
    optimiser = torch.optim.Adam([*model.fusion.parameters(), *objective.parameters()], lr=3e-3)
    terms = []
    for _ in range(60):
        optimiser.zero_grad()
        found = objective(Step(model, batch_of(ten_studies())))
        assert found is not None
        found["loss"].backward()
        optimiser.step()
        terms.append((float(found["alignment"]), float(found["separation"])))
    assert terms[-1][0] < 0.7 * terms[0][0] and terms[-1][1] < 0.5 * terms[0][1]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="MaskedAttention keeps no shared and specific features; fix"):
        SharedSpecific(tiny_model())
    with pytest.raises(ValueError, match="accepted: l1 or jsd"):
        SharedSpecific(tiny_model(fusion=lambda n, d: SharedSpecificFusion(n, d)), alignment="l2")  # type: ignore[arg-type]
    with pytest.raises(LeftOut, match="two modalities"):
        SharedSpecific.restricted_to({}, ["ct"])
