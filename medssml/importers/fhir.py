"""A FHIR export: `DiagnosticReport` in JSON, bundles or NDJSON, with the `ImagingStudy` and `Patient` resources beside it.

The study of a report is the DICOM study of its ImagingStudy (`imagingStudy` in R4, `study` in R5), else its accession number
(an identifier of type ACSN, its own or that of the request it is based on) with its issuer, else the report itself. Numbers of
`Observation` resources become columns of the study (see `observations`). HL7 FHIR R4, R5.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssml.importers.account import UNMATCHED, Account, Aside, LayoutError
from medssml.importers.moments import moment
from medssml.importers.observations import Observations, Report, Value
from medssml.importers.report_versions import ReportEntry, Stated, one_per_study
from medssml.importers.study import Layout, Options, Studies, Study, slug
from medssml.importers.tree import Tree
from medssml.readers.errors import ReadError
from medssml.readers.fhir import Resource, objects_in, report_body, resources_of
from medssml.readers.json_text import json_value

_ENDINGS = (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz")
_USED = ("DiagnosticReport", "ImagingStudy", "Patient", "ServiceRequest", "Binary")
_WITHDRAWN = ("entered-in-error", "cancelled", "registered")
#: DICOM's own code for "Study Instance UID" as the type of an identifier.
_STUDY_UID = "110180"
#: LOINC codes of any imaging report: they do not say of which examination.
_ANY_REPORT = frozenset({"18748-4", "68604-8", "11528-7", "LP29684-5", "None"})
_LARGEST = 512 * 1024**2
_SHOWN = 20
#: Diagnostic service sections (HL7 table 0074) and LOINC parts that are no imaging; and those that are.
_LABORATORY = frozenset({"LAB", "CH", "HM", "MB", "CP", "SP", "PAT", "BLB", "IMM", "SR", "TX", "VR", "LP7839-6"})
_IMAGING = frozenset(
    {"RAD", "CT", "CUS", "IMG", "MRI", "NMR", "NMS", "OUS", "RUS", "RX", "VUS", "XRC", "EN", "LP29684-5"}
)


@dataclass
class Export:
    """The resources of an export.

    reports: (row in the account, resource, file). observations: numbers. by_reference: what others refer to.
    """

    reports: list[tuple[int, Resource, str]] = field(default_factory=list)
    observations: Observations = field(default_factory=Observations)
    by_reference: dict[str, tuple[int, Resource]] = field(default_factory=dict)


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per examination that has a report in words; of several versions the newest final one counts."""
    files = [tree.only] if tree.only else [path for path in tree.files if path.lower().endswith(_ENDINGS)]
    export = Export()
    for path in files:
        load(export, tree.root / path, path, tree.account)
    if not export.reports:
        raise LayoutError(tree.root, "holds no DiagnosticReport", f"expected one in *{', *'.join(_ENDINGS)}")
    studies = Studies()
    found = entries(export, tree.account)
    values = values_of(export, found, tree.account, options.lab_days)
    for entry in found:
        study = studies.of(entry.patient, entry.key)
        study.report_text = entry.text
        study.rows += [(row, "report_text") for row in (entry.row, *entry.more)]
        described = {"accession_number": entry.accession, "procedure": entry.procedure, "group_sex": entry.sex}
        study.columns.update({column: cell for column, cell in described.items() if cell})
        add_values(study, values.get(entry.row, []))
    _take_described(export, studies)
    for row, resource in export.by_reference.values():
        if resource.get("resourceType") != "DiagnosticReport":
            tree.account.leave_out(row, Aside(UNMATCHED))
    return studies.values()


# Resources


def load(export: Export, file: Path, name: str, account: Account) -> None:
    """Adds the resources of one file to `export`; each that is used has a row in the account, the others are counted."""
    account.read(name)
    others: Counter[str] = Counter()
    try:
        for number, resource in _resources(file):
            kind = str(resource.get("resourceType") or "no resourceType")
            if kind == "Observation":
                export.observations.add(account.row(name, number), resource, account)
                continue
            if kind not in _USED or (kind == "Binary" and not _is_text(resource)):
                others[kind] += 1
                continue
            row = account.row(name, number)
            if kind == "DiagnosticReport":
                export.reports.append((row, resource, name))
            for reference in _references(resource):
                export.by_reference.setdefault(reference, (row, resource))
    except (ValueError, OSError, EOFError, RecursionError) as error:
        account.file(name, f"no FHIR: {error}"[:160])
        return
    for kind, count in others.items():
        account.file(f"{name}#{kind}", Aside(f"{count} resources of this type: no reports"))


