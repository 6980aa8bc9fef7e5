"""Units of laboratory values by what they mean, not by how they are written.

A unit is read as a power of ten and its atoms, in the grammar of UCUM (unitsofmeasure.org) with the spellings that
laboratories use: the micro sign in both its codes, `u` and `mc`; blanks; `^`, `*` and raised figures; `l` for `L`. The case of
a prefix counts: mU/L and MU/L are a factor of 10^9 apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_PREFIXES = {"T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
#: Atom -> its spellings. Those of the first table may have a prefix.
_SCALED = {
    "g": "g gm gram grams",
    "L": "L l liter litre liters litres",
    "mol": "mol mole moles Mol",
    "m": "m meter metre",
    "s": "s sec secs second seconds",
    "U": "U u unit units Unit Units",
    "IU": "IU iu [IU] [iU]",
    "kat": "kat katal",
    "eq": "eq Eq EQ",
    "osm": "osm Osm osmol Osmol",
    "Pa": "Pa pa",
    "J": "J",
    "cal": "cal",
    "V": "V",
    "Bq": "Bq",
    "Gy": "Gy",
    "Hz": "Hz",
}
_WHOLE = {
    "min": "min minute minutes",
    "h": "h hr hrs hour hours",
    "d": "d day days",
    "wk": "wk week weeks",
    "mo": "mo month months",
    "a": "a yr year years",
    "%": "% percent",
    "mmHg": "mmHg mmhg mm[Hg] mmHG",
    "cmH2O": "cmH2O cm[H2O]",
    "Cel": "Cel °C degC",
    "degF": "[degF] °F degF",
    "pH": "pH ph [pH]",
    "1.73m2": "(bsa)",
    "": "1 cell cells cells. INR inr ratio Ratio index Index",
}
_ATOMS = {spelling: atom for table in (_SCALED, _WHOLE) for atom, words in table.items() for spelling in words.split()}
_PREFIXED = {spelling: atom for atom, words in _SCALED.items() for spelling in words.split()}
_COUNTS = {"K": 3, "k": 3, "thou": 3, "thousand": 3, "M": 6, "mil": 6, "mill": 6, "million": 6, "G": 9, "T": 12}

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SURFACE = re.compile(r"\{?1[.,]73[ _*.]*m(?:\^|\*+)?2\}?", re.IGNORECASE)
_TEN = re.compile(r"10(?:\^|[eE]|exp)\(?([+-]?\d{1,2})\)?|10\(([+-]?\d{1,2})\)|1[eE]([+-]?\d{1,2})")
_FACTOR = re.compile(r"(?P<word>(?:[A-Za-z%°]|\[[^\]]*\]|\(bsa\)|1(?!\d))+?(?:(?<=H)2O)?)\^?(?P<power>[+-]?\d)?$")
#: Of letters in capitals these are no prefix of U or IU that can be told from another.
_TOLD_BY_CASE = re.compile(r"[MPK]I?U$")


def same_unit(one: str, other: str) -> bool:
    """Whether a figure in the one unit is the same figure in the other.

    >>> [same_unit("ug/L", unit) for unit in ("\\u00b5g / l", "\\u03bcg/L", "mcg/L", "ng/mL", "mg/L")]
    [True, True, True, True, False]
    >>> same_unit("10*9/L", "10^3/uL"), same_unit("mU/L", "MU/L")
    (True, False)
    """
    return unit_key(one) == unit_key(other)


def unit_key(unit: str) -> str:
    """What is equal for units of one meaning: power of ten and atoms; a unit that is not understood is its own text.

    >>> unit_key("mg/dL"), unit_key("10\\u2079/L"), unit_key("score")
    ('10^-2 L-1 g', '10^9 L-1', "'score'")
    """
    plain = _plain(unit)
    meaning = _meaning(plain)
    if meaning is None and not re.search(r"[a-z]", plain):
        meaning = _of_capitals(plain)
    if meaning is None:
        return repr(re.sub(r"\s+", "", plain))
    power, atoms = meaning
    powers = (f"{atom}{count if count != 1 else ''}" for atom, count in sorted(atoms.items()) if atom and count)
    return " ".join(filter(None, (f"10^{power}" if power else "", *powers)))


def _plain(unit: str) -> str:
    """One spelling of micro, of raised figures, of `per`, of brackets; no blank but between two factors."""
    text = re.sub(r"[⁰¹²³⁴-⁹⁻⁺]+", lambda found: "^" + found.group().translate(_RAISED), unit.strip())
    text = unicodedata.normalize("NFKC", text).replace("\u03bc", "u").replace("\u2212", "-")
    text = re.sub(r"\bmc(?=(?:g|gm|L|l|mol|U|IU)\b)", "u", text)
    text = re.sub(r"\bmm\s*\[?Hg\]?", "mmHg", text, flags=re.IGNORECASE)
    text = re.sub(r"\bcm\s*\[?H2O\]?", "cm[H2O]", text, flags=re.IGNORECASE)
    text = re.sub(r"\{[^}]*\}", "", _SURFACE.sub("(bsa)", text))
    text = re.sub(r"\s*(?:/|\bper\b)\s*", "/", text)
    text = re.sub(r"^[xX×*]\s*(?=1)", "", text)
    text = re.sub(
        r"^(?:thou|thousand|mil|mill|million)(?=/)", lambda found: found.group().lower(), text, flags=re.IGNORECASE
    )
    text = re.sub(r"\s*(?:\^|\*{1,2})\s*(?=[\d+-])", "^", text)
    return re.sub(r"\s+", " ", text).strip()


def _meaning(text: str, fold: bool = False) -> tuple[int, Counter[str]] | None:
    """(power of ten, atom -> power); None where a part is not known."""
    power, atoms = 0, Counter[str]()
    if fold:
        text = text.lower()
    for place, part in enumerate(text.split("/")):
        sign = -1 if place else 1
        if place == 0 and "/" in text and part in _COUNTS:  # K/uL is thousands per microlitre
            power += _COUNTS[part]
            continue
        for factor in re.split(r"[.·⋅* ×](?!\d*$)|(?<=[A-Za-z])[*](?=[A-Za-z])", part):
            read = _factor(factor) if factor else (0, "", 0)
            if read is None:
                return None
            power += sign * read[0]
            atoms[read[1]] += sign * read[2]
            sign = 1  # in UCUM a slash holds for what follows it alone
    return power, atoms


def _factor(text: str) -> tuple[int, str, int] | None:
    """(power of ten, atom, its power) of one factor: mL -> (-3, "L", 1)."""
    ten = _TEN.fullmatch(text)
    if ten:
        return int(next(group for group in ten.groups() if group is not None)), "", 0
    if re.fullmatch(r"10+", text):
        return len(text) - 1, "", 0
    hundred = re.fullmatch(r"(10+)(\D.*)", text)  # g/100mL
    if hundred:
        rest = _factor(hundred.group(2))
        return None if rest is None else (rest[0] + len(hundred.group(1)) - 1, rest[1], rest[2])
    match = _FACTOR.match(text)
    if match is None:
        return None
    word, count = match.group("word"), int(match.group("power") or 1)
    if word in _ATOMS:
        return 0, _ATOMS[word], count
    if word[0] in _PREFIXES and word[1:] in _PREFIXED:
        return _PREFIXES[word[0]] * count, _PREFIXED[word[1:]], count
    return None


def _of_capitals(text: str) -> tuple[int, Counter[str]] | None:
    """A unit that is written in capitals throughout: MG/DL. Not one whose prefix the case would have to tell: KU/L."""
    return None if any(_TOLD_BY_CASE.match(part) for part in text.split("/")) else _meaning(text, fold=True)
