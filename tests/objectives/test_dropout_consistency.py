import pytest
import torch

from medssml.losses import info_nce
from medssml.objectives import ModalityDropoutConsistency, Step
from medssml.objectives.dropout_consistency import reduced_presence
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_a_part_is_neither_empty_nor_whole_nor_new():
    present = torch.tensor([[bool(i >> c & 1) for c in range(4)] for i in range(16)]).repeat(200, 1)
    keys = torch.arange(len(present))
    for p in (0.1, 0.5, 0.9):
        within = reduced_presence(present, keys, p)
        several = present.sum(1) > 1
        assert not (within & ~present).any()
        assert (within.sum(1)[several] >= 1).all()
        assert (within.sum(1)[several] < present.sum(1)[several]).all()
        assert torch.equal(within[~several], present[~several])


def test_every_part_is_drawn_and_no_modality_is_favoured():
    present = torch.ones(4000, 3, dtype=torch.bool)
    within = reduced_presence(present, torch.arange(4000), 0.5)
    patterns, counts = within.unique(dim=0, return_counts=True)
    assert len(patterns) == 6
    assert counts.min() > 300
    share = within.float().mean(0)
    torch.testing.assert_close(share, share.mean().expand(3), atol=0.03, rtol=0)


def test_p_sets_how_much_is_left():
    present = torch.ones(3000, 4, dtype=torch.bool)
    left = [reduced_presence(present, torch.arange(3000), p).float().sum(1).mean().item() for p in (0.2, 0.5, 0.8)]
    assert left[0] > left[1] > left[2]


def test_agrees_with_the_contrast_of_parts_and_wholes(model):
    torch.manual_seed(0)
    objective = ModalityDropoutConsistency(model, dim=8)
    studies = ten_studies()
    batch = batch_of(studies)
    within = reduced_presence(batch.present, batch.key, 0.5)
    part = objective.head(model.fuse(model.encode(batch), batch.present, within).pooled)
    whole = objective.head(model.fuse(model.encode(batch), batch.present).pooled)
    match = torch.diag(batch.present.sum(1) > 1)
    nothing = (~batch.present.any(1))[:, None].expand(10, 10)
    found = info_nce(
        part, whole, scale=10.0, match=match, exclude=torch.eye(10, dtype=torch.bool) | nothing | nothing.T
    )
    torch.testing.assert_close(objective(Step(model, batch))["loss"], found.total / found.terms)


def test_the_whole_is_a_fixed_target(model):
    """Only the part is moved: what the part lacks gets no gradient."""
    objective = ModalityDropoutConsistency(model, dim=8)
    batch = batch_of([study(0, ("ct", "eeg")), study(1, ("ct", "eeg"))])
    within = reduced_presence(batch.present, batch.key, 0.5)
    model.zero_grad()
    objective(Step(model, batch))["loss"].backward()
    for column, modality in enumerate(batch.modalities):
        gradients = [p.grad for p in model.encoders[modality].parameters() if p.grad is not None]
        reached = any(g.abs().sum() > 0 for g in gradients)
        assert reached == bool(within[:, column].any()), modality
    model.zero_grad()


def test_collapse_is_the_worst_answer_not_the_best(model):
    torch.manual_seed(0)
    objective = ModalityDropoutConsistency(model, dim=8)
    batch = batch_of(ten_studies())
    for head in objective.head:
        if hasattr(head, "weight"):
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.ones_(head.bias)
    collapsed = objective(Step(model, batch))["loss"]
    candidates = batch.present.any(1).sum().float()
    assert collapsed.item() == pytest.approx(candidates.log().item(), rel=1e-4)


def test_an_identical_report_is_no_negative_of_a_part_that_is_that_report(model):
    torch.manual_seed(0)
    objective = ModalityDropoutConsistency(model, dim=8)
    both = ("ct", "report")
    for key in range(20):  # a draw in which both parts are reports
        a, b = study(0, both), study(1, both)
        a["key"], b["key"] = key, key + 100
        batch = batch_of([a, b])
        if reduced_presence(batch.present, batch.key, 0.5)[:, 3].all():
            break
    assert objective(Step(model, batch)) is not None
    b["content"]["report"] = a["content"]["report"]
    assert objective(Step(model, batch_of([a, b]))) is None


def test_wrong_arguments(model):
    with pytest.raises(ValueError, match="p is 0"):
        ModalityDropoutConsistency(model, p=0)
