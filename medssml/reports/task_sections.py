"""Sections on what a model can do, task by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Facts, Fold, Heading, Plot, Row, Section, Table, Text
from medssml.reports.result_figures import Measured
from medssml.reports.results import Results, estimate, number, numbers
from medssml.reports.run_sections import modalities_of

#: The metric that a task is judged by: the first of these that it has, and what guessing gives.
JUDGED_BY = {"auroc": 0.5, "r2": 0.0, "balanced_accuracy": 0.5, "accuracy": None}
#: Sets of modalities whose reliability is drawn.
RELIABILITY_CURVES = 4


def tasks_of(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name of the task, where it comes from if several evaluations have it, its part of metrics.json)."""
    files = results.of("metrics.json")
    for folder, metrics in files.items():
        for task, found in metrics.get("tasks", {}).items():
            if found.get("subsets"):
                yield task, folder if len(files) > 1 else "", found


def judged_by(task: dict[str, Any]) -> str | None:
    """The metric that decides on a task."""
    for name in JUDGED_BY:
        if any(name in row for row in task["subsets"].values()):
            return name
    return None


def best_possible(results: Results, name: str, task: dict[str, Any]) -> dict[str, float]:
    """Subset -> the best possible value, from truth.json or as the evaluation worked it out for its own studies."""
    own = {
        subset: number(row.get("bayes_auroc", row.get("bayes")))
        for subset, row in task["subsets"].items()
        if isinstance(row, dict)
    }
    found = results.truth(name) | numbers(task.get("bayes_auroc") or task.get("bayes") or {})
    for metrics in results.of("metrics.json").values():
        block = (metrics.get("bayes") or {}).get(name)
        found |= numbers(block) if isinstance(block, dict) else {}
    return found | {subset: value for subset, value in own.items() if value is not None}


def ordered(subsets: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """Sets of modalities, the smallest first, each size in the order of the columns; others, such as "observed", last."""

    def place(subset: str) -> tuple[bool, int, list[int]]:
        members = words.members(subset)
        foreign = any(name not in modalities for name in members)
        return foreign, len(members), [modalities.index(name) for name in members if name in modalities]

    return sorted(subsets, key=place)


def in_brief(results: Results) -> Section | None:
    """One line per task: how good with all that there is, how far from the best possible, and what counts most."""
    rows, known = [], False
    impacts = {str(impact.get("task")): impact for impact in results.of("impact.json").values()}
    modalities = modalities_of(results)
    for name, source, task in tasks_of(results):
        metric = judged_by(task)
        if metric is None:
            continue
        measured = [s for s in ordered(list(task["subsets"]), modalities) if estimate(task["subsets"][s].get(metric))]
        plain = [s for s in measured if all(m in modalities for m in words.members(s))]
        if not plain:
            continue
        whole = plain[-1]
        found = estimate(task["subsets"][whole][metric])
        best = best_possible(results, name, task).get(whole) if metric == "auroc" else None
        known = known or best is not None
        gap = words.figure(best - found.value) if best is not None and found is not None else "–"
        rows.append(
            [
                name + (f" ({source})" if source else ""),
                words.subset(whole),
                words.metric(metric),
                words.interval(found),
                words.figure(best),
                gap,
                _counts_most(impacts.get(name)),
            ]
        )
    if not rows:
        return None
    columns = ["task", "with", "metric", "estimate (95 % interval)", "best possible", "gap", "counts most"]
    hidden = set() if known else {4, 5}
    if not impacts:
        hidden.add(6)
    kept = [i for i in range(len(columns)) if i not in hidden]
    table = Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], left=3)
    return Section("brief", "In brief", "Each task with the largest set of modalities that was evaluated.", [table])


def _counts_most(impact: dict[str, Any] | None) -> str:
    if impact is None:
        return "–"
    shares = impact.get("performance", {}).get("shapley") or {}
    found = numbers(shares) or numbers({m: e.get("shapley_abs") for m, e in impact.get("modalities", {}).items()})
    return words.modality(max(found, key=lambda name: found[name])) if found else "–"


def performance(results: Results) -> Section | None:
    """Metrics of every task for every set of modalities."""
    blocks: list[Block] = []
    modalities = modalities_of(results)
    for name, source, task in tasks_of(results):
        blocks += _task(results, name, source, task, modalities)
    blocks += _probes(results, modalities)
    if not blocks:
        return None
    lead = (
        "Each row shows the model only the marked modalities, on test studies that have them. Bars are 95 % intervals over "
        "subjects; rows are of different studies where n differs, so compare them with care. Dashed: chance."
    )
    if any(best_possible(results, name, task) for name, _, task in tasks_of(results)):
        lead += (
            " Diamonds: the best that any model can do with these modalities, known since the studies are simulated."
        )
    return Section("performance", "Performance for every missing pattern", lead, blocks)


