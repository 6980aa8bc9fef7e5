"""Reports with typing errors, of a scanner that reads letters wrongly, cut short, or with a negation too much or too few."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from medssml.obstacles.base import Damage
from medssml.obstacles.text_arrays import text_array
from medssml.readers.sentences import sentences
from medssml.transforms.base import Preparation, Prepared
from medssml.transforms.report import text_of

#: Share of the words with an error, and of the words that are cut off, at severity 1.
MOST_TYPOS, MOST_CUT = 0.5, 0.9
#: What character recognition takes for what.
CONFUSED = {"rn": "m", "m": "rn", "cl": "d", "l": "1", "I": "l", "O": "0", "S": "5", "e": "c", "h": "b", "t": "f"}

_WORD = re.compile(r"[^\W\d_]{3,}")
_ANY_WORD = re.compile(r"\S+")
#: A heading or a number that stands before what a sentence says.
_BEFORE = re.compile(r"^(?:[A-Z][A-Z /]+:\s*)?(?:\d{1,2}[.)]\s*)?")
_HEADING = re.compile(r"^([A-Z][A-Z /]+):")
_NO_FINDINGS = frozenset(
    {"INDICATION", "HISTORY", "CLINICAL HISTORY", "TECHNIQUE", "COMPARISON", "EXAMINATION", "EXAM"}
)
_NUMBERED = re.compile(r"(?<=[.!?])\s+(?=\d{1,2}[.)]\s)")
#: What denies, and what says the opposite in its place.
_DENIES = (
    (re.compile(r"\b(?:there is|there are) no\b", re.IGNORECASE), "There is"),
    (re.compile(r"\b(?:no evidence of|no sign of|negative for|free of|absence of)\s+", re.IGNORECASE), ""),
    (re.compile(r"\bcannot be\b", re.IGNORECASE), "can be"),
    (re.compile(r"\bwithout\b", re.IGNORECASE), "with"),
    (re.compile(r"\babsent\b", re.IGNORECASE), "present"),
    (re.compile(r"\b(?:no|not|never|kein\w*|nicht)\s+", re.IGNORECASE), ""),
    (re.compile(r"\bohne\b", re.IGNORECASE), "mit"),
)


class ReportTypos(Damage):
    """Two neighbouring letters of a word are swapped; of half the words of three letters or more at severity 1."""

    name, modality, entry = "report_typos", "report", "text"
    says = "words of the report are mistyped"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        return {"text": text_array(words_changed(text_of(prepared), MOST_TYPOS * self.severity, draws, _swapped))}


class ReportMisread(Damage):
    """Letters are taken for others that look alike (rn for m, l for 1), in half the words at severity 1."""

    name, modality, entry = "report_misread", "report", "text"
    says = "character recognition misreads the report"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        return {"text": text_array(words_changed(text_of(prepared), MOST_TYPOS * self.severity, draws, _misread))}


class ReportTruncated(Damage):
    """The end is cut off: 90 % of the words at severity 1, never all."""

    name, modality, entry = "report_truncated", "report", "text"
    says = "the end of the report is missing"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        text = text_of(prepared)
        ends = [word.end() for word in _ANY_WORD.finditer(text)]
        if not ends:
            return {}
        kept = max(1, len(ends) - round(MOST_CUT * self.severity * len(ends)))
        return {"text": text_array(text[: ends[kept - 1]])}


class ReportNegations(Damage):
    """A sentence says the opposite, each with the probability that is the severity: a negation goes, or comes.

    What stands under the headings of why and how a study was made states no finding, and stays.
    """

    name, modality, entry = "report_negations", "report", "text"
    says = "negations of the report are turned round"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        whole = [item for sentence in sentences(text_of(prepared)) for item in _NUMBERED.split(sentence)]
        told, aside = [], False
        for said, lot in zip(whole, draws.random(len(whole)), strict=True):
            heading = _HEADING.match(said)
            aside = aside if heading is None else heading.group(1) in _NO_FINDINGS
            told.append(denied(said) if lot < self.severity and not aside else said)
        return {} if told == whole else {"text": text_array("\n".join(told))}


def denied(sentence: str) -> str:
    """The opposite: "No pleural effusion." as "Pleural effusion.", and "Small nodule." as "No small nodule."."""
    before = _BEFORE.match(sentence)
    start = 0 if before is None else before.end()
    head, said = sentence[:start], sentence[start:]
    for cue, instead in _DENIES:
        if cue.search(said):
            turned = cue.sub(instead, said, count=1)
            return head + turned[:1].upper() + turned[1:]
    small = said[:1].lower() if said[1:2].islower() or said[1:2] == " " else said[:1]
    return f"{head}No {small}{said[1:]}" if said else sentence


def words_changed(text: str, share: float, draws: np.random.Generator, change: Callable[[str, float], str]) -> str:
    """A text of whose words of three letters or more a share is changed: those with the smallest draws below it."""
    words = list(_WORD.finditer(text))
    lots, places = draws.random(len(words)), draws.random(len(words))
    parts, end = [], 0
    for word, lot, place in zip(words, lots, places, strict=True):
        parts += [text[end : word.start()], change(word.group(), place) if lot < share else word.group()]
        end = word.end()
    return "".join([*parts, text[end:]])


def _swapped(word: str, place: float) -> str:
    """Two neighbours that differ, swapped; the word itself where all letters are one."""
    pairs = [at for at in range(len(word) - 1) if word[at] != word[at + 1]]
    if not pairs:
        return word
    at = pairs[int(place * len(pairs))]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _misread(word: str, place: float) -> str:
    """One group of letters taken for another; the word itself where it has none that is mistaken."""
    found = [(at, seen) for at in range(len(word)) for seen in CONFUSED if word.startswith(seen, at)]
    if not found:
        return word
    at, seen = found[int(place * len(found))]
    return word[:at] + CONFUSED[seen] + word[at + len(seen) :]
