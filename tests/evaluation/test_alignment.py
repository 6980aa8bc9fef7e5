"""Vectors of a group moved to those of training: closed forms, an independent CORAL, and what must not move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from medssml.batch import Encoded
from medssml.evaluation.alignment import LEAST, Moments, align_studies, moments, move_to, shrinkage
from medssml.evaluation.encoded_studies import EncodedStudies

NAMES = ("a", "b")
DIM = 5


def studies(a: np.ndarray, b: np.ndarray, present: np.ndarray | None = None, seed: int = 0) -> EncodedStudies:
    """Studies with vectors (N, D) of each modality where present (N, 2); three tokens each, of which the vector is the mean."""
    there = np.ones((len(a), 2), bool) if present is None else present
    rng, encoded, raw = np.random.default_rng(seed), {}, {}
    for column, (name, vectors) in enumerate(zip(NAMES, (a, b), strict=True)):
        own = vectors[there[:, column]]
        if len(own):
            around = rng.normal(size=(len(own), 3, own.shape[1]))
            tokens = own[:, None] + around - around.mean(axis=1, keepdims=True)
            mask = torch.ones(len(own), 3, dtype=torch.bool)
            encoded[name] = Encoded(torch.from_numpy(tokens).float(), mask, torch.from_numpy(own).float())
            raw[name] = torch.from_numpy(2 * own[:, :3]).float()
    count = len(a)
    ids = tuple(map(str, range(count)))
    return EncodedStudies(encoded, torch.from_numpy(there), NAMES, ids, np.arange(count), {}, {}, raw)


def drawn(count: int, seed: int) -> np.ndarray:
    """(n, D) correlated vectors with a mean."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(DIM, DIM))
    return np.asarray(rng.normal(size=(count, DIM)) @ mixing + np.arange(DIM))


def shifted(x: np.ndarray, seed: int = 3) -> np.ndarray:
    """Vectors as another scanner gives them: other gains, mixed, and a shift."""
    rng = np.random.default_rng(seed)
    return np.asarray(
        x @ (np.diag([0.5, 2.0, 1.0, 3.0, 0.2]) + 0.1 * rng.normal(size=(DIM, DIM))) + rng.normal(size=DIM) * 4
    )


TRAIN = studies(drawn(400, 0), drawn(400, 1))


def test_centring_gives_the_mean_of_training_and_nothing_else() -> None:
    site = studies(shifted(drawn(60, 2)), drawn(60, 4) - 2)
    moved = align_studies(TRAIN, site, np.full(60, "B"), "centre").studies
    for name in NAMES:
        before, after, taught = (s.encoded[name].pooled.numpy() for s in (site, moved, TRAIN))
        np.testing.assert_allclose(after.mean(0), taught.mean(0), atol=1e-5)
        np.testing.assert_allclose(after - after[:1], before - before[:1], atol=1e-4)
        np.testing.assert_allclose(moved.raw[name].mean(0), TRAIN.raw[name].mean(0), atol=1e-5)


def test_with_many_studies_mean_and_covariance_become_those_of_training() -> None:
    train, site = (studies(vectors, drawn(20_000, 4)) for vectors in (drawn(20_000, 0), shifted(drawn(20_000, 2))))
    found = align_studies(train, site, np.full(20_000, "B"), "covariance")
    told = found.groups["B"]["modalities"]["a"]
    assert told["moved"] and told["n"] == 20_000 and told["shrinkage"] < 0.01 and told["shift"] > 0.5
    pairs = [(s.encoded["a"].pooled, s.raw["a"]) for s in (found.studies, train)]
    for part, taught in zip(*pairs, strict=True):
        own, wanted = moments(part.numpy()), moments(taught.numpy())
        np.testing.assert_allclose(own.mean, wanted.mean, atol=1e-3)
        np.testing.assert_allclose(own.covariance, wanted.covariance, atol=0.01 * np.trace(wanted.covariance))


def noise_of(x: np.ndarray) -> float:
    """What chance alone puts between the covariance of vectors (n, D) and the true one, squared, vector by vector."""
    own = np.cov(x.T, bias=True)
    return float(np.mean([np.sum((np.outer(row, row) - own) ** 2) for row in x - x.mean(0)]) / len(x))


