"""Probes and retrieval on embeddings whose content is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier

from medssml.batch import Batch
from medssml.counterfactual.oracles import formula_model, number_batch
from medssml.evaluation.embedding_map import embedding_map
from medssml.evaluation.encoded_studies import encode_studies
from medssml.evaluation.probes import DIVISIONS, STRENGTHS, knn_probe, linear_probe, linear_readout, unit
from medssml.evaluation.probing import (
    FusedEmbeddings,
    Splits,
    Target,
    probe_encoders,
    probe_subsets,
    validation_threshold,
)
from medssml.evaluation.retrieval import Space, examples, ranks, retrieve, retrieve_all, spaces_of, weighted_median
from medssml.spaces import SharedSpace


def data(n: int, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) * np.r_[100.0, np.ones(width - 1)]
    return x, (x[:, 1] + 0.5 * rng.normal(size=n) > 0).astype(float)


def test_a_clean_direction_of_little_spread_is_fitted_with_a_weak_penalty() -> None:
    """What two features say by their small difference needs large weights, which a grid that ends early forbids."""
    rng = np.random.default_rng(0)
    common, small = rng.normal(size=(2, 600))
    x = np.stack([common, common + 0.2 * small], axis=1)
    y = (small > 0).astype(float)
    probe = linear_probe(x[:300], y[:300], np.arange(300), x[300:])
    assert probe.setting["C"] == 10.0
    assert probe.scores is not None and roc_auc_score(y[300:], probe.scores) > 0.98


@pytest.mark.parametrize("held", [True, False])
def test_linear_probe_finds_a_direction_whatever_its_scale(held: bool) -> None:
    x, y = data(300)
    asked, target = data(200, seed=1)
    probe = linear_probe(x, y, np.arange(300) // 2, asked, validation=data(60, seed=2) if held else None)
    assert probe.scores is not None and roc_auc_score(target, probe.scores) > 0.9
    assert probe.setting["chosen_on"].startswith("validation" if held else "folds")


def test_the_penalty_is_the_best_over_several_divisions_of_few_subjects() -> None:
    """Eighty studies of forty subjects, for which the first division alone would choose another one."""
    rng = np.random.default_rng(7)
    x, group = rng.normal(size=(80, 12)), np.arange(80) // 2
    y = (0.25 * x @ rng.normal(size=12) + rng.normal(size=80) > 0).astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)

    def held_out(strength: float, division: int) -> list[float]:
        folds = StratifiedGroupKFold(4, shuffle=True, random_state=division).split(z, y, group)
        fitted = [(LogisticRegression(C=strength, max_iter=5000).fit(z[a], y[a]), b) for a, b in folds]
        return [float(roc_auc_score(y[b], model.decision_function(z[b]))) for model, b in fitted]

    mean = {c: [np.mean(held_out(c, division)) for division in range(DIVISIONS)] for c in STRENGTHS}
    best = max(mean, key=lambda c: np.mean(mean[c]))
    assert max(mean, key=lambda c: mean[c][0]) != best
    readout = linear_readout(x, y, group)
    assert not isinstance(readout, str) and readout.setting["C"] == best


def test_a_probe_of_noise_is_at_chance_and_too_few_labels_are_said() -> None:
    x, y = data(300)
    rng = np.random.default_rng(0)
    noise = linear_probe(rng.normal(size=(300, 8)), y, np.arange(300), rng.normal(size=(300, 8)))
    assert noise.scores is not None and abs(roc_auc_score(y, noise.scores) - 0.5) < 0.1
    assert linear_probe(x[:6], y[:6], np.arange(6), x).reason is not None
    assert knn_probe(x, np.full(300, np.nan), x).reason == "no labelled training study"


def test_multiclass_and_regression_probes() -> None:
    x, _ = data(300)
    k = np.digitize(x[:, 1], [-0.5, 0.5]).astype(float)
    probe = linear_probe(x, k, np.arange(300), x, kind="multiclass", classes=3)
    assert probe.scores is not None and probe.scores.shape == (300, 3) and (probe.scores.argmax(1) == k).mean() > 0.9
    number = linear_probe(x, x[:, 1], np.arange(300), x, kind="regression")
    assert number.scores is not None and np.corrcoef(number.scores, x[:, 1])[0, 1] > 0.99
    assert knn_probe(x, k, x, kind="multiclass", classes=3).scores.shape == (300, 3)  # type: ignore[union-attr]


def test_knn_is_that_of_scikit_learn() -> None:
    x, y = data(120)
    asked, _ = data(30, seed=3)
    reference = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(x, y).predict_proba(asked)[:, 1]
    np.testing.assert_allclose(knn_probe(x, y, asked).scores, reference)


def test_probes_of_subsets_and_encoders_use_what_each_study_has() -> None:
    modalities = ("a", "b")
    model = formula_model(modalities, lambda z: z[:, 0] + z[:, 1])

    def studies(n: int):  # type: ignore[no-untyped-def]
        x = torch.randn(n, 2)
        y = (x[:, 0] > 0).float()
        x[torch.rand(n) < 0.3, 1] = float("nan")
        return encode_studies(model, [number_batch(x, modalities, y=y)])

    splits = Splits(studies(200), studies(60), studies(100))
    target = Target("gate", "binary")
    found, answers = probe_subsets(FusedEmbeddings(model, splits), target, n=30)
    assert found["linear"]["a"]["auroc"]["estimate"] == 1.0 and found["linear"]["a"]["n"] == 100
    assert found["linear"]["a"]["probe"]["chosen_on"] == "validation"
    assert abs(found["knn"]["b"]["auroc"]["estimate"] - 0.5) < 0.25
    assert len(answers[0b11].rows) == found["linear"]["a+b"]["n"] < 100
    own = probe_encoders(splits, target, n=30)
    assert own["linear"]["a"]["auroc"]["estimate"] == 1.0 and set(own["knn"]) == {"a", "b"}


def test_a_probe_of_an_encoder_leaves_what_is_measured_by_hand_in_proportion() -> None:
    """Labels follow a feature of a thousandth: a penalty keeps it small where it shares its scale with a large one."""
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 1] > 0).float()
    model = formula_model(("a",), lambda z: z[:, 0])
    whole = encode_studies(model, [number_batch(x[:, :1], ("a",), y=y)])
    whole = replace(whole, raw={"a": x * torch.tensor([1.0, 1e-3])})
    found = {}
    for count in (0, 2):
        parts = [replace(whole, measured={"a": count}).take(np.arange(start, start + 100)) for start in (0, 100, 200)]
        own = probe_encoders(Splits(*parts), Target("gate", "binary"), n=30, methods=("linear",))
        found[count] = own["linear"]["a"]["auroc"]["estimate"]
    assert found[0] > 0.95 and found[2] < 0.8


def test_threshold_needs_enough_validation_studies() -> None:
    assert validation_threshold(np.r_[np.zeros(5), np.ones(5)], np.arange(10.0))[0] == 0.5
    value, origin = validation_threshold(np.r_[np.zeros(20), np.ones(20)], np.arange(40.0))
    assert 19 < value < 20 and origin == "validation"


def studies_of(vectors: dict[str, np.ndarray], subject: list[int], content: dict[str, list[int]] | None = None):  # type: ignore[no-untyped-def]
    names = tuple(vectors)
    count = len(subject)
    batch = number_batch(torch.zeros(count, len(names)), names, subject=torch.tensor(subject))
    filled = {m: torch.tensor(c) for m, c in (content or {}).items()}
    model = formula_model(names, lambda z: z[:, 0])
    studies = encode_studies(model, [Batch(**{**batch.__dict__, "content": filled})])
    return studies, {m: Space(np.arange(count), v) for m, v in vectors.items()}


def test_ranks_by_hand() -> None:
    similarity = np.array([[0.9, 0.5, 0.7], [0.2, 0.2, 0.1], [0.3, 0.8, 0.8]])
    hits = np.array([[False, True, False], [True, False, False], [True, False, True]])
    np.testing.assert_array_equal(ranks(similarity, hits), [3, 1.5, 1.5])


def test_retrieval_is_perfect_where_modalities_agree_and_at_chance_where_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 16))
    studies, spaces = studies_of({"ct": x, "report": 3 * x, "eeg": rng.normal(size=(80, 16))}, list(range(80)))
    both = retrieve(studies, spaces, "ct", "report", n=50)
    assert both is not None and both["r@1"]["estimate"] == 1 and both["median_rank"]["estimate"] == 1
    found = retrieve_all(studies, spaces, n=50)
    assert len(found) == 6
    assert found["eeg->ct"]["r@5"]["estimate"] < 0.2 and found["eeg->ct"]["r@5"]["chance"] == pytest.approx(
        0.061, abs=1e-3
    )
    assert found["eeg->ct"]["median_rank"]["chance"] == 40.5


def test_a_constant_embedding_does_not_retrieve() -> None:
    studies, spaces = studies_of({"ct": np.ones((50, 4)), "report": np.ones((50, 4))}, list(range(50)))
    found = retrieve(studies, spaces, "ct", "report", n=20)
    assert found is not None and found["r@1"]["estimate"] == 0 and found["median_rank"]["estimate"] == 25.5


def test_same_subject_and_same_input_are_hits() -> None:
    x = np.eye(6)
    wrong = x[[1, 0, 2, 3, 5, 4]]  # 0 and 1 swapped, 4 and 5 swapped
    studies, spaces = studies_of({"ct": x, "report": wrong}, list(range(6)))
    strict = retrieve(studies, spaces, "ct", "report", n=20)
    assert strict is not None and strict["r@1"]["estimate"] == pytest.approx(2 / 6)
    same_subject, spaces = studies_of({"ct": x, "report": wrong}, [0, 0, 2, 3, 4, 5])
    assert retrieve(same_subject, spaces, "ct", "report", n=20)["r@1"]["estimate"] == pytest.approx(4 / 6)  # type: ignore[index]
    same_text, spaces = studies_of({"ct": x, "report": wrong}, list(range(6)), {"report": [9, 9, 1, 2, 7, 7]})
    assert retrieve(same_text, spaces, "ct", "report", n=20)["r@1"]["estimate"] == 1  # type: ignore[index]


def test_examples_name_studies_and_a_head_is_applied() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 4))
    studies, spaces = studies_of({"ct": x, "report": x}, list(range(20)))
    shown = examples(studies, spaces, count=3)["ct->report"]
    assert len(shown) == 3 and shown[0]["top"][0]["study_id"] == shown[0]["query"] and shown[0]["top"][0]["hit"]
    assert len(shown[0]["top"]) == 3
    space = SharedSpace(studies.encoded["ct"].pooled.shape[1], 3, ["ct", "eeg"])
    met = spaces_of(studies, space)
    np.testing.assert_allclose(met["ct"].vectors, space.eval()("ct", studies.encoded["ct"].pooled).detach(), rtol=1e-6)
    assert set(met) == {"ct"}  # the report never met anything there, and nobody has an EEG


def test_weighted_median_is_the_median_of_repeats() -> None:
    values = np.array([5.0, 1.0, 3.0])
    np.testing.assert_array_equal(weighted_median(values, np.array([[1.0, 1, 1], [3, 0, 0], [0, 2, 1]])), [3, 5, 1])


def test_map_separates_clusters_and_survives_few_studies() -> None:
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=(25, 12)), rng.normal(size=(25, 12)) + 20]
    places = embedding_map(x)
    within = np.linalg.norm(places[:25] - places[:25].mean(0), axis=1).max()
    assert places.shape == (50, 2) and np.linalg.norm(places[:25].mean(0) - places[25:].mean(0)) > within
    assert embedding_map(x[:2]).shape == (2, 2) and embedding_map(x[:5]).shape == (5, 2)
    assert np.isfinite(embedding_map(np.ones((30, 4)))).all()


def test_unit_keeps_zeros() -> None:
    np.testing.assert_array_equal(unit(np.array([[3.0, 4.0], [0, 0]])), [[0.6, 0.8], [0, 0]])


def test_of_three_classes_two_that_training_has_are_told_apart_and_the_third_is_never_answered() -> None:
    x, y = data(300)
    probe = linear_probe(x, np.where(y == 1, 2.0, 0.0), np.arange(300), x, kind="multiclass", classes=3)
    two = linear_probe(x, y, np.arange(300), x)
    assert probe.scores is not None and two.scores is not None and probe.scores[:, 1].max() < 1e-6
    np.testing.assert_allclose(probe.scores.sum(1), 1)
    np.testing.assert_allclose(probe.scores[:, 2], two.scores, atol=0.01)
