"""The section on aligned sites or subjects: what a model is worth with their vectors moved, apart from all other figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medssml.reports import words
from medssml.reports.blocks import Block, Fold, Heading, Section, Table, Text
from medssml.reports.results import Results, estimate
from medssml.reports.run_sections import modalities_of
from medssml.reports.task_sections import JUDGED_BY, ordered

#: What is aligned, in words.
ALIGNED = {"centre": "mean", "covariance": "mean and covariance"}
#: Groups that the page lists, the largest first; metrics.json holds all.
MOST_GROUPS = 20
_WAYS = ("inductive", "transductive", "difference")
#: Shown beside the metric that a task is judged by: a shift that all studies of a site share moves probabilities, and no order.
_BESIDE = ("brier", "mae")
#: Metrics of which less is better.
_ERRORS = ("brier", "ece", "mae")
_COLUMNS = ("as they are", "aligned", "difference", "verdict", "n")


def alignment(results: Results) -> Section | None:
    """Each task as it is and with the vectors of each group moved to those of training."""
    blocks: list[Block] = []
    files = {folder: m["transductive"] for folder, m in results.of("metrics.json").items() if m.get("transductive")}
    for folder, found in files.items():
        if len(files) > 1:
            blocks.append(Heading(folder or "this run"))
        blocks += _of(found, modalities_of(results))
    if not blocks:
        return None
    lead = (
        "Transductive: what a study is answered here depends on the unlabelled studies of its group, such as its hospital. "
        "Everywhere else on this page a study is answered from itself alone, so these figures stand apart. Differences are "
        "paired, aligned less as they are, with 95 % intervals over subjects. Where groups differ in how many of their "
        "patients are ill, aligning takes that away too, and may make a model worse."
    )
    return Section("transductive", "Aligned sites (transductive)", lead, blocks)


def judged(figures: Mapping[str, Any]) -> str | None:
    """The metric by which a task is judged both ways."""
    return next((name for name in JUDGED_BY if name in figures.get("difference", {})), None)


def left_as_they_are(found: Mapping[str, Any]) -> str:
    """How many groups were not moved at all, or not in all modalities, and why; "" where all were."""
    kept = [[not m["moved"] for m in group["modalities"].values()] for group in found["groups"].values()]
    whole, part = sum(all(one) for one in kept), sum(any(one) and not all(one) for one in kept)
    said = [f"{whole} of {len(kept)} groups"] if whole else []
    said += [f"some modalities of {_counted(part, 'group')}"] if part else []
    said += [_counted(found["ungrouped"], "study", "studies") + " of no group"] if found.get("ungrouped") else []
    few = f" (fewer than {found['least']} studies have them, there or in training)" if whole or part else ""
    return ", ".join(said) + few


def _counted(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _of(found: dict[str, Any], modalities: list[str]) -> list[Block]:
    said = (
        f"The unlabelled reported studies of each value of {found['by']} were used: the {ALIGNED[found['align']]} of each "
        f"modality's vectors became those of the training studies."
    )
    left = left_as_they_are(found)
    tasks = {task: entry for task, entry in found["tasks"].items() if judged(entry.get("as_observed", {}))}
    blocks: list[Block] = [Text(said + (f" Left as they are: {left}." if left else ""))]
    rows = [
        [task, *_row(entry["as_observed"], metric)]
        for task, entry in tasks.items()
        for metric in shown(entry["as_observed"])
    ]
    blocks += [Table(["task", "metric", *_COLUMNS], rows, "From all that each study has", left=2)] if rows else []
    for task, entry in tasks.items():
        by_group = [[name, *_row(figures)] for name, figures in _largest(entry["groups"])]
        subsets = [
            [words.subset(s), *_row(entry["subsets"][s])]
            for s in ordered([s for s in entry["subsets"] if s], modalities)
        ]
        parts: list[Block] = [Table(["modalities", "metric", *_COLUMNS], subsets, "For every missing pattern", left=2)]
        parts += [Table([found["by"], "metric", *_COLUMNS], by_group, "Within each group", left=2)] if by_group else []
        blocks.append(Fold(task, parts))
    return [*blocks, Fold("What was moved", [_moves(found)])]


def shown(figures: Mapping[str, Any]) -> list[str]:
    """The metric by which a task is judged, and the one beside it, both as far as they are known."""
    first, known = judged(figures), figures.get("difference", {})
    return [name for name in (first, *_BESIDE) if name is not None and name in known]


def _row(figures: Mapping[str, Any], metric: str | None = None) -> list[str]:
    metric = judged(figures) if metric is None else metric
    if metric is None:
        return ["–"] * (len(_COLUMNS) + 1)
    both = [estimate(figures[way][metric]) for way in _WAYS]
    said = "–" if both[-1] is None else words.change(both[-1])
    if metric in _ERRORS:
        said = {words.BETTER: words.WORSE, words.WORSE: words.BETTER}.get(said, said)
    return [words.metric(metric), *map(words.interval, both), said, words.count(figures["n"])]


def _largest(groups: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The groups with the most studies."""
    return sorted(groups.items(), key=lambda item: -item[1].get("n", item[1].get("studies", 0)))[:MOST_GROUPS]


def _moves(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, group in _largest(found["groups"]):
        for modality, moved in group["modalities"].items():
            said = moved.get("reason", "moved")
            counts = [words.count(moved["n"]), words.count(group["in_training"])]
            figures = [words.figure(moved.get(key), 2) for key in ("shift", "shift_by_chance", "shrinkage")]
            rows.append([name, words.modality(modality), said, *counts, *figures])
    caption = (
        "Shift: distance of the group's mean from that of training, in root mean square distances of a training study from it; "
        "by chance: what so few studies would show without any shift. Shrinkage: the share of the group's covariance that is "
        "taken from training, as few studies say little of it."
    )
    columns = [found["by"], "modality", "what", "n", "studies of it in training", "shift", "by chance", "shrinkage"]
    return Table(columns, rows, caption, left=3)
