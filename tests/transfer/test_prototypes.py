"""Prototypes and text anchors: where the teacher has a class, what draws a study there, and that no pair is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives import Step
from medssml.objectives.step import Teacher
from medssml.transfer import AnchorTransfer, PrototypeTransfer
from medssml.transfer.base import Lesson, seen
from medssml.transfer.prototypes import class_means
from tests.examples import batch_of, classes_in, ten_studies, tiny_model, vectors_of

BOTH = [0, 5, 6, 7]
SOURCE = ["ct", "report"]
RICH_TO_POOR: dict[str, Any] = {"source": SOURCE, "target": ["xray"]}


def test_a_prototype_is_the_mean_of_what_the_teacher_makes_of_a_class(teacher: MultimodalModel) -> None:
    studies = ten_studies()
    batch = batch_of(studies)
    made = seen(teacher, SOURCE, [batch_of(studies[:4]), batch_of(studies[4:])], ["grade"])
    found = class_means(made, {"grade": 4})["grade"]
    vectors = vectors_of(teacher, batch, *SOURCE)
    has = [place for place in range(10) if bool(batch.present[place, [0, 3]].any())]
    for grade in range(3):
        of = [place for place in has if batch.targets["grade"][place] == grade]
        torch.testing.assert_close(found.classes[grade], vectors[of].mean(0), rtol=1e-4, atol=1e-5)
    assert bool(found.classes[3].isnan().all()), "no study is of this class"
    torch.testing.assert_close(found.centre, vectors[has].mean(0), rtol=1e-4, atol=1e-5)


def test_labels_and_the_teacher_say_which_prototype(student: MultimodalModel, teacher: MultimodalModel) -> None:
    """Study by study: its label where it has one, whether or not the teacher sees it; else what the teacher's vector says."""
    known, batch = classes_in(16), batch_of(ten_studies())
    torch.manual_seed(1)
    objective = PrototypeTransfer(student, prototypes=known, temperature=0.5, **RICH_TO_POOR)
    s, t = vectors_of(student, batch, "xray"), vectors_of(teacher, batch, *SOURCE)
    means = []
    for name, (classes, centre) in known.items():
        towards, terms = classes - classes.mean(0), []
        for place in batch.rows("xray").tolist():
            mine = F.cosine_similarity(objective.regressor(s[place])[None], towards) / 0.5
            label = batch.targets[name][place]
            if bool(label.isfinite()):
                wanted = F.one_hot(label.long(), len(classes)).float()
            elif place in BOTH:
                wanted = (F.cosine_similarity((t[place] - centre)[None], towards) / 0.5).softmax(0)
            else:
                continue
            terms.append(-(wanted * mine.log_softmax(0)).sum())
        means.append(torch.stack(terms).mean())
    found = objective(Step(student, batch, teacher=Teacher(teacher)))
    torch.testing.assert_close(found["loss"], torch.stack(means).mean(), rtol=1e-4, atol=1e-5)


def test_without_a_pair_the_classes_teach_alone(student: MultimodalModel, teacher: MultimodalModel) -> None:
    """No study has both, and the teacher is not even there: labelled radiographs are drawn to what it knows of CT."""
    batch = batch_of(ten_studies()).without("ct", "eeg", "report")
    lesson = Lesson(teacher, SOURCE, ["finding"], 2.0, studies=[batch_of(ten_studies()).without("xray")])
    objective = PrototypeTransfer.of(student, lesson)
    assert objective.weight == 2.0
    found = objective(Step(student, batch))
    assert found is not None and bool(found["loss"].isfinite())
    bare = replace(batch, targets={name: torch.full_like(value, torch.nan) for name, value in batch.targets.items()})
    assert objective(Step(student, bare)) is None
    # Studies come where their class is.
    pupil = tiny_model()
    objective = PrototypeTransfer.of(pupil, lesson)
    optimiser = torch.optim.Adam([*pupil.parameters(), *objective.parameters()], lr=3e-3)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        losses.append(objective(Step(pupil, batch))["loss"])
        losses[-1].backward()
        optimiser.step()
    assert losses[-1].item() < 0.5 * losses[0].item()


def test_a_class_that_the_teacher_never_saw_is_refused(student: MultimodalModel, teacher: MultimodalModel) -> None:
    studies = batch_of(ten_studies())
    one = replace(studies, targets={"finding": torch.where(studies.targets["finding"] == 1, torch.nan, 0.0)})
    for shown in ([one], []):
        with pytest.raises(
            ValueError, match=r"no labelled training study with ct of one class of finding.*--method anchors"
        ):
            PrototypeTransfer.of(student, Lesson(teacher, ["ct"], ["finding"], studies=shown))


def test_anchors_are_sentences_and_classes_lie_as_they_do(student: MultimodalModel, teacher: MultimodalModel) -> None:
    sentences = replace(
        batch_of([study for study in ten_studies() if "report" in study["inputs"]]).without("ct", "xray", "eeg")
    )
    labels = torch.tensor([float(place % 2) for place in range(len(sentences))])
    sentences = replace(sentences, targets={"finding": labels})
    studies = batch_of(ten_studies())
    objective = AnchorTransfer.of(
        student, Lesson(teacher, ["ct"], ["finding"], studies=[studies], sentences=[sentences])
    )
    vectors = vectors_of(teacher, sentences, "report")
    classes = torch.stack([vectors[labels == value].mean(0) for value in (0, 1)])
    torch.testing.assert_close(objective.classes_0, classes - classes.mean(0), rtol=1e-4, atol=1e-5)
    rows = studies.rows("ct")
    torch.testing.assert_close(
        objective.centre_0, vectors_of(teacher, studies, "ct")[rows].mean(0), rtol=1e-4, atol=1e-5
    )
    # Where no study is shown to the teacher, the sentences are what there is.
    alone = AnchorTransfer.of(student, Lesson(teacher, ["ct"], ["finding"], sentences=[sentences]))
    torch.testing.assert_close(alone.centre_0, vectors.mean(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no sentence names the classes of grade; fix: --prompts"):
        AnchorTransfer.of(student, Lesson(teacher, ["ct"], ["grade"], sentences=[sentences]))


def test_what_has_no_class_has_no_prototype(student: MultimodalModel) -> None:
    numbers = tiny_model()
    numbers.add_task("age", {"kind": "regression"})
    with pytest.raises(ValueError, match="'age' is a number"):
        PrototypeTransfer(numbers, **RICH_TO_POOR)
    with pytest.raises(ValueError, match="temperature is 0"):
        PrototypeTransfer(student, temperature=0.0, **RICH_TO_POOR)
