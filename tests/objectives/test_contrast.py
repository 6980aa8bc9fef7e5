import math

import pytest
import torch

from medssml.losses import info_nce
from medssml.objectives import CrossModalContrast, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_agrees_with_the_pairs_taken_one_by_one(model):
    torch.manual_seed(0)
    objective = CrossModalContrast(model, dim=8).eval()
    studies = ten_studies()
    embedding = {}  # (study, modality) -> vector, each encoded alone
    for s in studies:
        for m, part in Step(model, batch_of([s])).encoded.items():
            embedding[s["name"], m] = objective.space.heads[m](part.pooled)[0]

    total, terms = 0.0, 0
    for m, n in objective.pairs:
        left = [s["name"] for s in studies if m in s["inputs"]]
        right = [s["name"] for s in studies if n in s["inputs"]]
        match = torch.tensor([[x == y for y in right] for x in left])
        a = torch.stack([embedding[x, m] for x in left])
        b = torch.stack([embedding[y, n] for y in right])
        part = info_nce(a, b, scale=objective.scale(), match=match)
        total, terms = total + part.total, terms + part.terms
    torch.testing.assert_close(objective(Step(model, batch_of(studies)))["loss"], total / terms, rtol=1e-5, atol=1e-6)


class Moved(Step):
    """Embeddings of another scale and place, the same for all studies of a modality."""

    def pooled_of_all(self, modality):
        return 3 * super().pooled_of_all(modality) + torch.arange(self.model.dim)


@pytest.mark.parametrize("batch_norm", [True, ["ct", "report"], False])
def test_what_all_studies_of_a_modality_share_says_nothing_once_it_is_normalised(model, batch_norm):
    torch.manual_seed(0)
    objective = CrossModalContrast(model, dim=8, pairs=["ct+report"], batch_norm=batch_norm)
    batch = batch_of(ten_studies())
    plain, moved = (float(objective(kind(model, batch))["loss"].detach()) for kind in (Step, Moved))
    assert (moved == pytest.approx(plain, rel=1e-2)) == bool(batch_norm)


def test_the_norm_is_there_unless_it_is_turned_off(model):
    torch.manual_seed(0)
    default = CrossModalContrast(model, dim=8)
    torch.manual_seed(0)
    normed = CrossModalContrast(model, dim=8, batch_norm=True)
    batch = batch_of(ten_studies())
    torch.testing.assert_close(default(Step(model, batch))["loss"], normed(Step(model, batch))["loss"])


def test_two_studies_of_one_subject_are_no_negatives(model):
    objective = CrossModalContrast(model, dim=8)
    both = ("ct", "report")
    assert objective(Step(model, batch_of([study(0, both), study(1, both)]))) is not None
    assert objective(Step(model, batch_of([study(0, both, subject=5), study(1, both, subject=5)]))) is None


def test_two_identical_reports_are_no_negatives(model):
    objective = CrossModalContrast(model, dim=8)
    a, b = study(0, ("ct", "report")), study(1, ("ct", "report"))
    b["content"]["report"] = a["content"]["report"]
    assert objective(Step(model, batch_of([a, b]))) is None


def test_without_hashes_every_other_subject_is_a_negative(model):
    objective = CrossModalContrast(model, dim=8)
    a, b = study(0, ("ct", "report")), study(1, ("ct", "report"))
    a["content"], b["content"] = {"report": 0, "ct": 0}, {"report": 0, "ct": 0}
    batch = batch_of([a, b])
    batch.content.clear()
    assert objective(Step(model, batch)) is not None


def test_gradient_reaches_the_paired_modalities_and_no_other(model):
    objective = CrossModalContrast(model, dim=8, pairs=["report+ct"])
    model.zero_grad()
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    touched = {m for m in model.modalities if any(p.grad is not None for p in model.encoders[m].parameters())}
    reached = {m for m in touched if any(p.grad.abs().sum() > 0 for p in model.encoders[m].parameters())}
    assert reached == {"ct", "report"}
    assert all(p.grad is None for p in model.fusion.parameters())
    assert set(objective.space.heads) == {"ct", "report"}
    model.zero_grad()


def test_temperature_stays_within_bounds_and_can_come_back(model):
    objective = CrossModalContrast(model, dim=8)
    with torch.no_grad():
        objective.scale.log.fill_(50.0)
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    assert objective.scale.log.item() == pytest.approx(math.log(100))
    assert objective.scale.log.grad.abs() > 0


def test_a_fixed_temperature_is_not_trained(model):
    objective = CrossModalContrast(model, dim=8, temperature=0.2, learn_temperature=False)
    answer = objective(Step(model, batch_of(ten_studies())))
    assert answer["temperature"].item() == pytest.approx(0.2)
    assert not objective.scale.log.requires_grad


def test_wrong_arguments_name_the_right_ones(model):
    with pytest.raises(ValueError, match=r"pairs \['ct\+mri'\]; known: ct\+xray"):
        CrossModalContrast(model, pairs=["ct+mri"])
    with pytest.raises(ValueError, match="temperature 0.001 is outside"):
        CrossModalContrast(model, temperature=0.001)
    with pytest.raises(ValueError, match="expected a positive number"):
        CrossModalContrast(model, weight=0.0)


def test_the_first_of_a_pair_as_it_is_written_may_count_more(model):
    """ConVIRT: lambda of image to report, 1 - lambda of report to image."""
    embedded, batch = [], batch_of(ten_studies())
    for pairs, share in ((["ct+report"], 0.75), (["report+ct"], 0.25), (["report+ct"], 0.75)):
        torch.manual_seed(0)
        objective = CrossModalContrast(model, dim=8, pairs=pairs, share=share).eval()
        embedded.append(objective(Step(model, batch))["loss"])
    torch.testing.assert_close(embedded[0], embedded[1])
    assert not torch.allclose(embedded[0], embedded[2])
    with pytest.raises(ValueError, match="share is 1; expected a number between 0 and 1"):
        CrossModalContrast(model, share=1)
    assert CrossModalContrast(model, pairs=["report+ct", "ct+report"]).pairs == (("report", "ct"),)
