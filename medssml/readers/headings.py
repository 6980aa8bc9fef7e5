"""The headings of a report: what looks like one on a line, and which of the five sections it begins, in three languages."""

from __future__ import annotations

import re
from typing import NamedTuple

SECTIONS = ("indication", "technique", "comparison", "findings", "impression")
#: Sections that come before what the report says; what follows them under an unknown heading is no part of them.
FRONT = ("indication", "technique", "comparison")

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
#: Words that name a section wherever they stand in a heading: CT CHEST FINDINGS, PRELIMINARY IMPRESSION.
_STRONG = {
    **dict.fromkeys(
        "impression impressions conclusion conclusions impresión impresion conclusión".split(), "impression"
    ),
    **dict.fromkeys("conclusiones beurteilung".split(), "impression"),
    **dict.fromkeys("findings hallazgos befund befunde".split(), "findings"),
    **dict.fromkeys("indication indications indicación indikation fragestellung".split(), "indication"),
    **dict.fromkeys("comparison comparisons vergleich".split(), "comparison"),
    **dict.fromkeys("technique técnica technik".split(), "technique"),
}
#: Of a heading that names several, the one that counts: FINDINGS AND IMPRESSION.
_PRECEDENCE = ("impression", "findings", "indication", "technique", "comparison")
_PROSE = frozenset(
    "the this these those that a an is are was were be been has have had no not of as with in on at by to there see "
    "my our der die das den dem ein eine ist sind war im zum el la los las un una es son fue en con".split()
)
#: Words after which a heading's word is a noun of the sentence: "supports the clinical / impression: pneumonia".
_BINDING = _PROSE | frozenset(
    "and or for from than clinical differential prior previous physical medical family social surgical past overall initial my "
    "his her their working main primary secondary provisional presumptive likely und oder für von klinische y o de del".split()
)
COLON = ":：﹕︰∶꞉"
_LETTERS = r"[^\W\d_]"
_NAMED = re.compile(rf"(?P<name>{_LETTERS}[^{COLON}\n]{{0,59}}?)\s*[{COLON}](?P<rest>.*)", re.DOTALL)
_DASHED = re.compile(rf"(?P<name>{_LETTERS}[\w /]{{3,58}}?)(?:\s+[-–—=>|]+\s+|\s*[–—]\s*|-(?=[A-Z][a-z]))(?P<rest>.*)")
_BARE = re.compile(r"(?P<name>[A-ZÁÉÍÓÚÑÄÖÜ]{6,20})(?:;\s*(?=\S)|(?:\.\s*|\s+)(?=[A-ZÁÉÍÓÚÑÄÖÜ0-9]))(?P<rest>.*)")
_HASHED = re.compile(r"#{1,6}(?P<space>\s*)(?P<name>[^#].*?)\s*#*$")
_BOLD = re.compile(r"(?P<mark>\*\*|__)(?P<name>[^*_\n]{2,60})(?P=mark)(?P<after>.*)$")
_NUMBERED = re.compile(r"(?:[-*•]|\(?(?:\d{1,2}|[ivxIVX]{1,4}|[A-Za-z])[.)])\s+(?=\S)")


class Heading(NamedTuple):
    """name: in small letters. section: of `SECTIONS`, "" where it is none of them. rest: what follows on its line."""

    name: str
    section: str
    rest: str
    capitals: bool


def section_named(name: str) -> str:
    """The section that a heading of these words begins, "" where it is none.

    >>> [section_named(n) for n in ("Befund", "IMPRESSION(S)", "Impression and recommendations", "CT CHEST FINDINGS", "LUNGS")]
    ['findings', 'impression', 'impression', 'findings', '']
    """
    plain = re.sub(r"\((?:s|es|n)\)", "", _unspaced(name).lower())
    plain = " ".join(re.sub(r"\([^)]*\)|[#*]+\s*\d*", " ", plain).split()).strip(" .,-")
    if plain in _CANONICAL:
        return _CANONICAL[plain]
    parts = [part.strip() for part in re.split(r"\band\b|\bund\b|\by\b|[&/,+]", plain)]
    named = {_CANONICAL.get(part, "") for part in parts}
    if parts[0] in _CANONICAL or (named and "" not in named):
        return next(section for section in _PRECEDENCE if section in named)
    words = re.findall(r"\w+", plain)
    if len(words) > 6 or _PROSE & set(words):
        return ""
    strong = {_STRONG[word] for word in words if word in _STRONG}
    return next((section for section in _PRECEDENCE if section in strong), "")


def _unspaced(name: str) -> str:
    """F I N D I N G S as FINDINGS."""
    return name.replace(" ", "") if re.fullmatch(r"(?:[^\W\d_] ){3,}[^\W\d_]", name) else name


def is_exact(heading: Heading) -> bool:
    """Whether the heading is a known name, and not one with further words."""
    return heading.name in _CANONICAL


def strong_section(name: str) -> str:
    """The section whose own word is among these; no word that is also used otherwise (study, history, result)."""
    return next((_STRONG[word] for word in re.findall(r"\w+", name.lower()) if word in _STRONG), "")


