import math

import pytest
import torch

from medssml.losses import token_contrast, word_region_similarity


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def softmax(values):
    total = sum(math.exp(v) for v in values)
    return [math.exp(v) / total for v in values]


def gloria_by_hand(v, w, attend, match):
    """Z of one image (R, D) and one text (T, D), as lists."""
    scores = [[dot(region, word) for word in w] for region in v]
    over_words = [softmax(row) for row in scores]
    total = 0.0
    for t, word in enumerate(w):
        a = softmax([attend * over_words[r][t] for r in range(len(v))])
        c = [sum(a[r] * v[r][d] for r in range(len(v))) for d in range(len(word))]
        cosine = dot(c, word) / math.sqrt(dot(c, c) * dot(word, word))
        total += math.exp(match * cosine)
    return math.log(total)


def test_each_word_reads_the_image_and_padding_is_no_word_and_no_region():
    v, w = drawn(2, 4, 3), drawn(3, 5, 3, seed=1)
    v_mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    w_mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]).bool()
    poisoned = [torch.where(mask[..., None], x, torch.nan) for x, mask in ((v, v_mask), (w, w_mask))]
    found = word_region_similarity(*poisoned, v_mask, w_mask, attend=4.0, match=5.0)
    for i in range(2):
        for j in range(3):
            expected = gloria_by_hand(v[i][v_mask[i]].tolist(), w[j][w_mask[j]].tolist(), 4.0, 5.0)
            assert found[i, j].item() == pytest.approx(expected, rel=1e-9)


def test_token_contrast_is_within_a_study_and_its_padding_is_no_negative():
    """The defect of the released MGCA: [PAD] words stay negatives of every word."""
    a, b = (torch.nn.functional.normalize(x, dim=-1) for x in (drawn(2, 4, 3), drawn(2, 5, 3, seed=1)))
    a_mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    b_mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    found, several = token_contrast(torch.where(a_mask[..., None], a, torch.nan), b, a_mask, b_mask, temperature=0.5)
    words, patches = a[0][:3].tolist(), b[0][:4].tolist()
    seen = []
    for word in words:
        attention = softmax([dot(word, patch) / 0.5 for patch in patches])
        o = [sum(x * patch[d] for x, patch in zip(attention, patches, strict=True)) for d in range(3)]
        seen.append([x / math.sqrt(dot(o, o)) for x in o])
    terms = []
    for t in range(3):
        by_word = softmax([dot(words[t], o) / 0.5 for o in seen])[t]
        by_seen = softmax([dot(word, seen[t]) / 0.5 for word in words])[t]
        terms.append(-(math.log(by_word) + math.log(by_seen)) / 2)
    assert found[0].item() == pytest.approx(sum(terms) / 3, rel=1e-9)
    assert several.tolist() == [True, False] and found[1] == 0


def test_gradients_are_finite_with_padding_and_single_tokens():
    a, b = drawn(2, 4, 3).requires_grad_(), drawn(2, 5, 3, seed=1).requires_grad_()
    a_mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    total = token_contrast(a, b, a_mask, torch.ones(2, 5).bool(), temperature=0.1)[0].sum()
    total = total + word_region_similarity(a, b, a_mask, torch.ones(2, 5).bool(), attend=4.0, match=5.0).sum()
    total.backward()
    assert torch.isfinite(a.grad).all() and torch.isfinite(b.grad).all()
    assert not a.grad[~a_mask].any()
