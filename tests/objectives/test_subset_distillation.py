"""What the whole answers, the part should answer: written out study by study; who learns, who is left out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medssml.config import LeftOut
from medssml.model import MultimodalModel, Task
from medssml.objectives import Step, SubsetDistillation
from medssml.objectives.dropout_consistency import reduced_presence
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture
def model() -> MultimodalModel:
    model = tiny_model().eval()
    for task in model.tasks:
        torch.nn.init.normal_(model.heads[task].linear.weight)  # they begin near zero, where every answer is the same
    return model


def test_is_the_mean_over_tasks_of_the_mean_over_studies_with_two_modalities(model: MultimodalModel) -> None:
    torch.manual_seed(1)
    objective = SubsetDistillation(model, temperature=2.0, p=0.4, features=0.3)
    assert objective.regressor is not None
    batch = batch_of(ten_studies())
    within = reduced_presence(batch.present, batch.key, 0.4)
    binary, classes, vectors = [], [], []
    for number, one in enumerate(ten_studies()):
        if len(one["inputs"]) < 2:
            continue
        alone = batch_of([one])
        whole = model.fuse(model.encode(alone), alone.present)
        part = model.fuse(model.encode(alone), alone.present, within[number : number + 1])
        t, s = (model.heads["finding"](fused)[0] / 2 for fused in (whole, part))
        p, q = torch.sigmoid(t), torch.sigmoid(s)
        binary.append(4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()))
        t, s = (model.heads["grade"](fused)[0] / 2 for fused in (whole, part))
        classes.append(4 * F.kl_div(s.log_softmax(0), t.softmax(0), reduction="sum"))
        target = whole.pooled[0]
        normal = (target - target.mean()) / (target.var(unbiased=False) + 1e-5).sqrt()
        vectors.append((objective.regressor(part.pooled)[0] - normal).square().mean())
    assert len(binary) == 7
    of_each = [torch.stack(found).mean() for found in (binary, classes, vectors)]
    expected = (of_each[0] + of_each[1]) / 2 + 0.3 * of_each[2]
    found = objective(Step(model, batch))
    assert found is not None
    torch.testing.assert_close(found["loss"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["loss/grade"], of_each[1].detach(), rtol=1e-4, atol=1e-6)


def test_the_whole_is_a_fixed_target_and_the_part_learns(model: MultimodalModel) -> None:
    """Of two modalities the hidden one gets no gradient: it is seen by the whole alone."""
    objective = SubsetDistillation(model, features=1.0)
    batch = batch_of([study(0, ("ct", "eeg")), study(1, ("ct", "eeg")), study(2, ("ct", "eeg"))])
    within = reduced_presence(batch.present, batch.key, 0.5)
    for row in range(3):
        found = objective(Step(model, batch_of([study(row, ("ct", "eeg"))])))
        assert found is not None
        model.zero_grad()
        found["loss"].backward()
        for column, modality in enumerate(batch.modalities):
            gradients = [p.grad for p in model.encoders[modality].parameters() if p.grad is not None]
            assert any(bool(g.any()) for g in gradients) == bool(within[row, column]), modality


def test_studies_that_have_no_part_and_batches_without_any_have_no_term(model: MultimodalModel) -> None:
    objective = SubsetDistillation(model)
    assert objective(Step(model, batch_of([study(0, ("ct",)), study(1, ()), study(2, ("report",))]))) is None
    with_more = [study(3, ("ct", "report")), study(0, ("ct",))]
    found = [objective(Step(model, batch_of(studies))) for studies in (with_more, with_more[:1])]
    assert found[0] is not None and found[1] is not None
    torch.testing.assert_close(found[0]["loss"], found[1]["loss"])


def test_teaches_the_part_what_the_whole_knows() -> None:
    """The hidden modality answers alone at first; after learning from it, without a label, the other one answers like it."""
    torch.manual_seed(0)
    model = tiny_model().train()
    with torch.no_grad():
        model.heads["finding"].linear.weight.mul_(40)
    objective = SubsetDistillation(model, tasks=["finding"], temperature=1.0)
    studies = [study(n, ("xray", "report")) for n in range(12)]
    optimiser = torch.optim.Adam(model.encoders.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        found = objective(Step(model, batch_of(studies)))
        assert found is not None
        found["loss"].backward()
        optimiser.step()
        losses.append(float(found["loss"].detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_without_a_task_the_vectors_are_distilled_and_nothing_at_all_is_refused(model: MultimodalModel) -> None:
    bare = tiny_model().eval()
    for task in list(bare.tasks):
        bare.drop_task(task)
    with pytest.raises(ValueError, match="no task; fix: features above 0"):
        SubsetDistillation(bare)
    found = SubsetDistillation(bare, features=1.0)(Step(bare, batch_of(ten_studies())))
    assert found is not None and set(found) == {"loss", "features"}
    assert SubsetDistillation(model, tasks=["grade"]).tasks == {"grade": Task("multiclass", 3)}
    with pytest.raises(ValueError, match="add_task first"):
        SubsetDistillation(model, tasks=["unknown"])
    for wrong in ({"p": 1.0}, {"temperature": 0.0}, {"features": -1.0}):
        with pytest.raises(ValueError, match="fix: p between 0 and 1"):
            SubsetDistillation(model, **wrong)
    with pytest.raises(LeftOut, match="two modalities"):
        SubsetDistillation.restricted_to({}, ["ct"])
