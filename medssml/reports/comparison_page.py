"""The page of a study: methods side by side, for every task and every subset of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.files import write_text
from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Judged, Section, Table, Text, fitting
from medssml.reports.page import html
from medssml.reports.result_figures import Step
from medssml.reports.results import estimate, number

#: The method that is the best possible answer to simulated studies.
BAYES = "bayes"
#: {method: {subset: {"auroc", "positives", "seeds", "gain"}}} of one task.
Methods = Mapping[str, Mapping[str, Mapping[str, Any]]]


def write_study_page(
    path: str | Path, results: Mapping[str, Any], protocol: Mapping[str, Any], chosen: str | None = None
) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        results: {task: {method: {subset: {"auroc": {estimate, ci_low, ci_high, n}, "positives", "seeds", "gain"}}}}; a gain,
            where it is there, is what the method adds to the first one, as a paired interval.
        protocol: what the numbers are: name -> text.
        chosen: the method that was chosen without a test study; the page begins with what it says of those, and with the
            best method of a task that has none.
    """
    limits = _limits(results)
    sections = [Section(task, task, blocks=_task(task, methods, limits)) for task, methods in results.items()]
    lines = [Text(f"{name}: {_plainly(value)}") for name, value in protocol.items()]
    sections.append(Section("protocol", "Protocol", "What was done to get these numbers.", list(lines)))
    said = [line for task, methods in results.items() for line in _judged(task, methods, chosen)]
    about = f"{len(results)} tasks, every method on the same held-out subjects."
    text = html(
        "Study", sections, verdict=Judged(said) if said else None,
        origin=provenance.said(provenance.entry("study")), about=about, made_from=" from results.json",
    )  # fmt: skip
    return write_text(path, text)


def _plainly(value: Any) -> str:
    """A setting as words: pairs and lists without the marks of a programming language."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plainly(inner)}" for key, inner in value.items())
    return ", ".join(map(_plainly, value)) if isinstance(value, (list, tuple)) else str(value)


def _whole(methods: Methods) -> str:
    """The subset with the most modalities."""
    return max((s for subsets in methods.values() for s in subsets), key=lambda s: len(words.members(s)), default="")


def _judged(task: str, methods: Methods, chosen: str | None) -> list[tuple[str, str, str]]:
    """(task, mark, sentence) on the method that was chosen, or the best one, from the most modalities."""
    whole = _whole(methods)
    found = {method: estimate(subsets[whole]["auroc"]) for method, subsets in methods.items() if whole in subsets}
    known = {method: value for method, value in found.items() if value is not None and method != BAYES}
    if not known:
        return []
    possible = found.get(BAYES)
    best = chosen if chosen in known else max(known, key=lambda method: known[method].value)
    entry = methods[best][whole]
    what = f"{best}, from" if best == chosen else f"{best} is highest from"
    said = f"{what} {words.subset(whole)}: AUROC {words.interval(known[best])} on {_count(entry)}"
    said += f", where {words.figure(possible.value)} is the best possible" if possible is not None else ""
    first, gain, low = next(iter(methods)), estimate(entry.get("gain")), known[best].low
    if low is not None and low <= 0.5:
        return [(task, words.EVEN, f"{said}; not better than chance.")]
    if gain is None or gain.low is None or gain.high is None:
        return [(task, words.EVEN if best != first else words.BETTER, f"{said}.")]
    ends = f"{words.figure(gain.low)} to {words.figure(gain.high)}"
    return [(task, words.change(gain), f"{said}; {words.signed(gain.value)} ({ends}) beside {_against(entry, first)}.")]


def _against(entry: Mapping[str, Any], first: str) -> str:
    """What the gain of a method is measured by."""
    return str((entry.get("gain") or {}).get("against", first))


def _task(task: str, methods: Methods, limits: tuple[tuple[float, float], tuple[float, float]]) -> list[Block]:
    """From the most modalities: every method and its gain; then every subset, folded."""
    whole, first = _whole(methods), next(iter(methods), "")
    seen = [(name, subsets[whole]) for name, subsets in methods.items() if whole in subsets]
    blocks: list[Block] = [Heading(f"From {words.subset(whole)}")]
    values = _steps([(f"{name}, n = {number(e['auroc'].get('n')) or 0:,.0f}", e["auroc"]) for name, e in seen])
    if values:
        blocks.append(_drawn(f"{task}, AUROC", values, "AUROC", 0.5, limits[0]))
    gains = _steps([(f"{name}, beside {_against(entry, first)}", entry.get("gain")) for name, entry in seen])
    if gains:
        blocks.append(_drawn(f"{task}, gain", gains, "gain in AUROC, the same subjects drawn for both", 0.0, limits[1]))
    blocks.append(Fold("Every subset of modalities", [_by_subset(methods), _table(methods)]))
    return blocks


def _steps(found: Sequence[tuple[str, Any]]) -> list[Step]:
    pairs = [(name, estimate(value)) for name, value in found]
    return [Step(name, value) for name, value in pairs if value is not None]


def _limits(results: Mapping[str, Methods]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of the axes that all tasks share, of the AUROC and of the gains."""
    seen = [
        entry
        for methods in results.values()
        for s in methods.values()
        for name, entry in s.items()
        if name == _whole(methods)
    ]
    values = result_figures.shared_limits(_steps([("", entry["auroc"]) for entry in seen]), 0.5, (0.0, 1.0))
    return values, result_figures.shared_limits(_steps([("", entry.get("gain")) for entry in seen]), 0.0)


def _drawn(title: str, rows: Sequence[Step], unit: str, level: float, limits: tuple[float, float]) -> Block:
    return fitting(lambda width: result_figures.intervals(title, rows, unit, level=level, limits=limits, width=width))


def _by_subset(methods: Methods) -> Table:
    """One row per subset, one column per method: what can be read at a glance."""
    subsets = list(dict.fromkeys(s for found in methods.values() for s in found if s))
    subsets.sort(key=lambda s: len(words.members(s)))
    rows = [
        [words.subset(s), *(words.figure(number(found.get(s, {}).get("auroc"))) for found in methods.values())]
        for s in subsets
    ]
    return Table(["sees", *methods], rows, "AUROC.")


def _table(methods: Methods) -> Table:
    rows = [
        [subset, method, interval_text(entry["auroc"]), _range(entry.get("seeds", [])), _count(entry)]
        for method, subsets in methods.items()
        for subset, entry in subsets.items()
        if subset
    ]
    rows.sort(key=lambda row: (row[0].count("+"), row[0]))
    rows = [[words.subset(row[0]), *row[1:]] for row in rows]
    columns = ["sees", "method", "AUROC (95 %)", "range over seeds", "studies"]
    return Table(columns, rows, "On held-out subjects; the interval is over subjects and seeds.", left=2)


def interval_text(found: Mapping[str, Any]) -> str:
    """ "0.912 (0.870 to 0.951)"; without an interval where there is none."""
    return words.interval(estimate(found))


def _range(seeds: Sequence[float]) -> str:
    return f"{words.figure(min(seeds))} to {words.figure(max(seeds))}" if len(seeds) > 1 else "–"


def _count(entry: Mapping[str, Any]) -> str:
    return f"{entry['auroc']['n']:,} studies, {entry.get('positives', '?')} positive"
