"""Tables of studies for the tests of obstacles, made in memory: no file is opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from medssml.manifest.manifest import Manifest

MODALITIES = ("ct", "xray", "eeg", "report")


def cohort(n: int = 1500, *, seed: int = 0, complete: bool = False, tasks: dict[str, str] | None = None) -> Manifest:
    """n studies of n / 2 subjects with some modalities of four, a binary and a numeric label, an age and a site."""
    rng = np.random.default_rng(seed)
    has = np.ones((n, 4), bool) if complete else rng.random((n, 4)) < [0.9, 0.7, 0.5, 0.8]
    subject = np.arange(n) // 2
    split = np.array(["train", "val", "test"])[np.minimum(subject % 5, 2)]
    table = pd.DataFrame(
        {
            "study_id": [f"study{row}" for row in range(n)],
            "subject_id": [f"subject{row}" for row in subject],
            "split": split,
            "source": [f"site{row}" for row in rng.integers(0, 6, n)],
            **{m: [f"{m}/{row}.bin" if has[row, at] else "" for row in range(n)] for at, m in enumerate(MODALITIES)},
            "label_sick": rng.choice(["0", "1", ""], n, p=[0.5, 0.3, 0.2]),
            "label_grade": rng.choice(["none", "mild", "severe"], n),
            "label_size": rng.normal(10, 3, n).round(3),
            "group_age": rng.integers(20, 90, n),
        }
    )
    kinds = {"size": "regression"} if tasks is None else tasks
    return Manifest.from_table(table, Path("."), MODALITIES, kinds)
