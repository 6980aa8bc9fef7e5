"""Each word from those before it: no later word may leak, in the pass itself and in the loss."""

import pytest
import torch
from torch.nn import functional as F

from medssml.encoders import TextEncoder
from medssml.objectives import CausalLanguageModelling, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def left_to_right(encoder, ids):
    sees = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril().expand(len(ids), -1, -1)
    return encoder({"input_ids": ids, "attention_mask": torch.ones_like(ids), "sees": sees}).tokens


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_later_word_changes_no_earlier_state_and_every_one_from_its_own_place_on(attention):
    torch.manual_seed(0)
    encoder = TextEncoder(40, 24, 2, 2, max_length=32).eval()
    encoder.bert.set_attn_implementation(attention)
    ids = torch.tensor([[2, 7, 8, 9, 10, 3]])
    before = left_to_right(encoder, ids)
    for place in range(1, 6):
        other = ids.clone()
        other[0, place] = 20
        after = left_to_right(encoder, other)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=0)
        assert not any(torch.allclose(after[:, i], before[:, i], atol=1e-5) for i in range(place, 6))


def test_without_the_mask_every_word_sees_every_other(model):
    encoder = model.encoders["report"]
    ids = torch.tensor([[2, 7, 8, 9, 10, 3], [2, 7, 8, 9, 20, 3]])
    states = encoder({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).tokens
    assert not torch.allclose(states[0, 0], states[1, 0], atol=1e-5)


def test_is_the_mean_over_all_words_of_the_answer_to_the_report_cut_before_each(model):
    """The reference never shows a later word: each prediction is made from a text that ends there."""
    objective = CausalLanguageModelling(model).eval()
    step = Step(model, batch_of(ten_studies()))
    encoder = model.encoders["report"]
    total, words, right = 0.0, 0, 0
    for one in ten_studies():
        if "report" not in one["inputs"]:
            continue
        text = one["inputs"]["report"]
        for place in range(1, len(text)):
            state = left_to_right(encoder, text[None, :place])[0, -1]
            logits = objective.transform(state) @ encoder.bert.get_input_embeddings().weight.T + objective.bias
            total += float(F.cross_entropy(logits[None], text[None, place]))
            right += int(logits.argmax()) == int(text[place])
            words += 1
    found = objective(step)
    assert float(found["loss"].detach()) == pytest.approx(total / words, rel=1e-4)
    assert float(found["accuracy"]) == pytest.approx(right / words)


def test_a_grammar_is_learned_and_what_follows_nothing_is_not():
    """The second word follows from the first; the first is one of four."""
    model = tiny_model()
    studies = [study(n, ("report",)) for n in range(8)]
    for n, one in enumerate(studies):
        one["inputs"]["report"] = torch.tensor([2, 10 + n % 4, 20 + n % 4, 3])
    objective = CausalLanguageModelling(model)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
    for _ in range(100):
        optimiser.zero_grad()
        answer = objective(Step(model, batch_of(studies)))
        answer["loss"].backward()
        optimiser.step()
    # log 4 for the first of three words, nothing for the others.
    assert float(answer["loss"].detach()) == pytest.approx(1.386 / 3, abs=0.08)


def test_gradient_reaches_the_text_encoder_and_no_other(model):
    objective = CausalLanguageModelling(model)
    model.zero_grad()
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    moved = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved == {"report"}


def test_only_a_text_encoder(model):
    with pytest.raises(ValueError, match="CausalLanguageModelling: the encoder of ct is ViT, no TextEncoder"):
        CausalLanguageModelling(model, modality="ct")
