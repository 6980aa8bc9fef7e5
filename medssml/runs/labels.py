"""The account of labels: for each task and split how many labels, classes and subjects there are, and what can be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medssml.manifest.splits import SPLITS
from medssml.runs import console

if TYPE_CHECKING:
    from medssml.manifest.manifest import Manifest
    from medssml.model import Task

Account = dict[str, dict[str, Any]]

#: A spread of training targets below this share of their size is rounding.
LEAST_SPREAD = 1e-12


def label_account(table: Manifest, tasks: Sequence[str]) -> Account:
    """Task -> kind, classes, unit, and per split: labels, subjects, and labels per class, or mean and sd of numbers."""
    account: Account = {}
    for task in tasks:
        label, values = table.tasks[task], table.targets[task]
        splits = {}
        for split in SPLITS:
            known = np.isfinite(values) & (table.splits == split)
            splits[split] = {
                "labels": int(known.sum()),
                "subjects": len(set(table.subject_ids[known])),
                **_content(label.classes, values[known]),
            }
        account[task] = {"kind": label.kind, "classes": list(label.classes), "unit": label.unit, "splits": splits}
    return account


def _content(classes: Sequence[str], values: np.ndarray) -> dict[str, Any]:
    if classes:
        return {"per_class": {name: int((values == index).sum()) for index, name in enumerate(classes)}}
    if len(values) == 0:
        return {"mean": None, "sd": None}
    return {"mean": float(values.mean()), "sd": float((values - values.mean()).std())}


def say_account(account: Account) -> None:
    """The account as a table, with a warning for each class that some split has and training lacks."""
    rows = []
    for task, entry in account.items():
        for split, found in entry["splits"].items():
            rows.append((task, entry["kind"], split, found["labels"], found["subjects"], _brief(found, entry["unit"])))
    console.table(rows, ("task", "kind", "split", "labels", "subjects", "of them"))
    for task, entry in account.items():
        if len(entry["classes"]) == 2:
            console.say(f"{task}: the positive class is {entry['classes'][1]}")


def warn_of_untrained(account: Account) -> None:
    """Says which classes no training study has."""
    for task, entry in account.items():
        trained = entry["splits"]["train"].get("per_class", {})
        lacking = [name for name, count in trained.items() if count == 0]
        if lacking:
            console.warn(f"{task}: no training study is of class {', '.join(lacking)}; it is never predicted")


def _brief(found: Mapping[str, Any], unit: str) -> str:
    if "per_class" in found:
        return ", ".join(f"{name}: {count}" for name, count in found["per_class"].items())
    if found["mean"] is None:
        return ""
    return f"mean {found['mean']:.6g}, sd {found['sd']:.6g}{unit and f' {unit}'}"


def facts(account: Account) -> dict[str, str]:
    """The account as parameters of a tracker."""
    return {
        f"labels.{task}.{split}": f"{found['labels']} of {found['subjects']} subjects; {_brief(found, entry['unit'])}"
        for task, entry in account.items()
        for split, found in entry["splits"].items()
    }


def why_not_learnable(entry: Mapping[str, Any]) -> str | None:
    """Why no head can learn a task from the training studies of its account, or None."""
    train = entry["splits"]["train"]
    if train["labels"] == 0:
        return "no training study has a label of it"
    held = [name for name, count in train.get("per_class", {}).items() if count]
    return f"all {train['labels']} training labels are of class {held[0]}" if len(held) == 1 else None


def learnable(account: Account, *, every: bool) -> list[str]:
    """The tasks of an account that training studies can teach.

    Args:
        every: all tasks of the table were asked for: one that cannot be learned is left out with a warning.

    Raises:
        ValueError: a task that was asked for by name cannot be learned, or none can.
    """
    reasons = {task: reason for task, entry in account.items() if (reason := why_not_learnable(entry))}
    left = [task for task in account if task not in reasons]
    if reasons and (not every or not left):
        said = "; ".join(f"task {task!r}: {reason}" for task, reason in reasons.items())
        raise ValueError(f"{said}; fix: label training studies of two classes or more, or leave the task out of --task")
    for task, reason in reasons.items():
        console.warn(f"task {task!r} is left out: {reason}")
    return left


def task_records(table: Manifest, tasks: Sequence[str], *, evidence: bool = False) -> dict[str, Task]:
    """Task -> what its head is to be, with the scale and the counts of the studies of `table`."""
    from medssml.model import Task

    records = {}
    for task, entry in label_account(table, tasks).items():
        label, train = table.tasks[task], entry["splits"]["train"]
        mean, sd = (train["mean"] or 0.0, train["sd"] or 0.0) if label.kind == "regression" else (0.0, 1.0)
        counts = {
            split: found.get("per_class", {"labelled": found["labels"]}) for split, found in entry["splits"].items()
        }
        records[task] = Task(
            label.kind, label.n_classes, label.classes, label.unit, evidence, mean, _scale(mean, sd), counts
        )
    return records


def _scale(mean: float, sd: float) -> float:
    """What errors are measured in; 1 where all targets are one."""
    return sd if sd > LEAST_SPREAD * abs(mean) else 1.0
