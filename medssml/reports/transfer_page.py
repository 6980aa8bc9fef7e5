"""The page of a transfer: students with and without a teacher, seed by seed, what it added, and whether it was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.files import write_text
from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Judged, Section, Table, Text, fitting
from medssml.reports.compare_page import BETTER, EVEN, WORSE
from medssml.reports.page import html
from medssml.reports.result_figures import Step
from medssml.reports.results import estimate, number
from medssml.reports.verdict import GUESSING

#: Entry of transfer_gain.json -> what the page calls it.
NAMES = {"without": "alone", "transfer": "taught"}


def write_transfer_page(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        result: transfer_gain.json.
    """
    tasks = {task: entry for task, entry in result["tasks"].items() if "reason" not in entry}
    sections = [_gate(result), *(_task(task, entry) for task, entry in tasks.items()), _protocol(result)]
    source, student = " and ".join(map(words.subset, result["source"])), words.subset(result["student"])
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


def judged(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, mark, sentence) of the gate, and of every task on test studies."""
    kept = bool(result["gate"]["kept"])
    lines = [("kept" if kept else "not kept", BETTER if kept else EVEN, f"{_sentence(result['gate']['reason'])}")]
    for task, entry in result["tasks"].items():
        gain = estimate(entry.get("gain"))
        if gain is None:
            lines.append((task, EVEN, f"no gain can be told: {entry.get('reason', 'not defined on these studies')}."))
            continue
        metric = words.metric(str(entry["metric"]))
        parts = [f"{words.interval(estimate(entry[part]))} {name}" for part, name in NAMES.items()]
        said = f"{metric} {parts[0]} and {parts[1]}, on the same {_count(entry)}: {words.signed(gain.value)}"
        if gain.low is None or gain.high is None:
            lines.append((task, EVEN, f"{said}."))
            continue
        mark = BETTER if gain.low > 0 else WORSE if gain.high < 0 else EVEN
        lines.append((task, mark, f"{said} ({words.figure(gain.low)} to {words.figure(gain.high)}){_best(entry)}."))
    return lines


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _best(entry: Mapping[str, Any]) -> str:
    best = number(entry.get("bayes"))
    return "" if best is None else f", where {words.figure(best)} is the best possible"


def _count(entry: Mapping[str, Any]) -> str:
    said = f"{int(entry['n']):,} studies"
    return said + (f", {int(entry['positives']):,} positive" if entry.get("positives") is not None else "")


def _gate(result: Mapping[str, Any]) -> Section:
    """The decision: its interval on validation studies, and who is kept."""
    gain = [Step("mean over tasks", found)] if (found := estimate(result["gate"]["gain"])) is not None else []
    blocks: list[Block] = []
    if gain:
        blocks.append(_drawn("gain on validation studies", gain, "gain, taught minus alone", 0.0))
    kept = result["kept"]
    blocks.append(
        Text(f"Kept: the student {kept['student']} of seed {kept['seed']}, the best of its kind on these studies.")
    )
    lead = (
        "Whether the transfer is kept is decided here, on validation studies, before any test study is looked at: its gain must "
        "be above 0 with the whole 95 % interval, over subjects and seeds."
    )
    return Section("gate", "The gate", lead, blocks)


def _task(task: str, entry: Mapping[str, Any]) -> Section:
    """Both students and the gain: over all seeds, and for each of them."""
    metric = words.metric(str(entry["metric"]))
    rows = _steps(entry, NAMES)
    gains = _steps(entry, {"gain": "gain"})
    level = number(entry.get("bayes"))
    best = "" if level is None else f" The best possible answers from it reach {words.figure(level)}."
    blocks: list[Block] = [
        _drawn(f"{task}, {metric}", rows, metric, GUESSING.get(str(entry["metric"]), 0.0)),
        _drawn(f"{task}, gain", gains, f"{metric}, taught minus alone", 0.0),
        Fold("The numbers", [_numbers(entry, metric)]),
    ]
    lead = (
        f"On {_count(entry)} that nobody learned from. An interval draws subjects, that of all seeds also seeds; that of "
        f"the gain draws the same for both students.{best}"
    )
    return Section(f"task-{task}", task, lead, blocks)


def _steps(entry: Mapping[str, Any], names: Mapping[str, str]) -> list[Step]:
    found = []
    for part, name in names.items():
        all_seeds = estimate(entry[part])
        several = len(entry["seeds"]) > 1
        found += [] if all_seeds is None else [Step(f"{name}, all seeds" if several else name, all_seeds)]
        each = [(place, estimate(one[part])) for place, one in enumerate(entry["seeds"])]
        found += [Step(f"{name}, seed {place}", value) for place, value in each if value is not None and several]
    return found


def _drawn(title: str, rows: Sequence[Step], unit: str, level: float) -> Block:
    return fitting(lambda width: result_figures.intervals(title, rows, unit, level=level, width=width))


def _numbers(entry: Mapping[str, Any], metric: str) -> Table:
    parts = [*NAMES, "gain"]
    rows = [["all", *(words.interval(estimate(entry[part])) for part in parts)]]
    rows += [
        [str(place), *(words.interval(estimate(one[p])) for p in parts)] for place, one in enumerate(entry["seeds"])
    ]
    return Table(["seed", f"{metric} alone", "taught", "gain"], rows)


def _protocol(result: Mapping[str, Any]) -> Section:
    lines = [Text(f"{_sentence(f'{name}: {_plainly(value)}')}") for name, value in result["protocol"].items()]
    return Section("protocol", "Protocol", "What was done to get these numbers.", list(lines))


def _plainly(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plainly(inner)}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
