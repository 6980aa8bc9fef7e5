"""The page of several runs side by side: what each is worth on the same studies, how it learned, what its config says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medssml import provenance
from medssml.files import write_text
from medssml.reports import figures, result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Judged, Panels, Plot, Section, Table, Text, fitting
from medssml.reports.figures import Curve, Panel
from medssml.reports.page import html
from medssml.reports.result_figures import Step
from medssml.reports.results import Row, estimate, number
from medssml.reports.run_sections import panels_of
from medssml.reports.verdict import GUESSING


@dataclass(frozen=True)
class ComparedRun:
    """What the page shows of one run: its name, history.csv, config.yaml and provenance.json, as far as they are there."""

    name: str
    history: Sequence[Row] = ()
    config: Mapping[str, Any] | None = None
    origin: Mapping[str, Any] | None = None


def write_compare_page(
    path: str | Path, runs: Sequence[ComparedRun], tasks: Mapping[str, Mapping[str, Any]], bootstrap: Mapping[str, Any]
) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        runs: in the order of the page; the first is the one that the others are measured by.
        tasks: of `medssml.evaluation.paired_runs.compare_runs`.
        bootstrap: resamples, seed and unit.
    """
    sections = [_metrics(runs, tasks), _curves(runs), _configs(runs), _origins(runs, bootstrap)]
    said = Judged([line for task, entry in tasks.items() for line in judged(task, entry)])
    about = f"{len(runs)} runs side by side: {', '.join(run.name for run in runs)}."
    text = html(
        "Comparison of runs", [section for section in sections if section is not None], verdict=said,
        origin=provenance.said(provenance.entry("compare", bootstrap.get("seed"))), about=about, made_from="",
    )  # fmt: skip
    return write_text(path, text)


