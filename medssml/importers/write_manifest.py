"""From studies to a manifest: rows, splits that no subject straddles, and an account of all that was read."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from medssml.importers.account import UNDECIDED, UNMATCHED, Account, Aside, LayoutError
from medssml.importers.losses import losses, refuse_losses
from medssml.importers.outputs import beside, check_apart, check_outputs, write_report
from medssml.importers.study import OFFICIAL, File, Layout, Options, Study
from medssml.importers.tree import Tree
from medssml.manifest.columns import MODALITIES, REQUIRED, near_miss
from medssml.manifest.identity_columns import identity_columns
from medssml.manifest.manifest import Manifest, ManifestError
from medssml.manifest.subject_ids import odd_ids, told
from medssml.randomness import hash64

_FIRST = (*REQUIRED, "split", "official_split", "ct", "xray", "xray_lateral", "eeg", "report", "report_text")
_KNOWN = (*_FIRST, "other_files")
_PRECEDENCE = ("test", "val", "train")
_REASONS = 4
#: Endings of what may be a table or a list: accounted for in every layout that has files.
_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".json", ".jsonl", ".ndjson", ".xls", ".xlsx", ".parquet")
#: Views that the column `xray` holds; other views stay in `other_files`.
_FRONTAL = ("PA", "AP", "frontal", "")


@dataclass(frozen=True)
class Imported:
    """What an import wrote. data_root: what the manifest's paths are relative to. lines: imported and left out;
    reasons: why, with how many; notes: what the importer decided and its user should know. outside: paths may leave it."""

    manifest: Path
    report: Path
    data_root: Path
    studies: int
    subjects: int
    coverage: dict[str, dict[str, int]]
    lines: dict[str, int]
    reasons: list[tuple[str, int]]
    notes: tuple[str, ...]
    outside: bool = False


@dataclass
class _Row:
    """One row of the manifest: the study it is of, what it names itself, and the files it names, by column."""

    study: Study
    study_id: str
    files: list[tuple[str, File]]
    cells: dict[str, str]


def import_layout(
    layout: Layout,
    root: Path,
    out: Path,
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    allow_outside: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Writes the manifest of the studies under `root` to `out`, and import_report.csv beside it.

    `progress` is called with how many files were looked into, by layouts that look into each.

    Raises:
        LayoutError: the folder is not of this layout, or no study is left. LostError: more is lost than may be.
        ValueError: an output would take the place of an input. In the first two cases import_report.csv is written.
    """
    check_outputs(root, out, options)
    account = Account()
    skip = [beside(out), *filter(None, (out if out.exists() else None, options.write_into))]
    tree = Tree(root, account, allow_outside=allow_outside, skip=skip)
    tree.progress = progress
    if tree.only and not layout.takes_file:
        raise LayoutError(root, "is a file", f"give the folder of {layout.title}: {layout.expects}")
    root = tree.root
    try:
        found = list(layout.read(tree, options))
        studies = _settled(found, account, options)
    except LayoutError as error:
        raise _refused(error, tree, layout, out) from error
    rows = [row for study in studies for row in _rows_of(study, account, options)]
    base, prefix = _base(root, out)
    manifest, rows = _checked(rows, account, base, prefix, layout.name, allow_outside)
    _settle_account(rows, account, tree, layout)
    check_apart(root, out, account)
    report = write_report(account.lines(), beside(out))
    if manifest is None:
        reason, fix = _nothing(account, layout)
        raise LayoutError(root, reason, f"{fix}; every row is in {report}")
    lost = losses(found, list({id(row.study): row.study for row in rows}.values()), account, options.max_lost)
    refuse_losses(lost, root, report, options.max_lost)
    official = "split" in manifest.table and manifest.official_split
    table = manifest.table if official else manifest.table.drop(columns="split", errors="ignore")
    replace(manifest, table=table).write(out)
    _note_identity(manifest, account)
    if base != out.parent:
        account.note(f"the manifest's paths are relative to {base}: give --data-root {base} wherever it is used")
    if not official:
        account.note("no official split: a hash of the subject decides when the manifest is read")
    return Imported(
        manifest=out,
        report=report,
        data_root=base,
        studies=len(manifest),
        subjects=len(set(manifest.subject_ids)),
        coverage=manifest.coverage(),
        lines=account.counts(),
        reasons=account.reasons(),
        notes=tuple(account.notes),
        outside=allow_outside,
    )


def _note_identity(manifest: Manifest, account: Account) -> None:
    """Says what is odd about the ids, and which columns carry identity."""
    for line in told(odd_ids(manifest.table)):
        account.note(line)
    for column in identity_columns(manifest.table, (*_FIRST[len(REQUIRED) :], *manifest.modalities)):
        account.note(f"column {column.column!r} {column.text}; fix: {column.fix}")


