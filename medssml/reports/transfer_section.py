"""What a transfer shows: the gate, and both students of every task, over all seeds and for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Section, Table, Text, fitting
from medssml.reports.result_figures import Step
from medssml.reports.results import Results, estimate, number
from medssml.reports.transfer_verdict import NAMES, capital, count, judged, who
from medssml.reports.verdict import GUESSING

LEAD = (
    "A student that sees one modality alone was trained twice, with and without a teacher that was shown others: the same "
    "weights at first, the same steps, the same labels. The gain on validation studies decides which is kept; test studies say "
    "what it is worth."
)


def transfer(results: Results) -> Section | None:
    """The transfers of a run: each in two figures, its verdict and its numbers."""
    blocks: list[Block] = []
    for folder, result in results.of("transfer_gain.json").items():
        source, student = who(result)
        named = f" ({folder})" if len(results.of("transfer_gain.json")) > 1 and folder else ""
        blocks.append(Heading(f"{capital(source)} to {student}{named}"))
        blocks += [Text(said) for name, _, said in judged(result) if name in ("kept", "not kept")]
        for task, entry in tasks_of(result).items():
            blocks += [Text(f"{capital(task)}: {on_studies(entry)}"), *task_blocks(task, entry)]
        blocks.append(Text(f"{_few(result)} {kept(result)}"))
    return Section("transfer", "Transfer between modalities", LEAD, blocks) if blocks else None


def tasks_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks of which a gain can be told."""
    return {task: entry for task, entry in result["tasks"].items() if "reason" not in entry}


def gate_blocks(result: Mapping[str, Any]) -> list[Block]:
    """The gain that decided, and who is kept."""
    found = estimate(result["gate"]["gain"])
    blocks: list[Block] = []
    if found is not None:
        step = [Step("mean over tasks", found)]
        blocks.append(_drawn("gain on validation studies", step, "gain, taught minus alone", 0.0))
    return [*blocks, Text(kept(result))]


def kept(result: Mapping[str, Any]) -> str:
    """Which student is kept."""
    chosen = result["kept"]
    return (
        f"Kept: the student {chosen['student']} of seed {chosen['seed']}, the best of its kind on validation studies."
    )


def on_studies(entry: Mapping[str, Any]) -> str:
    """On which studies a task was judged, and the best that is possible on them."""
    level = number(entry.get("bayes"))
    best = "" if level is None else f" The best possible answers from this modality reach {words.figure(level)}."
    seeds = ", that of all seeds also seeds" if len(entry["seeds"]) > 1 else ""
    return (
        f"on {count(entry)}, that nobody learned from. An interval draws subjects{seeds}; that of the gain draws the same for "
        f"both students.{best}"
    )


def task_blocks(task: str, entry: Mapping[str, Any]) -> list[Block]:
    """Both students and the gain, drawn and as numbers."""
    metric = words.metric(str(entry["metric"]))
    guessing = GUESSING.get(str(entry["metric"]), 0.0)
    return [
        _drawn(f"{task}, {metric}", _steps(entry, NAMES), metric, guessing),
        _drawn(f"{task}, gain", _steps(entry, {"gain": "gain"}), f"{metric}, taught minus alone", 0.0),
        Fold("The numbers", [_numbers(entry, metric)]),
    ]


def _few(result: Mapping[str, Any]) -> str:
    """How many studies taught, with and without a label."""
    studies = result["protocol"]["studies"]
    if not studies.get("seen by both"):
        return (
            f"The student had {words.count(number(studies.get('labelled')))} labelled studies; no study is seen by both, and the "
            f"teacher taught by what it knows of classes or of other studies."
        )
    return (
        f"The student had {words.count(number(studies.get('labelled')))} labelled studies; the teacher was asked about "
        f"{words.count(number(studies.get('seen by both')))} that both see."
    )


def _steps(entry: Mapping[str, Any], names: Mapping[str, str]) -> list[Step]:
    found = []
    several = len(entry["seeds"]) > 1
    for part, name in names.items():
        all_seeds = estimate(entry[part])
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
