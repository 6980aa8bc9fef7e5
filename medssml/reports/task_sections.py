"""Sections on what a model can do, task by task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Facts, Fold, Heading, Panels, Plot, Section, Table, Text, fitting
from medssml.reports.result_figures import Measured
from medssml.reports.results import Results, estimate, number, numbers
from medssml.reports.run_sections import modalities_of
from medssml.reports.verdict import GUESSING, NOT_LEARNED, verdict_on

#: The metric that a task is judged by: the first of these that it has, and what guessing gives.
JUDGED_BY = {**GUESSING, "accuracy": None}
#: Metrics that lie between 0 and 1.
SHARES = ("auroc", "balanced_accuracy", "accuracy")


def tasks_of(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name of the task, where it comes from if several evaluations have it, its part of metrics.json)."""
    files = results.of("metrics.json")
    for folder, metrics in files.items():
        for task, found in metrics.get("tasks", {}).items():
            if found.get("subsets"):
                yield task, folder if len(files) > 1 else "", found


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def judged_by(task: dict[str, Any]) -> str | None:
    """The metric that decides on a task."""
    for name in JUDGED_BY:
        if any(name in row for row in task["subsets"].values()):
            return name
    return None


def best_possible(task: dict[str, Any], part: str = "subsets") -> dict[str, float]:
    """Subset -> the best possible AUROC on the same studies; empty where the evaluation did not know it."""
    rows = {subset: _mapping(row.get("bayes")).get("auroc") for subset, row in (task.get(part) or {}).items()}
    return numbers(rows)


def ordered(subsets: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """Sets of modalities, the smallest first, each size in the order of the columns; others, such as "observed", last."""

    def place(subset: str) -> tuple[bool, int, list[int]]:
        members = words.members(subset)
        foreign = any(name not in modalities for name in members)
        return foreign, len(members), [modalities.index(name) for name in members if name in modalities]

    return sorted(subsets, key=place)


def in_brief(results: Results) -> Section | None:
    """One line per task: how good it is, how far from the best possible, and which modality counts most."""
    impacts = {str(impact.get("task")): impact for impact in results.of("impact.json").values()}
    lines = [_in_brief(results, name, source, task, impacts.get(name)) for name, source, task in tasks_of(results)]
    rows = [line for line in lines if line is not None]
    if not rows:
        return None
    columns = [
        "task",
        "metric",
        "all that each study has",
        "most modalities",
        "with them",
        "Bayes predictor",
        "gap",
        "counts most",
    ]
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i] != "–" for row in rows)]
    table = Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], left=2)
    lead = "Estimates with 95 % intervals, on test studies: as they are, and those that have the most modalities."
    return Section("brief", "In brief", lead, [table])


def _in_brief(
    results: Results, name: str, source: str, task: dict[str, Any], impact: dict[str, Any] | None
) -> list[str] | None:
    metric, modalities = judged_by(task), modalities_of(results)
    if metric is None:
        return None
    measured = [s for s in ordered(list(task["subsets"]), modalities) if estimate(task["subsets"][s].get(metric))]
    whole = measured[-1] if measured else ""
    row = task["subsets"].get(whole, {})
    found = estimate(row.get(metric))
    best = best_possible(task).get(whole) if metric == "auroc" else None
    judged = verdict_on(results, name)
    gap = words.interval(estimate(_mapping(row.get("bayes")).get("gap")))
    if gap == "–" and best is not None and found is not None:
        gap = words.figure(best - found.value)
    return [
        f"{name} ({source})" if source else name,
        words.metric(metric),
        words.interval(estimate(_mapping(task.get("as_observed")).get(metric))),
        words.subset(whole),
        words.interval(found),
        words.figure(best),
        gap,
        _counts_most(impact) if judged is None or judged.mark != NOT_LEARNED else "–",
    ]


def _counts_most(impact: dict[str, Any] | None) -> str:
    if impact is None:
        return "–"
    shares = impact.get("performance", {}).get("shapley") or {}
    found = numbers(shares) or numbers({m: e.get("shapley_abs") for m, e in impact.get("modalities", {}).items()})
    return words.modality(max(found, key=lambda name: found[name])) if found else "–"


