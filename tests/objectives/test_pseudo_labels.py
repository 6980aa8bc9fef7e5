"""Who is answered with certainty becomes a label for whoever is seen otherwise: study by study; who is left out; what learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from medssml.config import LeftOut
from medssml.model import MultimodalModel, Task
from medssml.objectives import PseudoLabels, Step
from medssml.objectives.dropout_consistency import reduced_presence
from tests.examples import batch_of, study, ten_studies, tiny_model

NAN = float("nan")


@pytest.fixture
def model() -> MultimodalModel:
    """One whose answers are far apart: heads begin near zero, where every answer is the same."""
    torch.manual_seed(3)
    model = tiny_model().eval()
    for task in model.tasks:
        torch.nn.init.normal_(model.heads[task].linear.weight, std=0.7)
    return model


def unlabelled(numbers: Any, *modalities: str) -> list[Any]:
    made = [study(n, modalities or ("ct", "report")) for n in numbers]
    return [{**one, "targets": dict.fromkeys(one["targets"], NAN)} for one in made]


def expected(model: MultimodalModel, threshold: float) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss over the ten studies, one by one, and the share of each task that is sure."""
    batch = batch_of(ten_studies())
    within = reduced_presence(batch.present, batch.key, 0.4)
    sums: dict[str, list[torch.Tensor]] = {"finding": [], "grade": []}
    for number, one in enumerate(ten_studies()):
        alone = batch_of([one])
        whole = model.fuse(model.encode(alone), alone.present)
        part = model.fuse(model.encode(alone), alone.present, within[number : number + 1])
        for task in sums:
            if len(one["inputs"]) < 2 or one["targets"][task] == one["targets"][task]:
                continue
            weak, strong = (model.heads[task](fused)[0] for fused in (whole, part))
            if task == "finding":
                weak, strong = (torch.stack([torch.zeros(()), logit]) for logit in (weak, strong))
            q = weak.softmax(0)
            sums[task].append(
                -strong.log_softmax(0)[q.argmax()] if q.max() >= threshold else torch.zeros((), requires_grad=True)
            )
    assert {task: len(terms) for task, terms in sums.items()} == {"finding": 2, "grade": 2}
    means = {task: torch.stack(terms).mean() for task, terms in sums.items()}
    sure = {task: sum(float(t.detach()) > 0 for t in terms) / len(terms) for task, terms in sums.items()}
    return torch.stack(list(means.values())).mean(), sure


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.95])
def test_is_the_mean_over_tasks_of_the_mean_over_unlabelled_studies_that_have_a_part(
    model: MultimodalModel, threshold: float
) -> None:
    loss, sure = expected(model, threshold)
    found = PseudoLabels(model, threshold=threshold, p=0.4)(Step(model, batch_of(ten_studies())))
    assert found is not None
    torch.testing.assert_close(found["loss"], loss, rtol=1e-4, atol=1e-6)
    assert {task: float(found[f"confident/{task}"]) for task in sure} == pytest.approx(sure)


def test_the_threshold_leaves_out_what_is_not_sure(model: MultimodalModel) -> None:
    shares = [
        float(PseudoLabels(model, threshold=t)(Step(model, batch_of(unlabelled(range(12)))))["confident/grade"])  # type: ignore[index]
        for t in (0.34, 0.6, 0.9, 0.999)
    ]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1.0 and shares[3] < 1.0


def test_a_known_label_is_never_answered_for_and_changes_nothing(model: MultimodalModel) -> None:
    objective = PseudoLabels(model, tasks=["finding"], threshold=0.5)
    three = unlabelled((0, 1, 2))
    known = {**study(5, ("ct", "report")), "targets": {"finding": 0.0, "grade": NAN}}
    one, other = (objective(Step(model, batch_of(studies))) for studies in (three, [*three, known]))
    assert one is not None and other is not None
    torch.testing.assert_close(one["loss"], other["loss"])
    assert objective(Step(model, batch_of([known]))) is None


def test_the_answer_is_a_fixed_target_and_what_only_it_sees_gets_no_gradient(model: MultimodalModel) -> None:
    objective = PseudoLabels(model, threshold=0.5)
    for number in range(3):
        batch = batch_of(unlabelled([number], "ct", "eeg"))
        within = reduced_presence(batch.present, batch.key, 0.5)
        model.zero_grad()
        found = objective(Step(model, batch))
        assert found is not None
        found["loss"].backward()
        for column, modality in enumerate(batch.modalities):
            gradients = [p.grad for p in model.encoders[modality].parameters() if p.grad is not None]
            assert any(bool(g.any()) for g in gradients) == bool(within[0, column]), modality


