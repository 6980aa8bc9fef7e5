"""Laboratory values and vital signs of a FHIR export: `Observation` resources -> columns `table_<code>_<unit>`.

A study has, of each code and unit, the last value of its patient before its report, at most some days old. A value is never
converted: mmol/L and mg/dL of one code are two columns, two spellings of one unit are one. HL7 FHIR R4, R5.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from medssml.importers.account import Account, Aside
from medssml.importers.moments import Moment, moment, order, within
from medssml.importers.study import slug
from medssml.readers.fhir import Resource, objects_in
from medssml.readers.units import unit_key

_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_WITHDRAWN = ("entered-in-error", "cancelled", "registered")
#: Sizes of lesions, questionnaires and habits are no laboratory values, and the first would give the report away.
_CATEGORIES = frozenset({"laboratory", "vital-signs"})
_TIMES = ("effectiveDateTime", "effectiveInstant", "effectivePeriod", "issued")
#: Beyond it a number has no float; JSON knows no limit.
_MOST = 1e300


class Report(NamedTuple):
    """What values are looked for. key: whatever names it. until: None where no day is stated."""

    key: int
    patient: str
    until: Moment | None


class Value(NamedTuple):
    """One number. row: in the account. cell: the number, with < or > before it where it is a bound."""

    row: int
    at: Moment
    column: str
    cell: str


class Observations:
    """The numbers of an export, little of each: there may be millions.

    Attributes:
        words: column -> what it measures, as the export first says it.
        spellings: column -> units as the export writes them, all of one meaning.
    """

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self._found: list[tuple[str, tuple[Value, ...]]] = []
        self._subjects: dict[str, Resource] = {}
        self.spellings: dict[str, dict[str, None]] = defaultdict(dict)
        self._columns: dict[tuple[str, str], str] = {}

    def add(self, row: int, resource: Resource, account: Account) -> None:
        """One resource; one that gives no value is left out."""
        at = next((seen for name in _TIMES if (seen := moment(resource.get(name))) is not None), None)
        reason = _unfit(resource) or ("states no day" if at is None else "")
        parts = () if reason or at is None else (resource, *objects_in(resource.get("component")))
        values = []
        for name, unit, cell, words in (number for part in parts for number in _number(part)):
            column = self._column(name, unit)
            self.words.setdefault(column, words)
            if at is not None:
                values.append(Value(row, at, column, cell))
        if values:
            subject = repr(resource.get("subject"))
            self._subjects.setdefault(subject, {"subject": resource.get("subject")})
            self._found.append((sys.intern(subject), tuple(values)))
        else:
            account.leave_out(row, Aside(reason or "no number with a code"))

    def _column(self, name: str, unit: str) -> str:
        """The column of a code and a unit; units of one meaning are one column, called by the first."""
        shown = re.sub(r"\s+", "", unit)
        column = self._columns.setdefault(
            (name, unit_key(unit) if unit else ""), "_".join(filter(None, ("table", name, shown)))
        )
        self.spellings[column].setdefault(shown)
        return column

    def of_reports(
        self, reports: list[Report], patient_of: Callable[[Resource], str], account: Account, days: float
    ) -> dict[int, list[Value]]:
        """key of the report -> its values, one of each column; every observation that gives none is accounted for.

        Args:
            patient_of: the id of the patient in `subject` of a resource.
            days: most that a value may be older than the report.
        """
        by_patient: dict[str, list[Report]] = defaultdict(list)
        for report in reports:
            by_patient[report.patient].append(report)
        mine = {name: by_patient.get(patient_of(subject), []) for name, subject in self._subjects.items()}
        latest: dict[tuple[int, str], Value] = {}
        for subject, values in self._found:
            near = [report.key for report in mine[subject] if within(values[0].at, report.until, days)]
            for key, value in ((key, value) for key in near for value in values):
                known = latest.get((key, value.column))
                if known is None or order(value.at, known.at) >= 0:
                    latest[key, value.column] = value
            if not near:
                late = f"not within {days:g} days before a report"
                account.leave_out(values[0].row, Aside(late if mine[subject] else "its patient has no report"))
        chosen: dict[int, list[Value]] = defaultdict(list)
        for (key, _), value in latest.items():
            chosen[key].append(value)
        taken = {value.row for values in chosen.values() for value in values}
        for _, (value, *_) in self._found:
            if value.row not in taken:
                # where nothing else was said
                account.leave_out(value.row, Aside("a later value before the report was taken"))
        return chosen


def _unfit(resource: Resource) -> str:
    """Why an observation is no laboratory value that holds; "" where it is one, or does not say what it is."""
    categories = {
        str(coding.get("code"))
        for concept in objects_in(resource.get("category"))
        for coding in objects_in(concept.get("coding"))
    }
    if resource.get("status") in _WITHDRAWN:
        return f"status {resource['status']}"
    if categories and not categories & _CATEGORIES:
        return f"category {', '.join(sorted(categories))[:80]}: no laboratory value"
    return ""


def _number(part: Resource) -> Iterator[tuple[str, str, str, str]]:
    """(name, unit, cell, words) of a resource or a component: of itself, and blood pressure has two of the latter."""
    quantity = part.get("valueQuantity")
    if not isinstance(quantity, dict):
        quantity = {"value": part.get("valueInteger")}
    value, (name, words) = quantity.get("value"), _name(part.get("code"))
    if not name or isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MOST:
        return
    coded = quantity.get("code") if quantity.get("system", _UCUM) == _UCUM else ""  # else a number of another system
    unit = str(coded or quantity.get("unit") or quantity.get("code") or "").strip()
    bound = quantity.get("comparator")
    cell = f"{bound if bound in ('<', '<=', '>', '>=') else ''}{value}"
    yield name, unit, cell, words


def _name(concept: Any) -> tuple[str, str]:
    """(name, words): the LOINC code, which is the same everywhere; else the words, else the code of another system."""
    if not isinstance(concept, dict):
        return "", ""
    codings = objects_in(concept.get("coding"))
    loinc = next((str(c["code"]) for c in codings if c.get("system") == _LOINC and c.get("code")), "")
    words = str(concept.get("text") or next((c["display"] for c in codings if c.get("display")), ""))
    other = str(next((c["code"] for c in codings if c.get("code")), ""))
    return loinc or slug(words) or slug(other), words
