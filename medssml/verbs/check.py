"""`medssml check`: every problem of a cohort at once, before any training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssml.verbs import console

if TYPE_CHECKING:
    from medssml.data.checks import Problem
    from medssml.data.manifest import Manifest


def check(
    manifest: Path,
    *,
    deep: bool = False,
    problems: Path | None = None,
    data_root: Path | None = None,
    allow_outside: bool = False,
    workers: int = 2,
    hash_ids: bool = False,
) -> int:
    """Every problem of the studies in a manifest, grouped, with the fix of each.

    Args:
        manifest: CSV or Parquet, one row per study.
        deep: decode every file instead of its header.
        problems: where the list goes; default problems.csv in the current folder.
        data_root: what file names are relative to; default the manifest's folder.
        allow_outside: accept paths that leave the data root.
        workers: threads.
        hash_ids: codes in the place of study ids and files, for a list that leaves the site; see docs/privacy.md.

    Returns:
        exit code: 0, 3 where the table is refused, 4 where more than 1 % of the rows (at least 5) are quarantined.
    """
    from medssml.data.checks import Limits, account, check_manifest, read_studies, write_problems
    from medssml.data.redaction import redacted
    from medssml.privacy import pseudonyms

    limits = Limits()
    studies = read_studies(manifest, data_root, allow_outside=allow_outside)
    found = list(studies.problems)
    if studies.manifest is not None:
        found += check_manifest(studies.manifest, deep=deep, workers=workers, limits=limits, progress=_progress)
        _show_coverage(studies.manifest)
    accounting = account(studies.rows, found)
    _show_problems(found)
    console.say(
        f"{accounting.rows:,} rows: {accounting.accepted:,} accepted, {accounting.quarantined:,} quarantined, "
        f"{accounting.refused:,} refused"
    )
    target = Path("problems.csv") if problems is None else Path(problems)
    written = write_problems(redacted(found, pseudonyms(hash_ids)), target)
    console.say(f"{len(found):,} problem{'s' * (len(found) != 1)} listed in {written}")
    if any(problem.action == "refused" for problem in found):
        console.warn("the table is refused: training on it will not start")
        return 3
    if limits.too_many(accounting):
        allowed = max(limits.quarantined_rows, int(limits.quarantined_share * accounting.rows))
        console.warn(f"{accounting.quarantined:,} rows are quarantined, the limit is {allowed:,}")
        return 4
    return 0


def _progress(done: int, total: int) -> None:
    if done == total or done % 1000 == 0:
        console.say(f"{done:,} of {total:,} files checked")


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


def _show_problems(found: Sequence[Problem]) -> None:
    """One line per kind of problem, the grave ones first, with the first case of each."""
    from medssml.data.checks import ACTIONS

    groups: dict[tuple[int, str, str, str], list[Problem]] = defaultdict(list)
    for problem in found:
        groups[ACTIONS.index(problem.action), problem.action, problem.column, problem.code].append(problem)
    console.say("")
    for (_, action, column, code), group in sorted(groups.items(), key=lambda item: (item[0], -len(item[1]))):
        first = group[0]
        where = f"row {first.row}" + (f", {first.file}" if first.file else "") if first.row else "table"
        console.say(f"{action:<11} {len(group):>6,} x {column or '-'} {code}")
        console.say(f"{'':<11} {where}: {first.problem}; fix: {first.fix}")
    if groups:
        console.say("")
