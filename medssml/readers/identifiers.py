"""Spans of a report that look like names, dates, phone numbers or ids: counted, never kept.

Plain patterns in English, Spanish and German; they miss much (a name without a title) and say so of some that are none.
A report in which nothing is found is not thereby de-identified. Every repetition is bounded, so that a word of a million letters
takes linear time. Ages are not looked for: nearly every report has one.
"""

from __future__ import annotations

import re

_MONTH = (
    "jan(?:uary|uar)?|feb(?:ruary|ruar)?|mar(?:ch)?|märz|apr(?:il)?|may|mai|june?|juni|july?|juli|aug(?:ust)?|sep(?:t(?:ember)?)?|"
    "o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|"
    "noviembre|diciembre"
)
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_CAPITAL = r"[A-ZÄÖÜÁÉÍÓÚÑ][a-zäöüßáéíóúñ'’-]+"

#: Kind -> what such a span looks like.
PATTERNS = {
    "date": re.compile(
        rf"(?<![\d.,/-])(?:{_DAY}([./-]){_DAY}\1{_YEAR}|{_YEAR}([/-]){_DAY}\2{_DAY}|{_DAY}/{_DAY}/\d\d)(?![\d/])"
        rf"|\b{_DAY}(?:st|nd|rd|th|\.)?\s+(?:de\s+|of\s+)?(?:{_MONTH})\.?,?\s+(?:de\s+)?{_YEAR}\b"
        rf"|\b(?:{_MONTH})\.?\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR}\b",
        re.IGNORECASE,
    ),
    "phone number": re.compile(
        r"(?<![\d.])(?:\+\d{1,3}[ ./-]?\(?\d[\d ()./-]{6,}\d|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\d.])"
        r"|\b(?:tel|phone|telefon|teléfono|pager|fax)\b[^\n\d]{0,12}\d[\d ()./-]{4,}\d",
        re.IGNORECASE,
    ),
    "id": re.compile(
        r"\b(?:MRN|SSN|NHC|accession|patient (?:id|no|number)|case (?:id|no|number)|pat(?:ienten)?[.-]?\s?(?:id|nr)|fallnummer|"
        r"historia cl[ií]nica)\b[^\n\w]{0,4}(?:no\b|number\b|nr\b)?[^\n\w]{0,4}(?=[\w-]{0,64}\d)[\w-]{4,}"
        r"|(?<![\d.,+])\d{7,}(?![\d.,])",
        re.IGNORECASE,
    ),
    "name": re.compile(
        rf"\b(?:Mr|Mrs|Ms|Miss|Dr|Dra|Prof|Herrn?|Frau|Sr|Sra|Señor|Señora|Doña)\b\.?[ ](?:Dr\.? |med\.? |Prof\.? )*{_CAPITAL}"
        rf"|\b(?:[Pp]atient name|[Nn]ame|[Dd]ictated by|[Ss]igned by|[Rr]eferring physician|[Nn]ombre)\b\s*:[ ]*{_CAPITAL}"
    ),
    "e-mail": re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]+"),
}


def suspicious_spans(text: str) -> dict[str, int]:
    """Kind -> how many spans of `text` look like it; kinds that are not there are left out."""
    found = {kind: sum(1 for _ in pattern.finditer(text)) for kind, pattern in PATTERNS.items()}
    return {kind: count for kind, count in found.items() if count}