def test_is_coral_by_matrix_square_roots() -> None:
    """(x - m_s) C_s^-1/2 C_t^1/2 + m_t, by Schur decompositions, with the share of shrinkage by its definition."""
    x, train = shifted(drawn(50, 2)), drawn(400, 0)
    own, taught = np.cov(x.T, bias=True), np.cov(train.T, bias=True)
    share = (noise_of(x) + noise_of(train)) / np.sum((own - taught) ** 2)
    assert 0.01 < share < 1
    assert shrinkage(moments(x), moments(train)) == pytest.approx(share, rel=1e-9)
    shrunk = (1 - share) * own + share * taught
    wanted = (x - x.mean(0)) @ np.linalg.inv(sqrtm(shrunk)) @ sqrtm(taught) + train.mean(0)
    moved = move_to(moments(train), x, "covariance")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(moved, wanted, rtol=1e-4, atol=1e-3)


def test_the_share_of_shrinkage_is_near_the_best_one() -> None:
    """Over many draws of 15 vectors, the estimated share loses little against the share that the true covariance chooses."""
    truth, target = np.diag([3.0, 2.0, 1.0, 0.5, 0.5]), np.eye(DIM)
    losses = {"estimated": 0.0, "none": 0.0, "all": 0.0, "best": 0.0}
    for seed in range(200):
        own = moments(np.random.default_rng(seed).normal(size=(15, DIM)) @ np.sqrt(truth))
        risks = [np.sum(((1 - s) * own.covariance + s * target - truth) ** 2) for s in np.linspace(0, 1, 21)]
        share = shrinkage(own, Moments(own.mean, target, 1000, 0.0))
        losses["estimated"] += np.sum(((1 - share) * own.covariance + share * target - truth) ** 2)
        losses["none"], losses["all"] = losses["none"] + risks[0], losses["all"] + risks[-1]
        losses["best"] += min(risks)
    assert losses["best"] < losses["estimated"] < 0.8 * min(losses["none"], losses["all"])


def test_two_samples_of_one_distribution_have_the_same_covariance_nearly_always() -> None:
    """Both are noisy: the covariance of a site of the same scanner, and that of few training studies."""
    shares = [shrinkage(moments(drawn(40, seed)), moments(drawn(60, 1000 + seed))) for seed in range(100)]
    assert np.median(shares) > 0.9
    away = [shrinkage(moments(shifted(drawn(40, seed))), moments(drawn(60, 1000 + seed))) for seed in range(100)]
    assert np.median(away) < 0.3


def test_a_site_without_a_shift_has_the_one_of_chance() -> None:
    """Over many sites of 25 studies from the distribution of training: the root mean square of the shift."""
    found = [move_to(moments(drawn(50, 1000 + seed)), drawn(25, seed), "centre") for seed in range(300)]
    assert found[0].chance == pytest.approx(np.sqrt(1 / 25 + 1 / 50))
    assert np.sqrt(np.mean([move.shift**2 for move in found])) == pytest.approx(found[0].chance, rel=0.1)


