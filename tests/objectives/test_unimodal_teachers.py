"""UMT: each encoder's vector is held to that of a teacher, study by study; who is taught, and by whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel
from medssml.objectives import Step, UnimodalTeachers
from medssml.objectives.step import Teacher
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim
from tests.examples import MODALITIES, batch_of, study, ten_studies, tiny_model
from tests.objectives.vectors import AsItIs


def step(model: MultimodalModel, studies: Sequence[dict], teacher: MultimodalModel) -> Step:
    return Step(model, batch_of(studies), teacher=Teacher(teacher))


def test_is_the_mean_over_modalities_of_the_mean_square_distance_to_the_teacher() -> None:
    model, teacher = tiny_model(seed=0).eval(), tiny_model(seed=5).eval()
    found = UnimodalTeachers(model)(step(model, ten_studies(), teacher))
    assert found is not None
    means = {}
    for name in MODALITIES:
        distances = []
        for one in ten_studies():
            if name in one["inputs"]:
                own, taught = (m.encode(batch_of([one]))[name].pooled[0] for m in (model, teacher))
                distances.append((own - taught).square().mean())
        means[name] = torch.stack(distances).mean()
        torch.testing.assert_close(found[f"distance/{name}"], means[name].detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["loss"], torch.stack(list(means.values())).mean(), rtol=1e-4, atol=1e-6)
    # One that is not there has no part in the mean, and one that is not asked for neither.
    two = [study(0, ("ct",)), study(1, ("ct", "report"))]
    alone = UnimodalTeachers(model, modalities=["ct", "eeg"])(step(model, two, teacher))
    assert alone is not None and set(alone) == {"loss", "distance/ct"}
    assert float(alone["loss"].detach()) == pytest.approx(float(alone["distance/ct"]))
    assert UnimodalTeachers(model, modalities=["eeg"])(step(model, two, teacher)) is None


def test_the_encoders_learn_and_neither_the_teacher_nor_what_joins_them() -> None:
    model, teacher = tiny_model(seed=0).train(), tiny_model(seed=5).eval()
    found = UnimodalTeachers(model, modalities=["ct", "report"])(step(model, ten_studies(), teacher))
    assert found is not None
    found["loss"].backward()
    moved = {name.split(".")[1] for name, p in model.encoders.named_parameters(prefix="encoders") if p.grad is not None}
    assert moved == {"ct", "report"}
    assert all(p.grad is None for part in (model.fusion, model.heads, teacher) for p in part.parameters())


def test_an_encoder_comes_to_say_what_its_teacher_says() -> None:
    torch.manual_seed(0)
    model, teacher = tiny_model(seed=0).train(), tiny_model(seed=5).eval()
    objective, studies = UnimodalTeachers(model), [study(n, ("ct", "xray")) for n in range(8)]
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        found = objective(step(model, studies, teacher))
        assert found is not None
        found["loss"].backward()
        optimiser.step()
        losses.append(float(found["loss"].detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_a_teacher_that_cannot_teach_it_is_told() -> None:
    model = tiny_model().eval()
    objective = UnimodalTeachers(model)
    other = MultimodalModel({"ct": AsItIs(8)}, AdditiveFusion(["ct"], 16, 0)).eval()
    with pytest.raises(ValueError, match="the teacher has no xray, eeg, report; fix"):
        objective(step(model, ten_studies(), other))
    narrow = MultimodalModel({"ct": AsItIs(8)}, AdditiveFusion(["ct"], 8, 0)).eval()
    with pytest.raises(ValueError, match="the teacher is 8 wide and the model 16; fix"):
        UnimodalTeachers(model, modalities=["ct"])(step(model, ten_studies(), narrow))
    with pytest.raises(ValueError, match="UnimodalTeachers asks another model; fix: teacher"):
        Learner(model, [objective], Optim())
    assert UnimodalTeachers.restricted_to({"modalities": ["ct", "eeg"]}, ["ct"]) == {"modalities": ["ct"]}
