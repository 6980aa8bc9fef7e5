"""Drift: the numbers by which a source can be told from the others, and none where there are none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medssml.checks.distributions import Property, cliffs_delta, drift, labels, source_column
from medssml.checks.limits import Limits
from medssml.manifest.manifest import Manifest


def test_cliffs_delta_is_twice_the_auroc_less_one():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, 40).astype(float), rng.integers(2, 12, 60).astype(float)
    expected = 2 * roc_auc_score(np.r_[np.ones(40), np.zeros(60)], np.r_[first, second]) - 1
    assert cliffs_delta(first, second) == pytest.approx(expected)
    assert cliffs_delta(first, first) == 0
    assert cliffs_delta(first, first + 100) == -1


def test_drift_names_the_property_and_the_source_and_nothing_else():
    rng = np.random.default_rng(1)
    sources = pd.Series(["a"] * 50 + ["b"] * 50 + ["c"] * 50 + ["d"] * 5)
    positions = np.arange(155)
    spacing = rng.normal(1, 0.1, 155) + np.r_[np.zeros(50), np.ones(50), np.zeros(55)]
    rate = rng.normal(200, 5, 155)
    found = [Property("ct", "spacing", positions, spacing), Property("eeg", "rate", positions, rate)]
    difference, *others = drift(found, sources, Limits())
    assert {(d.name, d.source) for d in others} <= {
        ("spacing", "a"),
        ("spacing", "c"),
    }  # half of what is elsewhere is b
    assert (difference.name, difference.source, difference.files) == ("spacing", "b", 50)
    assert difference.delta == 1.0 and difference.median == pytest.approx(2, abs=0.1)
    assert drift(found[1:], sources, Limits()) == []  # "d" has too few files to be compared
    two = drift(found[:1], sources.where(sources == "b", "a"), Limits())
    assert [d.source for d in two] == ["a"]  # of two sources one line says it


def table(tmp_path, **columns):
    frame = pd.DataFrame({"subject_id": ["1", "2", "3"], "study_id": ["1", "2", "3"], **columns})
    frame.to_csv(tmp_path / "m.csv", index=False)
    return Manifest.read(tmp_path / "m.csv")


def test_the_source_is_found_or_asked_for(tmp_path):
    manifest = table(tmp_path, site=["x", "y", "x"], group_scanner=["p", "q", "q"], colour=["r", "r", "r"])
    assert source_column(manifest) == "site"
    assert source_column(manifest, "group_scanner") == "group_scanner"
    assert source_column(table(tmp_path, site=["x", "x", "x"])) is None
    with pytest.raises(KeyError, match="'sight'.*site"):
        source_column(manifest, "sight")


def test_labels_count_where_they_are_known(tmp_path):
    (label,) = labels(table(tmp_path, label_ill=["1", "", "0"]))
    assert label.positions.tolist() == [0, 2] and label.values.tolist() == [1.0, 0.0]
