import pytest
import torch
from torch.nn import functional as F

from medssml.losses import token_contrast
from medssml.objectives import Step, TokenAlignment
from tests.examples import batch_of, study, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_is_the_mean_over_studies_each_aligned_alone(model):
    objective = TokenAlignment(model, modalities=["ct", "eeg"], dim=8).eval()
    studies = [study(0, ("ct", "report")), study(1, ("ct", "eeg", "report")), study(2, ("ct",)), study(3, ("report",))]
    terms = []
    for one in studies[:2]:
        alone = Step(model, batch_of([one])).encoded
        words = F.normalize(objective.heads["report"](alone["report"].tokens[:, 1:-1]), dim=-1)
        for name in {"ct", "eeg"} & alone.keys():
            tokens = F.normalize(objective.heads[name](alone[name].tokens), dim=-1)[alone[name].mask][None]
            every = [torch.ones(1, x.shape[1]).bool() for x in (words, tokens)]
            there = token_contrast(words, tokens, *every, temperature=0.1)[0]
            back = token_contrast(tokens, words, *reversed(every), temperature=0.1)[0]
            terms.append((there + back).item() / 2)
    found = objective(Step(model, batch_of(studies)))
    assert len(terms) == 3
    assert found["loss"].item() == pytest.approx(sum(terms) / 3, rel=1e-4)


def test_a_longer_report_beside_it_changes_nothing(model):
    """[PAD] words are no negatives: the other report's length would show."""
    objective = TokenAlignment(model, modalities=["ct"], dim=8).eval()
    short, long = study(0, ("ct", "report")), study(4, ("report",))
    long["inputs"]["report"] = torch.randint(6, 40, (30,), generator=torch.Generator().manual_seed(0))
    alone, beside = (objective(Step(model, batch_of(s)))["loss"] for s in ([short], [short, long]))
    torch.testing.assert_close(alone, beside, rtol=1e-4, atol=1e-6)


def test_without_a_pair_there_is_no_term_and_wrong_arguments_are_named(model):
    assert TokenAlignment(model, dim=8)(Step(model, batch_of([study(0, ("ct",)), study(1, ("report",))]))) is None
    with pytest.raises(ValueError, match="temperature is 0"):
        TokenAlignment(model, temperature=0)
    with pytest.raises(ValueError, match="TokenAlignment: ct cannot be matched with itself"):
        TokenAlignment(model, anchor="ct", modalities=["ct"])
