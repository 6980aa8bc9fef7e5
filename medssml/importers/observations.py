"""Laboratory values and vital signs of a FHIR export: `Observation` resources -> columns `table_<code>_<unit>`.

A study has, of each code and unit, the last value of its patient before its report, at most some days old. A value is never
converted: mmol/L and mg/dL of one code are two columns. HL7 FHIR R4, R5.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from medssml.importers.account import Account
from medssml.importers.study import slug
from medssml.readers.messages import Resource, objects_in

_LOINC = "http://loinc.org"
_WITHDRAWN = ("entered-in-error", "cancelled", "registered")
#: Sizes of lesions, questionnaires and habits are no laboratory values, and the first would give the report away.
_CATEGORIES = frozenset({"laboratory", "vital-signs"})
_KEPT = ("status", "category", "code", "component", "valueQuantity", "valueInteger", "subject", "encounter")
_TIMES = ("effectiveDateTime", "effectiveInstant", "effectivePeriod", "issued")
_DAY_S = 86_400.0
#: Beyond it a number has no float; JSON knows no limit.
_MOST = 1e300


class Report(NamedTuple):
    """What values are looked for. key: whatever names it. until: s since 1970, None where no day is stated."""

    key: int
    patient: str
    until: float | None


class Value(NamedTuple):
    """One number. row: in the account. at: s since 1970. cell: the number, with < or > before it where it is a bound.
    words: what it measures."""

    row: int
    at: float
    column: str
    cell: str
    words: str


def slim(resource: Resource) -> Resource:
    """What is needed of an Observation: an export may have millions."""
    return {key: resource[key] for key in (*_KEPT, *_TIMES) if key in resource}


def values_of_reports(
    observations: list[tuple[int, Resource]],
    reports: list[Report],
    patient_of: Callable[[Resource], str],
    account: Account,
    days: float,
) -> dict[int, list[Value]]:
    """key of the report -> its values, one of each column; every observation that gives none is accounted for.

    Args:
        observations: (row in the account, resource). patient_of: the id of a resource's patient.
        days: most that a value may be older than the report.
    """
    by_patient: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        by_patient[report.patient].append(report)
    latest: dict[tuple[int, str], Value] = {}
    spelling: dict[str, str] = {}
    for row, resource in observations:
        reason, found = _numbers(row, resource, spelling)
        mine = by_patient.get(patient_of(resource), [])
        if not reason and not mine:
            reason = "its patient has no report"
        if reason:
            account.leave_out(row, reason)
            continue
        near = [report for report in mine if _within(found[0].at, report.until, days)]
        for key, value in ((report.key, value) for report in near for value in found):
            known = latest.get((key, value.column))
            if known is None or value.at >= known.at:
                latest[key, value.column] = value
        if not near:
            account.leave_out(row, f"not within {days:g} days before a report")
    chosen: dict[int, list[Value]] = defaultdict(list)
    for (key, _), value in latest.items():
        chosen[key].append(value)
    taken = {value.row for values in chosen.values() for value in values}
    for row, _ in observations:
        if row not in taken:
            account.leave_out(row, "a later value before the report was taken")  # where nothing else was said
    return chosen


def _numbers(row: int, resource: Resource, spelling: dict[str, str]) -> tuple[str, list[Value]]:
    """Why an observation gives no value, or its values: of itself, and of its components (blood pressure has two)."""
    categories = {
        str(coding.get("code"))
        for concept in objects_in(resource.get("category"))
        for coding in objects_in(concept.get("coding"))
    }
    at = next((seen for name in _TIMES if (seen := moment(resource.get(name), last=False)) is not None), None)
    if resource.get("status") in _WITHDRAWN:
        return f"status {resource['status']}", []
    if categories and not categories & _CATEGORIES:
        return f"category {', '.join(sorted(categories))}: no laboratory value", []
    if at is None:
        return "states no day", []
    found = [
        Value(row, at, column, cell, words)
        for part in (resource, *objects_in(resource.get("component")))
        for column, cell, words in _number(part, spelling)
    ]
    return ("" if found else "no number with a code", found)


def _number(part: Resource, spelling: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(column, cell, words) of a quantity. spelling: a column in small letters -> as it was first written (mg/l is mg/L)."""
    quantity = part.get("valueQuantity")
    if not isinstance(quantity, dict):
        quantity = {"value": part.get("valueInteger")}
    value, (name, words) = quantity.get("value"), _name(part.get("code"))
    if not name or isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MOST:
        return
    unit = re.sub(r"\s+", "", str(quantity.get("code") or quantity.get("unit") or ""))
    bound = quantity.get("comparator")
    column = "table_" + "_".join(filter(None, (name, unit)))
    cell = f"{bound if bound in ('<', '<=', '>', '>=') else ''}{value}"
    yield spelling.setdefault(column.lower(), column), cell, words


def _name(concept: Any) -> tuple[str, str]:
    """(name, words): the LOINC code, which is the same everywhere; else the words, else the code of another system."""
    if not isinstance(concept, dict):
        return "", ""
    codings = objects_in(concept.get("coding"))
    loinc = next((str(c["code"]) for c in codings if c.get("system") == _LOINC and c.get("code")), "")
    words = str(concept.get("text") or next((c["display"] for c in codings if c.get("display")), ""))
    other = str(next((c["code"] for c in codings if c.get("code")), ""))
    return loinc or slug(words) or slug(other), words


def _within(at: float, until: float | None, days: float) -> bool:
    return until is not None and until - days * _DAY_S <= at <= until


def moment(when: Any, *, last: bool) -> float | None:
    """s since 1970 of a FHIR instant, dateTime or Period; of a day its start, or its end where `last`. None: no day.

    >>> moment("2020-01-02", last=False) - moment("2020-01-01T12:00:00Z", last=False), moment("2020", last=False)
    (43200.0, None)
    """
    if isinstance(when, Mapping):
        when = when.get("end") or when.get("start")
    text = str(when or "")
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
    return seconds + _DAY_S if last and len(text) == len("2020-01-01") else seconds
