"""There and back again: both errors study by study, and who learns from them."""

import math

import pytest
import torch

from medssml.objectives import CyclicTranslation, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def error(made, truth):
    mean = sum(truth) / len(truth)
    sd = math.sqrt(sum((v - mean) ** 2 for v in truth) / len(truth) + 1e-5)
    return sum((a - (v - mean) / sd) ** 2 for a, v in zip(made, truth, strict=True)) / len(made)


def test_is_the_error_there_and_the_error_back(model):
    objective = CyclicTranslation(model, directions=["report->ct", "xray->report"], translation=0.5, cycle=2.0)
    there, back = [], []
    for one in ten_studies():
        alone = batch_of([one])
        for s, t in (("report", "ct"), ("xray", "report")):
            if {s, t} <= set(one["inputs"]):
                pooled = {name: part.pooled for name, part in model.encode(alone).items()}
                made = objective.there[f"{s}->{t}"](pooled[s])
                there.append(error(made[0].tolist(), pooled[t][0].tolist()))
                back.append(error(objective.back[f"{s}->{t}"](made)[0].tolist(), pooled[s][0].tolist()))
    assert len(there) == 6  # report and CT: 0, 1, 6; X-ray and report: 0, 5, 6
    answer = objective(Step(model, batch_of(ten_studies())))
    assert float(answer["translation"]) == pytest.approx(sum(there) / 6, rel=1e-4)
    assert float(answer["cycle"]) == pytest.approx(sum(back) / 6, rel=1e-4)
    expected = 0.5 * sum(there) / 6 + 2 * sum(back) / 6
    assert float(answer["loss"].detach()) == pytest.approx(expected, rel=1e-4)


def test_the_source_learns_and_the_target_is_no_answer_that_could_be_made_easier(model):
    objective = CyclicTranslation(model, directions=["report->ct"])
    model.zero_grad()
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    moved = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == {"report"}
    assert all(bool(p.grad.any()) for p in objective.parameters())


def test_the_way_back_begins_at_what_was_made(model):
    """Without the way there, what comes back knows nothing of the source."""
    objective = CyclicTranslation(model, directions=["report->ct"])
    torch.nn.init.zeros_(objective.there["report->ct"][2].weight)
    step = Step(model, batch_of(ten_studies()))
    first = objective(step)["cycle"]
    torch.nn.init.ones_(objective.there["report->ct"][2].bias)
    assert not torch.allclose(objective(step)["cycle"], first)


def test_nobody_has_both_and_refusals(model):
    objective = CyclicTranslation(model)
    assert objective(Step(model, batch_of([study(0, ("ct",)), study(1, ("report",)), study(2, ())]))) is None
    with pytest.raises(ValueError, match="none below 0"):
        CyclicTranslation(model, cycle=-1.0)
    assert CyclicTranslation.restricted_to({"directions": ["report->ct", "eeg->ct"]}, ["ct", "report"]) == {
        "directions": ["report->ct"]
    }
