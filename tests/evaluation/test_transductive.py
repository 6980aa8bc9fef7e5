"""What aligning is worth where the truth is known: a shift of the scanner is undone, one of the prior is mistaken for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from medssml.evaluation.alignment import align_studies
from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.evaluation.probing import FusedEmbeddings, Splits, Target
from medssml.evaluation.tasks import TaskSettings
from medssml.evaluation.transductive import transductive_task
from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel, Task
from medssml.statistics.bootstrap import Array
from tests.objectives.vectors import vector_batch, vector_model

NAMES, DIM = ("image", "signal"), 6
SETTINGS = TaskSettings(bootstrap=60)


def model(tasks: dict[str, Task] | None = None) -> MultimodalModel:
    torch.manual_seed(0)
    return vector_model(NAMES, DIM, lambda names, dim: AdditiveFusion(names, dim, 0), tasks).eval()


def sites(count: int, seed: int, prevalence: dict[str, float], scanner: float = 0.0) -> tuple[EncodedStudies, Array]:
    """Studies of some sites, `count` each, of which one in five lacks a modality; and the site of each.

    The label moves both modalities along a direction; `scanner` shifts those of each site by so many standard deviations, at
    random, and stretches them up to threefold.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.array(list(prevalence), dtype=object), count)
    y = (rng.random(len(groups)) < np.repeat(list(prevalence.values()), count)).astype(np.float64)
    vectors = {}
    for place, name in enumerate(NAMES):
        direction = np.random.default_rng(place).normal(size=DIM)
        x = rng.normal(size=(len(groups), DIM)) + 1.6 * (y - 0.5)[:, None] * direction / np.linalg.norm(direction)
        for site in prevalence:
            gain, offset = 3.0 ** rng.uniform(-1, 1, DIM), rng.normal(size=DIM)
            x[groups == site] = x[groups == site] * gain ** min(scanner, 1.0) + scanner * offset
        vectors[name] = torch.from_numpy(x).float()
    present = torch.from_numpy(rng.random((len(groups), 2)) < 0.9)
    present[~present.any(dim=1)] = True
    return encode_studies(model(), [vector_batch(vectors, present, {"sick": torch.from_numpy(y)})]), groups


TRAIN, _ = sites(500, 0, {"A": 0.5})
#: The penalty of a probe is chosen on them, which takes less time than folds.
VALIDATION, _ = sites(100, 9, {"A": 0.5})


def found(
    how: Any, test: EncodedStudies, groups: Array, made: MultimodalModel | None = None
) -> tuple[dict[str, Any], pd.DataFrame]:
    embeddings = FusedEmbeddings(made or model(), Splits(TRAIN, VALIDATION, test))
    aligned = align_studies(TRAIN, test, groups, how)
    return transductive_task(embeddings.model, embeddings, aligned, groups, Target("sick", "binary"), SETTINGS)


def test_most_of_what_another_scanner_costs_is_given_back() -> None:
    """Centring takes the shift back, and the stretch stays; the covariance takes back both."""
    prevalence = dict.fromkeys("BCDEFG", 0.5)
    (at_home, groups), (away, _) = sites(80, 1, prevalence), sites(80, 1, prevalence, scanner=2.0)
    home = found("centre", at_home, groups)[0]["as_observed"]["inductive"]["auroc"]["estimate"]
    for how, share in (("centre", 0.6), ("covariance", 0.85)):
        seen = found(how, away, groups)[0]["as_observed"]
        lost = home - seen["inductive"]["auroc"]["estimate"]
        gained = seen["difference"]["auroc"]
        assert lost > 0.1 and gained["ci_low"] > 0
        assert gained["estimate"] == pytest.approx(
            seen["transductive"]["auroc"]["estimate"] - seen["inductive"]["auroc"]["estimate"]
        )
        assert gained["estimate"] > share * lost
        assert seen["difference"]["brier"]["ci_high"] < 0


def test_sites_that_differ_in_how_many_are_ill_are_made_worse_by_it() -> None:
    """No scanner shift at all: the mean of a site of sick patients is theirs, and it is taken away with the rest."""
    test, groups = sites(200, 1, {"few": 0.15, "many": 0.85})
    for how in ("centre", "covariance"):
        seen = found(how, test, groups)[0]
        change = seen["as_observed"]["difference"]
        assert change["auroc"]["estimate"] < -0.03 and change["auroc"]["ci_high"] < 0
        assert change["balanced_accuracy"]["ci_high"] < 0 and change["brier"]["ci_low"] > 0
        # Within a site nobody changes places, as far as the mean alone is moved.
        if how == "centre":
            assert all(abs(g["difference"]["auroc"]["estimate"]) < 0.02 for g in seen["groups"].values())


