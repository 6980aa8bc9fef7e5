"""The text of a report inside a message: FHIR `DiagnosticReport` (JSON, bundles, NDJSON) and HL7 version 2.

Names, identifiers and everything else about a patient stay unread: only the narrative is returned. Standards: HL7 FHIR
R4 and R5, DiagnosticReport; HL7 2.5, chapters 2 (escapes) and 7 (OBX).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medssml.readers.errors import ReadError
from medssml.readers.json_text import json_value
from medssml.readers.markup import html_text, rtf_text

Resource = Mapping[str, Any]
_WITHDRAWN = ("entered-in-error", "cancelled")
_MIME = {
    "text/plain": lambda text: text,
    "text/html": html_text,
    "application/xhtml+xml": html_text,
}
_HL7_TEXT = ("TX", "FT", "ST", "")
_HL7_ESCAPES = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\", ".br": "\n", ".sp": "\n", ".ce": "\n"}
_HL7_ESCAPE = re.compile(r"\\(\.br|\.sp|\.ce|[FSTREHN]|X(?:[0-9A-Fa-f]{2}){1,16}|\.[a-z]{2}[+-]?[0-9]{0,3})\\")


class FHIRReport(NamedTuple):
    """One DiagnosticReport. id, subject, encounter, date: as the resource states them, "" where it does not."""

    id: str
    subject: str
    encounter: str
    date: str
    text: str


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
            body = report_body(item, known, path)
            date = str(item.get("effectiveDateTime") or item.get("issued") or "")
            yield FHIRReport(
                _text(item.get("id")), _reference(item, "subject"), _reference(item, "encounter"), date, body
            )


def one_fhir_report(text: str, path: Path) -> str:
    """The text of the one report in `text`.

    Raises:
        ReadError: none, or several.
    """
    found = list(fhir_reports(text, path))
    if not found:
        raise ReadError(path, "holds no valid FHIR DiagnosticReport", "name the file of a report", code="content")
    if len(found) > 1:
        fix = "write one report a file, or its text into the column report_text"
        raise ReadError(path, f"holds {len(found)} reports", fix, code="mixed")
    return found[0].text


def report_body(report: Resource, known: Mapping[str, Resource], path: Path) -> str:
    """presentedForm where it is text, else the narrative, results in words and the conclusion.

    Raises:
        ReadError: presentedForm of another type alone, or no text at all.
    """
    forms = [form for form in objects_in(report.get("presentedForm")) if form.get("data")]
    texts = [found for form in forms if (found := _attachment(form, path)) is not None]
    if texts:
        return "\n".join(texts)
    contained = {f"#{item.get('id')}": item for item in objects_in(report.get("contained"))}
    parts = [html_text(_text(_mapping(report.get("text")).get("div")))]
    for result in objects_in(report.get("result")):
        target = contained.get(_text(result.get("reference"))) or known.get(_text(result.get("reference")))
        parts.append(_text(_mapping(target).get("valueString")))
    conclusion = _text(report.get("conclusion")).strip()
    if conclusion and conclusion not in " ".join(parts):
        parts.append(f"IMPRESSION: {conclusion}")
    body = "\n".join(part.strip() for part in parts if part.strip())
    if not body:
        kinds = ", ".join(sorted({_text(form.get("contentType")) or "no type" for form in forms})) or "absent"
        reason = f"DiagnosticReport {_text(report.get('id'))[:40]!r} has no text (presentedForm: {kinds})"
        raise ReadError(path, reason, "export the text of the report as well", code="content")
    return body


def _attachment(form: Resource, path: Path) -> str | None:
    """The text of an attachment, None where it is of another type (PDF)."""
    mime, _, rest = _text(form.get("contentType")).lower().partition(";")
    decode: Callable[[str], str] | None = _MIME.get(mime.strip() or "text/plain")
    if decode is None and mime.strip() not in ("text/rtf", "application/rtf"):
        return None
    try:
        data = base64.b64decode("".join(_text(form["data"]).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReadError(
            path, f"presentedForm is not base64 ({error})", "export the report again", code="damaged"
        ) from error
    if decode is None:
        return rtf_text(data.decode("latin-1"))
    charset = re.search(r"charset=\"?([\w-]+)", rest)
    try:
        return decode(data.decode(charset.group(1) if charset else "utf-8"))
    except (UnicodeError, LookupError):
        return decode(data.decode("cp1252", errors="replace"))


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


def is_hl7(text: str) -> bool:
    """Whether `text` is an HL7 version 2 message: it starts with its header segment."""
    return bool(re.match(r"\s*MSH[^\w\s]", text))


def hl7_text(text: str, path: Path) -> str:
    """The text of the observations (OBX-5) of a message; all other segments, the patient's above all, are dropped.

    Raises:
        ReadError: no observation that is text.
    """
    text = text.lstrip()
    field, repeat = text[3], text[5:6] or "~"
    lines: list[str] = []
    for segment in re.split(r"[\r\n]+", text):
        cells = segment.split(field)
        if cells[0].strip() == "OBX" and len(cells) > 5 and cells[2].strip() in _HL7_TEXT:
            lines += cells[5].split(repeat)
    if not any(line.strip() for line in lines):
        raise ReadError(path, "is an HL7 message without a text observation (OBX of type TX, FT or ST)", code="content")
    return hl7_unescaped("\n".join(lines))


def hl7_unescaped(text: str) -> str:
    """`text` with HL7 escapes (`\\.br\\`, `\\T\\`, `\\X0A\\`) as what they stand for."""

    def plain(match: re.Match[str]) -> str:
        name = match.group(1)
        if name[0] == "X":
            return bytes.fromhex(name[1:]).decode("latin-1")
        return _HL7_ESCAPES.get(name, "")

    return _HL7_ESCAPE.sub(plain, text)
