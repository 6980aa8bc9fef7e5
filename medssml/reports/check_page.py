"""The page of a check: problems with their fix, odd files to look at, coverage, distributions, differences of sources.

It names rows of the table and no person: no study id, subject id, file name or word of a report is on it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from medssml import provenance
from medssml.checks.budget import Overrun, run_each
from medssml.checks.cohort_check import Examined, budget_of
from medssml.checks.distributions import Difference, Property, drift, labels, properties, source_column
from medssml.checks.inspection import Job
from medssml.checks.limits import Limits
from medssml.checks.pictures import picture
from medssml.files import write_text
from medssml.manifest.levels import LEVELS
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import ACTIONS, Accounting, Problem, grouped
from medssml.reports import check_figures, figures, words
from medssml.reports.blocks import Block, Facts, Fold, Gallery, Heading, Judged, Panels, Plot, Section, Table, fitting
from medssml.reports.check_labels import balance, rare
from medssml.reports.page import html

_PICTURES_A_KIND, _PAIRS, _KINDS_PICTURED = 6, 12, 12
_ROWS_NAMED = 8

#: (position of the row, modality)
Place: TypeAlias = tuple[int, str]
#: Heading -> files with the words under their picture.
Wanted: TypeAlias = dict[str, list[tuple[Place, str]]]


@dataclass(frozen=True)
class Check:
    """All that the page tells. manifest, examined: None where the table is refused as a whole; modalities: None for all;
    lost: what a table cannot do without."""

    manifest: Manifest | None
    examined: Examined | None
    problems: Sequence[Problem]
    accounting: Accounting
    limits: Limits
    source: str | None = None
    deep: bool = False
    modalities: Sequence[str] | None = None
    lost: Sequence[str] = ()


def write_check_page(path: str | Path, check: Check, workers: int = 2) -> Path:
    """Writes the page of a check as one HTML file that loads nothing.

    Args:
        path: the file.
        check: what was found.
        workers: processes that read the odd files again for their pictures.
    """
    sections: list[Section | None] = [problems(check)]
    if check.manifest is not None and check.examined is not None:
        found = properties(check.examined.files)
        sections += [
            odd_files(check, check.manifest, check.examined, workers),
            coverage(check.manifest, check.source),
            balance(check.manifest),
            distributions(found),
            differences(check, check.manifest, found),
        ]
    sections.append(protocol(check))
    about = "Every problem of a table of studies and of its files, before any training."
    shown = [section for section in sections if section is not None]
    text = html(
        "Check of the studies", shown, facts=facts(check), verdict=Judged(judged(check)),
        origin=provenance.said(provenance.entry("check")), about=about, made_from="",
    )  # fmt: skip
    return write_text(path, text)


def judged(check: Check) -> list[tuple[str, str, str]]:
    """(what, mark, sentence): whether training can start, what is worth a look, which classes are rare."""
    rows, accepted, quarantined, refused = check.accounting
    left_out = f", {quarantined:,} left out" if quarantined else ""
    if refused or check.manifest is None:
        cases = sum(problem.action == "refused" for problem in check.problems)
        said = f"{cases:,} problem{'s' * (cases != 1)} of the table itself; put them right first."
        lines = [("table", "refused", f"training does not start: {said}")]
    elif check.lost:
        lines = [("table", "refused", f"{accepted:,} of {rows:,} rows can be used{left_out}; {'; '.join(check.lost)}.")]
    else:
        lines = [("table", "accepted", f"training can start: {accepted:,} of {rows:,} rows can be used{left_out}.")]
    flagged = [problem for problem in check.problems if problem.action == "flagged"]
    if flagged:
        kinds = Counter(problem.code.replace("_", " ") for problem in flagged)
        named = ", ".join(f"{code}: {count:,}" for code, count in kinds.most_common(4))
        lines.append(("files", "flagged", f"{len(flagged):,} worth a look, used as they are: {named}."))
    for task, few in () if check.manifest is None else rare(check.manifest):
        said = ", ".join(f"{name}: {count}" for name, count in few.items())
        lines.append((task, "few studies", f"few training studies of a class: {said}."))
    return lines


def facts(check: Check) -> Facts:
    """Where every row went."""
    rows, accepted, quarantined, refused = check.accounting
    allowed = f"limit {check.limits.quarantine.of(rows):,}"
    return Facts(
        [
            ("rows", f"{rows:,}", "decoded in full" if check.deep else "headers alone"),
            ("accepted", f"{accepted:,}", ""),
            ("quarantined", f"{quarantined:,}", allowed),
            ("refused", f"{refused:,}", "training does not start" if refused else ""),
            ("problems", f"{len(check.problems):,}", "in problems.csv"),
        ]
    )


def problems(check: Check) -> Section:
    """One line per kind of problem, the grave ones first."""
    if not check.problems:
        return Section("problems", "Problems", "None was found.")
    blocks: list[Block] = []
    groups = grouped(check.problems)
    for action in ACTIONS:
        kinds = [group for group in groups if group[0].action == action]
        if kinds:
            blocks.append(Heading(f"{action}: {LEVELS[action]}"))
            rows = [_kind(group) for group in kinds]
            blocks.append(Table(["column", "problem", "first case", "rows", "fix", "cases"], rows, left=5))
    lead = "Rows are counted as a spreadsheet does, the header being row 1; files and ids are in problems.csv and not here."
    if check.lost:
        lead = f"Out of proportion: {'; '.join(check.lost)}. {lead}"
    return Section("problems", "Problems", lead, blocks)


def _kind(group: Sequence[Problem]) -> list[str]:
    first = group[0]
    rows = [f"{problem.row}" for problem in group if problem.row]
    named = ", ".join(rows[:_ROWS_NAMED]) + (" ..." if len(rows) > _ROWS_NAMED else "")
    said = [anonymous(text, group[:1]) for text in (first.problem, first.fix)]
    return [
        words.modality(first.column or "–"),
        first.code.replace("_", " "),
        said[0],
        named or "table",
        said[1],
        f"{len(group):,}",
    ]


def anonymous(text: str, problems: Iterable[Problem]) -> str:
    """`text` without what is quoted from the table or from a file, and without ids and file names."""
    hidden = [part for p in problems for part in (p.file, p.file.rsplit("/", 1)[-1], p.study_id)]
    return words.without_names(re.sub(r"'(?!(?:train|val|test)')[^']*'", "(…)", text), hidden)


def odd_files(check: Check, manifest: Manifest, examined: Examined, workers: int) -> Section:
    """Pictures of a few files of each kind of problem, and of files beside their copies."""
    wanted = _copies(manifest, examined) | _kinds(check.problems, manifest, examined)
    blocks = _galleries(wanted, _addresses(check.limits, examined, wanted.values(), workers))
    lead = (
        "A few files of each kind: the middle slice of a CT (window -1000 to 400 HU, or from its least to its greatest value "
        "where it is not in HU), a radiograph, the first seconds of an EEG. Reports and images with burned-in text are not shown."
    )
    return Section("odd", "Odd files", lead if blocks else "No file with a picture is odd.", blocks)


def _copies(manifest: Manifest, examined: Examined) -> Wanted:
    """Files beside the earlier ones that show the same."""
    wanted: Wanted = {}
    for copy in [c for c in examined.copies if c.finding is not None and c.finding.code != "template"][:_PAIRS]:
        title = f"{words.modality(copy.cell.modality)}: the same content twice"
        rows = [manifest.row_number(cell.position) for cell in (copy.earlier, copy.cell)]
        splits = [manifest.splits[cell.position] for cell in (copy.earlier, copy.cell)]
        captions = f"row {rows[0]}, {splits[0]}", f"row {rows[1]}, {splits[1]}: copy of row {rows[0]}"
        for cell, caption in zip((copy.earlier, copy.cell), captions, strict=True):
            wanted.setdefault(title, []).append(((cell.position, cell.modality), caption))
    return wanted


def _kinds(found: Sequence[Problem], manifest: Manifest, examined: Examined) -> Wanted:
    """A few files of each kind of problem that a picture can show."""
    places = {(manifest.row_number(position), modality): (position, modality) for position, modality in examined.jobs}
    wanted: Wanted = {}
    for group in grouped(found):
        first = group[0]
        shown = first.action in ("quarantined", "flagged") and first.code not in ("leak", "duplicate", "template")
        if not shown or (first.row, first.column) not in places or len(wanted) == _KINDS_PICTURED:
            continue
        text = anonymous(first.problem, [first])
        items = wanted.setdefault(f"{words.modality(first.column)}, {first.action}: {text}", [])
        for problem in group[:: max(1, len(group) // _PICTURES_A_KIND)][:_PICTURES_A_KIND]:
            own = anonymous(problem.problem, [problem])
            caption = f"row {problem.row}" + ("" if own == text else f": {own[:100]}")
            items.append((places[problem.row, problem.column], caption))
    return wanted


def _galleries(wanted: Wanted, shown: dict[Place, str]) -> list[Block]:
    blocks: list[Block] = []
    for title, items in wanted.items():
        pictures = [(shown[place], caption) for place, caption in items if place in shown]
        if pictures:
            blocks += [Heading(title), Gallery(pictures)]
    return blocks


def _addresses(
    limits: Limits, examined: Examined, wanted: Iterable[list[tuple[Place, str]]], workers: int
) -> dict[Place, str]:
    """The picture of every file that can be shown, each read once more within the budget of the check."""
    places = list(dict.fromkeys(place for items in wanted for place, _ in items))
    jobs: list[Job] = [examined.jobs[place] for place in places]
    found = {}
    for number, result in run_each(picture, jobs, workers=workers, budget=budget_of(limits)):
        if result is not None and not isinstance(result, Overrun):
            found[places[number]] = check_figures.address(result)
    return found


def coverage(manifest: Manifest, source: str | None) -> Section:
    """Which modalities studies have together, by split and by source."""
    counted = manifest.coverage()
    splits = [name for name in counted if name != "all"]
    patterns = [(pattern, {split: counted[split].get(pattern, 0) for split in splits}) for pattern in counted["all"]]
    names = [(name, words.modality(name)) for name in manifest.modalities]
    table = Table(
        ["modalities", *splits, "all"],
        [[words.subset(p), *[f"{counts[s]:,}" for s in splits], f"{counted['all'][p]:,}"] for p, counts in patterns],
    )
    there = [(name, word) for name, word in names if any(name in pattern.split("+") for pattern in counted["all"])]
    blocks: list[Block] = [
        fitting(lambda width: figures.coverage(patterns, there, width)),
        Fold("The numbers", [table]),
    ]
    column = source_column(manifest, source)
    if column is not None:
        blocks += [Heading(f"By {column}"), _by_source(manifest, column)]
    lead = "Which modalities the studies have together. An absent one is left out of every computation, not filled in."
    return Section("coverage", "Coverage", lead, blocks)


def _by_source(manifest: Manifest, column: str) -> Table:
    """Studies of each source, and how many of them have each modality and each label."""
    sources = manifest.table[column].to_numpy(dtype=object)
    has = {words.modality(m): manifest.present[:, i] for i, m in enumerate(manifest.modalities)}
    has |= {f"label {task}": ~np.isnan(values) for task, values in manifest.targets.items()}
    rows = [
        [str(name) or "(empty)", f"{count:,}", *(f"{int((mask & (sources == name)).sum()):,}" for mask in has.values())]
        for name, count in Counter(sources).most_common()
    ]
    return Table([column, "studies", *has], rows)


def distributions(found: Sequence[Property]) -> Section:
    """Histograms and quantiles of every number of the files."""
    blocks: list[Block] = []
    for modality in dict.fromkeys(item.modality for item in found):
        items = [item for item in found if item.modality == modality]
        panels = [(item.name, item.values) for item in items]
        rows = [[item.name, f"{len(item.values):,}", *map(_number, _quantiles(item))] for item in items]
        table = Table(["property", "files", "least", "5 %", "median", "95 %", "greatest"], rows)
        blocks += [
            Heading(words.modality(modality)),
            Panels([Plot(check_figures.histogram(title, values, modality)) for title, values in panels]),
            Fold("The numbers", [table]),
        ]
    lead = "Of every file that can be read; a logarithmic axis where values span more than 30-fold."
    return Section("distributions", "Distributions", lead if blocks else "No file could be read.", blocks)


def _quantiles(item: Property) -> list[float]:
    return [float(value) for value in np.quantile(item.values, [0, 0.05, 0.5, 0.95, 1])]


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def differences(check: Check, manifest: Manifest, found: Sequence[Property]) -> Section:
    """Properties by which a source, or a split, can be told from the others."""
    blocks: list[Block] = []
    column = source_column(manifest, check.source)
    for name in filter(None, (column, "split")):
        listed = drift([*found, *labels(manifest)], manifest.table[name], check.limits)
        if listed:
            columns = ["modality", "property", name, "files", "median there", "elsewhere", "Cliff's delta"]
            blocks += [Heading(f"By {name}"), Table(columns, [_difference(item) for item in listed], left=3)]
    lead = (
        "Properties whose values in one source are mostly above or below those elsewhere. Cliff's delta is the chance of a "
        "greater value less that of a smaller one: 0 is alike, 1 and -1 are no overlap. A model can learn the source from "
        "these; where a label is among them, it can learn the label from the source."
    )
    if not blocks:
        where = f"the columns {column} and split" if column else "the column split; there is no column of sources"
        lead = f"None of |Cliff's delta| {check.limits.drift:g} or more, by {where}."
    return Section("differences", "Differences between sources", lead, blocks)


def _difference(item: Difference) -> list[str]:
    numbers = f"{item.files:,}", _number(item.median), _number(item.elsewhere), words.signed(item.delta, 2)
    return [words.modality(item.modality), item.name, item.source, *numbers]


def protocol(check: Check) -> Section:
    """The limits that were applied."""
    rows = [
        [name, " to ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"]
        for name, value in asdict(check.limits).items()
    ]
    lead = (
        "Every file was decoded."
        if check.deep
        else "Headers and lengths of files were read; --deep decodes every file."
    )
    if check.modalities is not None:
        lead += f" Of the modalities, {', '.join(check.modalities)} only."
    return Section("protocol", "Limits", lead, [Fold("The limits", [Table(["limit", "value"], rows, left=1)])])
