"""transfer_gain.json: what a transfer is worth, and how that was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssml.evaluation.bayes import bayes_column, known_truth
from medssml.manifest.manifest import Manifest
from medssml.runs.transfer_bench import ALONE, TAUGHT, Bench
from medssml.statistics.metrics import auroc, point
from medssml.transfer.gain import Gate


def transfer_result(
    bench: Bench,
    manifest: Path | None,
    found: dict[str, dict[str, Any]],
    decision: Gate,
    seeds: Sequence[int],
    chosen: int,
    bootstrap: int,
) -> dict[str, Any]:
    """transfer_gain.json."""
    config, truth, test = bench.config, known_truth(manifest, None), bench.studies.alone.split("test")
    for task, entry in found.items():
        best = possible(truth, test, task, config.student)
        entry |= {} if best is None else {"bayes": best}
    return {
        "student": config.student,
        "source": list(config.source),
        "method": config.method,
        "weight": config.weight,
        "tasks": found,
        "gate": decision.to_dict(),
        "kept": {"student": TAUGHT if decision.kept else ALONE, "seed": chosen},
        "protocol": {
            "seeds": list(seeds),
            "studies": bench.studies.counts,
            "steps": config.trainer.max_steps,
            "labelled studies per step": config.data.batch_size,
            "label share": config.labels,
            "begins": "new weights" if config.start == "scratch" else f"weights {config.start}",
            "teacher": config.taught_by,
            "manifest_sha256": bench.studies.alone.sha256,
            "privacy": bench.studies.alone.ids.facts(),
            "bootstrap": {
                "resamples": bootstrap,
                "level": 0.95,
                "unit": "subjects and seeds, the same for both students",
            },
            "gate": "mean gain over tasks on validation studies, which nothing else was chosen on; kept where its whole interval "
            "is above 0",
            "same for both": "weights at first, steps, labelled studies per step; the taught student also sees studies without a "
            "label",
            "pairs": "studies that both see"
            if bench.studies.counts["seen by both"]
            else "none was used: no training study is seen by both, and the teacher taught by what it knows of classes or of "
            "other studies",
            **({"obstacles": list(bench.suffered)} if bench.suffered else {}),
        },
    }


def possible(truth: Any, studies: Manifest, task: str, student: str) -> float | None:
    """The AUROC of the best possible answers from the student's modality, of simulated studies; None where nobody knows."""
    column = bayes_column(task, student)
    if truth is None or column not in truth or studies.tasks[task].kind != "binary":
        return None
    y = studies.targets[task]
    best = truth[column].reindex(list(studies.study_ids)).to_numpy(dtype=np.float64)
    known = np.isfinite(y) & np.isfinite(best)
    return float(point(auroc, y[known], best[known])) if len(set(y[known])) == 2 else None
