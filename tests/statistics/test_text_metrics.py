"""Metrics of texts against sacrebleu, rouge-score and, for CIDEr-D, a table written out in numpy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from medssml.statistics.text_metrics import bleu, cider, finding_f1, rouge_l, words

VOCABULARY = "no small large pleural effusion nodule heart normal is seen the of right lung".split()


def texts(seed: int, count: int = 12) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    references = [" ".join(draw.choices(VOCABULARY, k=draw.randint(4, 15))) for _ in range(count)]
    written = []
    for text in references:
        kept = [w if draw.random() < 0.75 else draw.choice(VOCABULARY) for w in text.split()]
        written.append(" ".join(kept[: draw.randint(3, len(kept) + 1)]))
    return written, references


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_that_of_sacrebleu(seed):
    sacrebleu = pytest.importorskip("sacrebleu")
    written, references = texts(seed)
    expected = sacrebleu.corpus_bleu(written, [references], tokenize="none", force=True, smooth_method="none").score
    assert 100 * bleu(written, references) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_rouge_l_is_that_of_rouge_score(seed):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    written, references = texts(seed)
    expected = np.mean([scorer.score(r, w)["rougeL"].fmeasure for w, r in zip(written, references, strict=True)])
    assert rouge_l(written, references) == pytest.approx(float(expected), rel=1e-9)


def cider_reference(written: list[str], references: list[str]) -> float:
    """As vectors over all n-grams."""

    def grams(text: str, n: int) -> list[str]:
        parts = text.split()
        return [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]

    scores = []
    for one, other in zip(written, references, strict=True):
        of_n = []
        for n in (1, 2, 3, 4):
            index = sorted({g for text in (*written, *references) for g in grams(text, n)})
            df = np.array([max(1, sum(g in grams(text, n) for text in references)) for g in index])
            a, b = (
                np.array([grams(t, n).count(g) for g in index]) * np.log(len(references) / df) for t in (one, other)
            )
            norm = np.linalg.norm(a) * np.linalg.norm(b)
            of_n.append(np.minimum(a, b) @ b / norm if norm > 0 else 0.0)
        difference = len(one.split()) - len(other.split())
        scores.append(10 * np.mean(of_n) * np.exp(-(difference**2) / 72))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(3))
def test_cider_is_the_clipped_cosine_of_tf_idf(seed):
    written, references = texts(seed)
    assert cider(written, references) == pytest.approx(cider_reference(written, references), rel=1e-9)


def test_what_is_said_in_every_reference_counts_nothing_in_cider():
    references = ["no effusion large heart is seen", "no effusion small nodule is seen"]
    assert cider(["no effusion", "no effusion"], references) == 0
    assert cider(references, references) == pytest.approx(10)


def test_equal_texts_are_best_and_empty_ones_worst():
    _, references = texts(7)
    assert bleu(references, references) == rouge_l(references, references) == pytest.approx(1)
    empty = [""] * len(references)
    assert bleu(empty, references) == rouge_l(empty, references) == cider(empty, references) == 0
    assert all(math.isnan(metric([], [])) for metric in (bleu, rouge_l, cider))
    assert words("No effusion, T12-L1.") == ["no", "effusion", "t12", "l1"]
    with pytest.raises(ValueError, match="1 texts were written, with 2 references"):
        bleu(["a"], ["a", "b"])


def test_findings_by_counting():
    written = [{"effusion": True, "nodule": False}, {"effusion": True}, {"nodule": True}, {}]
    references = [{"effusion": True}, {"effusion": False}, {"effusion": True, "nodule": True}, {"mass": False}]
    found = finding_f1(written, references)
    assert found["effusion"] == pytest.approx(2 * 1 / (2 + 2))  # one right, one too many, one missed
    assert found["nodule"] == 1 and math.isnan(found["mass"])
    assert found["micro"] == pytest.approx(2 * 2 / (3 + 3)) and found["macro"] == pytest.approx(0.75)
