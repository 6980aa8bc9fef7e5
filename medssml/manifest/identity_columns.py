"""Columns of a table that say who somebody is: names, dates of birth, record numbers, addresses. Nothing here needs them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

_PREFIX = r"(?:patients?|pat|pt|subject|person|participant|mothers?|emergency)?"
#: What the name of a column, in small letters and without signs, says that it holds.
_NAMES = {
    "names": r"(?:full|last|first|middle|maiden|family|given|sur|fore|birth|other)?names?|initials|nachname|vorname|"
    r"(?:patienten|familien|geburts)name|apellidos?|nombres?|nombredelpaciente|nom|prenom|cognome|nome",
    "dates of birth": r"dob|birth|dateofbirth|birth(?:_?date|day|dt)|geburts(?:datum|tag)|geb(?:datum|dat)?|"
    r"fecha(?:de)?nac(?:imiento)?|(?:date|data)(?:de|di)?(?:naissance|nascita|nascimento)",
    "record numbers": r"mrn|(?:medical|health|hospital)(?:record|chart)?(?:number|no|nr|num|id)|recordn(?:umber|o|r)|"
    r"(?:number|no|nr)|patnr|"
    r"(?:patienten|fall|versicherten|krankenkassen)n(?:ummer|r)|nhs(?:number|no|id)?|ssn|socialsecurity(?:number|no)?|"
    r"insurance(?:number|no|id)|nationalid|passport(?:number|no)?|dni|curp|nhc|(?:numero)?historiaclinica|"
    r"casenumber|otherpatientids?|healthcard(?:number|no)?",
    "addresses": r"(?:home|street|postal|mailing)?address(?:es)?|street|zip(?:code)?|post(?:al)?code|plz|adresse|anschrift|"
    r"strasse|wohnort|direccion|domicilio|codigopostal",
    "contacts": r"(?:home|mobile|cell|work)?(?:tele)?phone(?:number|no)?|tel|telefon(?:nummer)?|telefono|mobile|handy|fax|"
    r"e?mail(?:address)?",
}
_BY_NAME = {kind: re.compile(f"{_PREFIX}(?:{words})") for kind, words in _NAMES.items()}
#: Names that hold other things as well: there the cells decide.
_VAGUE = frozenset(
    {"name", "names", "nom", "nome", "nombre", "number", "no", "nr", "birth", "geb", "tel", "mobile", "mail"}
)
_CELLS = {
    "names": re.compile(
        r"[^\W\d_]['’\w-]+(?:\^|, ?)[^\W\d_]['’\w ^.-]*|(?:[A-ZÄÖÜÁÉÍÓÚÑ][a-zäöüßáéíóúñ'’-]+ ){1,3}[A-ZÄÖÜÁÉÍÓÚÑ][\w'’-]+"
    ),
    "contacts": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+|\+\d[\d ()/-]{8,}\d|\(\d{3}\) ?\d{3}[ -]\d{4}"),
}
_LOOKED_AT = 200
_FIX = "leave it out before the table is passed on: nothing here needs it"


class IdentityColumn(NamedTuple):
    """A column that carries identity. kind: of what; because: its name, or its cells."""

    column: str
    kind: str
    because: str

    @property
    def text(self) -> str:
        """In words; what the cells say is never quoted."""
        return (
            f"holds {self.kind}, as its {self.because} say{'s' * (self.because == 'name')}: kept in the table as it is"
        )

    @property
    def fix(self) -> str:
        """What to do about it."""
        if self.column in ("subject_id", "study_id"):
            return "put a pseudonym in its place; medssml ids leads back from codes"
        return _FIX


def identity_columns(table: pd.DataFrame, known: Iterable[str] = ()) -> list[IdentityColumn]:
    """The columns of a table of text that carry identity, by name or by what is in most of their cells.

    Args:
        known: columns that hold files or texts, which have checks of their own.
    """
    left = set(known)
    found = [identity_of(str(column), list(table[column])) for column in table.columns if str(column) not in left]
    return [column for column in found if column is not None]


def identity_of(name: str, cells: Sequence[str]) -> IdentityColumn | None:
    """What a column says of who somebody is; None where it says nothing, or is empty."""
    some = [cell.strip() for cell in cells if cell.strip()][:_LOOKED_AT]
    if not some:
        return None
    word = re.sub(r"[\W_]+", "", name.removeprefix("group_").removeprefix("label_").lower())
    by_cells = next((kind for kind, like in _CELLS.items() if _most(some, like)), None)
    if word not in _VAGUE:
        kind = next((kind for kind, like in _BY_NAME.items() if like.fullmatch(word)), None)
        if kind is not None:
            return IdentityColumn(name, kind, "name")
    if by_cells == "contacts" or (by_cells and (word in _VAGUE or word in ("subjectid", "studyid"))):
        return IdentityColumn(name, by_cells, "cells")
    return None


def _most(cells: Sequence[str], like: re.Pattern[str]) -> bool:
    return 2 * sum(like.fullmatch(cell) is not None for cell in cells) > len(cells)