def performance(results: Results) -> Section | None:
    """Metrics of every task for every set of modalities."""
    blocks: list[Block] = []
    limits = limits_of(results)
    for name, source, task in tasks_of(results):
        blocks += _task(results, name, source, task, limits)
    if not blocks:
        return None
    blocks = [*_declines(results, limits), *blocks]
    lead = (
        "In each row the model sees only the marked modalities. Bars are 95 % intervals over subjects; dashed is chance. "
        "Each row is measured on the studies that have these modalities, so rows differ in their studies too; the fold "
        "below compares all rows on the same studies."
    )
    if any(best_possible(task) for _, _, task in tasks_of(results)):
        lead += (
            " Diamonds: the Bayes predictor, which is the best there can be from these modalities, on the same studies. It "
            "is known since the studies are simulated; on few of them a model can score above it by luck."
        )
    return Section("performance", "Performance for every missing pattern", lead, blocks)


def limits_of(results: Results) -> dict[str, tuple[float, float]]:
    """Metric -> the ends of the axis that all tasks share, as far as any interval or best value reaches, within what the
    metric can be."""
    ends: dict[str, list[float]] = {}
    for _, _, task in tasks_of(results):
        metric = judged_by(task)
        if metric is None:
            continue
        reach = ends.setdefault(metric, [] if JUDGED_BY[metric] is None else [float(JUDGED_BY[metric] or 0.0)])
        for part in ("subsets", "complete_cases"):
            for row in (task.get(part) or {}).values():
                found = estimate(row.get(metric))
                reach += [] if found is None else [v for v in (found.low, found.value, found.high) if v is not None]
            reach += best_possible(task, part).values() if metric == "auroc" else []
    limits = {}
    for metric, reach in ends.items():
        room = 0.03 * (max(reach) - min(reach) or 1.0)
        low, high = min(reach) - room, max(reach) + room
        limits[metric] = (max(0.0, low), min(1.0, high)) if metric in SHARES else (low, high)
    return limits


def _declines(results: Results, limits: dict[str, tuple[float, float]]) -> list[Block]:
    """How the quality falls as modalities go, on the same studies."""
    plots, modalities = [], modalities_of(results)
    for name, source, task in tasks_of(results):
        metric, part = judged_by(task), task.get("complete_cases") or {}
        if metric is None:
            continue
        rows = [Measured(s, estimate(part[s].get(metric)), _studies(part[s], metric)) for s in part if s]
        rows = [row for row in rows if row.found is not None]
        if len({len(words.members(row.name)) for row in rows}) > 1 and len(modalities) > 1:
            title = f"{name} ({source})" if source else name
            plots.append(
                Plot(result_figures.decline(
                    title, rows, metric=words.metric(metric), chance=JUDGED_BY[metric], limits=limits[metric]
                ))
            )  # fmt: skip
    if not plots:
        return []
    said = (
        "On the studies that have all modalities: a dot is a set of modalities that the model sees, the line goes through the "
        "means of all sets of one size, dashed is chance."
    )
    return [Heading("As modalities go"), Panels(plots), Text(said)]


def _task(
    results: Results, name: str, source: str, task: dict[str, Any], limits: dict[str, tuple[float, float]]
) -> list[Block]:
    title, metric = f"{name} ({source})" if source else name, judged_by(task)
    blocks: list[Block] = [Heading(title)]
    if task.get("method") not in (None, "head"):
        blocks.append(Text(f"The model has no head for this task: the answers are those of a {task['method']}."))
    if metric is not None:
        blocks += _forest(results, title, task, metric, "subsets", limits[metric])
        complete = _forest(results, f"{title}, same studies", task, metric, "complete_cases", limits[metric])
        if complete:
            blocks.append(Fold("The same studies in every row: those that have all modalities of the task", complete))
    blocks += _all_metrics(results, task)
    blocks += _probes(task, modalities_of(results))
    return blocks


