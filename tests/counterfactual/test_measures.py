"""Every measure by its closed form on answers that are written down by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from medssml.counterfactual.impact import measure_impact
from medssml.counterfactual.measure import SWAPPED, VALUES, Answers, Measure
from medssml.counterfactual.measures import (
    MEASURES,
    Interaction,
    InteractionShare,
    Necessity,
    PerformanceDrop,
    PerformanceShapley,
    ShapleyValue,
    Sufficiency,
    Swap,
)
from medssml.counterfactual.summary import Resampling
from medssml.counterfactual.values import Value

Array = np.ndarray
#: Two modalities: v(none), v(a), v(b), v(ab).
GAME = (0.1, 0.4, 0.3, 0.9)
AB = ("a", "b")
NAN = float("nan")


def answers(
    values: object = (GAME,),
    has: object = None,
    *,
    y: object = None,
    scores: object = None,
    swapped: object = None,
    error: object = 0.0,
    kind: str = "binary",
) -> Answers:
    v = np.array(values, dtype=float)
    count, players = len(v), v.shape[1].bit_length() - 1
    have = np.ones((count, players), dtype=bool) if has is None else np.array(has, dtype=bool)
    return Answers(
        Value(kind, "positive", np.ones(count)),
        have,
        v,
        np.broadcast_to(np.array(error, dtype=float), (count,)),
        np.full((count, players, 2), np.nan) if swapped is None else np.array(swapped, dtype=float),
        v if scores is None else np.array(scores, dtype=float),
        np.full(count, np.nan) if y is None else np.array(y, dtype=float),
    )


@pytest.mark.parametrize(
    ("measure", "expected"),
    [(ShapleyValue(), (0.45, 0.35)), (Necessity(), (0.6, 0.5)), (Sufficiency(), (0.3, 0.2))],
    ids=["shapley", "necessity", "sufficiency"],
)
def test_two_modalities_by_hand(measure: Measure, expected: tuple[float, float]) -> None:
    np.testing.assert_allclose(measure(answers()), [expected])
    lacks_b = answers([(0.1, 0.4, 0.1, 0.4)], [(True, False)])
    np.testing.assert_allclose(measure(lacks_b), [(0.3, NAN)])


def test_three_modalities_by_all_orders_of_arrival() -> None:
    values = np.random.default_rng(0).normal(size=(4, 8))
    expected = np.zeros((4, 3))
    for order in permutations(range(3)):
        held = 0
        for player in order:
            expected[:, player] += (values[:, held | 1 << player] - values[:, held]) / 6
            held |= 1 << player
    np.testing.assert_allclose(ShapleyValue()(answers(values)), expected)
    np.testing.assert_allclose(Necessity()(answers(values))[:, 1], values[:, 7] - values[:, 5])
    np.testing.assert_allclose(Sufficiency()(answers(values))[:, 2], values[:, 4] - values[:, 0])


def test_the_interaction_is_what_the_pair_adds_together() -> None:
    found = Interaction()(answers([GAME, (0.1, 0.4, 0.1, 0.4)], [(True, True), (True, False)]))
    assert found[0, 0, 1] == pytest.approx(0.9 - 0.4 - 0.3 + 0.1) and found[0, 1, 0] == found[0, 0, 1]
    assert np.isnan(found[1, 0, 1])
    # Of three: half of it with, half without the third.
    v = np.random.default_rng(1).normal(size=8)
    with_third, without = v[7] - v[5] - v[6] + v[4], v[3] - v[1] - v[2] + v[0]
    assert Interaction()(answers([v]))[0, 0, 1] == pytest.approx((with_third + without) / 2)


def test_the_share_of_interaction_in_both_orders() -> None:
    share, once = InteractionShare(), np.ones((1, 1))
    # Half of 0.3 on either side; 0.3 and 0.2 are the modalities' own.
    assert share(answers(), once, "mean_of_abs") == pytest.approx(0.3 / 0.8)
    # The second study has the opposite interaction and the same own parts: it cancels in the mean of the first order only.
    opposite = answers([GAME, (0.1, 0.7, 0.6, 0.9)])
    both = np.ones((1, 2))
    assert share(opposite, both, "abs_of_mean") == pytest.approx(0, abs=1e-12)
    assert share(opposite, both, "mean_of_abs") == pytest.approx(0.3 / (0.3 + (0.3 + 0.6 + 0.2 + 0.5) / 2))
    weights = np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(share(opposite, weights, "abs_of_mean"), [0.375, 0.375, 0], atol=1e-12)
    named = {(f.of, f.place) for f in share.findings([answers()], AB, Resampling(np.arange(1), n=2))}
    assert named == {(order, ("interaction_share", order)) for order in ("mean_of_abs", "abs_of_mean")}


def test_the_swap_is_the_mean_over_donors_and_its_error_that_of_their_number() -> None:
    swapped = np.array([[[0.5, 0.7, 0.3], [NAN] * 3], [[0.9, 0.9, 0.9], [0.8, 0.9, 1.0]]])
    given = answers([GAME, GAME], swapped=swapped)
    np.testing.assert_allclose(Swap()(given), [(0.4, NAN), (0.0, 0.0)], atol=1e-12)
    columns = Swap().columns([given, given])
    np.testing.assert_allclose(columns["swap"], Swap()(given), atol=1e-12)
    np.testing.assert_allclose(columns["swap_low"][:, 0], [np.quantile([0.4, 0.2, 0.6], 0.025), 0], atol=1e-12)
    np.testing.assert_allclose(columns["swap_high"][:, 0], [np.quantile([0.4, 0.2, 0.6], 0.975), 0], atol=1e-12)
    # sd 0.2 over 3 donors in one study of two, none in the other: sqrt(0.2^2 / 3) / 2.
    assert Swap().further([given], 0)["swap_error"] == pytest.approx(0.2 / np.sqrt(3) / 2)
    assert Swap().further([given], 1)["swap_error"] == pytest.approx(0.1 / np.sqrt(3))
    assert Swap().further([given, given], 0)["swap_error"] == pytest.approx(0.2 / np.sqrt(3) / 2 / np.sqrt(2))
    assert Swap().further([answers(swapped=[[[0.5], [0.5]]])], 0) == {"swap_error": None}
    assert Swap().further([answers()], 0) == {"swap_error": None}


def test_the_shapley_columns_have_the_range_of_several_models() -> None:
    one, other = answers(), answers([(0.1, 0.4, 0.3, 1.1)])
    columns = ShapleyValue().columns([one, other])
    np.testing.assert_allclose(columns["shapley"], [(0.5, 0.4)])
    np.testing.assert_allclose(columns["shapley_low"], [(0.45, 0.35)])
    np.testing.assert_allclose(columns["shapley_high"], [(0.55, 0.45)])
    assert np.isnan(ShapleyValue().columns([one])["shapley_low"]).all()
    assert Interaction().columns([one]) == {}, "a pair has no row in impact.csv"


#: a orders 3 of the 4 pairs rightly, b none, both together all of them; the fifth has no b, the last no label.
Y = (0, 0, 1, 1, 1, NAN)
SCORES = np.array(
    [
        # none, a, b, ab
        (0.5, 0.1, 0.9, 0.1),
        (0.5, 0.6, 0.8, 0.2),
        (0.5, 0.5, 0.2, 0.8),
        (0.5, 0.7, 0.1, 0.9),
        (0.85, 0.8, 0.5, 0.8),
        (0.5, 0.0, 0.0, 0.0),
    ]
)
HAS = np.array([(1, 1)] * 4 + [(1, 0), (1, 1)], dtype=bool)


def test_the_drop_in_quality_is_that_of_the_auroc() -> None:
    given = answers(SCORES, HAS, y=Y, scores=SCORES)
    drop, once = PerformanceDrop(), np.ones((1, 5))
    inside = given.within(np.isfinite(given.y))
    # With all that is there the order is right; without b, one pair of six is not.
    assert drop(inside, once, 1) == pytest.approx(1 - 5 / 6)
    found = {f.of: f for f in drop.findings([given], AB, Resampling(np.arange(6), n=20))}
    assert found["b"].interval.estimate == pytest.approx(1 - 3 / 4) and found["b"].interval.n == 4
    assert found["a"].interval.n == 5 and found["a"].place == ("modalities", "a", "performance_drop")
    assert found["a"].interval.estimate == pytest.approx(1 - 1 / 6), "left with nothing, it is above one of two"
    nobody = answers(SCORES, HAS & [True, False], y=Y, scores=SCORES)
    assert [f.of for f in drop.findings([nobody], AB, Resampling(np.arange(6), n=20))] == ["a"]
    one_class = answers(SCORES, HAS, y=np.ones(6), scores=SCORES)
    refused = drop.findings([one_class], AB, Resampling(np.arange(6), n=20))[0].interval
    assert refused.estimate is None and refused.reason == "all 6 labelled studies are of one class"


def test_the_shares_of_quality_sum_to_the_quality_above_guessing() -> None:
    given = answers(SCORES, HAS, y=Y, scores=SCORES)
    found = PerformanceShapley().findings([given], AB, Resampling(np.arange(6), n=20))
    place = {f.place: f.interval for f in found}
    # Complete: A(a) = 3/4, A(b) = 0, A(ab) = 1, A(none) = 1/2.
    a, b = place["performance", "shapley", "a"], place["performance", "shapley", "b"]
    assert a.estimate == pytest.approx((1 / 4 + 1) / 2) and b.estimate == pytest.approx((-1 / 2 + 1 / 4) / 2)
    assert a.n == 4 and place["performance", "shapley_observed", "a"].n == 5
    assert {f.quantity for f in found} == {"performance_shapley", "performance_shapley_observed"}
    # Of a modality that no labelled study has, nothing is said, and it makes no study incomplete.
    without = answers(SCORES, HAS & [True, False], y=Y, scores=SCORES)
    found = PerformanceShapley().findings([without], AB, Resampling(np.arange(6), n=20))
    assert {f.of for f in found} == {"a"} and {f.interval.n for f in found} == {5}


def test_a_mean_is_over_the_studies_that_have_it_and_says_where_it_stands() -> None:
    given = answers([GAME, (0.1, 0.5, 0.1, 0.5), (0.1, 0.0, 0.1, 0.0)], [(True, True), (True, False), (True, False)])
    found = {(f.quantity, f.of): f for f in Sufficiency().findings([given], AB, Resampling(np.arange(3), n=20))}
    assert found["sufficiency", "a"].interval.estimate == pytest.approx((0.3 + 0.4 - 0.1) / 3)
    assert found["sufficiency_abs", "a"].interval.estimate == pytest.approx((0.3 + 0.4 + 0.1) / 3)
    assert found["sufficiency", "b"].interval.n == 1
    assert found["sufficiency_abs", "b"].place == ("modalities", "b", "sufficiency_abs")
    pair = Interaction().findings([given], AB, Resampling(np.arange(3), n=20))
    assert [(f.of, f.place) for f in pair] == [
        ("a,b", ("interactions", "a,b")), ("a,b", ("interactions", "a,b", "mean_abs")),
    ]  # fmt: skip
    absent = answers([(0.1, 0.4, 0.1, 0.4)], [(True, False)])
    assert [f.of for f in Sufficiency().findings([absent], AB, Resampling(np.arange(1), n=2))] == ["a", "a"]
    assert Interaction().findings([absent], AB, Resampling(np.arange(1), n=2)) == []


@pytest.mark.parametrize(
    ("measure", "moves"),
    [(ShapleyValue(), (-0.005, -0.005)), (Sufficiency(), (-0.01, -0.01)), (Necessity(), (0.0, 0.0))],
    ids=["shapley", "sufficiency", "necessity"],
)
def test_what_nothing_is_worth_is_an_estimate_and_moves_what_rests_on_it(
    measure: Measure, moves: tuple[float, float]
) -> None:
    given = answers(error=0.01)
    np.testing.assert_allclose(measure(given.with_larger_empty()) - measure(given), [moves], atol=1e-12)
    # A study of one modality is left with nothing once it is gone.
    alone = answers([(0.1, 0.4, 0.1, 0.4)], [(True, False)], error=0.01)
    np.testing.assert_allclose((measure(alone.with_larger_empty()) - measure(alone))[0, 0], -0.01)
    # The same studies twenty times: the interval's width is that of v(none) alone.
    many, how = answers([GAME] * 20, error=0.01), Resampling(np.arange(20), n=500)
    low, high = (getattr(measure.findings([many], AB, how)[0].interval, end) for end in ("ci_low", "ci_high"))
    assert high - low == pytest.approx(2 * 1.96 * abs(moves[0]), rel=0.25, abs=1e-12)


def test_answers_within_some_studies() -> None:
    given = answers([GAME, (0.0, 0.1, 0.2, 0.3)], [(True, True), (True, False)], y=(0, 1), error=(0.1, 0.2))
    given = Answers(Value("binary", "label", np.array([0.0, 1.0])), *list(vars(given).values())[1:])
    second = given.within(np.array([False, True]))
    assert second.factual.tolist() == [0.3] and second.y.tolist() == [1] and second.empty_error.tolist() == [0.2]
    assert (
        second.value.category.tolist() == [1.0]
        and second.swapped.shape == (1, 2, 2)
        and second.has.tolist() == [[True, False]]
    )
    assert given.complete.tolist() == [True, False] and second.complete.tolist() == [True]
    assert given.gap == pytest.approx(0, abs=1e-12)


def test_a_further_measure_is_one_class(tmp_path: object) -> None:
    """What is written down, and in which file, follows from the class alone."""
    import torch

    from medssml.counterfactual.oracles import TASK, formula_model, number_batch
    from medssml.evaluation.encoded_studies import encode_studies

    class Half(Measure):
        name = "half"
        title = "half of it"
        words = "Half: of the answer."

        def __call__(self, answers: Answers) -> Array:
            return np.where(answers.has, answers.factual[:, None] / 2, np.nan)

    model = formula_model(AB, lambda z: z.sum(dim=1))
    x = torch.randn(12, 2)
    studies = encode_studies(model, [number_batch(x, AB, y=(x[:, 0] > 0).float())])
    found = measure_impact([model], [studies], TASK, bootstrap=20, sweep=(), measures=[*MEASURES, Half()])
    entry, p = found.result["modalities"]["a"], found.rows.prediction.to_numpy()
    assert (
        entry["half"]["estimate"]
        == pytest.approx(p[found.rows.modality == "a"].mean() / 2)
        == entry["half_abs"]["estimate"]
    )
    assert found.result["measures"]["half"] == {"headings": {"half": "half of it"}, "words": "Half: of the answer."}
    np.testing.assert_allclose(found.rows.half, p / 2)
    assert "half" in found.result["complete"]["modalities"]["a"]


def test_names_are_their_own_and_every_measure_says_what_it_asks_and_means() -> None:
    names = [name for measure in MEASURES for name in measure.headings]
    assert len(set(names)) == len(names) and len({measure.name for measure in MEASURES}) == len(MEASURES)
    for measure in MEASURES:
        assert measure.asks and measure.words.endswith(".") and measure.__doc__
    assert {measure.name for measure in MEASURES if SWAPPED in measure.asks} == {"swap"}
    assert ShapleyValue.asks == frozenset({VALUES})
    assert list(ShapleyValue().headings) == ["shapley_abs", "shapley"]