def _refused(error: LayoutError, tree: Tree, layout: Layout, out: Path) -> LayoutError:
    """The error with what was left out until then, all of which is written into the account."""
    account = tree.account
    reasons = account.reasons()
    if account.is_empty:
        return error
    account.unmatched = UNDECIDED
    _settle_account([], account, tree, layout)
    check_apart(tree.root, out, account)
    report = write_report(account.lines(), beside(out))
    told = [(reason, count) for reason, count in reasons if reason != UNMATCHED and reason not in error.reason]
    said = "; ".join(f"{count:,} x {reason}" for reason, count in told[:_REASONS])
    return LayoutError(
        error.where, f"{error.reason} ({said})" if said else error.reason, f"{error.fix}; every row is in {report}"
    )


def _nothing(account: Account, layout: Layout) -> tuple[str, str]:
    """Why nothing is left, and the fix: the most telling reason, one with a fix before one without."""
    reasons = sorted(account.reasons(), key=lambda reason: ("fix:" not in reason[0], reason[0] == UNMATCHED))
    why, _, fix = reasons[0][0].partition("; fix: ") if reasons else ("", "", "")
    first = f": {reasons[0][1]:,} x {why}" if why else ""
    return f"no study of {layout.title} can be imported{first}", fix or f"expected {layout.expects}"


def _base(root: Path, out: Path) -> tuple[Path, str]:
    """What paths are relative to: the manifest's folder where the root lies in it, else the root; and the root's path
    from there."""
    folder = out.parent.resolve()
    if root.resolve().is_relative_to(folder):
        inside = root.resolve().relative_to(folder).as_posix()
        return out.parent, "" if inside == "." else inside + "/"
    return root, ""


# Splits


def _settled(found: Iterable[Study], account: Account, options: Options) -> list[Study]:
    """The studies that have something to learn from, with a split that no other study of the subject contradicts."""
    studies = []
    for study in found:
        if study.files or study.holds:
            studies.append(study)
        else:
            _leave_out(study, account, "nothing of the study is on disk")
    if not any(study.split for study in studies):
        return studies
    official: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        if study.split:
            official[study.subject_id].add(_official(study.split))
    validates = any("val" in splits for splits in official.values())
    carved, kept = 0, []
    for study in studies:
        splits = official[study.subject_id]
        mine = _official(study.split) if study.split else next((s for s in _PRECEDENCE if s in splits), "")
        strictest = next((s for s in _PRECEDENCE if s in splits), "")
        if not mine:
            _leave_out(study, account, "the official split does not name it")
            continue
        if mine != strictest:
            _leave_out(study, account, Aside(f"the subject is in the official {strictest} split as well"))
            continue
        study.columns["official_split"] = study.split or mine
        study.split = mine
        if mine == "train" and not validates and hash64(study.subject_id) / 2.0**64 < options.val_fraction:
            study.split, carved = "val", carved + 1
        kept.append(study)
    if carved:
        account.note(
            f"the official split has no validation part: {carved:,} training studies became val, by a hash of the "
            f"subject (--val-fraction {options.val_fraction:g}); the test part is untouched"
        )
    return kept


def _official(name: str) -> str:
    try:
        return OFFICIAL[name.strip().lower()]
    except KeyError:
        raise LayoutError("official split", f"unknown split {name!r}", f"known: {', '.join(OFFICIAL)}") from None


def _leave_out(study: Study, account: Account, reason: str) -> None:
    """Nothing of the study is imported."""
    for id, _ in study.rows:
        account.leave_out(id, reason, study_id=study.study_id)
    for file in (file for files in study.files.values() for file in files):
        if file.row is not None:
            account.leave_out(file.row, reason, file.path, study.study_id)
        for path in file.members or (file.path,):
            account.file(path, reason)
    for path in filter(None, [study.report, *(path for path, _ in study.sources)]):
        account.file(path, reason)


# Rows


def _rows_of(study: Study, account: Account, options: Options) -> Iterator[_Row]:
    """The study as one row, or as a row per file."""
    if options.rows == "file" and sum(map(len, study.files.values())) > 1:
        yield from _row_per_file(study)
        return
    chosen: list[tuple[str, File]] = []
    for modality, files in study.files.items():
        chosen += _placed(modality, sorted(files, key=lambda file: file.rank))
    named = {column: file for column, file in reversed(chosen) if column != "other_files"}
    if not named and not study.holds:
        views = sorted({file.view for _, file in chosen})
        if views == ["raw"]:
            _leave_out(study, account, "raw image (FOR PROCESSING), not meant to be looked at")
        elif options.rows == "file":
            yield from _row_per_file(study)
        else:
            _leave_out(study, account, f"no frontal or lateral view (views: {', '.join(views)}); --rows file keeps it")
        return
    cells = {name: cell for column, file in named.items() for name, cell in file.cells(column).items()}
    others = ["#".join(filter(None, (file.path, file.series))) for column, file in chosen if column == "other_files"]
    if others:
        cells["other_files"] = ";".join(others)
    yield _Row(study, study.study_id, chosen, _cells(study, cells, named["xray"].view if "xray" in named else ""))


