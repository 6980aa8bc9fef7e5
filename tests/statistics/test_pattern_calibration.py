"""Calibration per subset: what is right stays, what is too sure is tempered, and less is never answered more surely."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from medssml.statistics.pattern_calibration import MARGIN, Answers, PatternScaling, fitted, monotone

Array = np.ndarray


def bayes(count: int, seed: int, strength: tuple[float, ...] = (1.5, 1.0, 0.5), absent: float = 0.5) -> Answers:
    """Independent evidence of each modality: log odds that add up are the best answers, and right for every subset."""
    rng = np.random.default_rng(seed)
    size = len(strength)
    y = (rng.random(count) < 0.3).astype(float)
    s = np.array(strength)
    evidence = s * ((2 * y[:, None] - 1) * s / 2 + rng.normal(size=(count, size)))
    members = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    present = rng.random((count, size)) > absent
    present[~present.any(1), 0] = True
    return Answers(logit(0.3) + evidence @ members.T, y, present, np.ones(count))


def slope_off(scaling: PatternScaling, wanted: float) -> float:
    return float(np.abs(scaling.scale[1:] - wanted).max())


def test_answers_that_are_right_stay_as_they_are() -> None:
    found = fitted(bayes(20_000, 0))
    assert slope_off(found, 1.0) < 0.1 and np.abs(found.shift[1:]).max() < 0.15


def test_what_makes_answers_wrong_is_undone_for_each_subset() -> None:
    """The model doubles the logits of subsets with the second modality, and adds 1 to those with the third."""
    right = bayes(20_000, 1)
    members = (np.arange(8)[:, None] >> np.arange(3)) & 1
    factor, added = 1.0 + members[:, 1], 1.0 * members[:, 2]
    found = fitted(right._replace(logits=right.logits * factor + added))
    again = found(right.logits * factor + added)
    assert found.scale[1:] == pytest.approx(1 / factor[1:], rel=0.12)
    assert np.abs(expit(again[:, 1:]) - expit(right.logits[:, 1:])).mean() < 0.02


def test_one_subset_is_platt_scaling() -> None:
    """Two numbers by Newton's method on the penalised likelihood: the sum of three terms of variance 1/10 each."""
    rng = np.random.default_rng(3)
    y = (rng.random(400) < 0.4).astype(float)
    z = 3 * (2 * y - 1 + rng.normal(size=400))
    found = fitted(Answers(np.stack([np.zeros(400), z], 1), y, np.ones((400, 1), bool), np.ones(400)))

    def cost(a: float, b: float) -> float:
        u = np.exp(a) * z + b
        return float(np.sum(np.logaddexp(0, u) - y * u) + 10 / 3 / 2 * (a**2 + b**2))

    best = cost(np.log(found.scale[1]), found.shift[1, 0])
    near = [
        cost(np.log(found.scale[1]) + da, found.shift[1, 0] + db) for da, db in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02))
    ]  # fmt: skip
    assert best < min(near) and found.scale[1] < 0.7


def test_slopes_are_of_studies_that_were_not_learned_from_and_offsets_of_all() -> None:
    """Answers to what was learned are far too sure; they say how frequent the class is all the same."""
    held, learned = bayes(300, 4), bayes(6000, 5)
    found = fitted(held, learned._replace(logits=3 * learned.logits))
    alone = fitted(held)
    assert np.allclose(found.scale, alone.scale)
    shifted = fitted(held, learned._replace(logits=learned.logits + 1))
    assert shifted.shift[7, 0] < alone.shift[7, 0] - 0.4


def test_offsets_are_the_best_ones_under_the_slopes_of_the_held_out() -> None:
    """Answers to what was learned are three times too large: slopes that followed them would ask for other offsets."""
    held, learned = bayes(400, 15, (2.0,), 0.0), bayes(2000, 16, (2.0,), 0.0)
    learned = learned._replace(logits=3 * learned.logits + 1)
    found = fitted(held, learned)
    z, y = (np.concatenate(both) for both in ((held.logits[:, 1], learned.logits[:, 1]), (held.y, learned.y)))

    def cost(b: float) -> float:
        u = found.scale[1] * z + b
        return float(np.sum(np.logaddexp(0, u) - y * u) + 10 / 3 / 2 * b**2)

    b = found.shift[1, 0]
    assert cost(b) < min(cost(b - 0.03), cost(b + 0.03))


def test_few_studies_change_little_and_none_change_nothing() -> None:
    few = bayes(6, 6)
    found = fitted(few._replace(logits=few.logits * 5))
    assert slope_off(found, 1.0) < 0.7
    none = fitted(few._replace(y=np.full(6, np.nan)))
    assert np.array_equal(none.scale, np.ones(8)) and np.array_equal(none.shift, np.zeros((8, 1)))
    weightless = fitted(few._replace(weight=np.zeros(6)))
    assert np.array_equal(weightless.scale, np.ones(8))


