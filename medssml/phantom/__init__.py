"""The simulated cohort: an intensive-care cohort with CT, radiograph, EEG and report whose causes are known.

from pathlib import Path

from medssml.phantom import Design, simulate, truth

simulate(Path("cohort"), Design(studies=300, seed=0))
truth.bayes_auroc("malignant", "ct+report")
"""

from medssml.phantom import truth
from medssml.phantom.causes import EVIDENCE, FINDINGS, MODALITIES, STRENGTH, TASKS, Task, population
from medssml.phantom.cohort import Design, draw
from medssml.phantom.simulate import simulate
from medssml.phantom.truth import bayes_auroc, posterior, shapley, subsets

__all__ = [
    "EVIDENCE", "FINDINGS", "MODALITIES", "STRENGTH", "TASKS", "Design", "Task",
    "bayes_auroc", "draw", "population", "posterior", "shapley", "simulate", "subsets", "truth",
]  # fmt: skip