@pytest.mark.parametrize("how", ["centre", "covariance"])
def test_the_training_studies_themselves_stay_where_they_are(how: str) -> None:
    moved = align_studies(TRAIN, TRAIN, np.full(400, "A"), how)
    assert moved.groups["A"]["modalities"]["a"]["shift"] == 0
    for name in NAMES:
        torch.testing.assert_close(moved.studies.encoded[name].pooled, TRAIN.encoded[name].pooled, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(moved.studies.encoded[name].tokens, TRAIN.encoded[name].tokens, atol=1e-4, rtol=1e-4)


def test_a_shift_of_the_site_changes_no_aligned_vector_and_covariance_undoes_gains_as_well() -> None:
    """Gains along the principal axes of the site: what whitening takes away, whatever they are, where nothing is shrunk."""
    x = shifted(drawn(20_000, 2))
    axes = np.linalg.eigh(moments(x).covariance)[1]
    gains = axes @ np.diag([0.5, 3.0, 1.0, 4.0, 0.2]) @ axes.T
    taught = moments(drawn(20_000, 0))
    at_home, away = torch.from_numpy(x), torch.from_numpy(x @ gains + 9.0)
    for how, far in (("centre", torch.from_numpy(x + 9.0)), ("covariance", away)):
        first, second = move_to(taught, at_home.numpy(), how)(at_home), move_to(taught, far.numpy(), how)(far)
        assert (first - second).std() < (1e-9 if how == "centre" else 0.03) * first.std()
    centred = move_to(taught, away.numpy(), "centre")(away)
    assert (centred - move_to(taught, x, "centre")(at_home)).std() > 0.5 * at_home.std()


def test_tokens_move_with_the_vector_that_is_their_mean() -> None:
    site = studies(shifted(drawn(60, 2)), drawn(60, 4))
    part = align_studies(TRAIN, site, np.full(60, "B"), "covariance").studies.encoded["a"]
    torch.testing.assert_close(part.tokens.mean(1), part.pooled, atol=1e-3, rtol=1e-3)
    assert (part.tokens - site.encoded["a"].tokens).abs().max() > 1


def test_each_group_moves_by_itself_in_any_order_and_who_belongs_to_none_stays() -> None:
    x, groups = drawn(90, 2), np.array(["B", "C", ""] * 30, dtype=object)
    x[groups == "C"] += 5
    site = studies(x, drawn(90, 4))
    whole = align_studies(TRAIN, site, groups, "covariance")
    assert {name: found["studies"] for name, found in whole.groups.items()} == {"B": 30, "C": 30}
    alone = align_studies(TRAIN, site.take(np.flatnonzero(groups == "C")), np.full(30, "C"), "covariance").studies
    order = np.random.default_rng(0).permutation(90)
    again = align_studies(TRAIN, site.take(order), groups[order], "covariance").studies
    for pick in (lambda s: s.encoded["a"].pooled, lambda s: s.encoded["a"].tokens, lambda s: s.raw["b"]):
        torch.testing.assert_close(pick(whole.studies)[groups == "C"], pick(alone))
        torch.testing.assert_close(pick(again), pick(whole.studies)[order])
        torch.testing.assert_close(pick(whole.studies)[groups == ""], pick(site)[groups == ""], rtol=0, atol=0)


def test_a_group_with_few_studies_and_an_absent_modality_stay_and_it_is_said_why() -> None:
    present = np.ones((40, 2), bool)
    present[:20, 1] = False
    present[20:37, 1] = False
    groups = np.array(["B"] * 20 + ["C"] * 20, dtype=object)
    site = studies(drawn(40, 2) + 3, drawn(40, 4) + 3, present)
    found = align_studies(TRAIN, site, groups, "covariance")
    assert found.groups["B"]["modalities"].keys() == {"a"} and found.groups["B"]["modalities"]["a"]["moved"]
    few = found.groups["C"]["modalities"]["b"]
    assert few == {"n": 3, "moved": False, "reason": f"3 studies have it, {LEAST} are needed"}
    assert found.studies.encoded["b"].pooled.tolist() == site.encoded["b"].pooled.tolist()
    assert found.studies.present.tolist() == site.present.tolist()
    nobody = studies(drawn(40, 0), drawn(40, 1), np.tile([True, False], (40, 1)))
    untaught = align_studies(nobody, site, groups, "centre").groups["C"]["modalities"]["b"]
    assert untaught["reason"] == f"0 training studies have it, {LEAST} are needed"


def test_one_study_per_group_is_left_as_it_is() -> None:
    """Moved to the mean of training, a single study would lose all that it shows."""
    site = studies(drawn(30, 2) + 3, drawn(30, 4))
    found = align_studies(TRAIN, site, np.array([f"subject {i}" for i in range(30)]), "centre")
    assert len(found.groups) == 30 and not any(
        m["moved"] for g in found.groups.values() for m in g["modalities"].values()
    )
    assert found.studies.encoded["a"].pooled.tolist() == site.encoded["a"].pooled.tolist()


def test_fewer_studies_than_dimensions_are_shrunk_and_stay_finite() -> None:
    rng = np.random.default_rng(0)
    wide, few = rng.normal(size=(300, 64)), rng.normal(size=(12, 64)) * 2 + 1
    move = move_to(moments(wide), few, "covariance")
    assert 0.05 < move.shrinkage < 1
    moved = move(torch.from_numpy(few)).numpy()
    assert np.isfinite(move.matrix).all() and np.abs(move.matrix).max() < 5
    np.testing.assert_allclose(moved.mean(0), wide.mean(0), atol=1e-9)
    # Directions in which no vector varies, as those of a projection to a greater width.
    flat = np.hstack([wide, np.zeros((300, 8))])
    move = move_to(moments(flat), np.hstack([few, np.zeros((12, 8))]), "covariance")
    assert np.isfinite(move.matrix).all() and np.abs(move.matrix[64:, 64:] - np.eye(8)).max() < 1e-6


def test_one_group_per_study_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"groups has shape \(3,\), expected \(400,\)"):
        align_studies(TRAIN, TRAIN, np.array(["B"] * 3), "centre")
