"""Hallucination: what the second branch is held to, that a student begins as it was, and that it is saved whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medssml.config import build, describe
from medssml.encoders import HallucinatingEncoder, ResNet
from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel, Task
from medssml.objectives import Step
from medssml.objectives.step import Teacher
from medssml.transfer import HallucinationTransfer
from medssml.transfer.base import Lesson
from tests.examples import batch_of, ten_studies, tiny_model


def student() -> MultimodalModel:
    torch.manual_seed(3)
    return MultimodalModel(
        {"xray": ResNet(2, 12, widths=(8, 8, 8, 8))}, AdditiveFusion(["xray"], 16, 0), {"finding": Task()}
    ).eval()


def prepared() -> tuple[MultimodalModel, MultimodalModel]:
    """A student with a second branch, and its teacher."""
    pupil, teacher = student(), tiny_model(seed=5).eval()
    HallucinationTransfer.prepare(pupil, teacher)
    return pupil.eval(), teacher


def test_what_is_imagined_is_held_to_the_vector_of_the_teacher() -> None:
    pupil, teacher = prepared()
    batch, both = batch_of(ten_studies()), [0, 5, 6, 7]
    objective = HallucinationTransfer.of(pupil, Lesson(teacher, ["ct", "report"], ["finding"]))
    found = objective(Step(pupil, batch, teacher=Teacher(teacher)))

    encoder = pupil.encoders["xray"]
    rows = [list(batch.rows("xray")).index(place) for place in both]
    imagined = encoder.imagine(encoder.imagining(batch.inputs["xray"]).pooled)[rows]
    shown = batch.without("xray", "eeg")
    t = teacher.fuse(teacher.encode(shown), shown.present).pooled[both].detach()
    wanted = (t - t.mean(1, keepdim=True)) / (t.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = (torch.sigmoid(imagined) - torch.sigmoid(wanted)).square().sum(1).mean()
    torch.testing.assert_close(found["loss"], expected, rtol=1e-4, atol=1e-5)

    # The branch that sees is left to the labels.
    found["loss"].backward()
    assert not any(p.grad is not None and bool(p.grad.any()) for p in encoder.seeing.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.imagining.parameters())


def test_what_the_first_branch_said_goes_on_and_the_second_adds_to_it() -> None:
    """With weights of 0 for what is imagined the student answers as before; the head adds both branches' answers."""
    before, (pupil, _) = student(), prepared()
    batch = batch_of(ten_studies())
    alone = before(batch)["finding"]
    width = before.encoders["xray"].dim
    head, project = before.heads["finding"].linear, pupil.project["xray"]
    imagined = pupil.encode_raw(pupil.align(batch))["xray"].pooled[:, width:]
    rows = batch.rows("xray")
    pupil.heads["finding"].load_state_dict(before.heads["finding"].state_dict())
    both = pupil(batch)["finding"]
    second = imagined @ project.weight[:, width:].T @ head.weight[0]
    torch.testing.assert_close(both[rows] - alone[rows], second, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        project.weight[:, width:] = 0
    torch.testing.assert_close(pupil(batch)["finding"], alone)


def test_a_student_with_two_branches_is_saved_and_loaded(tmp_path: Path) -> None:
    pupil, _ = prepared()
    assert type(build(describe(pupil.encoders["xray"]))) is HallucinatingEncoder
    pupil.save(tmp_path / "model")
    again, batch = MultimodalModel.load(tmp_path / "model"), batch_of(ten_studies())
    torch.testing.assert_close(again(batch)["finding"], pupil(batch)["finding"], rtol=0, atol=0)


def test_a_student_without_a_second_branch_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than 16 features: it has no second branch; fix"):
        HallucinationTransfer(student(), source=["ct"], width=16)
    with pytest.raises(ValueError, match="one modality imagines another, and the student sees ct, xray"):
        HallucinationTransfer(tiny_model(), source=["report"], target=["ct", "xray"])
