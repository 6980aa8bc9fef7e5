"""Value functions by their formulas: every kind of task, every shape, and what is expected where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.counterfactual.values import ALLOWED, DEFAULT, VALUES, Value

LOGITS = np.array([2.0, -1.0, 0.5])
P = 1 / (1 + np.exp(-LOGITS))
ROWS = np.arange(3)
Y = np.array([1.0, 1.0, 0.0])


def value(name: str | None = None, kind: str = "binary", factual: np.ndarray = LOGITS, y: np.ndarray = Y) -> Value:
    return Value.of(kind, name, factual, y)


def test_the_default_and_the_words_of_every_kind() -> None:
    assert DEFAULT == {"binary": "positive", "multiclass": "predicted", "regression": "output"}
    assert value().name == "positive" and value().words == "probability of the positive class"
    assert value("logit").words == VALUES["logit"] == "logit of the positive class"
    classes = np.eye(3)
    assert value("logit", "multiclass", classes).words == "logit of the predicted class"
    assert value(None, "multiclass", classes).words.startswith("probability of the class that is predicted")
    assert value(None, "regression").words == "predicted value"
    for kind, names in ALLOWED.items():
        for name in set(VALUES) - set(names):
            with pytest.raises(
                ValueError, match=f"value '{name}' is not for a {kind} task; accepted: {', '.join(names)}"
            ):
                value(name, kind, classes if kind == "multiclass" else LOGITS)


def test_a_value_is_about_a_class_and_is_not_defined_without_it() -> None:
    assert value().category.tolist() == [1, 1, 1] == value("logit").category.tolist()
    assert value("predicted", factual=np.array([2.0, -1.0, 0.0])).category.tolist() == [1, 0, 0]
    gaps = np.array([1.0, np.nan, 0.0])
    assert value("label", y=gaps).defined.tolist() == [True, False, True]
    assert value("log_likelihood", y=gaps).defined.tolist() == [True, False, True]
    assert value("predicted", y=gaps).defined.all() and value(y=gaps).defined.all()
    classes = np.array([[0.0, 1, 3], [2, 0, 0], [0, 5, 0]])
    assert value(None, "multiclass", classes).category.tolist() == [2, 0, 1]
    assert value("label", "multiclass", classes).category.tolist() == Y.tolist()


def test_what_the_best_reader_is_known_by() -> None:
    known = {name: value(name).has_truth for name in ALLOWED["binary"]}
    assert known == {"positive": True, "logit": True, "predicted": False, "label": True, "log_likelihood": True}
    assert not value(None, "regression").has_truth and not value("label", "multiclass", np.eye(3)).has_truth


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("positive", P),
        ("logit", LOGITS),
        ("predicted", [P[0], 1 - P[1], P[2]]),
        ("label", [P[0], P[1], 1 - P[2]]),
        ("log_likelihood", np.log([P[0], P[1], 1 - P[2]])),
    ],
)
def test_one_output_or_many_of_every_study(name: str, expected: object) -> None:
    worth = value(name)
    np.testing.assert_allclose(worth(LOGITS, ROWS), expected)
    many = np.stack([LOGITS, LOGITS], axis=1)
    np.testing.assert_allclose(worth(many, ROWS), np.stack([expected, expected], axis=1))
    order = np.array([2, 0])
    np.testing.assert_allclose(worth(LOGITS[order], order), np.array(expected)[order])
    assert worth(LOGITS.astype(np.float32), ROWS).dtype == np.float64


@pytest.mark.parametrize("name", ["predicted", "logit", "label", "log_likelihood"])
def test_several_classes(name: str) -> None:
    logits = np.array([[0.0, 1, 3], [2, 0, 0], [0, 5, 1]])
    y = np.array([0.0, 1, 2])
    worth = value(name, "multiclass", logits, y)
    index = {"predicted": [2, 0, 1], "logit": [2, 0, 1]}.get(name, [0, 1, 2])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scale = {"predicted": p, "label": p, "logit": logits, "log_likelihood": np.log(p)}[name]
    expected = scale[ROWS, index]
    np.testing.assert_allclose(worth(logits, ROWS), expected)
    many = np.stack([logits, logits + 7], axis=1)
    np.testing.assert_allclose(worth(many, ROWS)[:, 0], expected)
    np.testing.assert_allclose(worth(many, ROWS)[:, 1], expected + (7 if name == "logit" else 0))


def test_numbers_are_their_own_value_and_extremes_stay_finite() -> None:
    np.testing.assert_array_equal(value(None, "regression")(LOGITS, ROWS), LOGITS)
    far = np.array([800.0, -800.0, 800.0])
    assert value()(far, ROWS).tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_allclose(value("log_likelihood")(far, ROWS), [0, -800, -800])


def test_what_is_expected_of_nothing_is_the_mean_over_others_and_has_an_error() -> None:
    background = np.array([0.0, 1.0, -2.0, 0.5, 3.0])
    p = 1 / (1 + np.exp(-background))
    means, errors = value("label").of_others(background, ROWS)
    np.testing.assert_allclose(means, [p.mean(), p.mean(), 1 - p.mean()])
    error = p.std(ddof=1) / np.sqrt(5)
    # The probability of the negative class falls as the outputs rise: the same error with the other sign.
    np.testing.assert_allclose(errors, [error, error, -error])
    means, errors = value("label").of_others(background, np.array([2]))
    np.testing.assert_allclose((means, errors), ([1 - p.mean()], [-error]))
    assert value().of_others(background[:1], ROWS)[1].tolist() == [0, 0, 0]
    classes = np.array([[0.0, 1, 3], [2, 0, 0], [0, 5, 1]])
    soft = np.exp(classes) / np.exp(classes).sum(axis=1, keepdims=True)
    means, errors = value("label", "multiclass", classes, np.array([0.0, 1, 1])).of_others(classes, ROWS)
    np.testing.assert_allclose(means, soft.mean(axis=0)[[0, 1, 1]])
    np.testing.assert_allclose(errors, (soft.std(axis=0, ddof=1) / np.sqrt(3))[[0, 1, 1]])