def judged(task: str, entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(task, mark, sentence) for every run but the first."""
    if not entry["runs"]:
        return [(task, words.EVEN, f"no comparison: {entry.get('reason', 'not defined on these studies')}.")]
    first = next(iter(entry["runs"]))
    metric, studies = words.metric(str(entry["metric"])), _studies(entry)
    lines = []
    for run, gain in entry["gains"].items():
        found = estimate(gain)
        values = f"{metric} {words.interval(estimate(entry['runs'][run]))} of {run} and "
        values += f"{words.interval(estimate(entry['runs'][first]))} of {first}, on the same {studies}"
        if found is None or found.low is None or found.high is None:
            lines.append((task, words.EVEN, f"{values}."))
            continue
        lines.append((task, words.change(found), f"{values}: a difference of {words.signed(found.value)} "
                                  f"({words.figure(found.low)} to {words.figure(found.high)})."))  # fmt: skip
    return lines


def _studies(entry: Mapping[str, Any]) -> str:
    said = f"{int(entry['n']):,} studies"
    return said + (f", {int(entry['positives']):,} positive" if entry.get("positives") is not None else "")


def _metrics(runs: Sequence[ComparedRun], tasks: Mapping[str, Mapping[str, Any]]) -> Section:
    """Values and gains of every task."""
    blocks: list[Block] = []
    first, limits = runs[0].name, _limits(tasks)
    for task, entry in tasks.items():
        if not entry["runs"]:
            continue
        metric = words.metric(str(entry["metric"]))
        values = _steps(entry["runs"])
        gains = _steps(entry["gains"])
        blocks.append(Heading(f"{task}, n = {_studies(entry)}"))
        name = str(entry["metric"])
        blocks.append(_drawn(f"{task}, {metric}", values, metric, GUESSING.get(name, 0.0), limits[name, "runs"]))
        blocks.append(_drawn(f"{task}, gain", gains, f"{metric} minus that of {first}", 0.0, limits[name, "gains"]))
        rows = [
            [run, words.interval(estimate(value)), words.interval(estimate(entry["gains"].get(run)))]
            for run, value in entry["runs"].items()
        ]
        blocks.append(Fold("The numbers", [Table(["run", metric, f"minus {first}"], rows)]))
    lead = (
        "Every study that all runs answer, each from all that it has. An interval is over subjects; that of a difference draws "
        "the same subjects for both runs, and so is narrower than two intervals side by side look."
    )
    return Section("metrics", "Metrics", lead, blocks)


def _steps(found: Mapping[str, Any]) -> list[Step]:
    pairs = [(name, estimate(value)) for name, value in found.items()]
    return [Step(name, value) for name, value in pairs if value is not None]


def _limits(tasks: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], tuple[float, float]]:
    """(metric, "runs" or "gains") -> the ends of the axis that all tasks share."""
    limits = {}
    for metric in dict.fromkeys(str(entry["metric"]) for entry in tasks.values()):
        entries = [entry for entry in tasks.values() if entry["metric"] == metric]
        for part, level in (("runs", GUESSING.get(metric, 0.0)), ("gains", 0.0)):
            rows = [step for entry in entries for step in _steps(entry[part])]
            within = (0.0, 1.0) if part == "runs" and metric == "auroc" else (-np.inf, np.inf)
            limits[metric, part] = result_figures.shared_limits(rows, level, within)
    return limits


def _drawn(title: str, rows: Sequence[Step], unit: str, level: float, limits: tuple[float, float]) -> Plot:
    return fitting(lambda width: result_figures.intervals(title, rows, unit, level=level, limits=limits, width=width))


def _curves(runs: Sequence[ComparedRun]) -> Section | None:
    """Each panel with a line for every run that has it."""
    panels: dict[str, list[Curve]] = {}
    shown: dict[str, Panel] = {}
    for run in runs:
        for panel in panels_of(list(run.history)):
            front = [curve for curve in panel.curves if not curve.behind]
            if len(front) == 1:  # several lines of several runs would be a thicket
                panels.setdefault(panel.title, []).append(Curve(front[0].x, front[0].y, run.name))
                shown[panel.title] = panel
    if not panels:
        return None
    plots = [
        Plot(figures.curves(Panel(title, lines, shown[title].level, shown[title].share), "compare"))
        for title, lines in panels.items()
    ]
    lead = "Of validation where there was one, of training otherwise; the horizontal axis counts optimiser steps."
    return Section("learning", "Learning", lead, [Panels(plots)])


def _configs(runs: Sequence[ComparedRun]) -> Section | None:
    """Keys whose values differ between the runs that have a config."""
    configs = {run.name: dict(words.flattened(dict(run.config))) for run in runs if run.config}
    if len(configs) < 2:
        return None
    keys = list(dict.fromkeys(key for config in configs.values() for key in config))
    rows = [
        [key, *(config.get(key, "–") for config in configs.values())]
        for key in keys
        if len({config.get(key, "–") for config in configs.values()}) > 1
    ]
    lead = "Keys of the resolved configs whose values differ; what looks like a path is left out."
    if not rows:
        return Section("configs", "Configs", "The configs of the runs do not differ.")
    return Section("configs", "Configs", lead, [Table(["key", *configs], rows, left=1 + len(configs))])


def _origins(runs: Sequence[ComparedRun], bootstrap: Mapping[str, Any]) -> Section:
    """How each run came about."""
    rows = []
    for run in runs:
        for verb, entry in (run.origin or {}).items():
            if isinstance(entry, dict):
                seed = number(entry.get("seed"))
                date = str(entry.get("date") or "–")[:16].replace("T", " ")
                rows.append(
                    [
                        run.name,
                        verb,
                        date,
                        str(entry.get("version") or "–"),
                        words.count(seed),
                        str(entry.get("command") or "–"),
                    ]
                )
    blocks: list[Block] = [
        Text(f"Intervals: 95 %, {bootstrap['resamples']} resamples of {bootstrap['unit']}, seed {bootstrap['seed']}.")
    ]
    if rows:
        blocks.append(Table(["run", "verb", "date (UTC)", "version", "seed", "command"], rows, left=6))
    return Section("protocol", "Protocol", "How the numbers were made.", blocks)
