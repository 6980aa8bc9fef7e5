import math

import pytest
import torch

from medssml.losses import word_region_similarity
from medssml.objectives import GLoRIA, Step
from medssml.objectives.words import words_of_all
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_a_report_finds_its_image_by_its_words(model):
    """Written out study by study, each encoded alone; studies 0 and 6 are of one subject, and so no negatives."""
    torch.manual_seed(0)
    objective = GLoRIA(model, modalities=["ct"], dim=8).eval()
    studies = ten_studies()
    studies[6]["subject"] = studies[0]["subject"]
    images, texts = {}, {}
    for n, one in enumerate(studies):
        alone = Step(model, batch_of([one]))
        if "ct" in one["inputs"]:
            images[n] = objective.heads["ct"](alone.encoded["ct"].tokens), alone.encoded["ct"].mask
        if "report" in one["inputs"]:
            part = words_of_all(alone, "report")
            assert part.mask.sum() == len(one["inputs"]["report"]) - 2  # [CLS] and [SEP] are no words
            texts[n] = objective.heads["report"](part.tokens), part.mask
    logit = {
        (i, j): 10 * float(word_region_similarity(v[0], w[0], v[1], w[1], attend=4, match=5).detach())
        for i, v in images.items()
        for j, w in texts.items()
        if {i, j} != {0, 6}
    }
    terms = []
    for i in images.keys() & texts.keys():
        for side in (0, 1):
            candidates = [value for pair, value in logit.items() if pair[side] == i]
            terms.append(math.log(sum(math.exp(v) for v in candidates)) - logit[i, i])
    found = objective(Step(model, batch_of(studies)))
    assert found["loss"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_without_a_pair_there_is_no_term(model):
    assert GLoRIA(model, dim=8)(Step(model, batch_of([study(0, ("ct",)), study(1, ("report",))]))) is None
    assert GLoRIA(model, dim=8)(Step(model, batch_of([study(0, ("ct", "report"))]))) is None


def test_a_text_without_a_word_keeps_its_special_tokens(model):
    one, empty = study(0, ("report",)), study(1, ("report",))
    empty["inputs"]["report"] = torch.tensor([2, 3])
    mask = words_of_all(Step(model, batch_of([one, empty])), "report").mask
    assert mask[0].nonzero().squeeze(1).tolist() == list(range(1, len(one["inputs"]["report"]) - 1))
    assert mask[1].nonzero().squeeze(1).tolist() == [0, 1]
