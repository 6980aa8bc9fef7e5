import pytest
import torch
from torch.nn import functional as F

from medssml.objectives import MaskedLanguageModelling, Step
from tests.examples import VOCABULARY, batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.fixture
def objective(model):
    torch.manual_seed(0)
    return MaskedLanguageModelling(model)


def long_reports(n=400, words=100):
    ids = torch.randint(6, VOCABULARY, (n, words + 2), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids, torch.ones_like(ids), torch.arange(n)


def test_fifteen_percent_of_the_words_in_the_proportions_of_bert(objective):
    ids, mask, keys = long_reports()
    shown, asked = objective.corrupt(ids, mask, keys)
    assert (asked.sum(1) == 15).all()
    masked = (shown == 4) & asked
    kept = (shown == ids) & asked
    total = asked.sum().item()
    assert masked.sum().item() / total == pytest.approx(0.8, abs=0.02)
    assert kept.sum().item() / total == pytest.approx(0.1 + 0.1 / 35, abs=0.02)  # a random word may be the word
    assert torch.equal(shown[~asked], ids[~asked])


def test_random_words_are_words_and_all_of_them(objective):
    ids, mask, keys = long_reports()
    shown, asked = objective.corrupt(ids, mask, keys)
    random = shown[asked & (shown != 4) & (shown != ids)]
    assert set(random.tolist()) == set(range(6, VOCABULARY))


def test_special_tokens_and_padding_are_never_asked_for(objective):
    ids = torch.tensor([[2, 7, 8, 3, 0, 0], [2, 3, 0, 0, 0, 0], [2, 1, 9, 9, 9, 3]])
    mask = (ids != 0).long()
    for key in range(50):
        shown, asked = objective.corrupt(ids, mask, torch.tensor([key, key, key]))
        assert asked.sum(1).tolist() == [1, 0, 1]
        assert not (asked & (ids < 5)).any()
        assert torch.equal(shown[ids < 5], ids[ids < 5])


def test_draw_does_not_depend_on_padding(objective):
    ids, mask, keys = long_reports(8, 20)
    shown, _ = objective.corrupt(ids, mask, keys)
    wide, _ = objective.corrupt(F.pad(ids, (0, 9)), F.pad(mask, (0, 9)), keys)
    assert torch.equal(wide[:, :22], shown)


def test_whole_words_are_asked_for_with_all_their_pieces(model):
    objective = MaskedLanguageModelling(model, whole_words=True)
    ids, mask, keys = long_reports(400, 99)
    words = torch.zeros_like(ids)
    words[:, 1:-1] = torch.arange(99) // 3 + 1  # 33 words of three pieces
    shown, asked = objective.corrupt(ids, mask, keys, words=words)
    of_word = asked[:, 1:-1].reshape(400, 33, 3)
    assert torch.equal(of_word.any(2), of_word.all(2))
    assert (of_word.all(2).sum(1) == 5).all()  # 15 % of 33
    assert of_word.all(2).float().mean(0) == pytest.approx(torch.full((33,), 5 / 33), abs=0.08)
    masked = ((shown == 4) & asked)[:, 1:-1].reshape(400, 33, 3)
    split = masked.any(2) & ~masked.all(2)
    assert bool(split.any()), "each piece by a draw of its own"
    assert (masked.sum() / asked.sum()).item() == pytest.approx(0.8, abs=0.02)


def test_a_word_number_without_a_maskable_token_counts_for_nothing(model):
    """A removed name has a number of its own and is never asked for; the words after it keep theirs."""
    objective = MaskedLanguageModelling(model, whole_words=True, mask_ratio=0.5)
    ids, words = torch.tensor([[2, 5, 7, 8, 9, 3]]), torch.tensor([[0, 1, 2, 2, 3, 0]])
    found = {
        tuple(objective.corrupt(ids, (ids > 0).long(), torch.tensor([k]), words=words).asked[0].tolist())
        for k in range(40)
    }
    assert found == {(False, False, True, True, False, False), (False, False, False, False, True, False)}


def test_whole_words_need_to_know_the_words(model):
    objective = MaskedLanguageModelling(model, whole_words=True)
    batch = batch_of([study(n, ("report",)) for n in range(3)])
    with pytest.raises(ValueError, match="which token is of which word; fix: Tokenized"):
        objective(Step(model, batch))
    report = batch.inputs["report"]
    report["word"] = torch.where(report["input_ids"] > 5, (torch.arange(report["input_ids"].shape[1]) + 1) // 2, 0)
    assert bool(objective(Step(model, batch))["loss"].isfinite())


def test_loss_is_the_cross_entropy_of_the_asked_tokens(model, objective):
    batch = batch_of(ten_studies())
    ids, mask = batch.inputs["report"]["input_ids"], batch.inputs["report"]["attention_mask"]
    shown, asked = objective.corrupt(ids, mask, batch.key[batch.rows("report")])
    encoder = model.encoders["report"]
    tokens = encoder({"input_ids": shown, "attention_mask": mask}).tokens
    logits = objective.transform(tokens) @ encoder.bert.embeddings.word_embeddings.weight.T + objective.bias
    expected = -logits.log_softmax(-1).gather(2, ids[..., None]).squeeze(2)[asked].mean()
    torch.testing.assert_close(objective(Step(model, batch))["loss"], expected)


def test_gradient_reaches_the_text_encoder_and_no_other(model, objective):
    model.zero_grad()
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None} == {"report"}
    model.zero_grad()


def test_reports_without_a_word_are_nothing_to_learn_from(model, objective):
    empty = study(0, ("report",))
    empty["inputs"]["report"] = torch.tensor([2, 3])
    assert objective(Step(model, batch_of([empty]))) is None


def test_only_a_text_encoder(model):
    with pytest.raises(ValueError, match="the encoder of ct is ViT, no TextEncoder"):
        MaskedLanguageModelling(model, modality="ct")


def test_with_context_the_gradient_reaches_the_other_modalities_that_are_there(model):
    torch.manual_seed(0)
    model.zero_grad()
    objective = MaskedLanguageModelling(model, context=["ct", "xray"])
    objective(Step(model, batch_of(ten_studies())))["loss"].backward()
    reached = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"report", "ct", "xray"}
    model.zero_grad()


def test_context_of_one_study_moves_no_other_and_absent_context_adds_nothing(model):
    torch.manual_seed(0)
    with_ct, alone = study(0, ["ct", "report"]), study(5, ["report"])  # six words each, one asked for
    objective = MaskedLanguageModelling(model, context=["ct"]).eval()
    both = objective(Step(model, batch_of([with_ct, alone])))["loss"]
    apart = [objective(Step(model, batch_of([one])))["loss"] for one in (with_ct, alone)]
    torch.testing.assert_close(both, torch.stack(apart).mean())


def test_a_report_cannot_be_its_own_context(model):
    with pytest.raises(ValueError, match="its own context"):
        MaskedLanguageModelling(model, context=["report"])
