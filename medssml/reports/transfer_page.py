"""The page of a transfer: students with and without a teacher, seed by seed, what it added, and whether it was kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.files import write_text
from medssml.reports.blocks import Judged, Section, Text
from medssml.reports.page import html
from medssml.reports.transfer_section import gate_blocks, on_studies, task_blocks, tasks_of
from medssml.reports.transfer_verdict import capital, judged, who


def write_transfer_page(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        result: transfer_gain.json.
    """
    sections = [_gate(result), *(_task(*one) for one in tasks_of(result).items()), _protocol(result)]
    source, student = who(result)
    about = (
        f"A teacher that was shown {source} taught a student of {student} ({result['method']}). At test the student sees "
        f"{student} and nothing else."
    )
    text = html(
        f"Transfer: {source} to {student}", sections, verdict=Judged(judged(result)),
        origin=provenance.said(provenance.entry("transfer", result["protocol"]["seeds"][0])), about=about,
        made_from=" from transfer_gain.json",
    )  # fmt: skip
    return write_text(path, text)


def _gate(result: Mapping[str, Any]) -> Section:
    lead = (
        "Whether the transfer is kept is decided here, on validation studies, before any test study is looked at: its gain must "
        "be above 0 with the whole 95 % interval, over subjects and seeds."
    )
    return Section("gate", "The gate", lead, gate_blocks(result))


def _task(task: str, entry: Mapping[str, Any]) -> Section:
    return Section(f"task-{task}", task, capital(on_studies(entry)), task_blocks(task, entry))


def _protocol(result: Mapping[str, Any]) -> Section:
    lines = [Text(f"{capital(f'{name}: {_plainly(value)}')}.") for name, value in result["protocol"].items()]
    return Section("protocol", "Protocol", "What was done to get these numbers.", list(lines))


def _plainly(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plainly(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
