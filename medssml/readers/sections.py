"""The sections of a radiology report under one name each, whatever the heading and its language."""

from __future__ import annotations

import re

SECTIONS = ("indication", "technique", "comparison", "findings", "impression")

_SYNONYMS = {
    "findings": (
        "findings|finding|chest findings|findings and interpretation|radiological findings|result|results|"
        "hallazgos|hallazgo|hallazgos radiológicos|descripción|befund|befunde|befundbericht|befundung"
    ),
    "impression": (
        "impression|impressions|conclusion|conclusions|summary|opinion|interpretation|diagnosis|findings and impression|"
        "findings/impression|impression and findings|final impression|impression/recommendation|"
        "impresión|impresion|impresión diagnóstica|impresión radiológica|juicio diagnóstico|conclusión|conclusiones|"
        "diagnóstico|beurteilung|zusammenfassung|zusammenfassende beurteilung|beurteilung und empfehlung|diagnose"
    ),
    "indication": (
        "indication|indications|clinical indication|reason for exam|reason for examination|reason for study|"
        "reason for the exam|reason for the examination|history|clinical history|clinical information|"
        "clinical details|history of present illness|"
        "indicación|indicacion|indicación clínica|datos clínicos|información clínica|historia clínica|motivo|"
        "motivo de consulta|motivo de la exploración|motivo del estudio|antecedentes|"
        "indikation|rechtfertigende indikation|fragestellung|klinische fragestellung|klinische angaben|"
        "klinische angaben und fragestellung|anamnese|vorgeschichte"
    ),
    "comparison": (
        "comparison|comparisons|comparison studies|comparison exams|prior studies|comparación|comparacion|estudio previo|"
        "estudios previos|vergleich|voruntersuchung|voruntersuchungen|zum vergleich|voraufnahme|voraufnahmen"
    ),
    "technique": (
        "technique|procedure|exam|examination|study|type of examination|técnica|tecnica|exploración|estudio|"
        "procedimiento|technik|untersuchung|untersuchungstechnik|durchgeführte untersuchung|methode"
    ),
}
_CANONICAL = {word: section for section, words in _SYNONYMS.items() for word in words.split("|")}
_KNOWN = "|".join(re.escape(word) for word in sorted(_CANONICAL, key=len, reverse=True))
_CAPITAL = "(?-i:(?=[A-ZÁÉÍÓÚÑÄÖÜ]))"
_HEADER = re.compile(
    rf"(?:^[ \t]*(?P<line>{_KNOWN})"  # a known heading at the start of a line, any case
    rf"|(?:(?<=[.:;?!])|(?<=[ \t]))[ \t]*(?P<inline>{_CAPITAL}(?:{_KNOWN}))"  # or inside one, with a capital
    r"|^[ \t]*(?P<other>(?-i:[A-ZÁÉÍÓÚÑÄÖÜ][A-ZÁÉÍÓÚÑÄÖÜ /,&()-]{2,40})))[ \t]*:"
    rf"|^[ \t]*(?P<alone>{_CAPITAL}(?:{_KNOWN}))[ \t]*$",  # a known heading alone on its line, without a colon
    re.MULTILINE | re.IGNORECASE,
)
_INLINE_AFTER = ".:;?!"


def split_sections(text: str) -> dict[str, str]:
    """Heading -> its text; a heading that occurs twice has both parts. {} where there is no heading.

    Headings are English, Spanish or German: before a colon in any case at the start of a line, with a capital inside
    one, or with a capital alone on their line.
    """
    found = [match for match in _HEADER.finditer(text) if _is_heading(match, text)]
    sections: dict[str, str] = {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends[: len(found)], strict=True):
        name = next(group for group in match.group("line", "inline", "other", "alone") if group is not None)
        body = text[match.end() : end].strip()
        key = _CANONICAL.get(name.lower().strip(), name.lower().strip())
        if body:
            sections[key] = f"{sections[key]}\n{body}" if key in sections else body
    return sections


def _is_heading(match: re.Match[str], text: str) -> bool:
    """An inline heading follows the end of a sentence, or is all in capitals: "see the Findings: no" is prose."""
    name = match.group("inline")
    if name is None or name.isupper():
        return True
    before = text[: match.start("inline")].rstrip()
    return before.endswith(tuple(_INLINE_AFTER)) and name[0].isupper()
