"""The page of a study: methods side by side, for every task and every subset of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssml.files import write_text
from medssml.reports.blocks import Section, Table, Text
from medssml.reports.page import html


def write_study_page(path: str | Path, results: Mapping[str, Any], protocol: Mapping[str, Any]) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        results: {task: {method: {subset: {"auroc": {estimate, ci_low, ci_high, n}, "positives", "seeds"}}}}.
        protocol: what the numbers are: name -> text.
    """
    sections = [Section(task, task, blocks=[_table(methods)]) for task, methods in results.items()]
    lines = [Text(f"{name}: {value}") for name, value in protocol.items()]
    sections.append(Section("protocol", "Protocol", "What was done to get these numbers.", list(lines)))
    return write_text(path, html("Study", sections))


def _table(methods: Mapping[str, Any]) -> Table:
    rows = [
        [subset or "nothing", method, interval_text(entry["auroc"]), _range(entry.get("seeds", [])), _count(entry)]
        for method, subsets in methods.items()
        for subset, entry in subsets.items()
        if subset
    ]
    rows.sort(key=lambda row: (row[0].count("+"), row[0]))
    columns = ["sees", "method", "AUROC (95 %)", "range over seeds", "positive / studies"]
    return Table(columns, rows, "On held-out subjects; the interval is over subjects and seeds.", left=2)


def interval_text(found: Mapping[str, Any]) -> str:
    """ "0.912 (0.870 to 0.951)"; without an interval where there is none."""
    if found["estimate"] is None:
        return "–"
    if found["ci_low"] is None:
        return f"{found['estimate']:.3f}"
    return f"{found['estimate']:.3f} ({found['ci_low']:.3f} to {found['ci_high']:.3f})"


def _range(seeds: list[float]) -> str:
    return f"{min(seeds):.3f} to {max(seeds):.3f}" if len(seeds) > 1 else "–"


def _count(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('positives', '?')} / {entry['auroc']['n']}"
