"""Dates and instants of FHIR as what they say: an instant in its zone, or a day of the calendar without an hour."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, NamedTuple


class Moment(NamedTuple):
    """at: s since 1970, of a day its start in UTC. day: of the calendar where it was written. exact: an hour is stated."""

    at: float
    day: date
    exact: bool


def moment(when: Any) -> Moment | None:
    """A FHIR instant, dateTime, or Period (its end, else its start); None where no day is stated.

    >>> moment("2020-01-02T00:30:00+02:00").at - moment("2020-01-01T22:00:00Z").at, moment("2020-01")
    (1800.0, None)
    """
    if isinstance(when, Mapping):
        when = when.get("end") or when.get("start")
    text = str(when or "").strip()
    if re.fullmatch(r"\d{4}(-\d\d)?", text):
        return None
    try:
        # A leap second is the last of its minute.
        parsed = datetime.fromisoformat(re.sub(r"(:\d\d):60", r"\1:59", text))
        at = (parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return Moment(at, parsed.date(), len(text) > len("2020-01-01"))


def order(one: Moment | None, other: Moment | None) -> int:
    """-1 where `one` is before `other`, 1 where it is after, 0 where what is stated does not tell.

    A day and an instant are compared by the calendar of the place where each was written.
    """
    if one is None or other is None:
        return 0
    if one.exact and other.exact:
        return (one.at > other.at) - (one.at < other.at)
    return (one.day > other.day) - (one.day < other.day)


def within(one: Moment, until: Moment | None, days: float) -> bool:
    """Whether `one` is not after `until` and at most `days` before it; a day without an hour is over when it ends."""
    if until is None or order(one, until) > 0:
        return False
    if one.exact and until.exact:
        return until.at - one.at <= days * 86_400.0
    return (until.day - one.day).days <= days
