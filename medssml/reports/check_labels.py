"""The labels of a table on the page of its check: how many studies of each split have each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medssml.manifest.manifest import Manifest
from medssml.reports import check_figures, words
from medssml.reports.blocks import Block, Panels, Plot, Section, Table

#: Fewer training studies of a class than this teach little of it.
FEW = 10


def class_counts(manifest: Manifest, task: str) -> dict[str, dict[str, int]]:
    """Split -> class -> labelled studies, for a task with classes."""
    label, values = manifest.tasks[task], manifest.targets[task]
    splits = [split for split in ("train", "val", "test") if (manifest.splits == split).any()]
    return {
        split: {
            name: int(((values == place) & (manifest.splits == split)).sum())
            for place, name in enumerate(label.classes)
        }
        for split in splits
    }


def balance(manifest: Manifest) -> Section | None:
    """Classes of every task by split, and how numbers are spread; None without labels."""
    plots, rows = [], []
    for task, label in manifest.tasks.items():
        values = manifest.targets[task]
        if label.kind == "regression":
            known = values[np.isfinite(values)]
            if len(known):
                title = f"{task}, {label.unit}" if label.unit else task
                plots.append(Plot(check_figures.histogram(title, known, "labels")))
            continue
        counts = class_counts(manifest, task)
        plots.append(Plot(check_figures.balance(task, counts)))
        for split, found in counts.items():
            total = sum(found.values())
            rows += [
                [task, split, name, f"{count:,}", words.figure(100 * count / total, 1) + " %" if total else "–"]
                for name, count in found.items()
            ]
    if not plots:
        return None
    blocks: list[Block] = [Panels(plots)]
    blocks += [Table(["task", "split", "class", "studies", "share"], rows, left=3)] if rows else []
    lead = "A class that is rare in training is learned badly; one whose share differs between splits is judged on another mix."
    return Section("labels", "Labels", lead, blocks)


def rare(manifest: Manifest) -> list[tuple[str, Mapping[str, int]]]:
    """(task, class -> training studies) of the classes that hardly a training study has."""
    found: list[tuple[str, Mapping[str, int]]] = []
    for task, label in manifest.tasks.items():
        train = {} if label.kind == "regression" else class_counts(manifest, task).get("train", {})
        few = {name: count for name, count in train.items() if count < FEW}
        found += [(task, few)] if few else []
    return found
