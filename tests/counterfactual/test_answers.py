"""Values, donors and interventions on models whose answer is a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.counterfactual.answers import Intervention, study_answers, subset_scores
from medssml.counterfactual.interventions import draw_background, draw_donors
from medssml.counterfactual.measure import VALUES, Answers
from medssml.counterfactual.measures import Interaction, Necessity, ShapleyValue, Sufficiency, Swap
from medssml.counterfactual.oracles import TASK, formula_model, number_batch
from medssml.counterfactual.values import Value
from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.evaluation.subsets import Predictions

MODALITIES = ("ct", "xray", "eeg")


def linear(
    *weights: float, seed: int = 0, n: int = 60, missing: float = 0.3
) -> tuple[torch.nn.Module, EncodedStudies, np.ndarray]:
    torch.manual_seed(seed)
    w = torch.tensor(weights)
    x = torch.randn(n, len(weights))
    x[torch.rand(n, len(weights)) < missing] = float("nan")
    x[x.isnan().all(dim=1)] = 1.0
    names = MODALITIES[: len(weights)]
    model = formula_model(names, lambda z: z @ w)
    y = (torch.nan_to_num(x) @ w > 0).float()
    return model, encode_studies(model, [number_batch(x, names, y=y, subject=torch.arange(n) // 2)]), x.numpy()


def measured(model: torch.nn.Module, studies: EncodedStudies, **options: object) -> Answers:
    return study_answers(model, studies, TASK, **options)  # type: ignore[arg-type]


def test_an_additive_model_gets_its_own_terms() -> None:
    model, studies, x = linear(1.0, -2.0, 0.0)
    found = measured(model, studies, value="logit", intervention=Intervention(empty="model"))
    terms = x * [1.0, -2.0, 0.0]
    for measure in (ShapleyValue(), Necessity(), Sufficiency()):
        np.testing.assert_allclose(measure(found), terms, atol=1e-5)
    assert np.nanmax(np.abs(Interaction()(found))) < 1e-5
    assert np.isnan(ShapleyValue()(found)[~studies.has]).all() and found.gap < 1e-6


def test_swap_is_the_difference_from_the_mean_of_others() -> None:
    model, studies, x = linear(1.0, -2.0, 0.0, missing=0.0)
    found = measured(model, studies, value="logit", intervention=Intervention(draws=400))
    effect, error = Swap()(found), Swap().changes(found).std(axis=-1, ddof=1) / 20
    pair = x.reshape(30, 2, 3)
    others = (x.sum(axis=0) - np.repeat(pair.sum(axis=1), 2, axis=0)) / 58
    np.testing.assert_allclose(effect, (x - others) * [1, -2, 0], atol=0.4)
    assert np.abs((effect - (x - others) * [1, -2, 0]) / np.maximum(error, 1e-9))[:, :2].max() < 5
    np.testing.assert_allclose(effect[:, 2], 0, atol=1e-6)
    assert np.isnan(measured(model, studies, asks={VALUES}).swapped).all(), "no fusion runs for what nobody asks"


@pytest.mark.parametrize("baseline", ["marginal", "joint"])
def test_backgrounds_keep_the_factual_value_and_add_up(baseline: str) -> None:
    model, studies, _ = linear(1.0, -2.0, 0.5)
    found = measured(model, studies, intervention=Intervention(baseline, draws=5))
    reference = measured(model, studies)
    np.testing.assert_allclose(found.factual, reference.factual)
    assert found.gap < 1e-6 and np.isfinite(found.values).all()
    signs = np.sign(ShapleyValue()(found)[:, 1]) == np.sign(ShapleyValue()(reference)[:, 1])
    assert signs[studies.has[:, 1]].mean() > 0.7


def test_the_mean_of_nothing_is_the_mean_prediction_of_the_reference() -> None:
    model, studies, _ = linear(1.0, -2.0, 0.0)
    own = measured(model, studies)
    np.testing.assert_allclose(own.values[:, 0], own.factual.mean())
    np.testing.assert_allclose(ShapleyValue()(own)[studies.has].sum(), 0, atol=1e-9)
    other = measured(model, studies, reference=np.full(7, 2.0))
    np.testing.assert_allclose(other.values[:, 0], 1 / (1 + np.exp(-2.0)))
    np.testing.assert_allclose(own.empty_error, own.factual.std(ddof=1) / np.sqrt(60))
    assert (measured(model, studies, value="predicted").empty_error < 0).any()
    certain = measured(model, studies, intervention=Intervention(empty="model"))
    np.testing.assert_allclose(certain.values[:, 0], 0.5)
    assert (certain.empty_error == 0).all()


def test_left_with_nothing_a_study_has_the_mean_probability_of_every_class() -> None:
    rng = np.random.default_rng(0)
    has = np.array([[True, True], [True, False], [False, True]])
    logits = rng.normal(size=(3, 4, 3))
    nobody = np.zeros(3, dtype=np.int64)
    predictions = Predictions({"k": logits}, {"k": "multiclass"}, has, ("a", "b"), ("s0", "s1", "s2"), nobody, {})
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mean = (p[0, 3] + p[1, 1] + p[2, 2]) / 3
    expected = p.copy()
    for study, subsets in enumerate([(0,), (0, 2), (0, 1)]):
        expected[study, list(subsets)] = mean
    np.testing.assert_allclose(subset_scores(predictions, "k", "mean"), expected, rtol=1e-5)
    np.testing.assert_allclose(subset_scores(predictions, "k", "model"), p, rtol=1e-5)


def test_a_model_that_reads_nothing_gives_no_modality_any_impact() -> None:
    model, studies, _ = linear(0.0, 0.0, 0.0)
    found = measured(model, studies)
    assert np.nanmax(np.abs(ShapleyValue()(found))) < 1e-12 and np.nanmax(np.abs(Swap()(found))) == 0


def test_a_duplicated_modality_shares_the_credit() -> None:
    x = torch.randn(50, 1).repeat(1, 2)
    model = formula_model(("a", "b"), lambda z: torch.maximum(z[:, 0], z[:, 1]) + torch.minimum(z[:, 0], z[:, 1]))
    found = measured(model, encode_studies(model, [number_batch(x, ("a", "b"))]))
    np.testing.assert_allclose(*ShapleyValue()(found).T, atol=1e-9)


def test_donors_are_other_subjects_evenly() -> None:
    subject = np.array([5, 5, 1, 2, 2, 9])
    pool = np.array([True, True, True, False, True, True])
    donors = draw_donors(subject, pool, np.array([0, 2, 4]), 4000, np.random.default_rng(0))
    assert set(donors[0]) == {2, 4, 5} and set(donors[1]) == {0, 1, 4, 5} and set(donors[2]) == {0, 1, 2, 5}
    counts = np.bincount(donors[1], minlength=6)
    np.testing.assert_allclose(counts[[0, 1, 4, 5]] / 4000, 0.25, atol=0.03)
    alone = draw_donors(np.array([1, 1]), np.array([True, True]), np.array([0]), 3, np.random.default_rng(0))
    assert (alone == -1).all()


def test_a_joint_donor_gives_all_modalities() -> None:
    _, studies, _ = linear(1.0, 1.0, 1.0)
    donors = draw_background(studies, "joint", 8, seed=0)
    for study in range(len(studies)):
        own = studies.has[study]
        assert (donors[study][:, ~own] == -1).all()
        if own.sum() > 1 and (studies.has[:, own].all(axis=1).sum()) > 4:
            assert (donors[study][:, own] == donors[study][:, own][:, :1]).all()
        assert studies.has[donors[study][:, own], np.flatnonzero(own)].all()
        assert (studies.subject[donors[study][:, own]] != studies.subject[study]).all()


def test_one_subject_alone_has_no_swap_and_no_background_effect() -> None:
    model = formula_model(("a", "b"), lambda z: z.sum(dim=1))
    studies = encode_studies(model, [number_batch(torch.randn(3, 2), ("a", "b"), subject=torch.zeros(3))])
    found = measured(model, studies, intervention=Intervention("marginal", draws=2))
    assert np.isnan(Swap()(found)).all() and np.abs(ShapleyValue()(found)).max() == 0


def test_value_functions() -> None:
    outputs = np.array([2.0, -1.0])
    p = 1 / (1 + np.exp(-outputs))
    rows, y = np.arange(2), np.array([0.0, 0.0])
    expected = {
        "positive": p,
        "logit": outputs,
        "predicted": np.array([p[0], 1 - p[1]]),
        "label": 1 - p,
        "log_likelihood": np.log(1 - p),
    }
    for name, want in expected.items():
        np.testing.assert_allclose(Value.of("binary", name, outputs, y)(outputs, rows), want)
    classes = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 0.0]])
    softmax = np.exp(classes) / np.exp(classes).sum(1, keepdims=True)
    value = Value.of("multiclass", None, classes, np.array([1.0, 1.0]))
    np.testing.assert_allclose(value(classes, rows), softmax.max(1))
    np.testing.assert_allclose(value(np.stack([classes, classes], 1), rows), np.stack([softmax.max(1)] * 2, 1))
    np.testing.assert_allclose(value.of_others(classes, rows)[0], softmax[:, [2, 0]].mean(0))
    np.testing.assert_allclose(
        Value.of("multiclass", "label", classes, np.array([1.0, 1.0]))(classes, rows), softmax[:, 1]
    )
    np.testing.assert_allclose(Value.of("multiclass", "logit", classes, y)(classes, rows), [3, 2])
    assert Value.of("regression", None, outputs, y)(outputs, rows) is not None
    with pytest.raises(ValueError, match="accepted: output"):
        Value.of("regression", "positive", outputs, y)


def test_a_value_of_the_label_needs_labels_and_settings_are_checked() -> None:
    model, _, _ = linear(1.0, 1.0)
    studies = encode_studies(model, [number_batch(torch.randn(4, 2), MODALITIES[:2])])
    with pytest.raises(ValueError, match="4 studies have none"):
        measured(model, studies, value="label")
    with pytest.raises(ValueError, match="absent, marginal, joint"):
        Intervention("zeros")
    with pytest.raises(ValueError, match="mean, model"):
        Intervention(empty="zero")
    with pytest.raises(ValueError, match="at least 1"):
        Intervention(draws=0)
