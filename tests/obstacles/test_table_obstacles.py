"""Mispaired studies and labels that are not to be relied on."""

from __future__ import annotations

import numpy as np
import pytest

from medssml.obstacles import (
    ClassScarce,
    LabelFault,
    LabelsByAnnotator,
    LabelsFromReports,
    LabelsHidden,
    LabelsOfOneClass,
    LabelsSymmetric,
    Mispaired,
    TableObstacle,
)
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


FAULTS: tuple[type[LabelFault], ...] = (
    LabelsHidden, LabelsSymmetric, LabelsOfOneClass, LabelsByAnnotator, LabelsFromReports,
)  # fmt: skip


def fitted(obstacle: LabelFault) -> LabelFault:
    obstacle.fit(STUDIES)
    return obstacle


@pytest.mark.parametrize("kind", [LabelsHidden, LabelsSymmetric, LabelsOfOneClass])
def test_labels_are_at_fault_at_the_rate(kind: type[LabelFault]) -> None:
    before, after = STUDIES.targets["sick"], kind(0.3).applied(STUDIES).targets["sick"]
    known = np.isfinite(before)
    changed = known & ~(before == after)
    concerned = known & (before == 1) if kind is LabelsOfOneClass else known
    assert not changed[~concerned].any()
    # Labels of two studies of a subject are hidden together.
    assert within(changed[concerned].mean(), 0.3, concerned.sum() // (2 if kind is LabelsHidden else 1))
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


def test_a_subject_is_unlabelled_as_a_whole_down_to_one_percent() -> None:
    hidden = LabelsHidden(0.99).applied(STUDIES).targets["grade"]
    by_subject = {subject: set(np.isnan(hidden[STUDIES.subject_ids == subject])) for subject in STUDIES.subject_ids}
    assert all(len(found) == 1 for found in by_subject.values())
    assert 0 < np.isfinite(hidden).mean() < 0.03


def confusion(before: np.ndarray, after: np.ndarray, among: np.ndarray) -> np.ndarray:
    """(K, K) shares of each class (row) that are called each class."""
    count = int(np.nanmax(before)) + 1
    table = np.array([[(among & (before == a) & (after == b)).sum() for b in range(count)] for a in range(count)])
    return table / table.sum(1, keepdims=True)


def test_annotators_err_at_the_rate_together_and_each_in_their_own_way() -> None:
    fault = LabelsByAnnotator(0.3, spread=2.0, column="source")
    fault.fit(STUDIES)
    before, after = STUDIES.targets["grade"], fault.applied(STUDIES).targets["grade"]
    assert within((before != after).mean(), 0.3, len(STUDIES))
    assert fault.readers(STUDIES) == list(STUDIES.table["source"]), "the column says who"
    sites = sorted(set(STUDIES.table["source"]))
    own = [confusion(before, after, (STUDIES.table["source"] == site).to_numpy()) for site in sites]
    # Of 80 labels of a class a rate of 0.3 has a standard error of 0.05: these differ by far more.
    wrong = np.array([1 - np.diag(table) for table in own])
    assert wrong.std() > 0.15 and wrong.std(0).min() > 0.08
    for table, site in zip(own, sites, strict=True):
        of_site = STUDIES.filter((STUDIES.table["source"] == site).to_numpy())
        stated = np.asarray(fault.rates(of_site, "grade"))
        for c in range(3):
            rows = of_site.targets["grade"] == c
            assert len(set(stated[rows])) == 1 and within(1 - table[c, c], stated[rows][0], rows.sum())
    shares = [table[0, 1] / (table[0, 1] + table[0, 2]) for table in own if table[0, 0] < 0.8]
    assert max(shares) - min(shares) > 0.3, "what a class is taken for is their own as well"


def test_who_reads_a_study_is_drawn_where_no_column_says_it() -> None:
    fault = LabelsByAnnotator(0.3, annotators=4)
    names, counts = np.unique(fault.readers(STUDIES), return_counts=True)
    assert len(names) == 4 and all(within(count / len(STUDIES), 0.25, len(STUDIES)) for count in counts)
    assert (np.ptp(np.asarray(fitted(LabelsByAnnotator(0.3, spread=0.0)).rates(STUDIES, "grade"))) == 0).all()
    with pytest.raises(ValueError, match="no column 'doctor'; fix"):
        fitted(LabelsByAnnotator(0.3, column="doctor"))
    with pytest.raises(ValueError, match="fit\\(studies\\) first"):
        LabelsByAnnotator(0.3).applied(STUDIES)


@pytest.mark.parametrize("severity", [0.4, 1.0])
def test_a_labeller_of_reports_errs_as_its_matrix_says(severity: float) -> None:
    """(1 - severity) I + severity P; of two classes by sensitivity and specificity."""
    matrix = np.array([[0.9, 0.1, 0.0], [0.5, 0.2, 0.3], [0.0, 0.4, 0.6]])
    fault = LabelsFromReports(severity, sensitivity=0.6, specificity=0.8, matrices={"grade": matrix.tolist()})
    fault.fit(STUDIES)
    after = fault.applied(STUDIES)
    for task, expected in (("grade", matrix), ("sick", np.array([[0.8, 0.2], [0.4, 0.6]]))):
        before, expected = STUDIES.targets[task], (1 - severity) * np.eye(len(expected)) + severity * expected
        found = confusion(before, after.targets[task], np.isfinite(before))
        for a, b in np.ndindex(*expected.shape):
            count = (before == a).sum()
            assert (
                abs(found[a, b] - expected[a, b]) < 5 * np.sqrt(expected[a, b] * (1 - expected[a, b]) / count) + 1e-12
            )


def test_of_several_classes_a_labeller_says_the_first_of_what_it_overlooks() -> None:
    label = STUDIES.tasks["grade"]
    found = LabelsFromReports(1.0, sensitivity=0.7, specificity=0.9).matrix("grade", label)
    assert np.allclose(found, [[0.9, 0.05, 0.05], [0.3, 0.7, 0], [0.3, 0, 0.7]])


@pytest.mark.parametrize(
    "matrices, message",
    [({"grade": [[1, 0], [0, 1]]}, "fix: 3 rows of 3"), ({"sick": [[0.9, 0.2], [0, 1]]}, "with the sum 1"),
     ({"size": [[1]]}, "matrices names 'size'; fix")],
)  # fmt: skip
def test_a_matrix_that_is_none_is_refused(matrices: dict[str, list[list[float]]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(LabelsFromReports(0.5, matrices=matrices))


@pytest.mark.parametrize("severity, left", [(0.5, 0.1), (0.25, 10**-0.5)])
def test_a_class_is_thinned_out_among_training_studies_alone(severity: float, left: float) -> None:
    thinned = ClassScarce(severity, task="sick").applied(STUDIES)
    train, sick = STUDIES.splits == "train", STUDIES.targets["sick"] == 1
    stay = np.isin(STUDIES.study_ids, thinned.study_ids)
    assert stay[~(train & sick)].all()
    assert within(stay[train & sick].mean(), left, (train & sick).sum() // 2)
    fewer = ClassScarce(severity + 0.3, task="sick").applied(STUDIES).study_ids
    assert set(fewer) < set(thinned.study_ids) and ClassScarce(0.0).applied(STUDIES) is STUDIES
    subject = {s: set(stay[train & sick & (STUDIES.subject_ids == s)]) for s in STUDIES.subject_ids[train & sick]}
    assert all(len(found) == 1 for found in subject.values())


def test_which_class_is_scarce_can_be_named() -> None:
    thinned = ClassScarce(1.0, task="grade", scarce="mild").applied(STUDIES)
    gone = STUDIES.filter(~np.isin(STUDIES.study_ids, thinned.study_ids))
    assert set(gone.table["label_grade"]) == {"mild"}
    for arguments, message in (({"task": "size"}, "is a number"), ({"task": "cough"}, "no label_cough")):
        with pytest.raises(ValueError, match=message):
            ClassScarce(0.5, **arguments).fit(STUDIES)
    with pytest.raises(ValueError, match="no class 'mile'; fix"):
        ClassScarce(0.5, task="grade", scarce="mile").fit(STUDIES)


ALL: tuple[type[TableObstacle], ...] = (Mispaired, *FAULTS)


@pytest.mark.parametrize("kind", ALL)
def test_severity_0_changes_nothing_and_a_larger_one_never_less(kind: type[TableObstacle]) -> None:
    assert kind(0.0).applied(STUDIES) is STUDIES
    obstacle = kind(0.0)
    obstacle.fit(STUDIES)
    tables = [obstacle.at(severity).applied(STUDIES).table for severity in (0.2, 0.6, 1.0)]
    changed = [(table != STUDIES.table).to_numpy() for table in tables]
    assert all(not (less & ~more).any() for less, more in zip(changed[:-1], changed[1:], strict=True))
    assert changed[0].any()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_study_alone_has_the_same_labels(kind: type[LabelFault]) -> None:
    fault = fitted(kind(0.5))
    whole = fault.applied(STUDIES).table
    for row in (3, 50, 999):
        alone = fault.applied(STUDIES.filter(np.array([row]))).table
        assert (alone.iloc[0] == whole.iloc[row]).all()