@pytest.mark.parametrize("look", ["augmented", "both"])
def test_another_look_is_labelled_by_the_first_one_also_of_a_single_modality(model: MultimodalModel, look: Any) -> None:
    objective = PseudoLabels(model, tasks=["grade"], threshold=0.34, look=look, p=0.5)
    assert objective.views == 2
    batch = batch_of(unlabelled((0, 1), "xray") + unlabelled((2, 3), "ct", "xray"), views=2)
    (second,) = batch.views
    found = objective(Step(model, batch))
    assert found is not None
    labels = model(batch)["grade"].argmax(1)
    within = second.present if look == "augmented" else reduced_presence(second.present, second.key, 0.5)
    logits = model.heads["grade"](model.fuse(model.encode(second), second.present, within))
    torch.testing.assert_close(found["loss"], F.cross_entropy(logits, labels), rtol=1e-4, atol=1e-6)
    # In part, those of one modality have nothing to learn from.
    assert PseudoLabels(model)(Step(model, batch_of(unlabelled((0, 1), "xray")))) is None


def test_the_share_of_the_positive_class_is_told(model: MultimodalModel) -> None:
    batch = batch_of(unlabelled(range(8)))
    with torch.no_grad():  # of three of eight the positive class is the likelier one
        model.heads["finding"].linear.bias -= model(batch)["finding"].sort().values[4:6].mean()
    positive = float((model(batch)["finding"] > 0).float().mean())
    found = PseudoLabels(model, tasks=["finding"], threshold=0.5)(Step(model, batch))
    assert found is not None and positive == 3 / 8
    assert float(found["positive/finding"]) == pytest.approx(positive)


def test_two_batches_of_a_step_weigh_their_unlabelled_studies_alike(model: MultimodalModel) -> None:
    objective = PseudoLabels(model, threshold=0.5)
    five = unlabelled(range(5))
    whole = objective(Step(model, batch_of(five)))
    parts = [batch_of(five[:1]), batch_of(five[1:])]
    found = [objective(Step(model, part, group=parts)) for part in parts]
    assert whole is not None and found[0] is not None and found[1] is not None
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, whole["loss"], rtol=1e-4, atol=1e-6)


def test_a_part_learns_what_the_whole_is_sure_of() -> None:
    """The CT decides alone at first; from studies without any label the radiograph learns the class that CT has told."""
    torch.manual_seed(0)
    model = tiny_model().train()
    studies = unlabelled(range(16), "ct", "xray")
    batch = batch_of(studies)
    with torch.no_grad():
        model.heads["finding"].linear.weight.normal_(std=2.0)
    objective = PseudoLabels(model, tasks=["finding"], threshold=0.7)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)

    def agreement() -> float:
        """How often each modality alone answers as the whole does."""
        with torch.no_grad():
            whole = model(batch)["finding"] > 0
            alone = [model(batch.without(name))["finding"] > 0 for name in ("ct", "xray")]
        return float(torch.stack([a == whole for a in alone]).float().mean())

    before = agreement()
    for turn in range(40):
        optimiser.zero_grad()
        found = objective(Step(model, replace(batch, key=batch.key + 1000 * turn)))
        assert found is not None
        found["loss"].backward()
        optimiser.step()
    assert agreement() > max(0.9, before)


def test_numbers_and_settings_out_of_range_are_told_the_way_out(model: MultimodalModel) -> None:
    model.add_task("age", Task("regression", 1, mean=60.0, sd=10.0))
    assert set(PseudoLabels(model).tasks) == {"finding", "grade"}
    with pytest.raises(ValueError, match="'age' is a number; fix: leave it out"):
        PseudoLabels(model, tasks=["age", "grade"])
    for wrong in ({"threshold": 1.0}, {"p": 0.0}):
        with pytest.raises(ValueError, match="fix: both above 0 and below 1"):
            PseudoLabels(model, **wrong)
    with pytest.raises(ValueError, match="look is 'strong'; accepted: part, augmented, both"):
        PseudoLabels(model, look="strong")  # type: ignore[arg-type]
    with pytest.raises(LeftOut, match="two modalities, or look: augmented"):
        PseudoLabels.restricted_to({}, ["ct"])
    assert PseudoLabels.restricted_to({"look": "augmented"}, ["ct"]) == {"look": "augmented"}
