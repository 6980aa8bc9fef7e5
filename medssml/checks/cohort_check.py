"""Every integrity rule of a cohort: what is wrong, in which row and file, and what becomes of it.

The fast pass reads headers and file lengths (a truncated .nii.gz or EDF shows in them); the deep pass decodes every
file as training would, and also looks for copies that are the same to the eye. All problems are returned at once.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from medssml.checks.budget import Budget, Overrun, run_each
from medssml.checks.duplicates import Cell, Copy, copies
from medssml.checks.inspection import Inspection, Job, inspect, inspect_text
from medssml.checks.limits import Limits
from medssml.manifest.identity_columns import identity_columns
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import ACTIONS, Finding, Problem
from medssml.manifest.subject_ids import odd_ids
from medssml.readers import modality_kind

#: Endings of files that a modality's column holds.
_ENDINGS = (".nii", ".nii.gz", ".dcm", ".png", ".jpg", ".jpeg", ".edf", ".bdf", ".gdf", ".fif", ".set", ".vhdr", ".txt")


class Examined(NamedTuple):
    """What a check found.

    problems: in the order of the rows. files: (row's position, modality) -> what its file shows. jobs: the same -> how it
    is read. copies: files that show what an earlier one shows.
    """

    problems: list[Problem]
    files: dict[tuple[int, str], Inspection]
    jobs: dict[tuple[int, str], Job]
    copies: list[Copy]


def check_manifest(
    manifest: Manifest,
    deep: bool = False,
    workers: int = 2,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Every problem of the studies in `manifest`, in the order of its rows; arguments as `examine`."""
    return examine(manifest, deep, workers, limits, progress).problems


def examine(
    manifest: Manifest,
    deep: bool = False,
    workers: int = 2,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] | None = None,
    *,
    whole: bool = True,
) -> Examined:
    """Every problem of the studies in `manifest`, and what each file showed.

    Args:
        manifest: the studies; what is wrong with the table itself was refused when it was read.
        deep: decode every file instead of its header.
        workers: processes, in which each file has a budget of time and memory; 0 = this one, without budgets.
        limits: what counts as odd, and the budgets.
        progress: called with (files done, files in all).
        whole: say what is odd about the table as a whole, too: rows without any modality, files that no modality uses.
            Not where `manifest` was read with some of its modalities only.
    """
    cells, problems = _cells(manifest)
    inspected = _inspected(manifest, cells, deep, workers, limits, progress)
    for cell, job in cells.items():
        problems += [_problem(manifest, cell, finding) for finding in inspected[job].findings]
    sound = {cell: job for cell, job in cells.items() if not _broken(inspected[job])}
    alike = copies(manifest, list(sound), {cell: inspected[job] for cell, job in sound.items()}, limits)
    problems += [_problem(manifest, copy.cell, copy.finding) for copy in alike if copy.finding is not None]
    problems += _inline_texts(manifest, limits) + _several_studies(manifest) + _odd_ids(manifest)
    if whole:
        problems += _without_modality(manifest) + unused_columns(manifest) + _identity_columns(manifest)
    problems.sort(key=lambda p: (p.row, ACTIONS.index(p.action), p.column, p.code))
    jobs = {(cell.position, cell.modality): job for cell, job in cells.items()}
    return Examined(problems, {place: inspected[job] for place, job in jobs.items()}, jobs, alike)


def _cells(manifest: Manifest) -> tuple[dict[Cell, Job], list[Problem]]:
    """Every file that the table names; and the modalities for which there is no reader."""
    cells: dict[Cell, Job] = {}
    problems: list[Problem] = []
    for modality in manifest.modalities:
        try:
            kind = modality_kind(modality)
        except KeyError as error:
            fix = "name it after its kind (ct, xray, eeg, report), as in xray_lateral"
            problems.append(Problem(0, "", modality, "", "no_reader", str(error.args[0]), fix))
            continue
        if modality not in manifest.table:
            continue  # its texts or values stand in the table itself
        rows = zip(manifest.paths(modality), manifest.given(modality), manifest.table[modality], strict=True)
        for position, (path, given, name) in enumerate(rows):
            if path is not None:
                cells[Cell(position, modality, path, name)] = Job(path, kind, given)
    return cells, problems


