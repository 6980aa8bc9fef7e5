"""One head for every subset: each is the regression on the studies that have it; what stands in where there are too few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.evaluation.pattern_ensemble import pattern_ensemble
from medssml.evaluation.probes import linear_readout
from medssml.model import Task
from tests.objectives.vectors import vector_batch, vector_model

NAMES = ("a", "b", "c")
TASKS = {"two": Task(), "three": Task("multiclass", 3), "value": Task("regression")}


def studies(count: int, seed: int, rate: float = 0.3, present: torch.Tensor | None = None) -> EncodedStudies:
    """`two` is shown by a and b together, `three` by b, `value` by c."""
    g = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(count, 4, generator=g) for name in NAMES}
    there = torch.rand(count, 3, generator=g) >= rate if present is None else present
    targets = {
        "two": ((vectors["a"][:, 0] + vectors["b"][:, 0]) > 0).float(),
        "three": (vectors["b"][:, 1] > -0.4).float() + (vectors["b"][:, 1] > 0.4).float(),
        "value": 3 * vectors["c"][:, 0] + 7,
    }
    return encode_studies(vector_model(NAMES, 4), [vector_batch(vectors, there, targets)])


def test_each_subset_is_the_regression_on_the_studies_that_have_all_of_it() -> None:
    train, asked = studies(300, 0), studies(40, 1)
    found = pattern_ensemble(train, asked, TASKS)
    for mask, names in ((1, "a"), (3, "ab"), (6, "bc"), (7, "abc")):
        rows = np.flatnonzero(train.has[:, [NAMES.index(n) for n in names]].all(1))
        x = np.hstack([train.encoded[n].pooled.numpy()[train.position(n).numpy()[rows]] for n in names])
        who = np.flatnonzero(asked.has[:, [NAMES.index(n) for n in names]].all(1))
        new = np.hstack([asked.encoded[n].pooled.numpy()[asked.position(n).numpy()[who]] for n in names])
        for task, kind in TASKS.items():
            head = linear_readout(
                x, train.targets[task][rows], train.subject[rows], kind=kind.kind, classes=kind.n_classes
            )
            assert not isinstance(head, str)
            expected = new @ head.weight.T + head.bias
            expected = expected if task == "three" else expected[:, 0]
            np.testing.assert_allclose(found.outputs[task][who, mask], expected, rtol=1e-4, atol=1e-4)


def test_a_study_that_lacks_a_part_is_answered_from_what_it_has_and_from_nothing_by_the_training_share() -> None:
    train, asked = studies(300, 0), studies(40, 1)
    found = pattern_ensemble(train, asked, TASKS)
    full = asked.has @ np.array([1, 2, 4])
    for task in TASKS:
        logits = found.outputs[task]
        for study in range(40):
            for mask in range(8):
                np.testing.assert_array_equal(logits[study, mask], logits[study, mask & full[study]])
    share = train.targets["two"].mean()
    np.testing.assert_allclose(found.outputs["two"][:, 0], np.log(share / (1 - share)), rtol=1e-6)
    np.testing.assert_allclose(found.outputs["value"][:, 0], train.targets["value"].mean(), rtol=1e-6)
    shares = np.bincount(train.targets["three"].astype(int)) / 300
    np.testing.assert_allclose(np.exp(found.outputs["three"][:, 0]), np.tile(shares, (40, 1)), rtol=1e-6)


def test_a_subset_with_too_few_studies_is_answered_by_its_largest_part() -> None:
    """Nobody in training has a and b, so that what only both say cannot be learned, and each answers alone."""
    there = torch.tensor([[True, False, True], [False, True, True]]).repeat(100, 1)
    train, asked = studies(200, 0, present=there), studies(40, 1, rate=0.0)
    found = pattern_ensemble(train, asked, {"two": Task()})
    logits = found.outputs["two"]
    np.testing.assert_array_equal(logits[:, 3], logits[:, 1])
    np.testing.assert_array_equal(logits[:, 7], logits[:, 5])
    assert not np.allclose(logits[:, 5], logits[:, 1])


def test_is_an_upper_line_where_two_modalities_decide_together() -> None:
    found = pattern_ensemble(studies(600, 0), studies(300, 1, rate=0.0), {"two": Task()}, validation=studies(100, 2))
    y = found.targets["two"]
    assert (
        roc_auc_score(y, found.outputs["two"][:, 7]) > 0.97 > 0.85 > roc_auc_score(y, found.outputs["two"][:, 1]) > 0.7
    )


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="no training study is labelled for 'other'"):
        pattern_ensemble(studies(20, 0), studies(20, 1), {"other": Task()})
    other = encode_studies(vector_model(("a",), 4), [vector_batch({"a": torch.randn(5, 4)})])
    with pytest.raises(ValueError, match="training studies of a, asked ones of a, b, c"):
        pattern_ensemble(other, studies(20, 1), {"two": Task()})