def _forest(
    results: Results, title: str, task: dict[str, Any], metric: str, part: str, limits: tuple[float, float]
) -> list[Block]:
    modalities, found = modalities_of(results), task.get(part) or {}
    best = best_possible(task, part) if metric == "auroc" else {}
    rows = [
        Measured(s, estimate(found[s].get(metric)), _studies(found[s], metric), best.get(s))
        for s in ordered([s for s in found if s], modalities)
    ]
    shown = [row for row in rows if row.found is not None]
    if not shown:
        return []
    there = [name for name in modalities if any(name in words.members(row.name) for row in shown)]

    def draw(width: float) -> str:
        return result_figures.forest(
            title, shown, metric=words.metric(metric), chance=JUDGED_BY[metric], modalities=there, limits=limits,
            width=width,
        )  # fmt: skip

    unknown = [words.subset(row.name) for row in rows if row.found is None]
    note = f"Not enough labelled studies: {', '.join(unknown)}." if unknown else ""
    return [fitting(draw, note)]


def _all_metrics(results: Results, task: dict[str, Any]) -> list[Block]:
    subsets = ordered([s for s in task["subsets"] if s], modalities_of(results))
    cells = [cell for s in subsets for cell in task["subsets"][s].items()]
    names = list(dict.fromkeys(k for k, v in cells if isinstance(v, dict) and "estimate" in v))
    if not names:
        return []
    rows = [(words.subset(s), task["subsets"][s]) for s in subsets]
    if isinstance(task.get("as_observed"), dict):
        rows.append(("all that each study has", task["as_observed"]))
    table = Table(
        ["modalities", *[words.metric(k) for k in names], "n"],
        [
            [title, *[words.interval(estimate(row.get(k))) for k in names], words.count(_studies(row, names[0]))]
            for title, row in rows
        ],
    )
    return [Fold("All metrics", [table])]


def _studies(row: dict[str, Any], metric: str) -> int | None:
    value = row.get(metric)
    found = number(value.get("n")) if isinstance(value, dict) else None
    found = number(row.get("n")) if found is None else found
    return None if found is None else int(found)


_EMBEDDINGS = {"fused": "fused", "encoder": "of the encoder alone"}


def _probes(task: dict[str, Any], modalities: list[str]) -> list[Block]:
    """Linear probe and nearest neighbours on the frozen embedding: probe -> embedding -> subset -> metrics."""
    probes = _mapping(task.get("probes"))
    metric = next(
        (m for m in JUDGED_BY if any(m in row for by in probes.values() for r in by.values() for row in r.values())),
        None,
    )
    if metric is None:
        return []
    columns = [(probe, kind) for probe, by in probes.items() for kind in by if by[kind]]
    subsets = ordered(list(dict.fromkeys(s for probe, kind in columns for s in probes[probe][kind] if s)), modalities)
    rows = [
        [words.subset(s), *[words.interval(estimate(_mapping(probes[p][k].get(s)).get(metric))) for p, k in columns]]
        for s in subsets
    ]
    names = [f"{_PROBES.get(probe, probe)}, {_EMBEDDINGS.get(kind, kind)}" for probe, kind in columns]
    return [Fold(f"Probes of the frozen embedding, {words.metric(metric)}", [Table(["modalities", *names], rows)])]


_PROBES = {"linear": "linear probe", "knn": "nearest neighbours"}


def calibration(results: Results) -> Section | None:
    """Reliability diagrams, of every study with all that it has."""
    plots: list[Plot] = []
    for name, source, task in tasks_of(results):
        observed = _mapping(task.get("as_observed"))
        points = [
            tuple(number(b.get(key)) for key in ("expected", "observed", "n"))
            for b in observed.get("calibration") or []
        ]
        bins = [(x, y, n) for x, y, n in points if x is not None and y is not None and n is not None]
        if bins:
            title = f"{name} ({source})" if source else name
            slope, intercept = (estimate(observed.get(f"calibration_{part}")) for part in ("slope", "intercept"))
            note = f"Slope {words.interval(slope, 2)}, intercept {words.interval(intercept, 2)}."
            plots.append(Plot(result_figures.reliability(bins, title), note))
    if not plots:
        return None
    lead = (
        "Every test study with all that it has. Of the studies that are given a probability of 0.3, three in ten should be "
        "positive: on the dashed line. Larger dots are more studies. A slope below 1 means too extreme predictions."
    )
    return Section("calibration", "Calibration", lead, [Panels(plots)])


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
