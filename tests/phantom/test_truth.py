"""The Bayes posterior, AUROC and Shapley values against closed forms, adaptive integration and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from medssml.phantom import MODALITIES, STRENGTH, TASKS, population, truth
from medssml.phantom.causes import GRADE_EDGES, grade
from medssml.phantom.records import truth_table


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return population(40_000, seed=11)


def test_soft_auroc_of_one_gaussian_evidence_is_phi_of_d_prime_over_root_two() -> None:
    d_prime, rng = 1.3, np.random.default_rng(0)
    label = rng.random(400_000) < 0.3
    x = rng.standard_normal(len(label)) + d_prime * label
    bayes = 1 / (1 + 0.7 / 0.3 * np.exp(-d_prime * x + d_prime**2 / 2))  # Bayes formula for two normal densities
    assert truth.soft_auroc(bayes) == pytest.approx(norm.cdf(d_prime / np.sqrt(2)), abs=0.002)


def test_soft_auroc_is_the_auroc_where_probabilities_are_certain_and_counts_ties_half() -> None:
    assert truth.soft_auroc(np.array([0.0, 0.0, 1.0])) == 1.0
    assert truth.soft_auroc(np.full(5, 0.4)) == pytest.approx(0.5)


def test_auroc_of_one_evidence_is_that_of_the_bivariate_normal() -> None:
    """Label = [z + noise > t] and evidence e are bivariate normal; their AUROC is one integral over e."""
    task, sd = TASKS["seizure"], STRENGTH["eeg"]["epileptiform"]
    rho = 1 / np.sqrt((1 + sd**2) * (1 + task.noise**2))
    cut = norm.isf(task.prevalence)

    def integrand(e: float) -> float:
        positive = norm.pdf(e) * norm.cdf((rho * e - cut) / np.sqrt(1 - rho**2)) / task.prevalence
        below = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([e, cut]) / (1 - task.prevalence)
        return positive * float(below)

    closed, _ = quad(integrand, -6, 6, epsabs=1e-6)
    estimate = truth.bayes_auroc("seizure", "eeg", n=100_000)
    assert estimate.se < 0.001
    assert abs(estimate.estimate - closed) < 4 * estimate.se


@pytest.mark.parametrize("subset", ["report", "ct+report", "ct+xray+eeg+report"])
def test_posterior_with_a_grade_agrees_with_adaptive_integration(people: pd.DataFrame, subset: str) -> None:
    rows = people.head(4)
    expected = [integrated(row, subset) for _, row in rows.iterrows()]
    np.testing.assert_allclose(truth.posterior(rows, "effusion", subset), expected, atol=1e-5)


def integrated(row: pd.Series, subset: str) -> float:
    """P(effusion | evidence) by adaptive integration over the latent finding."""
    task, sd = TASKS["effusion"], STRENGTH["report"]["effusion"]
    edges = [-np.inf, *GRADE_EDGES["effusion"], np.inf]
    level = int(np.searchsorted(edges, row.evidence_report_effusion)) - 1

    def joint(z: float) -> float:
        density = norm.pdf(z)
        for modality in ("ct", "xray"):
            if modality in subset:
                density *= norm.pdf(row[f"evidence_{modality}_effusion"], z, STRENGTH[modality]["effusion"])
        return density * (norm.cdf((edges[level + 1] - z) / sd) - norm.cdf((edges[level] - z) / sd))

    def positive(z: float) -> float:
        return joint(z) * norm.cdf((z - task.threshold) / task.noise)

    total, share = (quad(f, -7, 7, points=[0, 1], limit=200)[0] for f in (joint, positive))
    return share / total


def test_posterior_of_one_gaussian_evidence_is_its_closed_form(people: pd.DataFrame) -> None:
    task, sd = TASKS["malignant"], STRENGTH["ct"]["nodule"]
    mean, variance = people.evidence_ct_nodule / (1 + sd**2), sd**2 / (1 + sd**2)
    expected = norm.cdf((mean - task.threshold) / np.sqrt(variance + task.noise**2))
    np.testing.assert_allclose(truth.posterior(people, "malignant", "ct"), expected, atol=1e-12)


def test_posterior_of_an_interaction_agrees_with_draws_from_the_beliefs() -> None:
    row = population(3, seed=4).iloc[[1]]
    task, rng = TASKS["deterioration"], np.random.default_rng(0)
    draws = {}
    for finding, modality in (("epileptiform", "eeg"), ("effusion", "ct")):
        sd = STRENGTH[modality][finding]
        mean = float(row[f"evidence_{modality}_{finding}"].iloc[0]) / (1 + sd**2)
        draws[finding] = mean + np.sqrt(sd**2 / (1 + sd**2)) * rng.standard_normal(400_000)
    brute = np.mean(task.score(draws) + task.noise * rng.standard_normal(400_000) > task.threshold)
    assert truth.posterior(row, "deterioration", "ct+eeg")[0] == pytest.approx(brute, abs=0.004)


@pytest.mark.parametrize("subset", ["", "ct", "ct+xray", "ct+xray+eeg"])
@pytest.mark.parametrize("finding", sorted(GRADE_EDGES))
def test_what_a_report_will_state_is_known_as_well_as_the_modalities_allow(
    people: pd.DataFrame, finding: str, subset: str
) -> None:
    """Calibrated in every tenth, and sharper with every modality that shows the finding; the report itself counts nothing."""
    p = truth.stated(people, finding, subset)
    wanted = grade(finding, people[f"evidence_report_{finding}"].to_numpy()) >= 3
    for part in np.array_split(np.argsort(p), 10):
        assert wanted[part].mean() == pytest.approx(p[part].mean(), abs=4 * 0.5 / np.sqrt(len(part)))
    assert np.array_equal(truth.stated(people, finding, "+".join(filter(None, [subset, "report"]))), p)
    if subset:
        assert np.mean((p - wanted) ** 2) < np.mean((truth.stated(people, finding, "") - wanted) ** 2)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("subset", ["", "xray", "ct+report", "ct+xray+eeg+report"])
def test_posteriors_are_calibrated(people: pd.DataFrame, task: str, subset: str) -> None:
    """Among studies with posterior p, a share p is positive: in every tenth of p, within five standard errors."""
    p, y = truth.posterior(people, task, subset), people[f"label_{task}"].to_numpy()
    for part in np.array_split(np.argsort(p, kind="stable"), 10):
        error = np.sqrt(max(p[part].mean() * (1 - p[part].mean()), 1e-4) / len(part))
        assert abs(y[part].mean() - p[part].mean()) < 5 * error


@pytest.mark.parametrize("task", TASKS)
def test_prevalence_is_as_designed_and_everything_together_gives_a_main_task(people: pd.DataFrame, task: str) -> None:
    assert people[f"label_{task}"].mean() == pytest.approx(TASKS[task].prevalence, abs=0.012)
    assert 0.25 <= TASKS[task].prevalence <= 0.5
    assert 0.90 <= truth.bayes_auroc(task, "+".join(MODALITIES)).estimate <= 0.97


def test_modalities_that_do_not_show_a_finding_are_pure_noise_to_it(people: pd.DataFrame) -> None:
    alone = truth.posterior(people, "seizure", "eeg")
    np.testing.assert_array_equal(truth.posterior(people, "seizure", "ct+xray+eeg+report"), alone)
    np.testing.assert_allclose(truth.posterior(people, "seizure", "ct+report"), TASKS["seizure"].prevalence, atol=1e-9)
    split, _ = truth.shapley_auroc("seizure")
    assert split["ct"] == split["xray"] == split["report"] == 0
    assert split["eeg"] == pytest.approx(truth.bayes_auroc("seizure", "eeg").estimate - 0.5)


def test_tasks_are_redundant_unique_or_synergistic_as_the_docs_say() -> None:
    def gain(task: str, subset: str) -> float:
        return truth.bayes_auroc(task, subset).estimate - 0.5

    assert gain("effusion", "ct+xray") < 0.6 * (gain("effusion", "ct") + gain("effusion", "xray"))  # redundant
    assert gain("malignant", "ct") > gain("malignant", "report") > gain("malignant", "xray")
    assert gain("cardiomegaly", "xray") > gain("cardiomegaly", "report") > 0.3
    alone = gain("deterioration", "ct"), gain("deterioration", "eeg")
    assert max(alone) < 0.17 and gain("deterioration", "ct+eeg") > sum(alone) + 0.1  # synergy


def test_findings_say_nothing_of_age_sex_and_scanner(people: pd.DataFrame) -> None:
    nuisance = people[["age", "female", "scanner_b"]].astype(float)
    findings = people.filter(regex="^(latent|evidence|label)_")
    correlation = np.corrcoef(nuisance.T, findings.T)[:3, 3:]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(len(people))


def test_shapley_of_an_additive_game_are_its_terms_and_of_gates_the_known_values() -> None:
    worth = dict(zip(MODALITIES, (0.3, -0.1, 0.0, 0.25), strict=True))
    additive = {s: 0.5 + sum(worth[m] for m in truth.members(s)) for s in truth.subsets()}
    assert truth.shapley(additive) == pytest.approx(worth)
    # x1 = x2 = 1, uniform background: AND has values 1/4, 1/2, 1/2, 1; XOR's are 1/2 but where both are known.
    conjunction = {"": 0.25, "ct": 0.5, "eeg": 0.5, "ct+eeg": 1.0}
    assert truth.shapley(conjunction, ("ct", "eeg")) == pytest.approx({"ct": 0.375, "eeg": 0.375})
    exclusive = {"": 0.5, "ct": 0.5, "eeg": 0.5, "ct+eeg": 1.0}
    assert truth.shapley(exclusive, ("ct", "eeg")) == pytest.approx({"ct": 0.25, "eeg": 0.25})


def test_shapley_values_add_up_for_every_study(people: pd.DataFrame) -> None:
    values = truth.posteriors(people.head(50), "deterioration")
    split = truth.shapley(values)
    np.testing.assert_allclose(sum(split.values()), values["+".join(MODALITIES)] - values[""], atol=1e-12)


def test_grades_are_bins_of_the_evidence() -> None:
    edges = np.array(GRADE_EDGES["nodule"])
    assert grade("nodule", edges - 1e-9).tolist() == [0, 1, 2, 3, 4, 5]
    assert grade("nodule", edges + 1e-9).tolist() == [1, 2, 3, 4, 5, 6]


def test_subset_names_follow_the_columns_and_unknown_names_are_refused(people: pd.DataFrame) -> None:
    names = truth.subsets()
    assert len(names) == 16 and names[0] == "" and "ct+eeg" in names and names[-1] == "ct+xray+eeg+report"
    with pytest.raises(KeyError, match="mri"):
        truth.posterior(people, "effusion", "ct+mri")
    with pytest.raises(KeyError, match="tasks are"):
        truth.posterior(people, "pneumonia", "ct")


def test_truth_table_has_the_posterior_of_what_each_study_really_has() -> None:
    from medssml.phantom import Design, draw

    known = truth_table(draw(Design(studies=60, seed=2, missing=0.5)))
    for _, row in known.iterrows():
        assert row.bayes_malignant == row[f"bayes_malignant__{row.available}"]
