"""What every objective promises: the law of absence, order, padding, gradients, configs."""

import pytest
import torch

import medssml.objectives as package
from medssml.config import build, describe
from medssml.objectives import Objective, Step
from tests.objectives.tiny import OBJECTIVES, batch_of, study, ten_studies, tiny_model

WITHOUT_STUDY = {  # modalities of which no term of the objective can be made
    "contrast": [("ct",), ("xray",)],
    "reconstruction": [("report",), ()],
    "language": [("ct",), ("xray", "eeg")],
    "words": [("ct",), ("report",), ("eeg", "report")],
    "consistency": [("ct",), ("report",)],
}


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.fixture(params=OBJECTIVES)
def name(request):
    return request.param


@pytest.fixture
def objective(name, model):
    torch.manual_seed(1)
    return OBJECTIVES[name](model).eval()


def loss_and_gradients(model, objective, batch):
    parameters = dict(model.named_parameters(prefix="model")) | dict(objective.named_parameters(prefix="objective"))
    answer = objective(Step(model, batch))
    gradients = torch.autograd.grad(answer["loss"], list(parameters.values()), allow_unused=True)
    return answer["loss"].detach(), dict(zip(parameters, gradients, strict=True))


def test_every_public_objective_is_tested():
    public = {n for n in package.__all__ if isinstance(getattr(package, n), type)}
    public = {n for n in public if issubclass(getattr(package, n), Objective)} - {"Objective"}
    model = tiny_model()
    assert {type(make(model)).__name__ for make in OBJECTIVES.values()} == public


def test_loss_is_a_finite_scalar_and_the_rest_is_detached(model, objective):
    answer = objective(Step(model, batch_of(ten_studies())))
    assert answer["loss"].shape == ()
    assert answer["loss"].isfinite()
    for key, value in answer.items():
        assert value.shape == ()
        assert value.isfinite(), key
        assert value.requires_grad == (key == "loss"), key


def test_gradients_are_finite(model, objective):
    _, gradients = loss_and_gradients(model, objective, batch_of(ten_studies()))
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)
    assert any(g.abs().sum() > 0 for g in gradients.values() if g is not None)


def test_own_parameters_all_learn(model, objective):
    _, gradients = loss_and_gradients(model, objective, batch_of(ten_studies()))
    own = {key: g for key, g in gradients.items() if key.startswith("objective.")}
    assert own
    assert not [key for key, g in own.items() if g is None or g.abs().sum() == 0]


def test_order_of_the_studies_does_not_matter(model, objective):
    studies = ten_studies()
    shuffled = [studies[i] for i in (7, 2, 9, 0, 4, 8, 1, 6, 5, 3)]
    a, b = (objective(Step(model, batch_of(s)))["loss"] for s in (studies, shuffled))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_study_without_anything_moves_nothing(model, objective):
    studies = ten_studies()
    a, b = (objective(Step(model, batch_of(s)))["loss"] for s in (studies, studies[:8] + studies[9:]))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_absent_moves_nothing(model, objective):
    """NaN in the rows of a removed modality: the same loss and gradients as if it had never been there."""
    studies = ten_studies()
    poisoned = batch_of(studies)
    poisoned.inputs["ct"][:] = torch.nan
    never = [{**s, "inputs": {m: v for m, v in s["inputs"].items() if m != "ct"}} for s in studies]
    never = [{**s, "content": {m: v for m, v in s["content"].items() if m != "ct"}} for s in never]

    loss, gradients = loss_and_gradients(model, objective, poisoned.without("ct"))
    expected, reference = loss_and_gradients(model, objective, batch_of(never))
    torch.testing.assert_close(loss, expected)
    for key, gradient in gradients.items():
        assert (gradient is None) == (reference[key] is None), key
        if gradient is not None:
            torch.testing.assert_close(gradient, reference[key])


def test_a_batch_with_nothing_to_learn_from_is_none(model, objective, name):
    for modalities in WITHOUT_STUDY[name]:
        batch = batch_of([study(number, modalities) for number in range(3)])
        assert objective(Step(model, batch)) is None


def test_same_key_same_draw_other_seed_other_draw(model, objective, name):
    batch = batch_of(ten_studies())
    first, again, other = (objective(Step(model, batch, seed=s))["loss"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in ("contrast", "words"))  # those that draw nothing


def test_a_batch_of_fewer_modalities_is_taken(model, objective):
    batch = batch_of(ten_studies())
    fewer = batch.without("eeg")
    reference = objective(Step(model, fewer))["loss"]
    columns = [batch.column(m) for m in ("report", "ct", "xray")]
    other = type(batch)(
        inputs=fewer.inputs,
        present=fewer.present[:, columns],
        modalities=("report", "ct", "xray"),
        study_id=batch.study_id,
        subject=batch.subject,
        key=batch.key,
        content=fewer.content,
    )
    torch.testing.assert_close(objective(Step(model, other))["loss"], reference)


def test_config_builds_it_again_without_the_model(model, objective):
    node = describe(objective)
    assert "model" not in node["init_args"]
    again = build(node, Objective, model=model)
    assert type(again) is type(objective)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in objective.state_dict().items()
    }


def test_the_model_is_not_a_part_of_the_objective(model, objective):
    shared = {id(p) for p in model.parameters()} & {id(p) for p in objective.parameters()}
    assert not shared


def test_a_few_steps_lower_the_loss(name):
    model = tiny_model()
    objective = OBJECTIVES[name](model)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-4)
    batch = batch_of(ten_studies())
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = objective(Step(model, batch))["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_runs_under_bf16_autocast(model, objective):
    batch = batch_of(ten_studies())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = objective(Step(model, batch))
    answer["loss"].backward()
    assert answer["loss"].dtype == torch.float32
    torch.testing.assert_close(answer["loss"], objective(Step(model, batch))["loss"], rtol=0.05, atol=0.05)
    model.zero_grad()
