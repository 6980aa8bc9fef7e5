"""The decoder that writes: beam search against all texts that there are."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from medssml.decoders import ReportDecoder

START, END, PAD, LONGEST = 2, 3, 0, 5


@pytest.fixture
def decoder() -> ReportDecoder:
    torch.manual_seed(4)
    made = ReportDecoder(6, 8, dim=16, depth=1, heads=2, max_length=LONGEST).eval()
    with torch.no_grad():
        made.words.weight.mul_(14)  # sharp: the likeliest next word is not that of the likeliest text
    return made


def every_text() -> list[list[int]]:
    """All texts of at most LONGEST tokens: words until the end, or as many as fit."""
    out = []
    for length in range(1, LONGEST):
        for words in product(range(6), repeat=length - 1):
            if END not in words:
                out.append([START, *words, END])
                if length == LONGEST - 1:
                    out += [[START, *words, word] for word in range(6) if word != END]
    return out


def log_p(decoder: ReportDecoder, text: list[int], tokens: torch.Tensor, mask: torch.Tensor) -> float:
    ids = torch.tensor(text)
    logits = decoder(ids[None, :-1], tokens, mask)[0].log_softmax(-1)
    return float(logits[torch.arange(len(ids) - 1), ids[1:]].sum())


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_beams_enough_the_likeliest_text_of_all_is_found(decoder, penalty):
    tokens, mask = torch.randn(3, 4, 8), torch.ones(3, 4, dtype=torch.bool)
    mask[1, 2:] = False
    found = decoder.write(tokens, mask, beams=1300, length_penalty=penalty)
    assert len(every_text()) == len({tuple(text) for text in every_text()})
    for row in range(3):
        shown = tokens[row : row + 1], mask[row : row + 1]
        with torch.no_grad():
            scores = {tuple(t): log_p(decoder, t, *shown) / (len(t) - 1) ** penalty for t in every_text()}
        written = found[row].tolist()
        written = written[: written.index(END) + 1] if END in written else written
        assert scores[tuple(written)] == pytest.approx(max(scores.values()), abs=1e-4)


def test_more_beams_are_never_less_likely_and_one_is_greedy(decoder):
    tokens, mask = torch.randn(8, 4, 8, generator=torch.Generator().manual_seed(1)), torch.ones(8, 4, dtype=torch.bool)

    def total(beams: int) -> float:
        texts = decoder.write(tokens, mask, beams=beams, length_penalty=0.0).tolist()
        cut = [text[: text.index(END) + 1] if END in text else text for text in texts]
        return sum(log_p(decoder, t, tokens[i : i + 1], mask[i : i + 1]) for i, t in enumerate(cut))

    with torch.no_grad():
        assert total(1) < total(4) <= total(1300) + 1e-4
    with pytest.raises(ValueError, match="beams is 0"):
        decoder.write(tokens, mask, beams=0)


def test_after_the_end_there_is_padding_and_company_changes_nothing(decoder):
    tokens, mask = torch.randn(4, 3, 8), torch.ones(4, 3, dtype=torch.bool)
    for beams in (1, 3):
        together = decoder.write(tokens, mask, beams=beams)
        for row, text in enumerate(together.tolist()):
            if END in text:
                assert set(text[text.index(END) + 1 :]) <= {PAD}
            alone = decoder.write(tokens[row : row + 1], mask[row : row + 1], beams=beams)[0].tolist()
            assert text[: len(alone)] == alone
    assert decoder.write(tokens[:0], mask[:0], beams=3).shape[0] == 0


def test_what_is_shown_is_weighed_against_knowing_nothing(decoder):
    """The learned token is attended to beside the others: moving it moves the words, and where nothing is shown it is all."""
    tokens, mask = torch.randn(2, 3, 8), torch.tensor([[True, True, False], [False, False, False]])
    ids = torch.tensor([[START, 4], [START, 4]])
    with torch.no_grad():
        before = decoder(ids, tokens, mask)
        for shown, there in ((tokens[1:] + 9, mask[1:]), (tokens[1:, :0], mask[1:, :0])):
            torch.testing.assert_close(decoder(ids[1:], shown, there), before[1:])
        decoder.nothing.add_(3.0)
        after = decoder(ids, tokens, mask)
    assert bool(before.isfinite().all())
    assert all(not torch.allclose(a, b) for a, b in zip(after, before, strict=True))


def test_drafts_come_as_often_as_they_are_likely(decoder):
    with torch.no_grad():
        decoder.words.weight.mul_(0.3)
    tokens, mask, count = torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool), 4000
    drafts = decoder.draft(tokens, mask, count, seed=1)
    for row in range(2):
        texts = [text[: text.index(END) + 1] if END in text else text for text in drafts[row].tolist()]
        with torch.no_grad():
            first = decoder(torch.tensor([[START]]), tokens[row : row + 1], mask[row : row + 1])[0, -1].softmax(-1)
        for word in range(6):
            # Spread evenly over the first word: an interval of shares holds so many texts, but for its two ends.
            assert abs(sum(text[1] == word for text in texts) - count * float(first[word])) <= 2
        for text in sorted(map(tuple, texts))[:: count // 7]:
            with torch.no_grad():
                p = float(torch.tensor(log_p(decoder, list(text), tokens[row : row + 1], mask[row : row + 1])).exp())
            assert sum(tuple(t) == text for t in texts) / count == pytest.approx(p, abs=4 * (p / count) ** 0.5 + 1e-3)


def test_drafts_of_a_study_do_not_depend_on_company_and_a_seed_draws_others(decoder):
    tokens, mask = torch.randn(5, 3, 8), torch.ones(5, 3, dtype=torch.bool)
    together = decoder.draft(tokens, mask, 3)
    assert together.shape[:2] == (5, 3) and bool((together[..., 0] == START).all())
    for row in range(5):
        alone = decoder.draft(tokens[row : row + 1], mask[row : row + 1], 3)[0]
        assert torch.equal(together[row, :, : alone.shape[1]], alone)
        assert set(together[row, :, alone.shape[1] :].flatten().tolist()) <= {PAD}
    assert not torch.equal(decoder.draft(tokens, mask, 3, seed=1)[..., :2], together[..., :2])
    assert decoder.draft(tokens[:0], mask[:0], 3).shape[:2] == (0, 3)
    with pytest.raises(ValueError, match="drafts is 0"):
        decoder.draft(tokens, mask, 0)


def test_drafts_are_the_same_however_many_are_drawn_at_once(decoder, monkeypatch):
    tokens, mask = torch.randn(5, 3, 8), torch.ones(5, 3, dtype=torch.bool)
    whole = decoder.draft(tokens, mask, 4)
    monkeypatch.setattr("medssml.decoders.ROWS", 8)
    assert torch.equal(decoder.draft(tokens, mask, 4), whole)


def test_word_after_word_is_as_all_words_at_once(decoder):
    tokens, mask = torch.randn(3, 4, 8), torch.tensor([[True] * 4, [True, False, False, True], [False] * 4])
    ids = torch.tensor([[START, 4, 1, 5], [START, 5, 5, 1], [START, 1, 4, 4]])
    with torch.no_grad():
        expected, text = decoder(ids, tokens, mask), decoder.started(tokens, mask)
        for place in range(4):
            torch.testing.assert_close(text.next(ids[:, place]), expected[:, place], rtol=1e-4, atol=1e-4)


def test_tokens_are_read_without_what_those_of_their_modality_share():
    torch.manual_seed(0)
    decoder = ReportDecoder(6, 8, dim=16, depth=1, heads=2, max_length=LONGEST, slots=3).eval()
    tokens, ids = torch.randn(40, 3, 8), torch.tensor([[START, 4, 5]]).expand(40, 3)
    mask = torch.ones(40, 3, dtype=torch.bool)
    mask[::2, 0], mask[:, 2] = False, False
    shown = torch.where(mask.unsqueeze(-1), tokens, torch.nan)  # nothing is read of what is not there
    before = decoder(ids, tokens, mask)
    torch.testing.assert_close(before, decoder(ids, shown, mask))  # as they are at first
    decoder.observe([(shown[:10], mask[:10]), (shown[10:], mask[10:])])
    for slot in (0, 1):
        torch.testing.assert_close(decoder.mean[slot], tokens[mask[:, slot], slot].mean(0))
    assert decoder.mean[2].tolist() == [0] * 8  # no token

    once = decoder(ids, tokens, mask)
    assert not torch.allclose(once, before, atol=1e-4)
    moved = tokens.clone()
    moved[:, 1] += 80
    decoder.observe([(moved, mask)])
    torch.testing.assert_close(decoder(ids, moved, mask), once, rtol=1e-3, atol=1e-4)


def test_one_slot_is_for_all_tokens():
    decoder = ReportDecoder(6, 8, dim=16, depth=1, heads=2, max_length=LONGEST).eval()
    tokens = torch.randn(20, 4, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(20, 4, dtype=torch.bool)
    mask[:5, 1:] = False
    decoder.observe([(tokens[:6], mask[:6]), (tokens[6:, :2], mask[6:, :2])])
    seen = torch.cat([tokens[:6][mask[:6]], tokens[6:, :2].flatten(0, 1)])
    torch.testing.assert_close(decoder.mean[0], seen.mean(0))


def test_a_slot_that_is_not_read_is_as_one_that_is_not_there():
    torch.manual_seed(0)
    decoder = ReportDecoder(6, 8, dim=16, depth=1, heads=2, max_length=LONGEST, slots=3, unread=[1]).eval()
    tokens, ids = torch.randn(5, 3, 8), torch.tensor([[START, 4, 5]]).expand(5, 3)
    mask = torch.ones(5, 3, dtype=torch.bool)
    without = mask.clone()
    without[:, 1] = False
    torch.testing.assert_close(decoder(ids, tokens, mask), decoder(ids, tokens, without))
    torch.testing.assert_close(decoder.write(tokens, mask), decoder.write(tokens, without))
    assert mask.all()  # of whoever asks
    decoder.unread = []
    assert not torch.allclose(decoder(ids, tokens, mask), decoder(ids, tokens, without), atol=1e-4)
