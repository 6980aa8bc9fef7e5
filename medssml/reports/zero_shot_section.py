"""The section on zero-shot classification: what sentences alone tell apart, without a label."""

from __future__ import annotations

from typing import Any

from medssml.reports import words
from medssml.reports.blocks import Block, Fold, Heading, Section, Table, Text
from medssml.reports.results import Results, estimate


def zero_shot(results: Results) -> Section | None:
    """AUROC of each task by the likeness of a study to sentences, for every set of modalities."""
    blocks: list[Block] = []
    evaluations = {folder: m["zero_shot"] for folder, m in results.of("metrics.json").items() if m.get("zero_shot")}
    for folder, found in evaluations.items():
        if len(evaluations) > 1:
            blocks.append(Heading(folder or "this run"))
        if found.get("reason"):
            blocks.append(Text(f"Not measured: {found['reason']}."))
        answered = {task: entry for task, entry in (found.get("tasks") or {}).items() if entry.get("subsets")}
        blocks += [_table(answered)] if answered else []
        prompts = [row for task, entry in answered.items() for row in _prompts(task, entry)]
        if prompts:
            blocks.append(Fold("The sentences", [Table(["task", "class", "sentences"], prompts, left=3)]))
    if not blocks:
        return None
    lead = (
        "No label is used: a study is given the class whose sentences lie nearest to it in the space that its images and reports "
        "share. Chance is an AUROC of 0.5."
    )
    return Section("zero-shot", "Zero-shot", lead, blocks)


def _table(tasks: dict[str, Any]) -> Table:
    """Of each set of modalities: the labelled studies that have it, and the AUROC of each task."""
    names = dict.fromkeys(name for entry in tasks.values() for name in entry["subsets"])
    rows = []
    for name in sorted(names, key=lambda name: str(name).count("+")):
        found = [entry["subsets"].get(name, {}) for entry in tasks.values()]
        counts = sorted({int(row["n"]) for row in found if row})
        studies = " to ".join(words.count(n) for n in dict.fromkeys((counts[0], counts[-1])))
        rows.append([words.subset(name), studies, *(words.interval(estimate(row.get("auroc"))) for row in found)])
    return Table(["sees", "studies", *tasks], rows, words.metric("auroc"))


def _prompts(task: str, entry: dict[str, Any]) -> list[list[str]]:
    return [[task, str(name), " ".join(said)] for name, said in (entry.get("prompts") or {}).items()]
