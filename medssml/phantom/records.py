"""truth.csv and truth.json: what is known of a cohort that no real cohort tells.

truth.csv: one row per study with its latents, its evidence and `bayes_<task>__<subset>`, the best possible probability
from every subset of modalities, as if none were missing; `bayes_<task>` is that of the modalities it really has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from medssml.phantom import truth
from medssml.phantom.causes import FINDINGS, GRADE_EDGES, MODALITIES, STRENGTH, TASKS, population
from medssml.phantom.cohort import Design
from medssml.phantom.missingness import DEPENDS_ON

FORMAT = 1  # of the files and of the drawing: a cohort of another number is drawn anew


def truth_table(table: pd.DataFrame) -> pd.DataFrame:
    """truth.csv of `draw`'s table."""
    columns = [
        "study_id", "subject_id", "split", "age", "female", "scanner_b", "nodule_site", "labelled",
        *table.filter(regex="^(latent|evidence|grade|label|present)_"),
    ]  # fmt: skip
    present = table[[f"present_{modality}" for modality in MODALITIES]].to_numpy()
    available = np.array(["+".join(m for m, there in zip(MODALITIES, row, strict=True) if there) for row in present])
    best: dict[str, np.ndarray] = {"available": available}
    for task in TASKS:
        by_subset = truth.posteriors(table, task)
        best[f"bayes_{task}"] = np.select([available == subset for subset in by_subset], list(by_subset.values()))
        best |= {f"bayes_{task}__{subset}": value for subset, value in by_subset.items()}
    return pd.concat([table[columns], pd.DataFrame(best, index=table.index)], axis=1)


def truth_summary(design: Design, known: pd.DataFrame, draws: int) -> dict[str, Any]:
    """truth.json of a cohort.

    Args:
        design: of the cohort.
        known: `truth_table` of it.
        draws: Monte Carlo studies behind each AUROC.
    """
    absent = {m: round(1 - float(known[f"present_{m}"].mean()), 4) for m in MODALITIES}
    return {
        "format": FORMAT,
        "design": asdict(design),
        "seed": design.seed,
        "modalities": list(MODALITIES),
        "latents": list(FINDINGS),
        "evidence": {
            "unit": "standard deviation of the noise of each modality's evidence of each finding, whose own is 1",
            "noise_sd": {modality: dict(shown) for modality, shown in STRENGTH.items()},
            "report_grade_edges": {finding: list(edges) for finding, edges in GRADE_EDGES.items()},
        },
        "mechanism": {
            "name": design.mechanism,
            "missing": design.missing,
            "logit_effects": {m: dict(effects) for m, effects in DEPENDS_ON[design.mechanism].items()},
            "absent": absent,
        },
        "monte_carlo_studies": draws,
        "tasks": {task: _task_summary(task, known, draws) for task in TASKS},
    }


def _task_summary(task: str, known: pd.DataFrame, draws: int) -> dict[str, Any]:
    spec = TASKS[task]
    auroc = {subset: truth.bayes_auroc(task, subset, draws) for subset in truth.subsets()}
    split, split_se = truth.shapley_auroc(task, draws)
    return {
        "findings": list(spec.findings),
        "prevalence": spec.prevalence,
        "noise_sd": spec.noise,
        "shift": spec.shift,
        "threshold": round(spec.threshold, 6),
        "bayes_auroc": {subset: round(value.estimate, 5) for subset, value in auroc.items()},
        "bayes_auroc_se": {subset: round(value.se, 5) for subset, value in auroc.items()},
        "shapley_auroc": {modality: round(phi, 5) for modality, phi in split.items()},
        "shapley_auroc_se": {modality: round(se, 5) for modality, se in split_se.items()},
        "shapley_probability": _probability_summaries(task, known, draws),
    }


def _probability_summaries(task: str, known: pd.DataFrame, draws: int) -> dict[str, Any]:
    """Shapley split of the Bayes posterior, over the population and over the test studies that have everything."""
    complete = known[(known["split"] == "test") & (known["available"] == "+".join(MODALITIES))]
    by_subset = {subset: complete[f"bayes_{task}__{subset}"].to_numpy() for subset in truth.subsets()}
    people = population(draws, seed=0)[f"label_{task}"].to_numpy()
    return {
        "value": "Bayes probability of the positive class; players are all modalities, baseline the prevalence",
        "population": _probability_split(truth.population_posteriors(task, draws), people),
        "test_complete": _probability_split(by_subset, complete[f"label_{task}"].to_numpy()),
    }


def _probability_split(by_subset: Mapping[str, np.ndarray], label: np.ndarray) -> dict[str, Any]:
    """Mean, mean of absolute values and mean within each class of each study's Shapley values; None without studies."""
    split = truth.shapley(by_subset)
    selections = {"mean": label >= 0, "mean_positive": label == 1, "mean_negative": label == 0}
    summary: dict[str, Any] = {"n": len(label)}
    for name, rows in selections.items():
        summary[name] = {modality: _mean(phi[rows]) for modality, phi in split.items()}
    summary["mean_abs"] = {modality: _mean(np.abs(phi)) for modality, phi in split.items()}
    return summary


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 6) if len(values) else None
