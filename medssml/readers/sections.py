"""The sections of a radiology report under one name each, and what is left of a report when some of them are chosen.

A section lasts until the next of the five begins: what stands under LUNGS: or CHEST: within the findings belongs to them. A
heading that is none of the five, after a history or a comparison, is a section of its own: it may be where the findings are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from medssml.readers.errors import Flag
from medssml.readers.headings import FRONT, SECTIONS, Heading, binds, heading_of, inline_headings, is_exact

__all__ = ["SECTIONS", "Part", "chosen_sections", "parts_of", "split_sections"]

#: Headings of their own that are no words about the images.
_ABOUT = re.compile(
    r"\b(?:dictated|signed|transcri\w+|attending|accession|mrn|dob|patient (?:name|id)|notification|referring|ordering|"
    r"end of report|unterschrift|firmado)\b"
)
#: Headings that describe the examination, and so belong to the section before.
_OF_TECHNIQUE = re.compile(
    r"\b(?:contrast|dose|ctdi\w*|dlp|protocol|medications?|tracer|radiopharmaceutical|injection|sequences?|scanner|"
    r"reconstructions?|kontrastmittel|contraste|dosis|exam date|limitations?)\b"
)
_ENDS = (".", ":", ";", "!", "?")


class Part(NamedTuple):
    """A stretch of a report. name: one of `SECTIONS`, another heading in small letters, or "" for what has none.

    text: without the heading. heading: what is written where the name does not say it, "" elsewhere.
    """

    name: str
    text: str
    heading: str


def split_sections(text: str) -> dict[str, str]:
    """Heading -> its text; a heading that occurs twice has both parts. {} where there is no heading.

    Headings are English, Spanish or German, or capitals before a colon: see `heading_of`.

    >>> split_sections("FINDINGS:\\nLUNGS: Clear.\\nHEART: Normal.\\nConclusion - normal")
    {'findings': 'LUNGS: Clear.\\nHEART: Normal.', 'impression': 'normal'}
    """
    sections: dict[str, str] = {}
    for part in parts_of(text):
        if part.name and part.text:
            sections[part.name] = f"{sections[part.name]}\n{part.text}" if part.name in sections else part.text
    return sections


def chosen_sections(text: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """The wanted sections of a report in that order, and notes of what was not found or not understood.

    The whole text where none of them is there. Text under headings that are none of the five, and under none where a wanted
    section is missing, is kept with them: it may be what was looked for.
    """
    parts = [part for part in parts_of(text) if part.text]
    found = {name: "\n".join(part.text for part in parts if part.name == name) for name in wanted}
    found = {name: body for name, body in found.items() if body}
    if not found:
        return text, [Flag(f"has none of the sections {', '.join(wanted)}: the whole text is taken")]
    said = {name for name in SECTIONS for part in parts if name in part.heading}  # FINDINGS/IMPRESSION is both
    missing = [name for name in wanted if name in ("findings", "impression") and name not in {*found, *said}]
    others = [part for part in parts if part.name not in (*SECTIONS, *wanted)]
    about = [part for part in others if _ABOUT.search(part.name)]
    rest = [part for part in others if part not in about and (part.name or missing)]
    if "findings" in missing:
        rest += _unheaded(parts)
    if "findings" not in wanted and not missing:
        rest = []  # the impression alone was asked for, and it is there
    notes = [Flag(f"has no section {' and no section '.join(missing)}; has {', '.join(found)}")] if missing else []
    if rest:
        notes.append(Flag(f"text that is in no section is kept: {_named(rest)}"))
    if about:
        notes.append(Flag(f"left out with the sections that were not chosen: {_named(about)}", "left_out"))
    kept = [f"{part.heading}: {part.text}" if part.heading else part.text for part in rest]
    return "\n".join([*found.values(), *kept]), list(notes)


def _named(parts: Sequence[Part]) -> str:
    named = (f"{part.name[:40]!r}" if part.name else "without a heading" for part in parts)
    return f"{', '.join(named)} ({sum(len(part.text) for part in parts):,} letters)"


def _unheaded(parts: Sequence[Part]) -> list[Part]:
    """What follows the first paragraph, or the first line that ends like one, of the last section before the findings would
    come: they may have no heading."""
    front = [part for part in parts if part.name in FRONT]
    paragraphs = re.split(r"\n\n|(?<=[.!?])\n", front[-1].text, maxsplit=1) if front else []
    return [Part("", paragraphs[1].strip(), "")] if len(paragraphs) > 1 else []


def parts_of(text: str) -> list[Part]:
    """The report in stretches, in their order; a heading that begins no stretch of its own stays in the text."""
    lines = text.split("\n")
    heads = _heads(lines)
    at_line = {head.section for head in heads.values() if head.section}
    capitals = any(head.capitals and head.section for head in heads.values())
    parts, current, heading, body = [], "", "", list[str]()

    def close(name: str, shown: str) -> None:
        nonlocal current, heading, body
        parts.append(Part(current, "\n".join(body).strip().lstrip(":").strip(), heading))
        current, heading, body = name, shown, []

    for place, line in enumerate(lines):
        head = heads.get(place)
        if head is not None and _begins(head, current):
            close(head.section or head.name, _shown(head))
            line = head.rest
        start = 0
        for begin, end, inline in inline_headings(line):
            if _begins_inline(inline, current, at_line, capitals):
                body.append(line[start:begin].strip())
                close(inline.section or inline.name, _shown(inline))
                start = end
        body.append(line[start:].strip())
    close("", "")
    return [part for part in parts if part.text or part.name]


def _shown(head: Heading) -> str:
    """A heading as it may be written again; of one that names two sections, its words."""
    if not head.section:
        return head.name.upper()
    return head.name if sum(name in head.name for name in SECTIONS) > 1 else ""


def _heads(lines: list[str]) -> dict[int, Heading]:
    """Number of a line -> the heading that it begins with, unless its words are those of the sentence before."""
    found = {place: head for place, line in enumerate(lines) if line and (head := heading_of(line)) is not None}
    capital = {place: next((letter.isupper() for letter in lines[place] if letter.isalpha()), False) for place in found}
    any_capital = any(capital[place] for place, head in found.items() if head.section)
    for place in list(found):
        before = lines[place - 1] if place else ""
        if before and not before.endswith(_ENDS) and (binds(before) or (any_capital and not capital[place])):
            del found[place]
    return found


def _begins(head: Heading, current: str) -> bool:
    """Whether a heading at the start of a line ends the section that it stands in."""
    if head.section:
        return is_exact(head) or head.section not in FRONT or current not in ("findings", "impression")
    if current in ("findings", "impression"):
        return bool(_ABOUT.search(head.name))
    return not (current in FRONT and _OF_TECHNIQUE.search(head.name))


def _begins_inline(head: Heading, current: str, at_line: set[str], capitals: bool) -> bool:
    """Within a line: not where the section has a line of its own, nor in another style than the headings there."""
    if not head.section:
        return current in FRONT and not _OF_TECHNIQUE.search(head.name)
    if head.section in at_line or (capitals and not head.capitals):
        return False
    return not (head.section in FRONT and current in ("findings", "impression"))
