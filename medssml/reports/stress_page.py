"""The page of a stress test: one curve per obstacle, what each costs, and a verdict in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.files import write_text
from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Judged, Panels, Plot, Section, Table, Text
from medssml.reports.page import html
from medssml.reports.result_figures import Step
from medssml.reports.results import estimate, number
from medssml.reports.stress_figures import OverSeverity, over_severity
from medssml.reports.verdict import GUESSING
from medssml.reports.words import BETTER, EVEN, WORSE

#: Columns of the overview.
OVERVIEW = ("obstacle", "without", "at the most", "cost", "mean over severity")


#: What an obstacle costs at its most, its name and its entry.
_Costing = tuple[float, str, Mapping[str, Any]]


def write_stress_page(path: str | Path, result: Mapping[str, Any]) -> Path:
    """Writes one offline HTML page from what stress.json holds."""
    sections = [_section(task, entry, _limits(result)) for task, entry in result["tasks"].items()]
    sections.append(_protocol(result))
    said = [line for task, entry in result["tasks"].items() for line in judged(task, entry)]
    protocol = result["protocol"]
    studies = f"{protocol['studies']:,} studies"
    about = (
        f"{len(protocol['obstacles'])} obstacles at {len(protocol['severities'])} severities, on the same {studies}."
    )
    text = html(
        "Stress test", sections, verdict=Judged(said) if said else None,
        origin=provenance.said(provenance.entry("stress", protocol["seed"])), about=about, made_from=" from stress.json",
    )  # fmt: skip
    return write_text(path, text)


def judged(task: str, entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(task, mark, sentence): how good it is without any obstacle, which obstacles cost, the dearest first, and which do not."""
    dear: list[_Costing] = []
    even: list[_Costing] = []
    better: list[_Costing] = []
    for name, found in entry["obstacles"].items():
        cost = estimate(found["points"][-1].get("cost"))
        if cost is None or cost.low is None or cost.high is None:
            continue
        (dear if cost.low > 0 else better if cost.high < 0 else even).append((cost.value, name, found))
    metric, whole = str(entry["metric"]), _clean(entry)
    if whole is None:
        return [(task, EVEN, f"no {words.metric(metric)} on these studies: nothing to measure a cost by.")]
    lines = []
    studies = f"{int(entry['n']):,} studies"
    level, floor = (
        f"{words.metric(metric)} {words.interval(whole)} without an obstacle, n = {studies}",
        GUESSING.get(metric),
    )
    if floor is not None and whole.low is not None and whole.low <= floor:
        return [(task, EVEN, f"{level}: not better than chance, so there is nothing for an obstacle to cost.")]
    for _, name, found in sorted(dear, key=lambda row: -row[0])[:5]:
        lines.append((named(name), WORSE, f"{found['says']}: {_costs(found, metric)}."))
    if len(dear) > 5:
        lines.append(
            (
                task,
                WORSE,
                f"{len(dear) - 5} more obstacles cost less: {_names(sorted(dear, key=lambda row: -row[0])[5:])}.",
            )
        )
    if even:
        lines.append((task, EVEN, f"no cost is shown, even at the most, of {_names(even)}."))
    if better:
        lines.append(
            (task, BETTER, f"answers are better than without: {_names(better)}; the model goes by what it should not.")
        )
    mark = WORSE if dear else EVEN
    return [
        (task, mark, f"{level}; {len(dear)} of {len(dear) + len(even) + len(better)} obstacles cost something."),
        *lines,
    ]


def _names(found: Sequence[_Costing]) -> str:
    return ", ".join(named(name) for _, name, _ in found)


def named(name: str) -> str:
    """An obstacle's name as words."""
    first, _, rest = name.partition("_")
    return f"{words.modality(first)} {rest.replace('_', ' ')}" if first in words.WORDS else name.replace("_", " ")


def _clean(entry: Mapping[str, Any]) -> Any:
    first = next(iter(entry["obstacles"].values()), None)
    return None if first is None else estimate(first["points"][0].get(str(entry["metric"])))


def _costs(found: Mapping[str, Any], metric: str) -> str:
    """What an obstacle costs at its most, and from which severity on a cost is shown."""
    points = found["points"]
    last = points[-1]
    said = f"{words.metric(metric)} falls by {words.interval(estimate(last['cost']))} at severity {last['severity']:g}"
    first = next((p["severity"] for p in points if _shown(p)), last["severity"])
    said += f", a cost is shown from {first:g} on" if first < last["severity"] else ""
    best = (last.get("bayes") or {}).get("auroc")
    if best is not None and last["bayes"]["of"] == "what is left":
        said += f"; from what is left {words.figure(number(best))} would be possible"
    return said


def _shown(entry: Mapping[str, Any]) -> bool:
    """Whether the interval of a cost lies above 0."""
    cost = estimate(entry.get("cost"))
    return cost is not None and cost.low is not None and cost.low > 0


