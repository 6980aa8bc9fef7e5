"""The sentences of a report, whatever a printer, a template or a list made of its lines.

Training leaves out and reorders sentences. A negation must never be parted from what it negates, so whatever is in doubt
stays together: a sentence too long costs a little variety, one too short teaches a finding that is not there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from medssml.readers.headings import heading_of

#: What no line and no sentence ends in: the word that it governs comes after.
_DANGLING = re.compile(
    r"(?:[,;(/&+\-–—]|\b(?:no|not|non|without|never|neither|nor|denies|denied|"
    r"a|an|the|of|for|in|on|at|to|by|with|from|into|than|as|and|or|but|is|are|was|were|be|been|has|have|had|any|new|acute|"
    r"evidence|versus|vs|keine?|keine[nrms]|nicht|ohne|weder|noch|der|die|das|den|dem|des|eine?|eine[nrms]|und|oder|vo[nm]|für|im|"
    r"am|zu|zu[rm]|mit|bei|auf|nachweis|anhalt|hinweis|sin|ni|ningun[ao]?|ningún|nunca|tampoco|el|la|los|las|una?|del?|en|con|por|"
    r"para|que|y|o|se))$",
    re.IGNORECASE,
)
_NEGATION = (
    r"(?:no|not|none|nor|negative|without|absent|absence|denies|free|excluded|ruled?|resolved|resolution|kein\w*|nicht|ohne|negativ\w*|ausgeschlossen|sin|"
    r"ni|ningun\w*|ningún|ausen\w*)"
)
#: "There is no evidence of:" governs the list, or the sentences, that follow.
_GOVERNS = re.compile(rf"\b{_NEGATION}\b[^.:\n]{{0,200}}:", re.IGNORECASE)
_NEGATED = re.compile(rf"\b{_NEGATION}\W+(?:\w+\W+){{0,2}}\w*\.$", re.IGNORECASE)
#: What answers the sentence before: "Pneumothorax. None seen."
_ANSWERS = frozenset(
    "no not none nil nein negative absent excluded seen present identified found visible demonstrated noted is are was were "
    "keine keiner keines nicht nachweisbar abgrenzbar ausgeschlossen negativ ninguno ninguna negativo ausente se observa "
    "identifica".split()
)
_ITEM = re.compile(r"(?:[-*•‣·–—+]|\(?(?P<number>\d{1,2})[.)]|\(?[a-z]\))(?=\s|$)")
_STOP = re.compile(r"(?P<word>[^\s.!]*)[.!]+[\"')\]»”’]*$")
_GAP = re.compile(r"(?<=[.!\"')\]»”’])\s+(?=[\"'(\[«„“‘]*(?P<first>[^\W\d_]|\[))")
_UNITS = frozenset("mm cm ml cc mg kg mgy hu ct mr mri pet cxr".split())
_SHORT = 3
_ABBREVIATED = frozenset(
    "approx resp incl inkl evtl bilat chron pulm mediast path pathol entzdl ausschl unauff".split()
)


class _Line(NamedTuple):
    """A line that is not empty. number: of a numbered list, None where it has none. heads: begins with a heading; alone: is
    nothing else; section: the heading is of one of the five. apart: a line before it is empty."""

    text: str
    item: bool
    number: int | None
    heads: bool
    alone: bool
    section: bool
    apart: bool


def sentences(text: str) -> list[str]:
    """The sentences of a report in their order, each on one line; a heading is part of the sentence that follows.

    A line ends a sentence where it ends in a full stop and what follows begins like one, where a heading follows, and
    between the items of a list, unless something like "no evidence of:" governs them.

    >>> sentences("There is no\\npneumothorax. Heart is normal.\\n1. no fracture\\n2. clips")
    ['There is no pneumothorax.', 'Heart is normal.', '1. no fracture', '2. clips']
    """
    small, capitals = text == text.lower(), text == text.upper()
    blocks: list[list[str]] = []
    before: _Line | None = None
    listed = governed = items = False
    for line in _lines(text):
        if before is not None and not _ends(before, line, small, capitals, listed, governed, items):
            blocks[-1].append(line.text)
            # Items after a line that does not end are what that line lists.
            governed = governed or (line.item and not listed and not before.alone)
            items = items or line.item
        else:
            blocks.append([line.text])
            governed, items = False, line.item
        governed = governed or bool(line.text.endswith(":") and _GOVERNS.search(line.text))
        listed, before = (listed or line.item) and not line.alone, line
    return [sentence for block in blocks for sentence in _within(" ".join(block))]


def _lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    apart, number = False, 0
    for row in text.split("\n"):
        row = " ".join(row.split())
        if not row:
            apart = True
            continue
        heading = heading_of(row)
        mark = _ITEM.match(heading.rest if heading is not None and heading.rest else row)
        stated = mark.group("number") if mark else None
        follows = stated is None or int(stated) in (1, number + 1)  # else a figure of the sentence: "rib / 5. and 6."
        if mark and stated and follows:
            number = int(stated)
        alone = heading is not None and not heading.rest
        section = heading is not None and heading.section != ""
        lines.append(_Line(row, bool(mark and follows), number, heading is not None, alone, section, apart))
        apart = False
    return lines


def _ends(before: _Line, line: _Line, small: bool, capitals: bool, listed: bool, governed: bool, items: bool) -> bool:
    """Whether a sentence ends between two lines.

    small, capitals: the whole text is in small letters, or in capitals. listed: an item was seen; items: one of this sentence.
    governed: by a negation before a colon.
    """
    if before.alone or _DANGLING.search(before.text[-40:]):
        return False
    if line.section:
        return True
    stopped = _stops(before.text)
    if governed:
        return stopped and not line.item and (items or line.apart) and _begins(line.text, small)
    if line.item:
        return (stopped or listed) and not _answers(_ITEM.sub("", line.text, count=1))
    if line.heads and not capitals:
        return True
    return stopped and _begins(line.text, small) and not _answers(line.text)


def _within(block: str) -> list[str]:
    """The sentences of lines that belong together."""
    found: list[str] = []
    start = 0
    for gap in _GAP.finditer(block):
        first, end = gap.group("first"), gap.start()
        begins = (first == "[" or first.isupper()) and not _answers(block[gap.end() : gap.end() + 60])
        if begins and _stops(block[max(start, end - 80) : end]):
            sentence = block[start:end]
            if _GOVERNS.search(sentence):
                break
            found.append(sentence)
            start = gap.end()
    return [*found, block[start:]]


def _stops(text: str) -> bool:
    """Whether `text` ends in a full stop that is not that of an abbreviation, an ordinal or a list mark."""
    match = _STOP.search(text[-80:])
    if match is None:
        return False
    word = match.group("word").lower()
    if "!" in match.group() or word in _UNITS or not word:
        return True
    if len(word) <= _SHORT or word in _ABBREVIATED:
        return False
    # "No signif. Pneumothorax": an abbreviation ends in a consonant, and what it belongs to comes after.
    doubtful = len(word) <= 7 and word not in _ANSWERS and word[-1] not in "aeiouyáéíóúäöü" and word.isalpha()
    return not (doubtful and _NEGATED.search(text[-80:]))


def _begins(text: str, small: bool) -> bool:
    """Whether a sentence may begin here: with a capital, where the text has any, with a figure or with a bracket."""
    first = next((letter for letter in text if letter.isalnum() or letter == "["), "")
    return first != "" and (small or not first.isalpha() or first.isupper())


def _answers(text: str) -> bool:
    """Whether what begins here is no more than the answer to what was named before: "None seen."."""
    words = re.findall(r"\w+", re.split(r"[.!]", text, maxsplit=1)[0].lower())
    return 0 < len(words) <= 4 and all(word in _ANSWERS for word in words)