def _resources(file: Path) -> Iterator[tuple[int, Resource]]:
    """(number of the line or of the entry, resource)."""
    opened = gzip.open if file.name.endswith(".gz") else open
    with opened(file, "rb") as raw:
        if ".json" not in file.name.lower() or ".jsonl" in file.name.lower():
            for number, line in enumerate(raw, start=1):
                if line.strip():
                    yield from ((number, item) for item in resources_of(json_value(line)))
            return
        text = raw.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ValueError("larger than 512 MiB; fix: export it as NDJSON")
    yield from enumerate(resources_of(json_value(text)), start=1)


def _is_text(binary: Resource) -> bool:
    """Whether a report may be in it; pictures and PDF are large, and are not kept."""
    return str(binary.get("contentType") or "").lower().startswith(("text/", "application/rtf", "application/xhtml"))


def _references(resource: Resource) -> Iterator[str]:
    """What others may call it."""
    if resource.get("id"):
        yield f"{resource.get('resourceType')}/{resource['id']}"
    if isinstance(resource.get("fullUrl"), str):
        yield resource["fullUrl"]


def _target(export: Export, reference: Any) -> Resource | None:
    """What a reference leads to: relative, absolute, with a version, or urn:uuid."""
    text = str(reference.get("reference") or "") if isinstance(reference, dict) else ""
    parts = text.split("/_history/")[0].split("/")
    found = export.by_reference.get(text) or export.by_reference.get("/".join(parts[-2:]))
    return found[1] if found else None


# Reports


def entries(export: Export, account: Account) -> list[ReportEntry]:
    """One report per study, the newest final one, with its text; all others are accounted for."""
    known = {reference: resource for reference, (_, resource) in export.by_reference.items()}
    read = [_entry(export, row, resource, known, file, account) for row, resource, file in export.reports]
    return one_per_study([entry for entry in read if entry is not None], account)


def _entry(
    export: Export, row: int, resource: Resource, known: dict[str, Resource], file: str, account: Account
) -> ReportEntry | None:
    status = str(resource.get("status") or "")
    codes = _codes(resource.get("category"))
    if status in _WITHDRAWN:
        account.leave_out(row, Aside(f"status {status}"))
    elif codes & _LABORATORY and not codes & _IMAGING:
        account.leave_out(row, Aside("a laboratory or pathology report"))
    elif not (patient := _patient(export, resource)):
        account.leave_out(row, "no subject")
    else:
        try:
            text, notes = report_body(resource, known, Path(file))
        except ReadError as error:
            account.leave_out(row, "no text" if "has no text" in error.reason else error.reason)
            return None
        for note in notes:
            account.note(f"reports in several forms: {note}")
        report_id = str(resource.get("id") or "")
        uid, accession, issuer = _study_keys(export, resource)
        if uid or accession or report_id:
            gender = str((_target(export, resource.get("subject")) or {}).get("gender"))
            sex = {"male": "M", "female": "F"}.get(gender, "")
            procedure, stated = _words(resource.get("code")), _stated(resource)
            return ReportEntry(row, report_id, patient, uid, accession, text, procedure, sex, issuer, stated)
        account.leave_out(row, "no id, no accession number and no imaging study")
    return None


def _stated(resource: Resource) -> Stated:
    """What tells this version of a report from others."""
    concept = resource.get("code")
    meta = resource.get("meta")
    return Stated(
        str(resource.get("status") or ""),
        moment(resource.get("issued")),
        moment(resource.get("effectiveDateTime") or resource.get("effectivePeriod")),
        moment(meta.get("lastUpdated")) if isinstance(meta, dict) else None,
        frozenset(_codes(concept) - _ANY_REPORT) or frozenset(filter(None, [slug(_words(concept))])),
    )


def _patient(export: Export, resource: Resource) -> str:
    """The id of the patient: of the resource that is referred to, of the reference, or a logical identifier."""
    subject = resource.get("subject")
    if not isinstance(subject, dict):
        return ""
    target = _target(export, subject)
    if target is not None and target.get("id"):
        return str(target["id"])
    text = str(subject.get("reference") or "").split("/_history/")[0]
    identifier = subject.get("identifier")
    return text.rpartition("/")[2].removeprefix("urn:uuid:") or (
        str(identifier.get("value") or "") if isinstance(identifier, dict) else ""
    )


