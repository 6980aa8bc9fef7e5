"""Reports that lie apart from the images: a table or a FHIR export, joined by study or accession number, never by name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from medssml.importers.account import UNMATCHED, Account, Aside, LayoutError
from medssml.importers.columns import guess_columns, sample_of
from medssml.importers.fhir import Export, add_values, entries, load, values_of
from medssml.importers.observations import Value
from medssml.importers.report_versions import ReportEntry
from medssml.importers.study import Options, Studies, Study, sections, slug
from medssml.importers.tree import Tree, table_rows

_ACCESSION = ("accession_number", "accession", "accession_no", "accessionnumber", "acc", "acsn")
_UID = ("study_instance_uid", "studyinstanceuid", "study_uid", "studyuid")


def join_reports(tree: Tree, studies: Studies, options: Options) -> None:
    """Gives every study without a report the one that names its StudyInstanceUID or its accession number.

    A report whose patient is another one than the images' is left out: two studies with one accession number.

    Raises:
        LayoutError: no such file, or a table without a text and a key.
    """
    if options.reports is None:
        return
    by_key: dict[str, list[Study]] = defaultdict(list)
    for study in studies.values():
        by_key[study.study_id].append(study)
        if study.columns.get("accession_number"):
            by_key[study.columns["accession_number"]].append(study)
    fhir = options.reports.is_dir() or ".json" in options.reports.name or ".ndjson" in options.reports.name
    values: dict[int, list[Value]] = {}
    reports: Iterable[ReportEntry] = ()
    if fhir:
        reports, values = _fhir(options.reports, tree.account, options)
    else:
        reports = _table(options.reports, tree.account, options)
    strangers, joined = [], False
    reports = list(reports)
    shared = _shared_numbers(reports) if fhir else set()
    for entry in reports:
        found = by_key.get(entry.uid) or by_key.get(entry.accession) or []
        if found and not by_key.get(entry.uid) and entry.accession in shared:
            reason = "several patients have its accession number: which of them the images are of is not stated"
            tree.account.leave_out(entry.row, reason, study_id=found[0].study_id)
            continue
        # A patient's id in FHIR is the server's, not the one in the images; in a table it is the same.
        mine = [study for study in found if fhir or not entry.patient or study.subject_id == entry.patient]
        if found and not mine:
            tree.account.leave_out(
                entry.row, "the images of this study are of another patient", study_id=found[0].study_id
            )
        joined |= bool(mine)
        if not found:
            strangers.append(entry.row)
        for study in mine:
            if study.report or study.report_text:
                tree.account.leave_out(entry.row, Aside("the study has a report already"), study_id=study.study_id)
                continue
            study.report_text = entry.text
            study.rows += [(row, "report_text") for row in (entry.row, *entry.more)]
            if entry.procedure:
                study.columns.setdefault("procedure", entry.procedure)
            add_values(study, values.get(entry.row, []))
    if joined:  # a list of reports is longer than what was sent; one of which nothing fits is another's, and lost
        for row in strangers:
            tree.account.leave_out(row, Aside(UNMATCHED))


def _shared_numbers(reports: Iterable[ReportEntry]) -> set[str]:
    """Accession numbers of several patients or issuers, among reports that name no DICOM study."""
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for entry in reports:
        owners[entry.accession].add((entry.patient, entry.issuer))
    return {number for number, having in owners.items() if number and len(having) > 1}


def plain_number(cell: str) -> str:
    """A number as an id: what a spreadsheet or a data frame wrote as 1001.0 is 1001.

    >>> plain_number("1001.0"), plain_number("1.10"), plain_number("A1.0")
    ('1001', '1.10', 'A1.0')
    """
    return re.sub(r"^(\d+)\.0+$", r"\1", cell)


def _fhir(path: Path, account: Account, options: Options) -> tuple[list[ReportEntry], dict[int, list[Value]]]:
    export = Export()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if "json" in file.suffix)
    for file in files:
        load(export, file, f"reports/{file.name}", account)
    if not export.reports:
        raise LayoutError(path, "holds no DiagnosticReport", "give the FHIR export of the reports")
    found = entries(export, account)
    return found, values_of(export, found, account, options.lab_days)


def _table(path: Path, account: Account, options: Options) -> Iterator[ReportEntry]:
    """The rows of a table with a text and a key; which columns those are is guessed and said."""
    if not path.is_file():
        raise LayoutError(path, "no such file", "give --reports a table or a FHIR export")
    rows = list(table_rows(path, f"reports/{path.name}", account))
    sample = sample_of(rows, [column for column, _ in rows[0].items()]) if rows else {}
    guesses = {guess.ours: guess.source for guess in guess_columns(sample, options.columns, lambda cell: False)}
    named = {slug(column): column for column in reversed(list(sample))}
    accession = next((named[name] for name in _ACCESSION if name in named), "")
    uid = next((named[name] for name in _UID if name in named), "") or guesses.get("study_id", "")
    text = guesses.get("report_text", "")
    parts = {name.removeprefix("section_"): column for name, column in guesses.items() if name.startswith("section_")}
    if not (accession or uid) or not (text or parts):
        reason = f"which columns are the key and the text? It has {', '.join(sample)}"
        raise LayoutError(path, reason, "call them accession_number and report, or give --column report_text=NAME")
    words = text or ", ".join(parts.values())
    account.note(f"reports: text <- {words!r}, key <- {' or '.join(filter(None, (uid, accession)))!r}")
    for row in rows:
        body = row[text] if text else sections(**{name: row[column] for name, column in parts.items()})
        if not body:
            account.leave_out(row.id, "no text")
            continue
        stated = [row[uid], row[accession], row[guesses["subject_id"]] if "subject_id" in guesses else ""]
        plain = [plain_number(cell) for cell in stated]
        if plain != stated:
            account.note("reports: ids such as 1001.0 are read as 1001")
        yield ReportEntry(row.id, "", plain[2], plain[0], plain[1], body)