def _task(results: Results, name: str, source: str, task: dict[str, Any], modalities: list[str]) -> list[Block]:
    metric = judged_by(task)
    subsets = ordered([s for s in task["subsets"] if s], modalities)
    title = f"{name} ({source})" if source else name
    blocks: list[Block] = [Heading(title)]
    if metric is not None:
        best = best_possible(results, name, task) if metric == "auroc" else {}
        rows = [
            Measured(s, estimate(task["subsets"][s].get(metric)), _studies(task["subsets"][s], metric), best.get(s))
            for s in subsets
        ]
        shown = [row for row in rows if row.found is not None]
        if shown:
            drawn = result_figures.forest(
                title, shown, metric=words.metric(metric), chance=JUDGED_BY[metric], modalities=modalities
            )
            blocks.append(Plot(drawn))
        unknown = [words.subset(row.name) for row in rows if row.found is None]
        if unknown:
            blocks.append(Text(f"Not enough labelled studies: {', '.join(unknown)}."))
    names = list(
        dict.fromkeys(
            k for s in subsets for k, v in task["subsets"][s].items() if isinstance(v, dict) and "estimate" in v
        )
    )
    if names:
        table = Table(
            ["modalities", *[words.metric(k) for k in names], "n"],
            [
                [
                    words.subset(s),
                    *[words.interval(estimate(task["subsets"][s].get(k))) for k in names],
                    words.figure(_studies(task["subsets"][s], names[0])),
                ]
                for s in subsets
            ],
        )
        blocks.append(Fold(f"All metrics of {title}", [table]))
    return blocks


def _studies(row: dict[str, Any], metric: str) -> int | None:
    value = row.get(metric)
    found = number(value.get("n")) if isinstance(value, dict) else None
    found = number(row.get("n")) if found is None else found
    return None if found is None else int(found)


def _probes(results: Results, modalities: list[str]) -> list[Block]:
    """Linear probe and nearest neighbours on the frozen embedding, {task: {probe: {subset: {metric: interval}}}}."""
    rows = []
    for metrics in results.of("metrics.json").values():
        for task, probes in (metrics.get("probes") or {}).items():
            for probe, subsets in probes.items():
                if not isinstance(subsets, dict):
                    continue
                for subset in ordered(list(subsets), modalities):
                    row = subsets[subset] if isinstance(subsets[subset], dict) else {}
                    metric = next((m for m in JUDGED_BY if m in row), None)
                    found = None if metric is None else estimate(row[metric])
                    if metric is not None and found is not None:
                        cells = [task, probe.replace("_", " "), words.subset(subset), words.metric(metric)]
                        rows.append([*cells, words.interval(found), words.figure(_studies(row, metric))])
    if not rows:
        return []
    columns = ["task", "probe", "modalities", "metric", "estimate (95 % interval)", "n"]
    return [Heading("Probes of the frozen embedding"), Table(columns, rows, left=4)]


def calibration(results: Results) -> Section | None:
    """Reliability diagrams."""
    modalities = modalities_of(results)
    plots: list[Block] = []
    for name, source, task in tasks_of(results):
        curves: dict[str, list[tuple[float, float, float]]] = {}
        for subset in reversed(ordered(list(task["subsets"]), modalities)):
            bins = _bins(task, subset)
            if bins and len(curves) < RELIABILITY_CURVES:
                curves[words.subset(subset)] = bins
        if curves:
            plots.append(Plot(result_figures.reliability(curves, f"{name} ({source})" if source else name)))
    if not plots:
        return None
    lead = (
        "Of the studies that are given a probability of 0.3, three in ten should be positive: on the dashed line. Larger "
        "dots are more studies."
    )
    return Section("calibration", "Calibration", lead, [Row(plots)])


def _bins(task: dict[str, Any], subset: str) -> list[tuple[float, float, float]]:
    row = task["subsets"][subset]
    found = row.get("reliability") or row.get("calibration_curve") or row.get("curve")
    found = found or (task.get("reliability") or task.get("calibration") or {}).get(subset)
    points = [(number(b.get("expected")), number(b.get("observed")), number(b.get("n"))) for b in found or []]
    return [(x, y, n) for x, y, n in points if x is not None and y is not None and n is not None]


def facts(results: Results) -> Facts | None:
    """The numbers at the head of the page."""
    items: list[tuple[str, str, str]] = []
    presence = next(iter(results.of("presence.json").values()), None)
    if presence:
        total = sum(int(row.get(s) or 0) for row in presence.get("patterns", []) for s in ("train", "val", "test"))
        items.append(("studies", f"{total:,}", f"{len(presence.get('patterns', []))} sets of modalities"))
    modalities = modalities_of(results)
    if modalities:
        items.append(("modalities", str(len(modalities)), ", ".join(words.modality(name) for name in modalities)))
    names = list(dict.fromkeys(name for name, _, _ in tasks_of(results)))
    if names:
        items.append(("tasks", str(len(names)), ", ".join(names[:4]) + (" …" if len(names) > 4 else "")))
    return Facts(items) if items else None