def test_weights_count_as_so_many_studies() -> None:
    some = bayes(200, 7)
    some = some._replace(logits=some.logits * 2)
    twice = Answers(*(np.concatenate([part, part[:50]]) for part in some[:4]))
    weighed = some._replace(weight=np.r_[np.full(50, 2.0), np.ones(150)])
    for a, b in zip(fitted(twice), fitted(weighed), strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_balanced_takes_out_what_presence_says_of_the_label() -> None:
    """A modality is there for nine of ten of one class and three of ten of the other; answers as right as before stay."""
    right = bayes(20_000, 12, absent=0.0)
    rng = np.random.default_rng(13)
    share = np.where(right.y == 1, 0.9, 0.3)
    present = rng.random((20_000, 3)) < share[:, None]
    kept = present.any(1)
    some = Answers(right.logits[kept], right.y[kept], present[kept], np.ones(int(kept.sum())))
    plain, balanced = fitted(some), fitted(some, balanced=True)
    assert plain.shift[7, 0] > 1
    # Studies with nothing, mostly of one class, are not there: the classes are as frequent as among those that are.
    prior = logit(some.y.mean()) - logit(0.3)
    assert np.abs(balanced.shift[1:, 0] - prior).max() < 0.25 and slope_off(balanced, 1.0) < 0.15


def test_a_subset_in_which_a_class_is_rare_counts_as_few_studies() -> None:
    """Of a thousand complete studies two are healthy, and answered as sick: that says little of complete healthy studies."""
    rng = np.random.default_rng(14)
    y = np.r_[np.zeros(1000), np.ones(1000)]
    complete = np.r_[np.ones(2), np.zeros(998), np.ones(998), np.zeros(2)].astype(bool)
    z = np.where(y == 1, 1.0, -1.0)[:, None] + rng.normal(size=(2000, 4))
    z[:2] = 3.0
    present = np.stack([np.ones(2000, bool), complete], 1)
    some = Answers(z, y, present, np.ones(2000))
    found = fitted(some, balanced=True)
    assert abs(found.shift[3, 0]) < 0.25 and found.scale[3] > 0.45


def test_classes_are_scaled_together_and_shifted_apart() -> None:
    rng = np.random.default_rng(8)
    right = np.cumsum(rng.normal(size=(20_000, 4, 3)), axis=1)
    p = softmax(right[:, 3], axis=1)
    y = np.array([rng.choice(3, p=row) for row in p]).astype(float)
    wrong = right * 2 + np.array([0.0, 1.0, 0.0])
    present = np.ones((20_000, 2), bool)
    found = fitted(Answers(wrong, y, present, np.ones(20_000)))
    assert softmax(found(wrong)[:, 3], axis=1) == pytest.approx(p, abs=0.05)


def confidence(logits: Array) -> float:
    return float(np.maximum(expit(logits), 1 - expit(logits)).mean())


def test_less_is_never_answered_more_surely_and_no_order_changes() -> None:
    """The first modality alone is answered three times as surely as it should be."""
    answers = bayes(2000, 9)
    wrong = answers.logits.copy()
    wrong[:, 1] *= 3
    same = PatternScaling(np.ones(8), np.zeros((8, 1)))
    found = monotone(same, [answers._replace(logits=wrong)])
    out = found(wrong)
    full = answers.present @ (1 << np.arange(3))
    for more in range(1, 8):
        for less in (more & ~1, more & ~2, more & ~4):
            if less in (0, more):
                continue
            rows = (full & more) == more
            assert confidence(out[rows, more]) - confidence(out[rows, less]) > MARGIN - 1e-3, (more, less)
    assert all((np.argsort(out[:, s]) == np.argsort(wrong[:, s])).all() for s in range(1, 8))
    assert found.scale[6] == 1, "a subset beside it stays"
    assert found.scale[1] < 1 < found.scale[7], "both ends move: the least changes"


def test_confidence_that_falls_already_stays_as_it_is() -> None:
    answers = bayes(2000, 10, (2.0, 1.5, 1.2))
    same = PatternScaling(np.full(8, 1.0), np.zeros((8, 1)))
    assert np.array_equal(monotone(same, [answers]).scale, same.scale)


def test_a_modality_that_says_nothing_makes_answers_surer_by_the_margin_alone() -> None:
    rng = np.random.default_rng(11)
    y = (rng.random(1000) < 0.5).astype(float)
    z = 2 * y - 1 + rng.normal(size=1000)
    noise = rng.normal(size=1000) * 0.1
    logits = np.stack([np.zeros(1000), z, noise, z], 1)
    same = PatternScaling(np.ones(4), np.zeros((4, 1)))
    out = monotone(same, [Answers(logits, y, np.ones((1000, 2), bool), np.ones(1000))])(logits)
    assert confidence(out[:, 3]) - confidence(out[:, 1]) == pytest.approx(MARGIN, abs=1e-4)


def test_answers_that_never_differ_from_a_half_stay() -> None:
    logits = np.zeros((10, 4))
    same = PatternScaling(np.ones(4), np.zeros((4, 1)))
    found = monotone(same, [Answers(logits, np.zeros(10), np.ones((10, 2), bool), np.ones(10))])
    assert np.isfinite(found(logits)).all()
