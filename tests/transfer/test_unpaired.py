"""Moments and pseudo-pairs: what is known of the teacher's studies, each loss a second time, and whom a study is paired with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.losses.moments import BANDWIDTHS
from medssml.model import MultimodalModel
from medssml.objectives import Step
from medssml.objectives.clock import Clock
from medssml.objectives.step import Teacher
from medssml.transfer import MomentTransfer, PseudoPairTransfer
from medssml.transfer.base import Lesson, seen
from medssml.transfer.unpaired import Others, UnpairedTransfer, known_others
from tests.examples import batch_of, others_in, ten_studies, tiny_model, vectors_of

SOURCE = ["ct", "report"]
RICH_TO_POOR: dict[str, Any] = {"source": SOURCE, "target": ["xray"]}
#: Of the ten studies, those with a radiograph, and of these the ones with a CT or a report.
RADIOGRAPHS, BOTH = [0, 5, 6, 7, 9], [0, 5, 6, 7]


def said_by(student: MultimodalModel, batch: Batch) -> Tensor:
    """(B, 5) study by study: the label of each task, or what the student answers from its radiograph."""
    answers = student(batch.without("ct", "eeg", "report"))
    found = []
    for place in range(len(batch)):
        p = answers["finding"][place].sigmoid()
        parts = {"finding": torch.stack([1 - p, p]), "grade": answers["grade"][place].softmax(0)}
        for name, said in parts.items():
            label = batch.targets[name][place]
            found.append(F.one_hot(label.long(), len(said)).float() if bool(label.isfinite()) else said.detach())
    return torch.cat(found).reshape(len(batch), 5)


def standard(vectors: Tensor, of: Tensor) -> Tensor:
    """Centred, and scaled by one number, as are the others of which they are."""
    return (vectors - of.mean(0)) / float(np.sqrt(((of - of.mean(0)).numpy() ** 2).mean()))


def test_others_are_known_by_their_label_or_by_what_the_teacher_answers(teacher: MultimodalModel) -> None:
    batch = batch_of(ten_studies())
    rows = [place for place in range(10) if bool(batch.present[place, [0, 3]].any())]
    made = seen(teacher, SOURCE, [batch_of(ten_studies()[:3]), batch_of(ten_studies()[3:])], ["finding", "grade"])
    torch.testing.assert_close(made.vectors, vectors_of(teacher, batch, *SOURCE)[rows], rtol=1e-4, atol=1e-5)
    whole = known_others(made, teacher, teacher.tasks)
    assert len(whole.vectors) == len(rows)
    answers = teacher(batch.without("xray", "eeg"))["finding"].sigmoid().detach()
    labels = batch.targets["finding"]
    expected = [labels[row] if bool(labels[row].isfinite()) else answers[row] for row in rows]
    torch.testing.assert_close(whole.said[:, 1], torch.stack(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.said[:, :2].sum(1), torch.ones(len(rows)))

    # Whose classes are others does not know the task: labels alone say something.
    ill = tiny_model(seed=5).eval()
    ill.drop_task("finding")
    ill.add_task("finding", {"kind": "binary", "classes": ("well", "ill")})
    few = known_others(seen(ill, SOURCE, [batch], ["finding"]), ill, {"finding": teacher.tasks["finding"]})
    labelled = [row for row in rows if bool(labels[row].isfinite())]
    assert 0 < len(labelled) < len(rows) and few.said[:, 1].tolist() == labels[labelled].tolist()


def test_moments_are_of_vectors_and_of_what_is_said_of_them(student: MultimodalModel, teacher: MultimodalModel) -> None:
    """Every pair of studies by itself: kernels of vectors and classes side by side, and the error of those that both see."""
    batch, others = batch_of(ten_studies()), others_in(16, 7)
    torch.manual_seed(1)
    objective = MomentTransfer(student, others=others, **RICH_TO_POOR)
    own = objective.regressor(vectors_of(student, batch, "xray")).detach()
    scale = (16 / 2) ** 0.5
    mine = [torch.cat([own[place], scale * said_by(student, batch)[place]]).numpy() for place in RADIOGRAPHS]
    theirs = torch.cat([standard(others.vectors, others.vectors), scale * others.said], dim=1).numpy()
    every = [*mine, *theirs]
    between = [((a - b) ** 2).sum() for i, a in enumerate(every) for j, b in enumerate(every) if i != j]

    def alike(first: Any, second: Any) -> float:
        kernels = [
            np.exp(-((a - b) ** 2).sum() / (width * np.mean(between)))
            for a in first
            for b in second
            for width in BANDWIDTHS
        ]
        return float(np.mean(kernels))

    apart = alike(mine, mine) + alike(theirs, theirs) - 2 * alike(mine, theirs)
    taught = standard(vectors_of(teacher, batch, *SOURCE), others.vectors)
    error = float((own - taught)[BOTH].square().mean())
    found = objective(Step(student, batch, teacher=Teacher(teacher)))
    assert found is not None
    assert float(found["distance"]) == pytest.approx(apart, rel=1e-3, abs=1e-5)
    assert float(found["error"]) == pytest.approx(error, rel=1e-4)
    assert float(found["loss"].detach()) == pytest.approx(apart + error, rel=1e-3)


@pytest.mark.parametrize("distance", ["mmd", "coral"])
def test_moments_of_a_class_have_to_agree_not_those_of_all(student: MultimodalModel, distance: Any) -> None:
    """The same vectors, said to be of the other class: nothing to tell for vectors alone, and the distance grows."""
    g = torch.Generator().manual_seed(3)
    label = torch.arange(40) % 2
    vectors = torch.randn(40, 16, generator=g)
    vectors[:, 0] += 6.0 * label
    said, other = F.one_hot(label, 2).float(), F.one_hot(1 - label, 2).float()
    objective = MomentTransfer(
        student, others=Others(vectors, said), tasks=["finding"], distance=distance, **RICH_TO_POOR
    )
    shown = objective.get_buffer("vectors_of_others")
    same, changed = (
        float(objective.distance(objective._joint(shown, a), objective._joint(shown, said))) for a in (said, other)
    )
    assert same == pytest.approx(0.0, abs=1e-5) and changed > 0.01


def test_a_study_learns_its_own_vector_or_those_of_whom_it_may_be(
    student: MultimodalModel, teacher: MultimodalModel
) -> None:
    batch, others = batch_of(ten_studies()), others_in(16)
    torch.manual_seed(1)
    objective = PseudoPairTransfer(student, others=others, **RICH_TO_POOR)
    own = objective.regressor(vectors_of(student, batch, "xray")).detach()
    known = Others(standard(others.vectors, others.vectors), others.said)
    wanted = standard(vectors_of(teacher, batch, *SOURCE), others.vectors)
    lone = [place for place in RADIOGRAPHS if place not in BOTH]
    wanted[lone] = objective.plan(own[lone], said_by(student, batch)[lone], known) @ known.vectors
    found = objective(Step(student, batch, teacher=Teacher(teacher)))
    assert found is not None
    assert float(found["loss"].detach()) == pytest.approx(float((own - wanted)[RADIOGRAPHS].square().mean()), rel=1e-4)


def test_pseudo_pairs_are_those_of_least_cost(student: MultimodalModel) -> None:
    """One to one, as the assignment of scipy: within a class, as frequent on both sides, by vectors, and not by the nearest."""
    g = torch.Generator().manual_seed(4)
    theirs, said = torch.randn(12, 16, generator=g), F.one_hot(torch.arange(12) % 2, 2).float()
    # Each is near to one of them, in another order, and some to the same one.
    place = torch.randperm(12, generator=g)
    own = theirs[place] + 0.7 * torch.randn(12, 16, generator=g) + 1.5 * theirs[0]
    mine = said[place]
    objective = PseudoPairTransfer(
        student, others=Others(theirs, said), tasks=["finding"], epsilon=0.002, iterations=2000, **RICH_TO_POOR
    )
    cosine = F.cosine_similarity(own[:, None], theirs[None], dim=2)
    cost = ((mine[:, None] - said[None]) ** 2).sum(2) / 2 + (1 - cosine) / 2
    plan = objective.plan(own, mine, Others(theirs, said))
    torch.testing.assert_close(plan.sum(1), torch.ones(12))
    assert plan.argmax(1).tolist() == linear_sum_assignment(cost.numpy())[1].tolist()
    assert (1 - cosine).argmin(1).tolist() != plan.argmax(1).tolist()


def test_a_class_that_is_rarer_here_is_matched_less_often(student: MultimodalModel) -> None:
    """Labels decide: nobody is paired across classes, though half of the teacher's studies are ill, a tenth of the student's."""
    g = torch.Generator().manual_seed(6)
    here, there = torch.arange(40) < 4, torch.arange(60) < 30
    objective = PseudoPairTransfer(student, others=others_in(16), **RICH_TO_POOR)
    objective.tasks = {"finding": student.tasks["finding"]}
    others = Others(torch.randn(60, 16, generator=g), F.one_hot(there.long(), 2).float())
    plan = objective.plan(torch.randn(40, 16, generator=g), F.one_hot(here.long(), 2).float(), others)
    across = plan[here][:, ~there].sum() + plan[~here][:, there].sum()
    assert float(across) < 1e-3
    # Within a class nobody's vector is that of all.
    assert float(plan.sum(0)[there].max()) < 3 * 4 / 30 and float(plan.sum(0)[~there].max()) < 3 * 36 / 30


@pytest.mark.parametrize("kind", [MomentTransfer, PseudoPairTransfer])
def test_a_step_sees_some_of_the_others_and_the_next_one_some_more(
    student: MultimodalModel, kind: type[UnpairedTransfer]
) -> None:
    objective = kind(student, others=others_in(16, 40), draw=8, **RICH_TO_POOR)
    batch = batch_of(ten_studies())

    def drawn(step: int, studies: Batch = batch) -> set[tuple[float, ...]]:
        found = objective.others(Step(student, studies, clock=Clock(step, 10)))
        assert len(found.vectors) == len(found.said) == 8
        return {tuple(row) for row in found.said.tolist()}

    assert drawn(1) == drawn(1, batch_of(ten_studies()[:2])) != drawn(2)
    assert len(set().union(*(drawn(step) for step in range(40)))) == 40


@pytest.mark.parametrize("kind", [MomentTransfer, PseudoPairTransfer])
def test_students_learn_where_no_study_has_both(
    student: MultimodalModel, teacher: MultimodalModel, kind: type[UnpairedTransfer]
) -> None:
    """The teacher is not even there: what it makes of other people's studies is."""
    lesson = Lesson(teacher, SOURCE, ["finding"], 2.0, studies=[batch_of(ten_studies()).without("xray")])
    pupil = tiny_model()
    objective = kind.of(pupil, lesson)
    assert objective.weight == 2.0 and len(objective.get_buffer("vectors_of_others")) == len(lesson.seen.vectors) == 7
    batch = batch_of(ten_studies()).without("ct", "eeg", "report")
    bare = replace(batch, targets={name: torch.full_like(value, torch.nan) for name, value in batch.targets.items()})
    optimiser = torch.optim.Adam([*pupil.parameters(), *objective.parameters()], lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        losses.append(objective(Step(pupil, bare))["loss"])
        losses[-1].backward()
        optimiser.step()
    assert losses[-1].item() < 0.7 * losses[0].item()


def test_what_cannot_teach_is_refused(student: MultimodalModel, teacher: MultimodalModel) -> None:
    unknowing = tiny_model(seed=5).eval()
    unknowing.drop_task("finding")
    bare = replace(batch_of(ten_studies()), targets={})
    with pytest.raises(
        ValueError, match="of 7 training studies with ct or report the classes of finding are known of 0; fix"
    ):
        MomentTransfer.of(student, Lesson(unknowing, SOURCE, ["finding"], studies=[bare]))
    with pytest.raises(ValueError, match="known of 0"):
        PseudoPairTransfer.of(student, Lesson(teacher, SOURCE, ["finding"]))
    numbers = tiny_model()
    numbers.add_task("age", {"kind": "regression"})
    with pytest.raises(ValueError, match="'age' is a number"):
        MomentTransfer(numbers, others=others_in(16), **RICH_TO_POOR)
    with pytest.raises(ValueError, match="distance is 'far'"):
        MomentTransfer(student, others=others_in(16), distance="far", **RICH_TO_POOR)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epsilon is 0"):
        PseudoPairTransfer(student, others=others_in(16), epsilon=0.0, **RICH_TO_POOR)
    with pytest.raises(ValueError, match="draw is 1"):
        MomentTransfer(student, others=others_in(16), draw=1, **RICH_TO_POOR)
    with pytest.raises(ValueError, match="MomentTransfer knows 0 studies of its teacher"):
        MomentTransfer(student, **RICH_TO_POOR)(Step(student, batch_of(ten_studies()), teacher=Teacher(teacher)))