def rows(entry: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One row per obstacle, as `OVERVIEW` names its cells, and how it is judged."""
    metric = str(entry["metric"])
    for name, found in entry["obstacles"].items():
        first, last = found["points"][0], found["points"][-1]
        cells = (first.get(metric), last.get(metric), last.get("cost"), found["area"])
        yield named(name), *(words.interval(estimate(cell)) for cell in cells), _mark(last)


def _mark(entry: Mapping[str, Any]) -> str:
    cost = estimate(entry.get("cost"))
    if cost is None or cost.low is None or cost.high is None:
        return "not known"
    return WORSE if cost.low > 0 else BETTER if cost.high < 0 else EVEN


def _limits(result: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Metric -> the ends of the axis that all panels share, within what is possible."""
    found: dict[str, list[Step]] = {}
    for entry in result["tasks"].values():
        metric = str(entry["metric"])
        for point in (point for each in entry["obstacles"].values() for point in each["points"]):
            values = (estimate(point.get(metric)), estimate((point.get("bayes") or {}).get("auroc")))
            found.setdefault(metric, []).extend(Step("", value) for value in values if value is not None)
    within = {"auroc": (0.0, 1.0)}
    return {
        m: result_figures.shared_limits(steps, GUESSING.get(m, 0.0), within.get(m, (-1.0, 1.0)))
        for m, steps in found.items()
    }


def _section(task: str, entry: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]) -> Section:
    """The curves of one task, its overview, and every number in a fold."""
    metric = str(entry["metric"])
    plots = [
        Plot(
            over_severity(
                _curve(name, found, metric),
                task,
                words.metric(metric),
                chance=GUESSING.get(metric),
                limits=limits.get(metric, (0.0, 1.0)),
            )
        )
        for name, found in entry["obstacles"].items()
    ]
    lead = (
        "Blue: the metric with its 95 % interval over subjects; dashed: chance. Each panel has the same studies at every "
        "severity, and a cost draws the same subjects for both: it may be shown where the bands overlap."
    )
    if any((p.get("bayes") or {}).get("auroc") for e in entry["obstacles"].values() for p in e["points"]):
        lead += (
            " Orange: the Bayes predictor, the best there can be; where modalities are absent, from what is left, and "
            "otherwise from studies without the damage, which no model can hold."
        )
    blocks: list[Block] = [Panels(plots), Table([*OVERVIEW, "verdict"], [list(row) for row in rows(entry)])]
    for name, found in entry["obstacles"].items():
        blocks.append(Fold(f"{named(name)}: {found['says']}", [_numbers(found, metric)]))
    return Section(f"task-{task}", f"{task}, n = {int(entry['n']):,} studies", lead, blocks)


def _curve(name: str, found: Mapping[str, Any], metric: str) -> OverSeverity:
    points = found["points"]
    best = [number((point.get("bayes") or {}).get("auroc")) for point in points] if metric == "auroc" else []
    return OverSeverity(
        f"{named(name)}, n = {int(points[0]['n']):,}",
        [float(point["severity"]) for point in points],
        [estimate(point.get(metric)) for point in points],
        best,
    )


def _numbers(found: Mapping[str, Any], metric: str) -> Table:
    """Every severity of one obstacle."""
    columns = {
        "severity": lambda p: f"{p['severity']:g}",
        "modalities left": lambda p: f"{100 * p['left']:.0f} %",
        words.metric(metric): lambda p: words.interval(estimate(p.get(metric))),
        "cost": lambda p: words.interval(estimate(p.get("cost"))),
        "calibration error": lambda p: words.interval(estimate(p.get("ece"))),
        "confidence": lambda p: words.figure(number(p.get("confidence"))),
        "accuracy": lambda p: words.figure(number(p.get("accuracy"))),
        "of the surer half": lambda p: words.figure(number(p.get("accuracy_of_surer_half"))),
        "worst subset": lambda p: _worst(p.get("worst"), metric),
        "gap to Bayes": lambda p: words.interval(estimate((p.get("bayes") or {}).get("gap"))),
    }
    cells = {name: [say(point) for point in found["points"]] for name, say in columns.items()}
    kept = {name: said for name, said in cells.items() if any(text != "–" for text in said)}
    return Table(list(kept), [list(row) for row in zip(*kept.values(), strict=True)])


def _worst(found: Mapping[str, Any] | None, metric: str) -> str:
    if not found:
        return "–"
    return f"{words.figure(number(found[metric]))} {words.subset(str(found['subset']))}, n = {int(found['n']):,}"


def _protocol(result: Mapping[str, Any]) -> Section:
    protocol = result["protocol"]
    having = ", ".join(f"{count:,} {words.modality(name)}" for name, count in protocol["modalities"].items() if count)
    boot = protocol["bootstrap"]
    lines = [
        f"{protocol['studies']:,} {protocol['split']} studies of {protocol['subjects']:,} subjects: {having}.",
        f"Severities {', '.join(f'{s:g}' for s in protocol['severities'])}; what befalls a study follows from seed "
        f"{protocol['seed']}, the study and the obstacle alone, and a larger severity changes what a smaller one does and more.",
        f"Intervals: 95 %, {boot['resamples']} resamples of {boot['unit']}, seed {boot['seed']}.",
        "The accuracy of the surer half is that of a model which abstains from the half of the studies that it is least sure of.",
        *(str(remark)[:1].upper() + str(remark)[1:] + "." for remark in protocol.get("remarks", ())),
    ]
    blocks: list[Block] = [Text(line) for line in lines]
    if result["left_out"]:
        blocks.append(Heading("Not asked"))
        blocks.append(Table(["obstacle", "why"], [[named(n), why] for n, why in result["left_out"].items()], left=2))
    return Section("protocol", "Protocol", "How the numbers were made.", blocks)
