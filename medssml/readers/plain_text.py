"""A text as one form of characters, blanks and line ends: what terminals, printers, databases and web pages left in it is put
right, and what nobody can see in it is said."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from medssml.readers.errors import Flag
from medssml.readers.headings import heading_of

DEID = "[DEID]"
_DEID_MARK = re.compile(r"\[\*\*.{0,400}?\*\*\]|_{3,}|(?<![A-Za-z])X{4,}(?![A-Za-z])|\[DEID\]", re.DOTALL)
_LINE_END = re.compile("\r\n|[\r\f\x0b\x1c-\x1e\x85\u2028\u2029]")
_TERMINAL = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    "|\x1b\\][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\\\)"  # titles, links
    "|\x1b[&*(][a-z]?[0-9.+-]*[A-Z@]|\x1b(?:[ -/][0-~]|[78=>cMDEH](?![A-Za-z]))?"  # printers, modes
)
_REVERSED = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = frozenset("\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u180e\u034f\u115f\u1160\u3164\uffa0")
_RULES = frozenset("_=-*~#.\u00b7\u2013\u2014\u2500\u2501\u2550\u2022+")
#: A path may hold \n as the start of a name: C:\new, \\server\notes.
_PATH = r"(?<![A-Za-z])[A-Za-z]:\\[^\s\"]+|(?<!\S)\\\\[\w.$-]+\\[^\s\"]+"
_WRITTEN = re.compile(
    rf"(?P<path>{_PATH})|(?P<end>(?:\\{{1,3}}r)?\\{{1,3}}n|\\{{1,3}}r(?![a-z])|\\u000[aAdD]|\\x0[aAdD]|&#(?:[xX]0*[aAdD]|0*1[03]);"
    r"|_x000[aAdD]_|<[bB][rR] ?/?>)|(?P<tab>\\{1,3}t)(?![a-z]{3})"
)


def plain_text(text: str) -> tuple[str, list[str]]:
    """`text` in NFC, each line with single blanks, at most one empty line together, every de-identification mark `DEID`.

    And notes of what was taken out or read as something else, with figures.
    """
    notes: list[str] = []
    text = unicodedata.normalize("NFC", text.removeprefix("\ufeff"))
    text, terminal = _TERMINAL.subn("", text)
    text = _overstruck(_LINE_END.sub("\n", text))
    text = _seen(text, terminal, notes)
    text = _written_out(text, notes)
    lines, rules = [], 0
    for line in text.split("\n"):
        line = " ".join(line.split())
        unruled = _without_rule(line)
        rules += "_" in line and unruled != line
        lines.append(unruled)
    if rules:
        notes.append(Flag(f"{rules} lines of underscores are taken for rules, not for removed words", "reread"))
    text = _DEID_MARK.sub(DEID, "\n".join(lines))
    return re.sub(r"\n{3,}", "\n\n", text).strip(), notes


def _overstruck(text: str) -> str:
    """A letter before a backspace was printed twice, or taken back."""
    if "\x08" not in text:
        return text
    kept: list[str] = []
    for letter in text:
        if letter != "\x08":
            kept.append(letter)
        elif kept and kept[-1] != "\n":
            kept.pop()
    return "".join(kept)


def _seen(text: str, terminal: int, notes: list[str]) -> str:
    """`text` without characters that show nothing; notes say how many there were of each kind but the soft hyphen."""
    kinds: Counter[str] = Counter({"terminal escapes": terminal} if terminal else {})
    kept = []
    for letter in text:
        if letter in _REVERSED:
            kinds["right-to-left controls"] += 1
        elif letter in _UNSEEN:
            kinds["zero-width characters"] += 1
        elif letter not in "\n\t" and not letter.isprintable() and unicodedata.category(letter) in ("Cc", "Cf"):
            kinds["control characters"] += letter != "\u00ad"
        else:
            kept.append(letter)
    notes += [Flag(f"{count:,} {kind} are taken out", "left_out") for kind, count in kinds.items() if count]
    return "".join(kept)


def _written_out(text: str, notes: list[str]) -> str:
    """Line ends that are written as `\\n`, `&#10;`, `<br>` become line ends; those in the paths of files stay."""
    count = 0

    def end(match: re.Match[str]) -> str:
        nonlocal count
        if match.group("path"):
            return match.group()
        count += match.group("end") is not None
        return "\n" if match.group("end") else " "

    text = _WRITTEN.sub(end, text)
    if count:
        notes.append(Flag(f"{count:,} line ends are written out (\\n, <br>): read as line ends", "reread"))
    return text


def _without_rule(line: str) -> str:
    """`line` without the rule that it is, or that frames its heading. Three underscores are a removed word, not a rule."""
    marks = line.replace(" ", "")
    if len(marks) > 3 and marks[0] in _RULES and not marks.strip(marks[0]):
        return ""
    if "____" in line:
        heading = heading_of(line.strip("_ "))
        if heading is not None and heading.section and not heading.rest:
            return line.strip("_ ")
    return line
