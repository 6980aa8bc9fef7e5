"""Every integrity rule of a cohort: what is wrong, in which row and file, and what becomes of it.

The fast pass reads headers and file lengths (a truncated .nii.gz or EDF shows in them); the deep pass decodes every
file as training would. All problems are returned at once.
"""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from medssml.data.manifest import Manifest, ManifestError
from medssml.data.table import read_table
from medssml.readers import HEADERS, READERS, ReadError, modality_kind
from medssml.readers.errors import Flag
from medssml.readers.identifiers import suspicious_spans

Refusal = tuple[int | None, str | None, str]
ACTIONS = ("refused", "quarantined", "flagged", "fixed")


@dataclass(frozen=True)
class Problem:
    """One line of problems.csv.

    row: in the table's file, the header being row 1; 0 = the table as a whole. file: as the table names it.
    action: refused (training does not start), quarantined (the study is left out), flagged (kept, worth a look),
    fixed (put right while reading).
    """

    row: int
    study_id: str
    column: str
    file: str
    code: str
    problem: str
    action: str
    fix: str


@dataclass(frozen=True)
class Limits:
    """What is flagged, as (least, greatest), and how many studies may be quarantined."""

    ct_spacing_mm: tuple[float, float] = (0.2, 6.0)
    ct_field_mm: tuple[float, float] = (60.0, 2000.0)
    xray_pixels: tuple[float, float] = (64, 8192)
    eeg_sfreq_hz: tuple[float, float] = (64, 20_000)
    eeg_seconds: tuple[float, float] = (4, 7 * 86_400)
    report_chars: tuple[float, float] = (10, 50_000)
    quarantined_share: float = 0.01
    quarantined_rows: int = 5

    def too_many(self, accounting: Accounting) -> bool:
        """Whether more studies are quarantined than the limit allows."""
        return accounting.quarantined > max(self.quarantined_rows, self.quarantined_share * accounting.rows)


class Accounting(NamedTuple):
    """accepted + quarantined + refused = rows."""

    rows: int
    accepted: int
    quarantined: int
    refused: int


class Finding(NamedTuple):
    """What is wrong with one file, whatever rows name it."""

    code: str
    problem: str
    action: str
    fix: str


class _Cell(NamedTuple):
    position: int
    modality: str
    path: Path