def _study_keys(export: Export, resource: Resource) -> tuple[str, str, str]:
    """(StudyInstanceUID, accession number, its issuer), "" where not stated."""
    uid, accession = "", _accession(resource)
    for reference in [*objects_in(resource.get("imagingStudy")), *objects_in(resource.get("study"))]:
        target = _target(export, reference) or {}
        # A reference may also be logical: the identifier alone, without a resource.
        for identifier in [*objects_in(target.get("identifier")), *objects_in([reference.get("identifier")])]:
            value = str(identifier.get("value") or "")
            stated = identifier.get("system") == "urn:dicom:uid" or _STUDY_UID in _codes(identifier.get("type"))
            if value.startswith("urn:oid:") or stated:
                uid = uid or value.removeprefix("urn:oid:")
        accession = accession or _accession(target)
    for reference in objects_in(resource.get("basedOn")):
        logical = {"identifier": [reference.get("identifier")]}
        accession = accession or _accession(_target(export, reference) or {}) or _accession(logical)
    return uid, *(accession or ("", ""))


def _accession(resource: Resource) -> tuple[str, str] | None:
    """(accession number, who issued it: system, else assigner)."""
    for identifier in objects_in(resource.get("identifier")):
        if "ACSN" in _codes(identifier.get("type")) and identifier.get("value"):
            return str(identifier["value"]).strip(), str(identifier.get("system") or _assigner(identifier))
    return None


def _assigner(identifier: Resource) -> str:
    assigner = identifier.get("assigner")
    if not isinstance(assigner, dict):
        return ""
    logical = assigner.get("identifier")
    stated = logical.get("value") if isinstance(logical, dict) else ""
    return str(assigner.get("reference") or stated or assigner.get("display") or "")


def _codes(concepts: Any) -> set[str]:
    """The codes of one CodeableConcept, or of a list of them."""
    concepts = concepts if isinstance(concepts, list) else [concepts]
    return {str(coding.get("code")) for concept in objects_in(concepts) for coding in objects_in(concept.get("coding"))}


def _words(concept: Any) -> str:
    if not isinstance(concept, dict):
        return ""
    displays = [str(coding["display"]) for coding in objects_in(concept.get("coding")) if coding.get("display")]
    return str(concept.get("text") or (displays[0] if displays else ""))


# Laboratory values


def values_of(export: Export, found: list[ReportEntry], account: Account, days: float) -> dict[int, list[Value]]:
    """Row of a report -> the values that its study has."""
    reports = [Report(entry.row, entry.patient, entry.when) for entry in found]
    values = export.observations.of_reports(reports, lambda resource: _patient(export, resource), account, days)
    words = export.observations.words
    for column, units in export.observations.spellings.items():
        if len(units) > 1:
            account.note(f"{column}: its unit is written in {len(units)} ways: {', '.join(map(ascii, units))}")
    often = Counter(value.column for of_report in values.values() for value in of_report).most_common()
    if often:
        shown = "; ".join(f"{column} ({words[column] or 'no words'}): {count:,}" for column, count in often[:_SHOWN])
        more = f"; and {len(often) - _SHOWN} more" if len(often) > _SHOWN else ""
        account.note(f"values, the last of the {days:g} days before the report, in studies: {shown}{more}")
    return values


def add_values(study: Study, values: list[Value]) -> None:
    """Columns of the study; the observations are part of it."""
    for value in values:
        study.columns[value.column] = value.cell
        study.rows.append((value.row, value.column))


def _take_described(export: Export, studies: Studies) -> None:
    """Patients, requests and imaging studies that a study's report refers to belong to that study."""
    by_row = {row: study for study in studies.values() for row, _ in list(study.rows)}
    for row, resource, _ in export.reports:
        study = by_row.get(row)
        if study is None:
            continue
        references = [
            resource.get("subject"),
            *(r for k in ("imagingStudy", "study", "basedOn") for r in objects_in(resource.get(k))),
            *({"reference": form.get("url")} for form in objects_in(resource.get("presentedForm"))),
        ]
        for reference in references:
            target = _target(export, reference)
            if target is not None:
                found = next(export.by_reference[name] for name in _references(target) if name in export.by_reference)
                study.rows.append((found[0], str(target.get("resourceType"))))


LAYOUTS = (
    Layout(
        "fhir",
        "a FHIR export",
        "DiagnosticReport resources in *.json (bundles too) or *.ndjson",
        read,
        _ENDINGS,
        takes_file=True,
    ),
)
