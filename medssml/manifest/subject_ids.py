"""Ids that may not say who is who: mangled, rounded, one person under two spellings, one word for all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

#: What spreadsheets and programs write in the place of a long number (1.23E+11, 1,23E+11, 1.5e+16) or of nothing (#REF!).
_MANGLED = re.compile(
    r"\d([.,]\d+)?E\+\d+|#(N/?A|NV|N/D|DIV/0!|[¡¿]?[^\W\d]{2,}[!?])|(19|20)\d\d-\d\d-\d\d[ T]00:00:00(\.0+)?",
    re.IGNORECASE,
)
#: A whole number as a program writes it that has turned the column into floats.
_FLOAT = re.compile(r"(\d+)[.,]0+")
#: What an anonymiser, or a person in a hurry, writes for everybody.
_NOBODY = re.compile(
    r"anon\w*|unknown|unbekannt|desconocido|inconnu|none|null|nan|n[/.]?a|no ?id|missing|removed|deleted|de-?id\w*|redacted|"
    r"masked|hidden|patient( ?id)?|subject|test|dummy|default|x+|0+|9{3,}|[-?*#_.]+|12345\d*",
    re.IGNORECASE,
)
_ID_COLUMNS = ("subject_id", "study_id")
#: A spreadsheet keeps so many digits of a number, and writes zeros for the rest.
_DIGITS = 15
_CHANCE = 3
#: Fewer studies of one subject alone may be the course of one person.
_COURSE = 6


class Oddity(NamedTuple):
    """Something odd about ids. row: 0 for the table as a whole. code: of `medssml.manifest.levels`."""

    row: int
    column: str
    code: str
    text: str
    fix: str


def id_mangled(cell: str) -> bool:
    """Whether a spreadsheet or a program has put something else in the place of an id.

    >>> [id_mangled(id) for id in ("1,23E+11", "1.2345678901234568e+16", "#BEZUG!", "12E5", "007", "A#1")]
    [True, True, True, False, False, False]
    """
    return _MANGLED.fullmatch(cell) is not None


def float_twins(ids: pd.Series) -> Iterator[tuple[int, str]]:
    """(row, reason) of ids such as 1001.0 where 1001 is there as well: one number, and a table that went through floats."""
    first = {str(cell): int(str(row)) for row, cell in reversed(list(ids.items()))}
    for cell, row in first.items():
        match = _FLOAT.fullmatch(cell)
        if match and match[1] in first:
            reason = f"{cell!r} and {match[1]!r} in row {first[match[1]]} are one number: the table went through floats"
            yield row, f"{reason}; fix: write ids as text, each in one spelling"


def odd_ids(table: pd.DataFrame) -> list[Oddity]:
    """What is odd about the ids of a manifest, without being wrong for sure.

    Args:
        table: of text, with subject_id, study_id and split; the index is the row.
    """
    found = [oddity for column in _ID_COLUMNS for oddity in _changed(table[column], column)]
    return [*found, *_spellings(table), *_one_for_all(table)]


def _changed(ids: pd.Series, column: str) -> Iterator[Oddity]:
    """Ids that lost digits, or that became floats, all of them."""
    unique = list(dict.fromkeys(map(str, ids)))
    long = [cell for cell in unique if cell.isascii() and cell.isdigit() and len(cell) > _DIGITS]
    cut = sum(len(cell) - _DIGITS for cell in long if set(cell[_DIGITS:]) == {"0"})
    whole = bool(long) and all(set(cell[_DIGITS:]) == {"0"} for cell in long) and cut >= _CHANCE
    binary = [cell for cell in long if len(cell) > _DIGITS + 1]
    if whole or (len(binary) >= _CHANCE and all(int(float(cell)) == int(cell) for cell in binary)):
        text = f"{len(long):,} ids have more than {_DIGITS} digits and end as rounded numbers do: several people may have one"
        yield Oddity(0, column, "rounded_ids", text, "take the ids from the source again, as text")
    floats = [cell for cell in unique if _FLOAT.fullmatch(cell)]
    if floats:
        text = f"{len(floats):,} of {len(unique):,} ids end in .0, as {floats[0]!r}: the table went through floats"
        yield Oddity(0, column, "spelling", text, "write ids as text, as other tables of the same people have them")


def spelling_key(id: str) -> tuple[str, ...]:
    """What two spellings of one id share: its runs of digits and letters, without leading zeros, capitals and separators.

    >>> spelling_key("P-0012") == spelling_key("p12"), spelling_key("1-11") == spelling_key("11-1")
    (True, False)
    """
    match = _FLOAT.fullmatch(id)
    text = unicodedata.normalize("NFKC", match[1] if match else id).casefold()
    parts = re.findall(r"\d+|[^\W\d_]+|[^\w\s.-]", text)
    return tuple(part.lstrip("0") or "0" if part.isdigit() else part for part in parts)


def _spellings(table: pd.DataFrame) -> Iterator[Oddity]:
    """Subjects, and studies of one subject, whose ids are the same to a person."""
    rows = zip(table.index, table["subject_id"], table["study_id"], table["split"], strict=True)
    subjects: dict[tuple[str, ...], dict[str, tuple[int, str]]] = {}
    studies: dict[tuple[tuple[str, ...], ...], dict[str, tuple[int, str]]] = {}
    for row, subject, study, split in rows:
        key = spelling_key(subject)
        subjects.setdefault(key, {}).setdefault(subject, (int(row), split))
        studies.setdefault((key, spelling_key(study)), {}).setdefault(study, (int(row), split))
    for column, groups, who in (("subject_id", subjects, "person"), ("study_id", studies, "study")):
        for spelled in (group for key, group in groups.items() if len(group) > 1 and all(key)):
            (first, (row, split)), *others = spelled.items()
            for other, (own, part) in others:
                parted = f", one in {split}, one in {part}" if split != part else ""
                text = f"{other!r} here and {first!r} in row {row} may be one {who} under two spellings{parted}"
                fix = f"give the {who} one spelling; nothing to do where they are two"
                yield Oddity(own, column, "spelling", text, fix)


def _one_for_all(table: pd.DataFrame) -> Iterator[Oddity]:
    """One id for several people: a word of an anonymiser, or what all studies, or most of many, have."""
    counts, total = Counter(table["subject_id"]), len(table)
    for subject, count in counts.items():
        nobody = _NOBODY.fullmatch(str(subject)) is not None
        if count < 2 or not (nobody or (count == total >= _COURSE) or count > max(10, total / 2)):
            continue
        many = f"all {count:,}" if count == total else f"{count:,} of {total:,}"
        why = f"{subject!r} looks like the word of an anonymiser" if nobody else f"{subject!r}"
        text = f"{many} studies are of one subject ({why}), so all of them are in one part of the split"
        fix = "give each person a pseudonym; one subject a study only where that is known to hold"
        yield Oddity(0, "subject_id", "one_subject", text, fix)


def told(oddities: Sequence[Oddity]) -> list[str]:
    """The same in a few lines, without the ids of single people."""
    pairs = Counter(oddity.column for oddity in oddities if oddity.row)
    lines = [f"{oddity.text}; fix: {oddity.fix}" for oddity in oddities if not oddity.row]
    for column, count in pairs.items():
        lines.append(
            f"{column}: {count:,} may be another one in another spelling (zeros, capitals, signs); medssml check names them"
        )
    return lines
