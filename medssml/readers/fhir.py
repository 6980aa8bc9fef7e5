"""The text of a FHIR `DiagnosticReport` (JSON, bundles, NDJSON).

Names, identifiers and everything else about a patient stay unread: only the narrative is returned. Standard: HL7 FHIR R4
and R5, DiagnosticReport and Binary.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medssml.readers.errors import Flag, ReadError
from medssml.readers.forms import Form, form_of, one_text
from medssml.readers.json_text import json_value
from medssml.readers.markup import html_text

Resource = Mapping[str, Any]
_WITHDRAWN = ("entered-in-error", "cancelled")


class FHIRReport(NamedTuple):
    """One DiagnosticReport. id, subject, encounter, date: as the resource states them, "" where it does not. notes: of its
    text."""

    id: str
    subject: str
    encounter: str
    date: str
    text: str
    notes: list[str]


def is_json(text: str) -> bool:
    """Whether `text` starts as a JSON object or list does."""
    return bool(re.match(r'\s*(?:\{\s*["}]|\[\s*[{\]])', text))


def fhir_reports(text: str, path: Path) -> Iterator[FHIRReport]:
    """Every DiagnosticReport in a resource, a bundle, a list of resources, or lines of them (NDJSON).

    Reports that were cancelled or entered in error are left out.

    Raises:
        ReadError: no JSON, with its line; or a report without any text.
    """
    resources = list(_resources(text, path))
    known = {key: item for item in resources for key in _references(item)}
    for item in resources:
        if item.get("resourceType") == "DiagnosticReport" and item.get("status") not in _WITHDRAWN:
            body, notes = report_body(item, known, path)
            date = str(item.get("effectiveDateTime") or item.get("issued") or "")
            yield FHIRReport(
                _text(item.get("id")), _reference(item, "subject"), _reference(item, "encounter"), date, body, notes
            )


def one_fhir_report(text: str, path: Path) -> tuple[str, list[str]]:
    """The text of the one report in `text`, and notes of its forms.

    Raises:
        ReadError: none, or several.
    """
    found = list(fhir_reports(text, path))
    if not found:
        raise ReadError(path, "holds no valid FHIR DiagnosticReport", "name the file of a report", code="content")
    if len(found) > 1:
        fix = "write one report a file, or its text into the column report_text"
        raise ReadError(path, f"holds {len(found)} reports", fix, code="mixed")
    return found[0].text, found[0].notes


def report_body(report: Resource, known: Mapping[str, Resource], path: Path) -> tuple[str, list[str]]:
    """presentedForm where it is text, else the narrative, results in words and the conclusion; and notes of its forms.

    Raises:
        ReadError: presentedForm of another type alone, or no text at all.
    """
    contained = {f"#{item.get('id')}": item for item in objects_in(report.get("contained"))}
    known = ChainMap(contained, known)  # type: ignore[arg-type]
    stated = objects_in(report.get("presentedForm"))
    forms = [found for form in stated if (found := _attachment(form, known, path)) is not None]
    if any(form.text.strip() for form in forms):
        text, notes = one_text(forms)
        return text, [*notes, *_other_words(_text(report.get("conclusion")), text)]
    parts = [html_text(_text(_mapping(report.get("text")).get("div")))]
    for result in objects_in(report.get("result")):
        parts.append(_text(_mapping(_target(known, _text(result.get("reference")))).get("valueString")))
    conclusion = _text(report.get("conclusion")).strip()
    if conclusion and conclusion not in " ".join(parts):
        parts.append(f"IMPRESSION: {conclusion}")
    body = "\n".join(part.strip() for part in parts if part.strip())
    if not body:
        kinds = ", ".join(sorted({_kind(form) for form in stated})) or "absent"
        reason = f"DiagnosticReport {_text(report.get('id'))[:40]!r} has no text (presentedForm: {kinds})"
        raise ReadError(path, reason, "export the text of the report as well", code="content")
    return body, []


def _other_words(conclusion: str, text: str) -> list[str]:
    """What is to be said of a conclusion that stands beside a form and not in it: the form is what was signed."""
    said, have = (set(re.findall(r"\w+", part.casefold())) for part in (conclusion, text))
    if not said - have:
        return []
    count = len(said - have)
    return [
        Flag(f"its conclusion has {count} words that its form does not have: left out, the form is read", "left_out")
    ]


def _kind(form: Resource) -> str:
    """What an attachment is, for people."""
    kind = _text(form.get("contentType"))[:60] or "no type"
    return (
        kind
        if form.get("data")
        else f"{kind} at an address that is not in the file"
        if form.get("url")
        else f"{kind}, empty"
    )


def _attachment(form: Resource, known: Mapping[str, Resource], path: Path) -> Form | None:
    """The text of an attachment, itself or in the Binary that its address names; None where it holds none (PDF)."""
    mime, data = _text(form.get("contentType")), form.get("data")
    if not data and form.get("url"):
        binary = _mapping(_target(known, _text(form.get("url"))))
        # Binary.data is `content` in FHIR DSTU2.
        data = binary.get("data") or binary.get("content")
        mime = mime or _text(binary.get("contentType"))
    if not data:
        return None
    try:
        raw = base64.b64decode("".join(_text(data).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = f"presentedForm is not base64 ({error})"
        raise ReadError(path, reason, "export the report again", code="damaged") from error
    return form_of(raw, mime, path)


def _target(known: Mapping[str, Resource], reference: str) -> Resource | None:
    """What a reference leads to: contained, urn:uuid, relative, absolute, with or without a version."""
    return known.get(reference) or known.get("/".join(reference.split("/_history/")[0].split("/")[-2:]))


def _resources(text: str, path: Path) -> Iterator[Resource]:
    """Every resource, those of bundles included."""
    for document in _documents(text, path):
        try:
            yield from resources_of(document)
        except ValueError as error:
            raise ReadError(path, "holds JSON that is no FHIR resource", "name a FHIR file", code="format") from error


def resources_of(document: Any) -> Iterator[Resource]:
    """The resources of parsed JSON: of a resource, a list of them, or a bundle, whose entries know their full URL.

    Raises:
        ValueError: neither.
    """
    for item in document if isinstance(document, list) else [document]:
        if not isinstance(item, dict):
            raise ValueError("holds no JSON object")
        if item.get("resourceType") != "Bundle":
            yield item
            continue
        for entry in objects_in(item.get("entry")):
            if isinstance(entry.get("resource"), dict):
                yield {**entry["resource"], "fullUrl": entry.get("fullUrl")}


def _documents(text: str, path: Path) -> Iterator[Any]:
    """The one document, or, where there is more, one per line."""
    try:
        yield json_value(text)
        return
    except RecursionError as error:
        raise ReadError(path, "is JSON nested too deeply", "export the report again", code="damaged") from error
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        if "Extra data" not in error.msg or not is_json(text):
            reason = f"is not valid JSON (line {error.lineno}: {error.msg})"
            raise ReadError(path, reason, "export the report again", code="damaged") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json_value(line)
            except (ValueError, RecursionError) as error:
                raise ReadError(path, f"line {number} is not valid JSON", "export it again", code="damaged") from error


def _references(resource: Resource) -> list[str]:
    keys = [f"{resource.get('resourceType')}/{resource.get('id')}"] if resource.get("id") else []
    return keys + ([str(resource["fullUrl"])] if resource.get("fullUrl") else [])


def _reference(resource: Resource, field: str) -> str:
    return _text(_mapping(resource.get(field)).get("reference"))


def _mapping(value: Any) -> Resource:
    return value if isinstance(value, dict) else {}


def objects_in(value: Any) -> list[Resource]:
    """The objects of a JSON list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
