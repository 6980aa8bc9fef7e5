"""The page of a comparison of methods: their order, what each gains over its random encoder, who wins on which task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.files import write_text
from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Judged, Section, Table, Text, fitting
from medssml.reports.gain_matrix import gain_matrix
from medssml.reports.page import html
from medssml.reports.result_figures import Step
from medssml.reports.results import Estimate, estimate, number

#: The subset under which the probe of the fused embedding stands.
ALL = "all"
#: (method, task) -> gain.
Gains = dict[tuple[str, str], Estimate]


def write_methods_page(path: str | Path, results: Mapping[str, Any], protocol: Mapping[str, Any]) -> Path:
    """Writes one offline HTML page.

    Args:
        path: the file.
        results, protocol: as `medssml.studies.methods_results` makes them.
    """
    sections, said = [], []
    for share, found in results["labels"].items():
        name = f"{float(share):.0%} of the labels"
        sections += [_order(share, name, found), _gains(share, name, found, results)]
        said += [line for task in found["winners"] for line in _winner(task, name, found)]
    sections.append(_training(results))
    lines: list[Block] = [Text(f"{name}: {value}") for name, value in protocol.items()]
    sections.append(Section("protocol", "Protocol", "What was done to get these numbers.", lines))
    text = html(
        "Methods", [section for section in sections if section is not None], verdict=Judged(said) if said else None,
        origin=provenance.said(provenance.entry("study")), made_from=" from results.json",
        about=f"{len(results['cells'])} methods of pretraining on the same studies, each beside its own random encoder.",
    )  # fmt: skip
    return write_text(path, text)


def _winner(task: str, name: str, found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(task, mark, sentence) on the method that validation studies choose."""
    method = found["winners"][task]
    entry = found["tasks"][task].get(method, {}).get(ALL)
    value, gain = (estimate((entry or {}).get(key)) for key in ("auroc", "gain"))
    if value is None or gain is None:
        return []
    said = f"{name}: {method} is best on validation; on test AUROC {words.interval(value)}, "
    said += (
        f"{words.signed(gain.value)} ({words.figure(gain.low)} to {words.figure(gain.high)}) beside its random encoder"
    )
    return [(task, words.change(gain), f"{said}.")]


def _order(share: str, name: str, found: Mapping[str, Any]) -> Section | None:
    """Mean ranks on test studies, in the order that validation studies give."""
    steps = [Step(method, value) for method, r in found["ranks"].items() if (value := estimate(r["test"])) is not None]
    if len(steps) < 2:
        return None
    middle, limits = (len(steps) + 1) / 2, (0.5, len(steps) + 0.5)
    unit = "mean rank over tasks on test studies, 1 is best; the line is the middle"
    drawn = fitting(
        lambda width: result_figures.intervals(
            f"Ranks, {name}", steps, unit, level=middle, limits=limits, width=width, digits=1
        )
    )
    lead = (
        "Methods by their mean rank on validation studies, best first. Where intervals overlap, the order is not known."
    )
    return Section(f"order-{share}", f"Order, {name}", lead, [drawn])


def _gains(share: str, name: str, found: Mapping[str, Any], results: Mapping[str, Any]) -> Section:
    """Gains over the random encoder: by task from all modalities, then by modality."""
    tasks, methods = found["tasks"], list(found["ranks"]) or list(results["cells"])
    fused = gains_of(tasks, ALL)
    most = max((abs(gain.value) for task in tasks for gain in _every(tasks[task])), default=0.0) or 0.1
    blocks: list[Block] = [
        _matrix(f"From all modalities, {name}", methods, list(tasks), fused, most),
        Text(
            "Gain in AUROC over the same model with random weights, on test studies; bold where the interval does not hold 0."
        ),
    ]
    subsets = dict.fromkeys(s for entry in tasks.values() for by in entry.values() for s in by if s != ALL)
    for subset in subsets:
        drawn = _matrix(f"{words.modality(subset)}, {name}", methods, list(tasks), gains_of(tasks, subset), most)
        blocks.append(Fold(f"From {words.modality(subset)} alone, its encoder's own embedding", [drawn]))
    blocks.append(Fold("AUROC of every method from all modalities", [_table(tasks, methods)]))
    none = [method for method in methods if not above(tasks, method)]
    if none:
        blocks.append(Text(f"No probe of these beats its random encoder with an interval above 0: {', '.join(none)}."))
    return Section(f"gains-{share}", f"Gains, {name}", "What pretraining adds, method by method.", blocks)


def gains_of(tasks: Mapping[str, Any], subset: str) -> Gains:
    """(method, task) -> gain over the random encoder from a subset."""
    found = {
        (method, task): estimate(subsets.get(subset, {}).get("gain"))
        for task, methods in tasks.items()
        for method, subsets in methods.items()
    }
    return {place: gain for place, gain in found.items() if gain is not None}


def _every(methods: Mapping[str, Any]) -> list[Estimate]:
    found = [estimate(entry.get("gain")) for subsets in methods.values() for entry in subsets.values()]
    return [gain for gain in found if gain is not None]


def above(tasks: Mapping[str, Any], method: str) -> list[tuple[str, str]]:
    """(task, subset) of the probes of a method whose gain has an interval above 0."""
    found = []
    for task, methods in tasks.items():
        for subset, entry in methods.get(method, {}).items():
            gain = estimate(entry.get("gain"))
            if gain is not None and gain.low is not None and gain.low > 0:
                found.append((task, subset))
    return found


def _matrix(title: str, rows: Sequence[str], columns: Sequence[str], gains: Gains, most: float) -> Block:
    return fitting(lambda width: gain_matrix(title, rows, columns, gains, most=most, width=width))


def _table(tasks: Mapping[str, Any], methods: Sequence[str]) -> Table:
    rows = [
        [method, *(words.interval(estimate(tasks[t].get(method, {}).get(ALL, {}).get("auroc"))) for t in tasks)]
        for method in methods
    ]
    return Table(["method", *tasks], rows, "AUROC on test studies (95 %).")


def _training(results: Mapping[str, Any]) -> Section:
    """Whose own loss falls, what a cell costs, and who cannot run."""
    rising = [name for name, cells in results["cells"].items() if any(c["loss"][1] >= c["loss"][0] for c in cells)]
    said = f"The loss of {len(results['cells']) - len(rising)} of {len(results['cells'])} methods falls in every seed"
    blocks: list[Block] = [Text(f"{said}; not that of {', '.join(rising)}." if rising else f"{said}.")]
    blocks += [Text(f"{name} cannot run on these studies: {why}") for name, why in results["failed"].items()]
    rows = []
    for name, cells in results["cells"].items():
        first = cells[0]
        trained = ", ".join(map(words.modality, first["learns_from"])) + (", labels" if first["labels_seen"] else "")
        loss = f"{words.figure(first['loss'][0])} → {words.figure(first['loss'][1])}"
        costs = [words.figure(_mean(cells, key), 0) for key in ("seconds", "processor_seconds", "peak_mib")]
        rows.append([name, trained, loss, *costs])
    columns = ["method", "changes the encoder of", "loss, first and last tenth", "s", "processor s", "MiB at most"]
    table = Table(columns, rows, "Of the first seed, times and memory the mean over seeds.", left=2)
    return Section(
        "training", "Training", "Whether each method learns what it sets itself.", [*blocks, Fold("Cells", [table])]
    )


def _mean(cells: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [value for cell in cells if (value := number(cell.get(key))) is not None]
    return sum(found) / len(found) if found else None
