"""Mispaired studies and labels that are not to be relied on."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.obstacles import LabelFault, LabelsHidden, LabelsOfOneClass, LabelsSymmetric, Mispaired, TableObstacle
from tests.obstacles.cohorts import MODALITIES, cohort

STUDIES = cohort()


def within(share: float, expected: float, n: int) -> bool:
    return abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


def test_mispaired_takes_one_modality_of_another_subject() -> None:
    source = Mispaired(0.4).partners(STUDIES)
    moved = STUDIES.present & (source != np.arange(len(STUDIES))[:, None])
    several = STUDIES.present.sum(1) > 1
    assert set(moved.sum(1)) == {0, 1} and not moved[~several].any()
    assert within(moved[several].any(1).mean(), 0.4, several.sum())
    rows, columns = np.nonzero(moved)
    assert (STUDIES.subject_ids[source[rows, columns]] != STUDIES.subject_ids[rows]).all()
    assert STUDIES.present[source[rows, columns], columns].all()


def test_mispaired_in_the_table_is_the_same() -> None:
    source, table = Mispaired(0.4).partners(STUDIES), Mispaired(0.4).applied(STUDIES).table
    for column, name in enumerate(MODALITIES):
        has = STUDIES.present[:, column]
        assert list(table[name][has]) == [STUDIES.table[name].iloc[row] for row in source[has, column]]


def test_who_has_whose_does_not_depend_on_the_order() -> None:
    order = np.random.default_rng(1).permutation(len(STUDIES))
    source, other = Mispaired(0.4).partners(STUDIES), Mispaired(0.4).partners(STUDIES.filter(order))
    assert (np.where(other >= 0, order[other], -1) == source[order]).all()


@pytest.mark.parametrize("kind", [LabelsHidden, LabelsSymmetric, LabelsOfOneClass])
def test_labels_are_at_fault_at_the_rate(kind: type[LabelFault]) -> None:
    before, after = STUDIES.targets["sick"], kind(0.3).applied(STUDIES).targets["sick"]
    known = np.isfinite(before)
    changed = known & ~(before == after)
    concerned = known & (before == 1) if kind is LabelsOfOneClass else known
    assert not changed[~concerned].any()
    assert within(changed[concerned].mean(), 0.3, concerned.sum())
    assert np.isnan(after[~known]).all()


def test_a_wrong_label_is_any_other_class_alike() -> None:
    before, after = STUDIES.targets["grade"], LabelsSymmetric(0.6).applied(STUDIES).targets["grade"]
    counts = np.array([[((before == a) & (after == b)).sum() for b in range(3)] for a in range(3)])
    shares = counts / counts.sum(1, keepdims=True)
    for a in range(3):
        assert within(shares[a, a], 0.4, counts[a].sum())
        assert all(within(shares[a, b], 0.3, counts[a].sum()) for b in range(3) if b != a)


def test_numbers_can_be_hidden_and_never_wrong() -> None:
    assert np.isnan(LabelsHidden(1.0).applied(STUDIES).targets["size"]).all()
    assert (LabelsSymmetric(1.0).applied(STUDIES).targets["size"] == STUDIES.targets["size"]).all()
    with pytest.raises(ValueError, match="size is a number, not a class; fix"):
        LabelsSymmetric(0.5, tasks=["size"]).fit(STUDIES)


def test_one_class_is_called_the_other_that_was_named() -> None:
    fault = LabelsOfOneClass(1.0, tasks=["grade"], missed="mild", instead="severe")
    assert set(fault.applied(STUDIES).table["label_grade"]) == {"none", "severe"}
    with pytest.raises(ValueError, match="no class 'mile'; fix"):
        LabelsOfOneClass(1.0, tasks=["grade"], missed="mile").applied(STUDIES)


ALL: tuple[type[TableObstacle], ...] = (Mispaired, LabelsHidden, LabelsSymmetric, LabelsOfOneClass)


@pytest.mark.parametrize("kind", ALL)
def test_severity_0_changes_nothing_and_a_larger_one_never_less(kind: type[TableObstacle]) -> None:
    assert kind(0.0).applied(STUDIES) is STUDIES
    tables = [kind(severity).applied(STUDIES).table for severity in (0.2, 0.6, 1.0)]
    changed = [(table != STUDIES.table).to_numpy() for table in tables]
    assert all(not (less & ~more).any() for less, more in zip(changed[:-1], changed[1:], strict=True))
    assert changed[0].any()


@pytest.mark.parametrize("kind", [LabelsHidden, LabelsSymmetric, LabelsOfOneClass])
def test_a_study_alone_has_the_same_labels(kind: type[TableObstacle]) -> None:
    whole = kind(0.5).applied(STUDIES).table
    for row in (3, 50, 999):
        alone = kind(0.5).applied(STUDIES.filter(np.array([row]))).table
        assert (alone.iloc[0] == whole.iloc[row]).all()
