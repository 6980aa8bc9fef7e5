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
