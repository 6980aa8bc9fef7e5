"""Words from other modalities: the loss is its formula, absent reports ask nothing, and an image learns what is said."""

import pytest
import torch

from medssml.objectives import BagOfWords, Step
from tests.examples import VOCABULARY, batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def objective(model, **options):
    torch.manual_seed(0)
    return BagOfWords(model, **{"modalities": ["ct", "xray"], "pairs": 16, **options}).eval()


def bag_by_hand(ids, words, pairs):
    """Which words and pairs there are, one by one."""
    real = [i for i in ids if i > 5]
    assert real == [i for i in ids if i not in (0, 2, 3, 5)], "the fixture has words, padding and the two ends only"
    found = set(real)
    if pairs:
        found |= {
            words + (a * 1_000_003 + b) % pairs for a, b in zip(ids, ids[1:], strict=False) if a in real and b in real
        }
    return found


@pytest.mark.parametrize("pairs", [0, 16])
def test_a_bag_is_the_words_and_neighbours_of_the_report(model, pairs):
    ids = torch.tensor([[2, 7, 8, 7, 3, 0], [2, 3, 0, 0, 0, 0]])
    bags = objective(model, pairs=pairs).bags(ids, (ids != 0).long())
    expected = bag_by_hand(ids[0].tolist(), VOCABULARY, pairs)
    assert set(bags[0].nonzero().squeeze(1).tolist()) == expected
    torch.testing.assert_close(bags[0][sorted(expected)], torch.full((len(expected),), 1 / len(expected)))
    assert not bags[1].any()


def test_loss_is_its_formula_over_the_studies_that_have_both(model):
    asked = objective(model)
    with torch.no_grad():
        asked.frequency.uniform_(0.1, 1.0)
    batch = batch_of(ten_studies())
    encoded = model.encode(batch)
    reports = batch.inputs["report"]
    bags = asked.bags(reports["input_ids"], reports["attention_mask"])
    row_of = {int(b): i for i, b in enumerate(batch.rows("report"))}
    losses = []
    for name in ("ct", "xray"):
        for i, b in enumerate(batch.rows(name).tolist()):
            if b in row_of:
                logits = asked.predict(encoded[name].pooled[i]) + (asked.frequency + 1e-6).log()
                losses.append(-(bags[row_of[b]] * logits.log_softmax(-1)).sum())
    assert len(losses) == 6
    torch.testing.assert_close(asked(Step(model, batch))["loss"], torch.stack(losses).mean())


def test_nothing_to_learn_from(model):
    asked = objective(model)
    assert asked(Step(model, batch_of([study(0, ("ct",)), study(1, ("report",)), study(2, ("eeg",))]))) is None


def test_the_frequency_follows_the_reports_in_training_only(model):
    asked = objective(model)
    batch = batch_of(ten_studies())
    asked(Step(model, batch))
    assert int(asked.batches) == 0
    asked.train()
    for _ in range(300):
        asked(Step(model, batch))
    reports = batch.inputs["report"]
    mean = asked.bags(reports["input_ids"], reports["attention_mask"]).mean(0)
    torch.testing.assert_close(asked.frequency, mean, atol=1e-3, rtol=0)


def test_an_image_learns_what_its_report_says():
    """Bright volumes say one word, dark ones another: read off the learned word scores of new volumes."""
    net = tiny_model().train()
    asked = objective(net, modalities=["ct"]).train()
    optimizer = torch.optim.Adam([*net.parameters(), *asked.parameters()], 3e-3)

    def batch(first, epoch=0):
        studies = []
        for number in range(first, first + 16):
            one = study(number, ("ct", "report"), epoch=epoch)
            bright = number % 2
            one["inputs"]["ct"] = 0.3 * one["inputs"]["ct"] + 0.5 * bright
            one["inputs"]["report"] = torch.tensor([2, 9, 11 + bright, 3])
            studies.append(one)
        return batch_of(studies)

    for step in range(40):
        optimizer.zero_grad()
        asked(Step(net, batch(16 * (step % 4))))["loss"].backward()
        optimizer.step()
    net.eval()
    scores = asked.predict(net.encode(batch(200))["ct"].pooled)[:, 11:13]
    assert (scores.argmax(1) == torch.arange(16) % 2).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"modalities": ["mri"]}, "the model has"),
        ({"modalities": ["report"]}, "its own words"),
        ({"report": "eeg"}, "no TextEncoder"),
        ({"pairs": -1}, "number of buckets"),
    ],
)
def test_refuses_what_it_cannot_ask(model, options, text):
    with pytest.raises(ValueError, match=text):
        objective(model, **options)
