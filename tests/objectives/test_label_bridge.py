"""The label bridge against a loop in numpy; unpaired studies, unknown labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.model import MultimodalModel
from medssml.objectives import LabelBridge, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def test_soft_targets_are_the_softmax_of_products_of_labels(model):
    objective = LabelBridge(
        model, tasks=["finding", "other"], modalities=["ct", "report"], dim=8, batch_norm=False
    ).eval()
    studies = [*ten_studies(), study(14, ("ct",)), study(17, ("report",))]
    other = [1.0, float("nan"), 0.0] * 4
    for one, value in zip(studies, other, strict=True):
        one["targets"]["other"] = value
    batch = batch_of(studies)
    batch.targets["other"] = torch.tensor(other)
    step = Step(model, batch)
    z = {m: objective.space(m, step.encoded[m].pooled).detach().double().numpy() for m in ("ct", "report")}
    sides = {}
    for m in z:
        y = [[{1.0: 1, 0.0: -1}.get(one["targets"][t], 0) for t in ("finding", "other")] for one in studies]
        sides[m] = [(z[m][i], np.array(y[n])) for i, n in enumerate(step.batch.rows(m).tolist()) if any(y[n])]
    terms = []
    for first, second in (("ct", "report"), ("report", "ct")):
        for vector, label in sides[first]:
            wanted = softmax(np.array([label @ other for _, other in sides[second]], dtype=float))
            found = softmax(np.array([vector @ other for other, _ in sides[second]]) / 0.07)
            terms.append(-wanted @ np.log(found))
    assert len(sides["ct"]) < len(z["ct"]), "one without any label"
    assert float(objective(step)["loss"].detach()) == pytest.approx(float(np.mean(terms)), rel=1e-4)


def test_no_pair_is_needed_and_no_label_is_no_loss(model):
    objective = LabelBridge(model, tasks=["finding"], dim=8).eval()
    unpaired = [study(n, ("ct",) if n % 2 else ("report",)) for n in (0, 1, 2, 5)]
    assert objective(Step(model, batch_of(unpaired))) is not None
    for one in unpaired:
        one["targets"]["finding"] = float("nan")
    assert objective(Step(model, batch_of(unpaired))) is None


def test_like_labels_attract_and_unlike_ones_do_not():
    """Unpaired CTs and reports, whose label both show: in the end a CT's nearest reports have its label."""
    model = tiny_model()
    studies = [study(n, ("ct",) if n < 8 else ("report",)) for n in range(16)]
    for n, one in enumerate(studies):
        one["targets"]["finding"] = float(n % 2)
        if n < 8:
            one["inputs"]["ct"] = one["inputs"]["ct"] * 0.1 + n % 2
        else:
            one["inputs"]["report"] = torch.tensor([2, 10 + n % 2, 3])
    torch.manual_seed(0)
    objective = LabelBridge(model, tasks=["finding"], modalities=["ct", "report"], dim=8, batch_norm=False)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
    for _ in range(80):
        optimiser.zero_grad()
        objective(Step(model, batch_of(studies)))["loss"].backward()
        optimiser.step()
    step = Step(model.eval(), batch_of(studies))
    ct, report = (objective.space(m, step.encoded[m].pooled).detach() for m in ("ct", "report"))
    cosines = ct @ report.T
    same = (torch.arange(8) % 2)[:, None] == (torch.arange(8) % 2)[None]
    assert float(cosines[same].min()) > float(cosines[~same].max()) + 0.1


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="needs two"):
        LabelBridge(model, tasks=["finding"], modalities=["ct"])
    with pytest.raises(ValueError, match="tasks is empty"):
        LabelBridge(model, tasks=[])
    with pytest.raises(KeyError, match="no label 'ill' in these studies; they have finding, grade"):
        LabelBridge(model, tasks=["ill"], dim=8)(Step(model, batch_of(ten_studies())))
    with pytest.raises(ValueError, match="grade has other values than 0 and 1"):
        LabelBridge(model, tasks=["grade"], dim=8)(Step(model, batch_of(ten_studies())))
