"""DINO: which looks meet which, what the centre follows, what stays at the start."""

import copy

import pytest
import torch

from medssml.objectives import DINO, Clock, Ramp, Step, Teacher
from medssml.objectives.draws import uniform
from tests.examples import batch_of, study, ten_studies, tiny_model
from tests.losses.test_dino import by_hand


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


LATER = Clock(3, 10, 1)


def asked(model, studies, *, clock=LATER, **options):
    torch.manual_seed(1)
    options = {"prototypes": 10, "hidden": 8, "bottleneck": 6, "local_crops": 2, **options}
    objective, twin = (DINO(model, **options) for _ in range(2))
    teacher = Teacher(tiny_model(seed=9).eval(), {objective: twin.eval()})
    return objective, teacher, Step(model, batch_of(studies, views=objective.views), teacher=teacher, clock=clock)


def logits(head, model, batch, name):
    return head(model.project[name](model.encoders[name](batch.inputs[name]).pooled)).detach()


def test_whole_looks_of_the_teacher_meet_all_other_looks_of_the_student(model):
    objective, teacher, step = asked(model, ten_studies(), modalities=["xray"], teacher_temperature=0.05)
    objective.centres.uniform_()
    looks = [step.batch, *step.batch.views]
    whole = [model.encode(view)["xray"].pooled for view in looks[:2]]
    parts = []
    for view in looks[2:]:
        at = uniform(view.key[view.rows("xray")], 3, "dino/xray")
        part = model.encoders["xray"].crop(view.inputs["xray"], 0.43, at)
        assert part.shape[2:] == (8, 8)  # two of four patches along each axis
        parts.append(model.project["xray"](model.encoders["xray"](part).pooled))
    head, twin = objective.heads["xray"], teacher.twins[objective].heads["xray"]
    targets = [twin(teacher.model.encode(view)["xray"].pooled).tolist() for view in looks[:2]]
    answers = [head(pooled).tolist() for pooled in [*whole, *parts]]
    expected = by_hand(targets, answers, objective.centres[0].tolist(), 0.05, 0.1)
    assert float(objective(step)["loss"].detach()) == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_logits_are_cosines_with_prototypes(model):
    objective, *_ = asked(model, [])
    found = objective.heads["ct"](torch.randn(50, 16))
    assert found.shape == (50, 10) and float(found.detach().abs().max()) <= 1 + 1e-6


def test_the_centre_follows_the_teachers_mean_after_the_step(model):
    objective, teacher, step = asked(model, ten_studies(), modalities=["ct", "eeg"])
    objective(step)
    assert not bool(objective.centres.any())
    objective.after_step(step.clock)
    for place, name in enumerate(("ct", "eeg")):
        twin = teacher.twins[objective].heads[name]
        rows = torch.cat([twin(teacher.model.encode(view)[name].pooled) for view in (step.batch, step.batch.views[0])])
        torch.testing.assert_close(objective.centres[place], 0.1 * rows.mean(0))


def test_two_batches_of_a_step_move_the_centre_as_one_and_a_skipped_or_absent_one_does_not(model):
    objective, teacher, step = asked(model, ten_studies(), modalities=["ct"])
    other = copy.deepcopy(objective)
    teacher.twins[other] = teacher.twins[objective]
    objective(step)
    objective.after_step(step.clock)
    other(Step(model, batch_of([study(30, ("ct",))], views=4), teacher=teacher, clock=Clock(2, 10)))  # skipped
    for part in (ten_studies()[:3], ten_studies()[3:]):
        other(Step(model, batch_of(part, views=4), teacher=teacher, clock=Clock(3, 10)))
    other.after_step(step.clock)
    torch.testing.assert_close(other.centres, objective.centres)
    other.eval()(step)
    other(Step(model, batch_of([study(0, ("report",))], views=4), teacher=teacher))
    other.after_step(step.clock)
    torch.testing.assert_close(other.centres, objective.centres)


def test_prototypes_stay_in_the_first_epoch(model):
    for epoch, moves in ((0, False), (1, True)):
        objective, _, step = asked(model, ten_studies(), clock=Clock(3, 10, epoch))
        objective(step)["loss"].backward()
        for head in objective.heads.values():
            assert (head.prototypes.grad is not None) is moves
            assert bool(head.mlp[0].weight.grad.any())


def test_the_teachers_temperature_warms_up(model):
    objective, *_ = asked(model, [])
    ramp = objective.teacher_temperature
    assert [ramp.at(Clock(step, 100)) for step in (0, 15, 30, 100)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    cold, warm = (_loss_at(model, ten_studies(), at) for at in (0, 9))
    assert cold != pytest.approx(warm, rel=1e-6)


def _loss_at(model, studies, at):
    objective, _, step = asked(model, studies, clock=Clock(at, 10, 1), teacher_temperature=Ramp(0.02, 1.0))
    return float(objective(step)["loss"].detach())


def test_no_gradient_reaches_the_teacher(model):
    objective, teacher, step = asked(model, ten_studies())
    objective(step)["loss"].backward()
    assert all(p.grad is None for p in [*teacher.model.parameters(), *teacher.twins[objective].parameters()])


def test_published_defaults_and_refusals(model):
    assert DINO(model, modalities=["ct"], prototypes=16).views == 10
    assert DINO(model, modalities=["ct"]).heads["ct"].prototypes.shape == (65536, 256)
    for wrong in ({"local_share": 0.0}, {"local_share": 1.5}, {"local_crops": -1}):
        with pytest.raises(ValueError, match="a share of"):
            DINO(model, prototypes=8, **wrong)