def test_where_nothing_is_shifted_next_to_nothing_changes() -> None:
    test, groups = sites(200, 1, {"B": 0.5, "C": 0.5})
    for how in ("centre", "covariance"):
        assert abs(found(how, test, groups)[0]["as_observed"]["difference"]["auroc"]["estimate"]) < 0.01


def test_every_subset_is_answered_both_ways_on_the_same_studies_and_the_plain_figures_are_those_of_evaluate() -> None:
    from medssml.evaluation.tasks import evaluate_task

    test, groups = sites(60, 1, {"B": 0.5, "C": 0.5}, scanner=1.0)
    for made, method in ((model(), "linear probe"), (model({"sick": Task()}), "head")):
        embeddings = FusedEmbeddings(made, Splits(TRAIN, VALIDATION, test))
        plain, _ = evaluate_task(made, embeddings, Target("sick", "binary"), SETTINGS, {})
        entry, table = found("covariance", test, groups, made)
        assert entry["method"] == method and set(entry["subsets"]) == {"image", "signal", "image+signal"}
        for name, figures in entry["subsets"].items():
            wanted = plain["subsets"][name]
            assert (figures["n"], figures["positives"]) == (wanted["n"], wanted["positives"])
            assert figures["inductive"]["auroc"] == wanted["auroc"] and figures["inductive"]["brier"] == wanted["brier"]
            assert figures["transductive"]["auroc"] != wanted["auroc"]
        if method == "head":
            assert entry["as_observed"]["inductive"]["auroc"] == plain["as_observed"]["auroc"]
        assert set(entry["groups"]) == {"B", "C"} and sum(g["n"] for g in entry["groups"].values()) == 120
        assert set(table["method"]) == {f"{method}, aligned"} and {"study_id", "subset", "probability"} <= set(table)


def test_a_study_is_answered_by_its_own_group_alone_and_in_any_order() -> None:
    test, groups = sites(40, 1, {"B": 0.5, "C": 0.5}, scanner=1.0)
    made = model({"sick": Task()})

    def answers(studies: EncodedStudies, of: Array) -> pd.Series:
        table = found("covariance", studies, of, made)[1]
        return table.set_index(["study_id", "subset"])["probability"].sort_index()

    whole = answers(test, groups)
    only = answers(test.take(np.flatnonzero(groups == "B")), groups[groups == "B"])
    pd.testing.assert_series_equal(whole.loc[only.index], only, rtol=1e-4)
    order = np.random.default_rng(0).permutation(80)
    pd.testing.assert_series_equal(answers(test.take(order), groups[order]), whole, rtol=1e-4)
    # Another study of its group, however, changes it: that is why it is reported apart.
    fewer = answers(test.take(np.arange(1, 80)), groups[1:])
    assert np.abs(fewer - whole.loc[fewer.index]).max() > 1e-4


def test_labels_are_not_looked_at() -> None:
    test, groups = sites(40, 1, {"B": 0.5, "C": 0.5}, scanner=1.0)
    unknown = replace(test, targets={"sick": np.where(np.arange(80) < 70, test.targets["sick"], np.nan)})
    made = model({"sick": Task()})
    pd.testing.assert_frame_equal(
        found("covariance", test, groups, made)[1].drop(columns="y"),
        found("covariance", unknown, groups, made)[1].drop(columns="y"),
    )
    assert found("covariance", unknown, groups, made)[0]["as_observed"]["n"] == 70


def test_a_task_that_nothing_answers_says_so() -> None:
    test, groups = sites(40, 1, {"B": 0.5})
    embeddings = FusedEmbeddings(model(), Splits(TRAIN, VALIDATION, test))
    aligned = align_studies(TRAIN, test, groups, "centre")
    entry, table = transductive_task(
        embeddings.model, embeddings, aligned, groups, Target("sick", "binary"), TaskSettings(probes=False)
    )
    assert entry["method"] == "none" and "no head, no probe" in entry["reason"] and not len(table)
