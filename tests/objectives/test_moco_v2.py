"""MoCo v2 against the paper's equation, and its queue: what enters, when, who is no negative."""

import copy
import math

import pytest
import torch

from medssml.objectives import Clock, MoCoV2, Step, Teacher
from medssml.objectives.queue import Queue
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def asked(model, studies, *, at=0, **options):
    """The objective, a teacher with weights of its own, and a step of the run."""
    torch.manual_seed(1)
    objective, twin = (MoCoV2(model, dim=6, queue=12, batch_norm=False, **options) for _ in range(2))
    teacher = Teacher(tiny_model(seed=9).eval(), {objective: twin.eval()})
    return objective, teacher, Step(model, batch_of(studies, views=2), teacher=teacher, clock=Clock(at, 10))


def keys_of(teacher, objective, batch, name):
    view = batch.views[0]
    return teacher.twins[objective].space(name, teacher.model.encode(view)[name].pooled).detach()


def test_is_the_softmax_over_the_own_key_and_the_queue(model):
    objective, teacher, step = asked(model, ten_studies(), temperature=0.3)
    terms = []
    for name in model.modalities:
        queries = objective.space(name, model.encode(step.batch)[name].pooled).tolist()
        queue = objective.queues[name].vectors.tolist()
        for q, k in zip(queries, keys_of(teacher, objective, step.batch, name).tolist(), strict=True):
            own, *others = (math.exp(sum(x * y for x, y in zip(q, key, strict=True)) / 0.3) for key in [k, *queue])
            terms.append(-math.log(own / (own + sum(others))))
    assert float(objective(step)["loss"].detach()) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_teachers_keys_of_the_second_look_enter_after_the_step_and_the_oldest_leave(model):
    objective, teacher, step = asked(model, ten_studies(), modalities=["ct"])
    queue = objective.queues["ct"]
    begun = queue.vectors.clone()
    objective(step)
    assert torch.equal(queue.vectors, begun)  # a step sees none of its own keys
    objective.after_step(step.clock)
    keys = keys_of(teacher, objective, step.batch, "ct")
    torch.testing.assert_close(queue.vectors, torch.cat([keys, begun])[:12])
    assert queue.subject[: len(keys)].tolist() == [100 + n for n in (0, 1, 3, 6, 7)]
    assert queue.known.tolist() == [True] * 5 + [False] * 7
    for _ in range(2):
        objective(step)
        objective.after_step(step.clock)
    torch.testing.assert_close(queue.vectors, torch.cat([keys, keys, keys])[:12])


def test_no_gradient_reaches_keys_queue_or_teacher(model):
    objective, teacher, step = asked(model, ten_studies())
    objective(step)["loss"].backward()
    assert all(p.grad is None for p in [*teacher.model.parameters(), *teacher.twins[objective].parameters()])
    assert not any(p.requires_grad for queue in objective.queues.values() for p in queue.buffers())


def test_keys_of_the_same_subject_and_of_an_identical_input_are_no_negatives(model):
    past = [study(20, ("ct",), subject=5), study(21, ("ct",)), study(22, ("ct",))]
    objective, teacher, step = asked(model, past, modalities=["ct"])
    objective(step)
    objective.after_step(step.clock)
    now = [study(0, ("ct",), subject=5), study(1, ("ct",)), study(2, ("ct",))]
    now[1]["content"]["ct"] = past[1]["content"]["ct"]
    later = Step(model, batch_of(now, views=2), teacher=teacher)
    negative = objective._masks(later, "ct")[1]
    assert (~negative[:, 1:]).nonzero().tolist() == [[0, 0], [1, 1]]
    # What no negative holds moves nothing.
    before = float(objective.eval()(later)["loss"].detach())
    objective.queues["ct"].vectors[3:] = -objective.queues["ct"].vectors[3:]
    assert float(objective(later)["loss"].detach()) != pytest.approx(before)


def test_random_vectors_at_the_start_belong_to_nobody(model):
    objective, _, step = asked(model, [study(0, ("ct",), subject=-100)], modalities=["ct"])
    assert step.everyone.subject.tolist() == [0] == objective.queues["ct"].subject.unique().tolist()
    assert bool(objective._masks(step, "ct")[1][:, 1:].all())


def test_a_skipped_step_and_a_validation_leave_no_keys(model):
    objective, teacher, step = asked(model, ten_studies(), modalities=["ct"])
    begun = copy.deepcopy(objective.queues["ct"].state_dict())
    objective.eval()(step)
    objective.after_step(step.clock)
    torch.testing.assert_close(dict(objective.queues["ct"].state_dict()), dict(begun))
    # Held by step 0, which was skipped: no hook ran. Two batches of step 1 both enter.
    objective.train()(step)
    parts = [batch_of([study(n, ("ct",))], views=2) for n in (20, 21)]
    for part in parts:
        objective(Step(model, part, teacher=teacher, clock=Clock(1, 10), group=parts))
    objective.after_step(Clock(1, 10))
    assert objective.queues["ct"].subject.tolist() == [121, 120] + [0] * 10


def test_a_queue_shorter_than_a_batch_keeps_the_first_of_it_and_one_of_none_is_refused():
    queue = Queue(2, 3, [0])
    step = Step(tiny_model(), batch_of([study(n, ("ct",)) for n in range(4)]))
    queue.hold(torch.arange(12.0).reshape(4, 3), step.everyone, torch.arange(4), 0)
    queue.move()
    assert queue.vectors.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="1 or more"):
        Queue(0, 3, [0])


def test_published_defaults(model):
    objective = MoCoV2(model, modalities=["ct"])
    assert objective.queues["ct"].vectors.shape == (65536, 128)
    assert (objective.temperature, objective.teacher) == (0.2, 0.999)
    torch.testing.assert_close(objective.queues["ct"].vectors.norm(dim=1), torch.ones(65536))