def check_manifest(
    manifest: Manifest,
    deep: bool = False,
    workers: int = 2,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Every problem of the studies in `manifest`, in the order of its rows.

    Args:
        manifest: the studies; what is wrong with the table itself was refused when it was read.
        deep: decode every file instead of its header.
        workers: threads.
        limits: what counts as odd.
        progress: called with (files done, files in all).
    """
    cells, problems = _cells(manifest)
    paths = sorted({(cell.path, modality_kind(cell.modality)) for cell in cells})
    findings: dict[Path, list[Finding]] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(lambda job: check_file(*job, deep=deep, limits=limits), paths)
        for done, ((path, _), found) in enumerate(zip(paths, results, strict=True), start=1):
            findings[path] = found
            if progress is not None:
                progress(done, len(paths))
    problems += [_problem(manifest, cell, finding) for cell in cells for finding in findings[cell.path]]
    broken = {path for path, found in findings.items() if any(f.action == "quarantined" for f in found)}
    problems += _identical_files(manifest, [cell for cell in cells if cell.path not in broken])
    problems += _inline_identifiers(manifest)
    problems += _without_modality(manifest)
    return sorted(problems, key=lambda p: (p.row, ACTIONS.index(p.action), p.column, p.code))


def check_file(path: Path, kind: str, *, deep: bool = False, limits: Limits = Limits()) -> list[Finding]:  # noqa: B008
    """What is wrong with one file: the reason for which it cannot be read, or what is odd or was put right."""
    try:
        read = (READERS if deep else HEADERS)[kind](path)
    except ReadError as error:
        inside = "" if Path(error.file) == path else f"{Path(error.file).name!r}: "
        return [Finding(error.code, inside + error.reason, "quarantined", error.fix)]
    found = [
        Finding("odd", str(note), "flagged", "look at the file")
        if isinstance(note, Flag)
        else Finding("fixed", str(note), "fixed", "nothing to do")
        for note in read.notes
    ]
    found += identifiers(read.text) if kind == "report" else []
    return found + _out_of_limits(kind, read, limits)


def identifiers(text: str) -> list[Finding]:
    """How much of a report looks like a name, a date, a phone number or an id; how much, never what."""
    spans = suspicious_spans(text)
    if not spans:
        return []
    counts = ", ".join(f"{kind} x {count}" for kind, count in spans.items())
    fix = "de-identify the text; a model reads it as it is"
    return [Finding("identifiers", f"may identify somebody: {counts}", "flagged", fix)]


def _out_of_limits(kind: str, read: Any, limits: Limits) -> list[Finding]:
    """Sizes, spacings, rates and lengths outside `limits`."""
    if kind == "ct":
        shape = read.shape if hasattr(read, "shape") else read.array.shape
        field = [n * step for n, step in zip(shape, read.spacing, strict=True)]
        return _outside("spacing", "voxel spacing", read.spacing, "mm", limits.ct_spacing_mm) + _outside(
            "size", "field of view", field, "mm", limits.ct_field_mm
        )
    if kind == "xray":
        shape = read.shape if hasattr(read, "shape") else read.array.shape
        return _outside("size", "image size", shape, "pixels", limits.xray_pixels)
    if kind == "eeg":
        seconds = read.seconds if hasattr(read, "seconds") else read.signal.shape[1] / read.sfreq
        return _outside("rate", "sampling rate", [read.sfreq], "Hz", limits.eeg_sfreq_hz) + _outside(
            "length", "length", [seconds], "s", limits.eeg_seconds
        )
    if kind == "table":
        return []  # what a value may be, its unit decides
    return _outside("length", "text length", [len(read.text)], "characters", limits.report_chars)


def _outside(code: str, what: str, values: Iterable[float], unit: str, limits: tuple[float, float]) -> list[Finding]:
    values = [float(value) for value in values]
    if min(values) >= limits[0] and max(values) <= limits[1]:
        return []
    figure = " x ".join(f"{value:.4g}" for value in values)
    problem = f"{what} {figure} {unit}, expected {limits[0]:g} to {limits[1]:g}"
    return [Finding(code, problem, "flagged", "look at the file, or widen the limit")]


def _cells(manifest: Manifest) -> tuple[list[_Cell], list[Problem]]:
    """Every file that the table names; and the modalities for which there is no reader."""
    cells: list[_Cell] = []
    problems: list[Problem] = []
    for modality in manifest.modalities:
        try:
            modality_kind(modality)
        except KeyError as error:
            fix = "name it after its kind (ct, xray, eeg, report), as in xray_lateral"
            problems.append(Problem(0, "", modality, "", "no_reader", str(error.args[0]), "flagged", fix))
            continue
        for position in range(manifest.rows):
            path = manifest.path_of(position, modality)
            if path is not None:
                cells.append(_Cell(position, modality, path))
    return cells, problems


def _problem(manifest: Manifest, cell: _Cell, finding: Finding) -> Problem:
    study = str(manifest.study_ids[cell.position])
    file = str(manifest.table[cell.modality].iloc[cell.position])
    code, text, action, fix = finding
    return Problem(manifest.row_number(cell.position), study, cell.modality, file, code, text, action, fix)


def _inline_identifiers(manifest: Manifest) -> list[Problem]:
    """The same for texts that stand in the table itself."""
    texts = manifest.table["report_text"] if "report_text" in manifest.table else ()
    return [
        Problem(manifest.row_number(position), str(manifest.study_ids[position]), "report_text", "", *finding)
        for position, text in enumerate(texts)
        for finding in identifiers(text)
    ]


def _without_modality(manifest: Manifest) -> list[Problem]:
    return [
        Problem(
            manifest.row_number(position),
            str(manifest.study_ids[position]),
            "",
            "",
            "no_modality",
            "the study has no modality at all",
            "flagged",
            "add a file, or remove the row",
        )
        for position in range(manifest.rows)
        if not manifest.present[position].any()
    ]


def _identical_files(manifest: Manifest, cells: Sequence[_Cell]) -> list[Problem]:
    """Files of different subjects, or in different splits, whose bytes are the same: one picture learnt and tested.

    Only files of equal size are read.
    """
    by_size: dict[tuple[str, int], list[_Cell]] = defaultdict(list)
    for cell in cells:
        if cell.path.is_file():
            by_size[cell.modality, cell.path.stat().st_size].append(cell)
    by_content: dict[tuple[str, str], list[_Cell]] = defaultdict(list)
    for group in by_size.values():
        if len({cell.path for cell in group}) > 1:
            for cell in group:
                by_content[cell.modality, _digest(cell.path)].append(cell)
        else:
            by_content[group[0].modality, str(group[0].path)] += group
    return [problem for group in by_content.values() if len(group) > 1 for problem in _leaks(manifest, group)]


def _leaks(manifest: Manifest, group: Sequence[_Cell]) -> list[Problem]:
    """One problem per file that is the same as an earlier one of another split or, within a split, another subject."""
    problems = []
    for index, cell in enumerate(group):
        for other in group[:index]:
            splits = manifest.splits[cell.position], manifest.splits[other.position]
            same_subject = manifest.subject_ids[cell.position] == manifest.subject_ids[other.position]
            # two normal reports are often the same sentence; two images of two people never are
            if splits[0] == splits[1] and (same_subject or modality_kind(cell.modality) == "report"):
                continue
            row = manifest.row_number(other.position)
            where = f"{splits[1]} here {splits[0]}" if splits[0] != splits[1] else "of another subject"
            code = "leak" if splits[0] != splits[1] else "duplicate"
            text = f"byte for byte the file of row {row} ({where})"
            finding = Finding(code, text, "flagged", "keep one of the studies, or put both into one split")
            problems.append(_problem(manifest, cell, finding))
            break
    return problems


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# The table itself, its refusals included


class Studies(NamedTuple):
    """manifest: the rows that can be read at all, None where the table is refused as a whole. rows: all of them."""

    manifest: Manifest | None
    problems: list[Problem]
    rows: int


def read_studies(path: str | Path, data_root: str | Path | None = None, *, allow_outside: bool = False) -> Studies:
    """The table in `path` with its refusals as problems, so that the files of the other rows can be checked as well."""
    path = Path(path)
    try:
        manifest = Manifest.read(path, data_root, allow_outside=allow_outside)
        return Studies(manifest, [], manifest.rows)
    except ManifestError as error:
        refusals = error.problems
    try:
        table = read_table(path, path.read_bytes())
    except (ManifestError, OSError):
        return Studies(None, [_refusal(*problem) for problem in refusals], 0)
    root = Path(data_root) if data_root is not None else path.parent
    return _sound_rows(table, refusals, root, allow_outside)


def _sound_rows(table: pd.DataFrame, refusals: list[Refusal], root: Path, allow_outside: bool) -> Studies:
    """The manifest of the rows that are left when the refused ones are dropped, which may show further refusals."""
    studies = {int(str(row)): str(study) for row, study in table.get("study_id", pd.Series(dtype=object)).items()}
    problems: list[Problem] = []
    rest = table
    while refusals:
        problems += [_refusal(*refusal, study=studies.get(refusal[0] or 0, "")) for refusal in refusals]
        rows = {row for row, _, _ in refusals}
        if not rows <= set(rest.index):
            return Studies(None, problems, len(table))
        rest = rest.drop(index=sorted(row for row in rows if row is not None))
        if rest.empty:
            return Studies(None, problems, len(table))
        try:
            manifest = Manifest.from_table(rest, root, allow_outside=allow_outside)
        except ManifestError as error:
            # rows of `rest` are numbered anew
            refusals = [
                (int(rest.index[row - 2]) if row is not None and row > 1 else row, column, reason)
                for row, column, reason in error.problems
            ]
        else:
            rest = manifest.table.set_axis(rest.index, axis=0)
            return Studies(replace(manifest, table=rest), problems, len(table))
    return Studies(None, problems, len(table))


def _refusal(row: int | None, column: str | None, reason: str, study: str = "") -> Problem:
    problem, _, fix = reason.partition("; fix: ")
    return Problem(row or 0, study, column or "", "", "table", problem, "refused", fix or "correct the table")


def account(rows: int, problems: Iterable[Problem]) -> Accounting:
    """Where each of `rows` rows went; a refusal of the table as a whole refuses them all."""
    problems = list(problems)
    refused = {p.row for p in problems if p.action == "refused"}
    quarantined = {p.row for p in problems if p.action == "quarantined"} - refused
    if refused & {0, 1} or (refused and not rows):
        return Accounting(rows, 0, 0, rows)
    return Accounting(rows, rows - len(quarantined) - len(refused), len(quarantined), len(refused))


def write_problems(problems: Iterable[Problem], path: str | Path) -> Path:
    """problems.csv, whole or not at all; a header alone where there are none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in fields(Problem)]
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, suffix=".tmp", delete=False
    ) as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(problem), "row": problem.row or ""} for problem in problems)
    os.replace(file.name, path)
    return path
