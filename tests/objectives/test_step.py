"""What a step answers, and that it answers once."""

from dataclasses import replace

import pytest
import torch

from medssml.objectives import Step, Teacher
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_a_pass_on_changed_inputs_is_made_once_and_only_for_what_was_changed(model, monkeypatch):
    step = Step(model, batch_of(ten_studies()))
    calls = []
    forward = type(model).encode_raw
    monkeypatch.setattr(
        type(model), "encode_raw", lambda self, *args, **more: calls.append(1) or forward(self, *args, **more)
    )
    changed = {"ct": step.batch.inputs["ct"] * 0}
    first, again = step.encode(inputs=changed), step.encode(inputs=changed)
    assert torch.equal(first["ct"].pooled, again["ct"].pooled) and len(calls) == 1
    assert set(first) == {"ct"} and set(step.encode()) == set(step.encoded)
    assert not torch.allclose(first["ct"].pooled, step.encoded["ct"].pooled)


def test_chosen_tokens_and_layers(model):
    step = Step(model, batch_of(ten_studies()))
    keep = torch.arange(3).expand(len(step.batch.inputs["ct"]), -1)
    assert step.encode(keep={"ct": keep})["ct"].tokens.shape[1] == 3
    layers = step.encode(layers=1)
    assert all(len(part.layers) == 1 for part in layers.values())
    torch.testing.assert_close(layers["eeg"].pooled, step.encoded["eeg"].pooled)


def test_the_first_view_is_the_step_itself(model):
    batch = batch_of(ten_studies(), views=3)
    step = Step(model, batch)
    assert len(step.views) == 3 and step.views[0] is step
    alone = Step(model, replace(batch, views=()))
    assert torch.equal(alone.fused.pooled, step.fused.pooled)
    assert not torch.allclose(step.views[1].encoded["ct"].pooled, step.views[2].encoded["ct"].pooled)
    fewer = batch.without("ct")
    assert all("ct" not in view.inputs for view in fewer.views)


def test_the_teacher_sees_the_same_views_without_gradients(model):
    other = tiny_model(seed=5).eval()
    step = Step(model, batch_of(ten_studies(), views=2), teacher=Teacher(other))
    seen = step.teacher.fused.pooled
    assert not seen.requires_grad and len(step.teacher.views) == 2
    torch.testing.assert_close(seen, other.fuse(other.encode(step.batch), step.present).pooled.detach())
    with pytest.raises(ValueError, match="no teacher; fix:"):
        _ = Step(model, batch_of(ten_studies())).teacher


def test_made_up_studies_are_what_they_are_made_of(model):
    """The CT of one study and the report of another, against a study that really has both."""
    a, b = study(0, ("ct", "xray")), study(1, ("report",))
    step = Step(model, batch_of([a, b]))
    source = torch.tensor([[0, -1, -1, 1], [0, 0, -1, -1]])
    fused = step.fuse_made_up(step.encoded, source)
    both = {**a, "inputs": {"ct": a["inputs"]["ct"], "report": b["inputs"]["report"]}}
    torch.testing.assert_close(fused.pooled[0], Step(model, batch_of([both])).fused.pooled[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fused.pooled[1], step.fused.pooled[0])
    with pytest.raises(ValueError, match="eeg is taken from a study that does not have it"):
        step.fuse_made_up(step.encoded, torch.tensor([[-1, -1, 1, -1]]))


def test_of_all_is_the_encoding_on_one_rank(model):
    step = Step(model, batch_of(ten_studies()))
    everything = step.of_all("report")
    torch.testing.assert_close(everything.tokens, step.encoded["report"].tokens)
    assert torch.equal(everything.mask, step.encoded["report"].mask)
    alone = Step(model, batch_of([study(0, ("ct",))])).of_all("report")
    assert alone.tokens.shape == (0, 0, model.dim) and alone.pooled.shape == (0, model.dim)


def test_shares_make_the_mean_over_all_terms(model):
    parts = [batch_of(ten_studies()[:3]), batch_of(ten_studies()[3:])]
    steps = [Step(model, part, group=parts) for part in parts]

    def labelled(step):
        return torch.isfinite(step.batch.targets["finding"]).sum()

    counts = [int(labelled(step)) for step in steps]
    values = [torch.tensor(1.0), torch.tensor(5.0)]
    mean = sum(float(step.share(labelled)) * value for step, value in zip(steps, values, strict=True)) / 2
    assert float(mean) == pytest.approx((counts[0] * 1.0 + counts[1] * 5.0) / sum(counts))
    assert Step(model, parts[0]).share(labelled) == 1.0


def test_shares_of_weights_below_1_and_of_groups_that_a_batch_lacks(model):
    """Two groups of terms, a third that nobody has; the mean over groups of the weighted mean over both batches."""
    parts = [batch_of(ten_studies()[:3]), batch_of(ten_studies()[3:])]
    weights = torch.tensor([[0.1, 0.0, 0.0], [0.3, 0.2, 0.0]])
    means = torch.tensor([[2.0, 9.0, 9.0], [4.0, 7.0, 9.0]])
    steps = [Step(model, part, group=parts) for part in parts]

    def counts(step):
        return weights[0 if step.batch.study_id == parts[0].study_id else 1]

    found = [step.mean_of_means(mean, counts) for step, mean in zip(steps, means, strict=True)]
    expected = ((0.1 * 2 + 0.3 * 4) / 0.4 + 7.0) / 2
    assert float(sum(found)) / 2 == pytest.approx(expected, rel=1e-6)
    alone = Step(model, parts[0])
    assert float(alone.mean_of_means(means[0], lambda _: weights[0])) == pytest.approx(2.0)
    assert float(alone.mean_of_means(means[0], lambda _: torch.zeros(3))) == 0.0
