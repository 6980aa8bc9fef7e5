"""A transfer in sentences: whether it was kept and why, and what it is worth on test studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medssml.reports import words
from medssml.reports.results import estimate, number

#: Entry of transfer_gain.json -> what pages call it.
NAMES = {"without": "alone", "transfer": "taught"}


def who(result: Mapping[str, Any]) -> tuple[str, str]:
    """Words for what the teacher saw and for what the student sees."""
    return " and ".join(map(words.subset, result["source"])), words.subset(result["student"])


def judged(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, mark, sentence) of the gate, and of every task on test studies."""
    kept = bool(result["gate"]["kept"])
    said = capital(result["gate"]["reason"])
    gate = ("kept" if kept else "not kept", words.BETTER if kept else words.EVEN, f"{said}.")
    return [gate, *((task, *on_task(task, entry)) for task, entry in result["tasks"].items())]


def on_task(task: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    """Mark and sentence of one task on test studies."""
    gain = estimate(entry.get("gain"))
    if gain is None:
        return words.EVEN, f"no gain can be told: {entry.get('reason', 'not defined on these studies')}."
    metric = words.metric(str(entry["metric"]))
    parts = [f"{words.interval(estimate(entry[part]))} {name}" for part, name in NAMES.items()]
    said = f"{metric} {parts[0]} and {parts[1]}, on the same {count(entry)}: {words.signed(gain.value)}"
    if gain.low is None or gain.high is None:
        return words.EVEN, f"{said}."
    said += f" ({words.figure(gain.low)} to {words.figure(gain.high)})"
    best = number(entry.get("bayes"))
    said += "" if best is None else f", where {words.figure(best)} is the best possible"
    return words.change(gain), f"{said}."


def count(entry: Mapping[str, Any]) -> str:
    """The studies that a task was judged by."""
    said = f"{int(entry['n']):,} studies"
    return said + (f", {int(entry['positives']):,} positive" if entry.get("positives") is not None else "")


def capital(text: str) -> str:
    """`text` as the beginning of a sentence."""
    return f"{text[0].upper()}{text[1:]}"