def heading_of(line: str) -> Heading | None:
    """The heading that `line` begins with, None where it is prose.

    A known name before a colon or a dash, alone on the line, in Markdown, or framed; or capitals before a colon.

    >>> heading_of("**Findings:** clear"), heading_of("IMPRESSION - normal").section, heading_of("Heart: normal")
    (Heading(name='findings', section='findings', rest='clear', capitals=False), 'impression', None)
    """
    line = line.strip().strip("|").strip()  # a row of a Markdown table, too
    hashed = _HASHED.match(line)
    if hashed:
        name = hashed.group("name").strip(f" {COLON}*_")
        formal = _heading(name, section_named(name)) if 0 < len(name) <= 60 else None  # whatever its words
        found = _plain(hashed.group("name")) or formal
        return found if found is None or found.section or hashed.group("space") else None
    bold = _BOLD.match(line)
    if bold:
        name, after = bold.group("name").strip(), bold.group("after").strip()
        stated = name.endswith(tuple(COLON)) or after.startswith(tuple(COLON))
        found = _plain(f"{name} {after}" if stated else f"{name}: {after}")
        return found if found is None or stated or found.section or not after else None
    numbered = _NUMBERED.match(line)
    if numbered:
        found = _plain(line[numbered.end() :])
        named = found is not None and (found.capitals or found.name in _STRONG)
        return found if found is not None and found.section and named else None
    return _plain(line) or _framed(line)


def _heading(name: str, section: str, rest: str = "") -> Heading:
    return Heading(_unspaced(name).lower(), section, rest.strip(), _bare(name).isupper())


def _bare(name: str) -> str:
    """Without what is in brackets: FINDINGS (compared with 2019)."""
    return re.sub(r"\([^)]*\)|\[[^\]]*\]", "", name)


def _plain(line: str) -> Heading | None:
    """As `heading_of`, of a line without marks around it."""
    match = _NAMED.match(line)
    if match:
        name = match.group("name")
        section = "" if _is_prose(name) else section_named(name)
        if section or _is_capitals(name):
            return _heading(name, section, match.group("rest"))
    alone = section_named(line) if len(line) <= 60 and line[:1].isupper() and not line.endswith(".") else ""
    if line.lower().strip() in _CANONICAL and alone or (alone in ("findings", "impression") and line.isupper()):
        return _heading(line, alone)
    match = _DASHED.match(line)
    if match and (_is_strong(match) or match.group("name").isupper()) and match.group("name").lower() in _CANONICAL:
        return _heading(match.group("name"), section_named(match.group("name")), match.group("rest"))
    match = _BARE.match(line)
    if match and _is_strong(match) and not line.isupper():
        return _heading(match.group("name"), section_named(match.group("name")), match.group("rest"))
    return None


def _is_strong(match: re.Match[str]) -> bool:
    return match.group("name")[0].isupper() and match.group("name").lower() in _STRONG


def _framed(line: str) -> Heading | None:
    """A known name between marks: === FINDINGS ===, [IMPRESSION], <Findings>."""
    if len(line) > 140 or line[:1].isalnum():
        return None
    name = re.sub(r"^[\W_]+|[\W_]+$", "", line)
    return _heading(name, _CANONICAL[name.lower()]) if name.lower() in _CANONICAL and name[:1].isupper() else None


def _is_prose(name: str) -> bool:
    """A known word within small letters is no heading by itself: "The findings are as follows:"."""
    name = _bare(name).strip()
    return (
        not name.isupper() and bool(_PROSE & set(re.findall(r"\w+", name.lower()))) and name.lower() not in _CANONICAL
    )


def _is_capitals(name: str) -> bool:
    """Capitals, with figures and marks among them: CHEST, 2 VIEWS."""
    letters = sum(letter.isalpha() for letter in name)
    return (
        name.isupper() and letters >= 3 and letters > len(name) / 2 and len(name.split()) <= 8 and name.count(".") < 2
    )


def binds(text: str) -> bool:
    """Whether the last of several words needs the next: "the clinical" before "impression"."""
    words = text[-60:].rpartition(":")[2].split()
    return len(words) > 1 and words[-1].lower() in _BINDING


def inline_headings(line: str) -> list[tuple[int, int, Heading]]:
    """(start, end, heading) of what may be headings within a line: known ones, or capitals after the end of a sentence."""
    found = []
    for match in _INLINE.finditer(line):
        name = match.group("name")
        before = line[: match.start("name")].rstrip()
        stopped = before.endswith((".", "!", "?", ";", ":", ")", "]"))
        section = section_named(name) if name.lower() in _CANONICAL else ""
        if section and name.isupper() and not stopped:
            word = before.rpartition(" ")[2]
            stopped = not word.isupper()
        if stopped and (section or _is_capitals(name)):
            found.append((match.start("name"), match.end(), Heading(name.lower(), section, "", name.isupper())))
    return found


_KNOWN = "|".join(re.escape(word) for word in sorted(_CANONICAL, key=len, reverse=True))
_CAPITAL = "A-ZÁÉÍÓÚÑÄÖÜ"
_INLINE = re.compile(
    rf"(?<=[\s.;!?)\]])(?P<name>(?-i:(?=[{_CAPITAL}]))(?:{_KNOWN})"
    rf"|(?<=[.;!?)\]]\s)(?-i:[{_CAPITAL}][{_CAPITAL}0-9 /,&()-]{{2,58}}?))\s*[{COLON}]",
    re.IGNORECASE,
)
