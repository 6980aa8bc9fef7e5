"""`medssml check`: every problem of a cohort at once, before any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medssml.runs import console

if TYPE_CHECKING:
    from medssml.checks.cohort_check import Examined
    from medssml.checks.limits import Limits
    from medssml.manifest.manifest import Manifest
    from medssml.manifest.problems import Accounting, Problem

_KINDS_SHOWN = 4
_DIFFERENCES_SHOWN = 8


def check(
    manifest: Path,
    *,
    deep: bool = False,
    modalities: Sequence[str] | None = None,
    problems: Path | None = None,
    report: Path | None = None,
    limits: Path | None = None,
    overrides: Sequence[str] = (),
    source: str | None = None,
    data_root: Path | None = None,
    allow_outside: bool = False,
    kind: Sequence[str] = (),
    classes: Sequence[str] = (),
    workers: int = 2,
    hash_ids: bool = False,
) -> int:
    """Every problem of the studies in a manifest, grouped, with the fix of each.

    Args:
        manifest: CSV or Parquet, one row per study.
        deep: decode every file instead of its header, and look for copies that are the same to the eye.
        modalities: look at these columns only, such as ct,xray; default all. Ids, splits and labels are looked at always.
        problems: where the list goes; default problems.csv in the current folder.
        report: where an HTML page goes: problems, coverage, distributions, differences between sources, odd files.
        limits: YAML file of what counts as odd and of what a file may cost; docs/check.md lists the keys.
        overrides: any key of the limits, as KEY=VALUE; may be given several times.
        source: column that says where a study comes from; default source, site, hospital ... where there is one.
        data_root: what file names are relative to; default the manifest's folder.
        allow_outside: accept paths that leave the data root.
        kind: TASK=binary, multiclass or regression, or regression:UNIT, where the cells alone do not say it rightly.
        classes: TASK=a,b,c: the values of its classes in their order; may be given several times.
        workers: processes.
        hash_ids: codes in the place of study ids and files, for a list that leaves the site; see docs/privacy.md.

    Returns:
        exit code: 0; 3 where the table is refused; 4 where more rows are quarantined than the limit (1 %, or 5, and no more
        than a fifth), where the table has no row, or where a whole split, source, label, class or modality is lost.

    Raises:
        ValueError: a modality that the table does not have.
    """
    from medssml.checks.cohort_check import examine
    from medssml.checks.distributions import source_column
    from medssml.checks.limits import read_limits
    from medssml.checks.proportion import losses
    from medssml.files import refuse_overwriting, require_ending
    from medssml.manifest.labels import declared_labels
    from medssml.manifest.problems import account, grouped, write_problems
    from medssml.manifest.redaction import redacted
    from medssml.manifest.tolerant_read import read_studies
    from medssml.privacy import pseudonyms

    require_ending("--problems", problems, ".csv")
    require_ending("--report", report, ".html", ".htm")
    for flag, written in (("--problems", problems), ("--report", report)):
        refuse_overwriting(flag, written, manifest)
    allowed = read_limits(limits, overrides)
    studies = read_studies(
        manifest, data_root, modalities, allow_outside=allow_outside, tasks=declared_labels(kind, classes)
    )
    found, examined, column = list(studies.problems), None, None
    if studies.manifest is not None:
        _refuse_unknown(studies.manifest, manifest, modalities)
        column = source_column(studies.manifest, source)
        with _progress() as progress:
            examined = examine(studies.manifest, deep, workers, allowed, progress, whole=modalities is None)
        found += examined.problems
        _show_coverage(studies.manifest)
        _show_labels(studies.manifest)
        _show_problems(found)
        _show_drift(studies.manifest, examined, column, allowed)
    else:
        _show_problems(found)
    accounting = account(studies.rows, found)
    lost = losses(studies.manifest, found, accounting, allowed, column)
    target = Path("problems.csv") if problems is None else Path(problems)
    written = write_problems(redacted(found, pseudonyms(hash_ids)), target)
    if modalities is not None:
        console.say(f"looked at {', '.join(modalities)} only")
    console.tell(
        {
            **accounting._asdict(),
            "lost": lost,
            "problems": str(written),
            "kinds": [
                {"action": group[0].action, "column": group[0].column, "code": group[0].code, "cases": len(group)}
                | {"first": redacted(group[:1], pseudonyms(hash_ids))[0].line()}
                for group in grouped(found)
            ],
        }
    )
    console.say(f"{_sums(accounting)}; {len(found):,} line{'s' * (len(found) != 1)} in {written}")
    if report is not None:
        from medssml.reports.check_page import Check, write_check_page

        result = Check(studies.manifest, examined, found, accounting, allowed, source, deep, modalities, lost)
        page = write_check_page(report, result, workers)
        console.say(f"page: {page}")
    return _verdict(found, lost)


def _refuse_unknown(studies: Manifest, table: Path, wanted: Sequence[str] | None) -> None:
    """Nothing of a modality that is not there would pass for nothing wrong."""
    from medssml.manifest.columns import inline_columns, modality_columns

    known = modality_columns(studies.table, None)
    for modality in wanted or ():
        if modality not in studies.table and not inline_columns(modality, studies.table.columns):
            raise ValueError(f"{Path(table).name} has no column {modality!r}; fix: name some of {', '.join(known)}")


def _sums(accounting: Accounting) -> str:
    return (
        f"{accounting.rows:,} rows: {accounting.accepted:,} accepted, {accounting.quarantined:,} quarantined, "
        f"{accounting.refused:,} refused"
    )


def _verdict(found: Sequence[Problem], lost: Sequence[str]) -> int:
    """The exit code, said in words where it is not 0."""
    if any(problem.action == "refused" for problem in found):
        console.warn("the table is refused: training on it will not start")
        return 3
    for line in lost:
        console.warn(line)
    return 4 if lost else 0


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not console.on_terminal():
        yield lambda done, total: console.say(f"{done:,} of {total:,} files") if done == total else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # no thread of its own beside the processes that are forked: drawn when a file is done
    with Progress(*columns, console=console.rich_console(), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("files", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, refresh=done == total or done % max(1, total // 200) == 0)

        yield advance


def _show_coverage(manifest: Manifest) -> None:
    """Studies per pattern of modalities and split."""
    coverage = manifest.coverage()
    splits = [name for name in coverage if name != "all"]
    rows = [
        (pattern or "(none)", count, *(coverage[split].get(pattern, 0) for split in splits))
        for pattern, count in coverage["all"].items()
    ]
    console.say("")
    console.table(rows, ("modalities", "studies", *splits))


def _show_labels(manifest: Manifest) -> None:
    """What each label column was taken for: a code in the place of an absent value shows here first."""
    from medssml.runs.labels import label_account, say_account

    if manifest.tasks:
        console.say("")
        say_account(label_account(manifest, list(manifest.tasks)))


def _show_problems(found: Sequence[Problem]) -> None:
    """A few lines per kind of problem, the grave ones first, each with its first case."""
    from medssml.manifest.problems import grouped

    console.say("")
    shown: dict[tuple[str, str, str], int] = {}
    for group in grouped(found):
        first = group[0]
        kind = first.action, first.column, first.code
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] > _KINDS_SHOWN:
            continue
        row = f"row {first.row}" + (f", {first.file}" if first.file else "") if first.row else "table"
        console.say(f"{first.action:<11} {len(group):>6,} x {first.column or '-'} {first.code}")
        console.say(f"{'':<11} {row}: {first.problem}; fix: {first.fix}")
    for (action, column, code), kinds in shown.items():
        if kinds > _KINDS_SHOWN:
            more = kinds - _KINDS_SHOWN
            console.say(f"{action:<11} {more:>6,} more kinds of {column or '-'} {code}: see the list")
    if shown:
        console.say("")


def _show_drift(manifest: Manifest, examined: Examined, column: str | None, limits: Limits) -> None:
    """Properties by which a source, or a split, can be told from the others."""
    from medssml.checks.distributions import drift, labels, properties

    found = properties(examined.files) + labels(manifest)
    for name in filter(None, (column, "split")):
        differences = drift(found, manifest.table[name], limits)
        if not differences:
            continue
        console.say(f"differences between values of {name!r}, by Cliff's delta (1 = no overlap):")
        rows = [
            (d.modality, d.name, d.source, d.files, f"{d.median:.4g}", f"{d.elsewhere:.4g}", round(d.delta, 2))
            for d in differences[:_DIFFERENCES_SHOWN]
        ]
        console.table(rows, ("modality", "what", name, "files", "median", "elsewhere", "delta"))
        if len(differences) > _DIFFERENCES_SHOWN:
            console.say(f"and {len(differences) - _DIFFERENCES_SHOWN} more: --report FILE shows them all")
        console.say("")
