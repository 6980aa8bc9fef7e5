"""The gain of a transfer and its gate: against an independent bootstrap, and how often noise passes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medssml.statistics.bootstrap import seed_weights, tail_of
from medssml.transfer.gain import Answers, gains, gate


def answers(seeds: int, n: int, *, better: float, seed: int, people: int = 0, shared: float = 1.0) -> Answers:
    """Students whose answers are the label and noise; the one that was taught has `better` more of the label."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(float)
    common = rng.normal(size=n)
    without = y + shared * common + 0.3 * rng.normal(size=(seeds, n))
    transfer = (1 + better) * y + shared * common + 0.3 * rng.normal(size=(seeds, n))
    return Answers("binary", y, np.arange(n) % (people or n), without, transfer)


def test_the_interval_is_that_of_a_bootstrap_written_out() -> None:
    """Whole subjects and seeds are drawn, and the same for both students: here row by row with scikit-learn's AUROC."""
    one = answers(3, 60, better=0.5, seed=1, people=40)
    one.y[:6] = np.nan
    found = gains({"a": one}, n=200, seed=5)["a"]
    subjects, which = np.unique(one.subjects, return_inverse=True)
    known = np.isfinite(one.y)

    def gain(rows: np.ndarray, s: int) -> float:
        return float(
            roc_auc_score(one.y[rows], one.transfer[s, rows]) - roc_auc_score(one.y[rows], one.without[s, rows])
        )

    draws = np.random.default_rng(5).integers(0, len(subjects), size=(200, len(subjects)))
    chosen = seed_weights(200, 3, np.random.default_rng([5, 1]))
    each = np.empty((200, 3))
    for r, drawn in enumerate(draws):
        rows = np.concatenate([np.flatnonzero(which == subject) for subject in drawn])
        each[r] = [gain(rows[known[rows]], s) for s in range(3)]
    tail = tail_of(0.95, len(subjects))
    low, high = np.quantile((each * chosen).sum(1), [tail, 1 - tail])
    assert found["gain"]["ci_low"] == pytest.approx(low, abs=1e-9)
    assert found["gain"]["ci_high"] == pytest.approx(high, abs=1e-9)
    whole = [gain(np.flatnonzero(known), s) for s in range(3)]
    assert found["gain"]["estimate"] == pytest.approx(np.mean(whole), abs=1e-9)
    assert found["n"] == 54 and found["positives"] == int(np.nansum(one.y))
    for s, entry in enumerate(found["seeds"]):
        low, high = np.quantile(each[:, s], [tail, 1 - tail])
        assert entry["gain"]["estimate"] == pytest.approx(whole[s], abs=1e-9)
        assert (entry["gain"]["ci_low"], entry["gain"]["ci_high"]) == (pytest.approx(low), pytest.approx(high))


def test_students_are_compared_on_the_same_subjects() -> None:
    """What is hard for both is hard for both: the interval of the gain is narrower than those of the two."""
    found = gains({"a": answers(3, 300, better=0.2, seed=2)}, n=400)["a"]
    width = {part: found[part]["ci_high"] - found[part]["ci_low"] for part in ("without", "transfer", "gain")}
    assert width["gain"] < 0.7 * min(width["without"], width["transfer"])


def test_the_gate_keeps_what_helps_and_refuses_what_does_not() -> None:
    helps = gate({"a": answers(3, 400, better=0.8, seed=3)}, n=400)
    assert helps.kept and helps.gain.ci_low is not None and helps.gain.ci_low > 0
    harms = gate({"a": answers(3, 400, better=-0.8, seed=3)}, n=400)
    assert not harms.kept and "student alone" in harms.reason
    even = answers(3, 400, better=0.0, seed=3)
    same = Answers(even.kind, even.y, even.subjects, even.without, even.without)
    assert not gate({"a": same}, n=400).kept


def test_the_gate_judges_the_mean_over_tasks() -> None:
    """A task that gains nothing beside one that gains: the mean of the two is judged, and what is undefined is left out."""
    one, other = answers(3, 400, better=0.8, seed=3), answers(3, 400, better=0.0, seed=4)
    unlabelled = Answers("binary", np.full(400, np.nan), one.subjects, one.without, one.transfer)
    both = gate({"a": one, "b": other, "c": unlabelled}, n=200)
    apart = [gate({"x": part}, n=200).gain.estimate for part in (one, other)]
    assert both.gain.estimate == pytest.approx(np.mean(apart))  # type: ignore[arg-type]
    nothing = gate({"c": unlabelled}, n=200)
    assert not nothing.kept and nothing.gain.estimate is None


def test_a_transfer_that_adds_nothing_rarely_passes() -> None:
    kept = [gate({"a": answers(3, 150, better=0.0, seed=seed)}, n=200).kept for seed in range(100)]
    assert sum(kept) <= 8  # one of 40 is what the interval promises


def test_answers_of_other_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="same seeds and studies"):
        Answers("binary", np.zeros(3), np.arange(3), np.zeros((2, 3)), np.zeros((1, 3)))
