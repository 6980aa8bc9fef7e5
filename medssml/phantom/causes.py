"""The structural causal model: which findings a patient has, what each modality shows of them, which labels follow.

    finding f            z_f ~ N(0, 1), independent of the other findings, of age, of sex and of the scanner
    evidence in m        e_mf = z_f + STRENGTH[m][f] * N(0, 1): the only thing that modality m shows of finding f
    report               shows only the grade of its evidence: the bin of e between GRADE_EDGES[f]
    label of a task      1 where score(z) + task.noise * N(0, 1) > task.threshold

All are in standard units (standard deviations of the finding in the cohort). A subject keeps findings, age, sex and
labels over all of his studies; the evidence is drawn anew for each study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]

MODALITIES = ("ct", "xray", "eeg", "report")
FINDINGS = ("nodule", "effusion", "cardiomegaly", "epileptiform")

STRENGTH: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "ct": {"nodule": 0.4, "effusion": 0.45, "cardiomegaly": 0.75},
        "xray": {"nodule": 1.4, "effusion": 0.5, "cardiomegaly": 0.45},
        "eeg": {"epileptiform": 0.25},
        "report": {"nodule": 1.1, "effusion": 0.7, "cardiomegaly": 0.7},
    }
)
"""Modality -> finding -> standard deviation of the noise of its evidence; a finding that is left out is not shown."""

GRADE_EDGES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "nodule": (-1.2, -0.5, 0.1, 0.7, 1.3, 2.0),
        "effusion": (-1.0, -0.4, 0.1, 0.6, 1.1, 1.7),
        "cardiomegaly": (-1.0, -0.4, 0.1, 0.6, 1.1, 1.7),
    }
)
"""Finding -> inner edges of the grades that a report can express: six edges are seven grades, 0 to 6."""

MENTIONED = 3
"""Grade from which a report states a finding as at least possible, and repeats it in its impression."""

EVIDENCE = tuple((modality, finding) for modality in MODALITIES for finding in STRENGTH[modality])
"""Every pair of a modality and a finding that it shows."""


@dataclass(frozen=True)
class Task:
    """A binary label: 1 where score(z) + noise * N(0, 1) > threshold.

    The score is the finding itself, or, of two findings, (z_1 + shift) * (z_2 + shift): with a small shift, neither
    finding says much alone.

    Args:
        findings: one finding, or two whose interaction decides.
        prevalence: share of positives.
        noise: standard deviation of what no modality shows.
        shift: weight of the main effects; used with two findings only.
    """

    findings: tuple[str, ...]
    prevalence: float
    noise: float
    shift: float = 0.0

    def score(self, latents: Mapping[str, Array]) -> Array:
        """(n,) what decides the label, of finding -> (n,)."""
        if len(self.findings) == 1:
            return latents[self.findings[0]]
        first, second = (latents[finding] for finding in self.findings)
        return (first + self.shift) * (second + self.shift)

    @cached_property
    def threshold(self) -> float:
        """The threshold that gives the prevalence."""
        if len(self.findings) == 1:
            return float(-np.sqrt(1 + self.noise**2) * ndtri(self.prevalence))
        nodes, weights = normal_nodes()
        slope = nodes + self.shift
        spread = np.sqrt(slope**2 + self.noise**2)

        def excess(threshold: float) -> float:
            return float(weights @ ndtr((self.shift * slope - threshold) / spread)) - self.prevalence

        return float(brentq(excess, -20.0, 20.0))


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "malignant": Task(("nodule",), prevalence=0.35, noise=0.2),
        "effusion": Task(("effusion",), prevalence=0.40, noise=0.25),
        "cardiomegaly": Task(("cardiomegaly",), prevalence=0.35, noise=0.25),
        "seizure": Task(("epileptiform",), prevalence=0.30, noise=0.3),
        "deterioration": Task(("epileptiform", "effusion"), prevalence=0.40, noise=0.2, shift=0.3),
    }
)
"""malignant: mostly CT. effusion: CT and X-ray, redundant. cardiomegaly: X-ray, CT and report. seizure: EEG alone.
deterioration: brain and lung together; one of them alone says little."""


def normal_nodes(count: int = 65, reach: float = 6.5) -> tuple[Array, Array]:
    """Nodes (k,) and weights (k,) of the trapezoid rule under the standard normal density.

    The rule converges exponentially for smooth functions: at 65 nodes the error is below 1e-9 where nothing varies
    faster than over 0.25 standard deviations.
    """
    nodes = np.linspace(-reach, reach, count)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def grade(finding: str, evidence: Array) -> NDArray[np.int64]:
    """The grade (n,) of a finding, 0 (surely absent) to 6 (gross), that a report with this evidence (n,) expresses."""
    return np.digitize(evidence, GRADE_EDGES[finding]).astype(np.int64)


def evidence_of(latents: Mapping[str, Array], noise: Array) -> dict[str, Array]:
    """Evidence columns `evidence_<modality>_<finding>` (n,) of latents (n,) and noise (n, len(EVIDENCE))."""
    return {
        f"evidence_{modality}_{finding}": latents[finding] + STRENGTH[modality][finding] * noise[:, column]
        for column, (modality, finding) in enumerate(EVIDENCE)
    }


def labels_of(latents: Mapping[str, Array], noise: Array) -> dict[str, NDArray[np.int64]]:
    """Task -> label (n,) of latents (n,) and noise (n, len(TASKS))."""
    return {
        name: (task.score(latents) + task.noise * noise[:, column] > task.threshold).astype(np.int64)
        for column, (name, task) in enumerate(TASKS.items())
    }


def population(n: int, seed: int = 0) -> pd.DataFrame:
    """n subjects with one study each, nothing missing: latent_*, evidence_*, label_* and the groups, no files."""
    rng = np.random.default_rng([seed, 7])
    latents = {finding: rng.standard_normal(n) for finding in FINDINGS}
    evidence = evidence_of(latents, rng.standard_normal((n, len(EVIDENCE))))
    labels = labels_of(latents, rng.standard_normal((n, len(TASKS))))
    people = {
        "age": np.clip(np.round(62 + 14 * rng.standard_normal(n)), 18, 95),
        "female": rng.random(n) < 0.45,
        "scanner_b": rng.random(n) < 0.5,
    }
    named = {f"latent_{name}": value for name, value in latents.items()}
    named_labels = {f"label_{name}": value for name, value in labels.items()}
    return pd.concat([pd.DataFrame(part) for part in (named, evidence, named_labels, people)], axis=1)