def _row_per_file(study: Study) -> Iterator[_Row]:
    seen: Counter[str] = Counter()
    for modality, files in study.files.items():
        for file in files:
            own = f"{study.study_id}_{file.name or Path(file.path).name.split('.')[0]}"
            seen[own] += 1
            name = own if seen[own] == 1 else f"{own}_{seen[own]}"
            yield _Row(study, name, [(modality, file)], _cells(study, file.cells(modality), file.view))


def _placed(modality: str, files: list[File]) -> Iterator[tuple[str, File]]:
    """The manifest column of each file, best first: one a column, further ones in `other_files`."""
    taken: set[str] = set()
    for file in files:
        column = modality
        if modality == "xray" and file.view not in _FRONTAL:
            column = "xray_lateral" if file.view == "lateral" else "other_files"
        if column in taken:
            column = "other_files"
        taken.add(column)
        yield column, file


def _cells(study: Study, files: Mapping[str, str], view: str) -> dict[str, str]:
    cells = {**files, "split": study.split, "report": study.report}
    if study.report_text and not study.report:
        cells["report_text"] = study.report_text
    if view:
        cells["group_view"] = view
    return {**cells, **study.columns}


# The manifest


def _checked(
    rows: list[_Row], account: Account, base: Path, prefix: str, source: str, allow_outside: bool
) -> tuple[Manifest | None, list[_Row]]:
    """The manifest of `rows`, without those that it refuses, which are accounted for; None where none is left."""
    while rows:
        try:
            return Manifest.from_table(_table(rows, prefix, source), base, allow_outside=allow_outside), rows
        except ManifestError as error:
            refused = {row: reason for row, _, reason in error.problems if row is not None and row > 1}
            if not refused:
                raise
            for row, reason in refused.items():
                _leave_out(rows[row - 2].study, account, reason.partition("; fix:")[0])
            rows = [row for place, row in enumerate(rows, start=2) if place not in refused]
    return None, []


def _table(rows: list[_Row], prefix: str, source: str) -> pd.DataFrame:
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    data: dict[str, list[str]] = {"subject_id": [row.study.subject_id for row in rows]}
    data["study_id"] = [row.study_id for row in rows]
    for column in sorted(columns, key=_order):
        cells = [row.cells.get(column, "") for row in rows]
        if prefix and column in (*MODALITIES, "xray_lateral", "other_files", "events"):
            cells = [_prefixed(cell, prefix) for cell in cells]
        if any(cells):
            data[_safe(column)] = cells
    data.setdefault("source", [source] * len(rows))
    return pd.DataFrame(data, dtype=object)


def _prefixed(cell: str, prefix: str) -> str:
    """Paths relative to the root as paths relative to the manifest."""
    return ";".join(path if os.path.isabs(path) else prefix + path for path in cell.split(";")) if cell else ""


def _order(column: str) -> tuple[int, int]:
    if column in _KNOWN:
        return 0, _KNOWN.index(column)
    return (1 if column.startswith("label_") else 2 if column.startswith("group_") else 3), 0


def _safe(column: str) -> str:
    """A column that a manifest would take for a misspelt one of its own gets a longer name."""
    known = {*REQUIRED, *MODALITIES, "split", "report_text"}
    own = column in (*_KNOWN, "events") or column.startswith(("label_", "group_"))
    return column if own or near_miss(column, known) is None else f"source_{column}"


# The account


def _settle_account(rows: list[_Row], account: Account, tree: Tree, layout: Layout) -> None:
    """Every row of the manifest takes what it is made of; files that nobody took are left out."""
    for row in rows:
        for id, column in row.study.rows:
            account.take(id, row.study_id, column)
        for column, file in row.files:
            if file.row is not None:
                account.take(file.row, row.study_id, column, file.path)
            for path in file.members or (file.path,):
                account.take_file(path, row.study_id, column)
        if row.study.report:
            account.take_file(row.study.report, row.study_id, "report")
        for path, column in row.study.sources:
            account.take_file(path, row.study_id, column)
    if layout.data:
        _settle_files(rows, account, tree, layout)


def _settle_files(rows: list[_Row], account: Account, tree: Tree, layout: Layout) -> None:
    """Files of which nothing became. They are lost where the layout has no table that could name them, and they are of the
    kind of those that were imported; else nobody has asked for them."""
    files = [file for row in rows for _, file in row.files]
    kinds = {Path(path).suffix.lower() for file in files if file.row is None for path in file.members or (file.path,)}
    kinds = set() if any(file.row is not None for file in files) else kinds
    endings = (*layout.data, *_TABLES)
    for path in tree.files:
        if path.lower().endswith(endings) and not account.is_known(path):
            reason = f"not part of the layout of {layout.title}, or in no table of it"
            lost = Path(path).suffix.lower() in kinds and not tree.is_made(path)
            account.file(path, reason if lost else Aside(reason))