def _inspected(
    manifest: Manifest,
    cells: Mapping[Cell, Job],
    deep: bool,
    workers: int,
    limits: Limits,
    progress: Callable[[int, int], None] | None,
) -> dict[Job, Inspection]:
    """Every file once, however many rows name it."""
    jobs = list(dict.fromkeys(cells.values()))
    work = functools.partial(inspect, deep=deep, limits=limits)
    inspected: dict[Job, Inspection] = {}
    for done, (number, result) in enumerate(run_each(work, jobs, workers=workers, budget=budget_of(limits)), start=1):
        inspected[jobs[number]] = _overrun(result) if isinstance(result, Overrun) else result
        if progress is not None:
            progress(done, len(jobs))
    return inspected


def budget_of(limits: Limits) -> Budget:
    """What reading one file may take."""
    return Budget(limits.file_seconds, int(limits.file_memory_gib * 2**30))


def _overrun(overrun: Overrun) -> Inspection:
    fix = "look at the file; limits.file_seconds and limits.file_memory_gib are the budget"
    return Inspection([Finding("budget", overrun.reason, fix)], {})


def _broken(inspection: Inspection) -> bool:
    return any(finding.action == "quarantined" for finding in inspection.findings)


def _problem(manifest: Manifest, cell: Cell, finding: Finding) -> Problem:
    study = str(manifest.study_ids[cell.position])
    return Problem(manifest.row_number(cell.position), study, cell.modality, cell.name, *finding)


def _inline_texts(manifest: Manifest, limits: Limits) -> list[Problem]:
    """The same for texts that stand in the table itself."""
    inline = "report" in manifest.modalities and "report_text" in manifest.table
    texts = manifest.table["report_text"] if inline else ()
    return [
        Problem(manifest.row_number(position), str(manifest.study_ids[position]), "report_text", "", *finding)
        for position, text in enumerate(texts)
        for finding in (inspect_text(text, limits) if text else ())
    ]


def _odd_ids(manifest: Manifest) -> list[Problem]:
    """Ids that may not say who is who."""
    studies = dict(zip(map(int, manifest.table.index), manifest.study_ids, strict=True))
    return [
        Problem(odd.row, str(studies.get(odd.row, "")), odd.column, "", odd.code, odd.text, odd.fix)
        for odd in odd_ids(manifest.table)
    ]


def _identity_columns(manifest: Manifest) -> list[Problem]:
    """Columns that say who somebody is."""
    texts = ("report_text", *manifest.modalities)
    return [
        Problem(0, "", found.column, "", "identifiers", found.text, found.fix)
        for found in identity_columns(manifest.table, texts)
    ]


def _without_modality(manifest: Manifest) -> list[Problem]:
    text, fix = "the study has no modality at all", "add a file, or remove the row"
    return [
        Problem(manifest.row_number(i), str(manifest.study_ids[i]), "", "", "no_modality", text, fix)
        for i in map(int, np.flatnonzero(~manifest.present.any(axis=1)))
    ]


def unused_columns(manifest: Manifest) -> list[Problem]:
    """Columns that hold file names and are no modality's: what they name would be absent without a word."""
    problems = []
    for column in manifest.table.columns:
        if column in manifest.modalities or column.startswith(("label_", "group_")):
            continue
        cells = [cell for cell in manifest.table[column] if cell]
        files = sum(cell.lower().endswith(_ENDINGS) for cell in cells)
        if files and files >= 0.5 * len(cells):
            text = f"holds {files:,} names of files, and is no modality's column: they are not used"
            fix = "rename it to ct, xray, eeg or report, or declare it as a modality in the config"
            problems.append(Problem(0, "", column, "", "unused", text, fix))
    return problems


def _several_studies(manifest: Manifest) -> list[Problem]:
    """One line per modality that subjects have more than once: such studies are not independent."""
    problems = []
    for column, modality in enumerate(manifest.modalities):
        counts = Counter(manifest.subject_ids[manifest.present[:, column]])
        several = [count for count in counts.values() if count > 1]
        if several:
            text = (
                f"{len(several):,} of {len(counts):,} subjects have several ({sum(several):,} studies, up to "
                f"{max(several):,} each)"
            )
            fix = "nothing to do for training; count and resample subjects, not studies, in statistics of your own"
            problems.append(Problem(0, "", modality, "", "several", text, fix))
    return problems
