"""One report from several drafts of it: what enough of them state, and nothing that what was shown has no bearing on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: Finding -> whether a text states it to be there; a finding that the text does not speak of is left out.
Labeller = Callable[[str], Mapping[str, bool]]


@dataclass(frozen=True)
class Drafting:
    """How a report is settled from drafts that a decoder drew: minimum Bayes risk decoding (Kumar and Byrne 2004).

    The likeliest text is a poor report: where a finding may be worded in many ways and graded in several degrees, the likeliest
    wording of all is often that of "nothing", though most of the probability lies on "something" (Eikema and Aziz 2020).
    The drafts vote on each finding instead.

    Args:
        count: drafts of each report.
        findings: a rule that reads findings from a text. None: the draft that shares most words with the others is taken.
        least: share of the drafts that must state a finding. For the highest F1 it is half of that F1 (Lipton et al. 2014),
            which validation studies tell; a half is the majority.
        margin: how far the share must lie from that of drafts to which nothing was shown. Sentences about other findings
            are left out: what is shown does not tell. 0 keeps all.

    Raises:
        ValueError: no draft, or a share that is none.
    """

    count: int = 32
    findings: Labeller | None = None
    least: float = 0.5
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"drafts is {self.count}; fix: 1 or more")
        if not (0 < self.least < 1 and 0 <= self.margin < 1):
            raise ValueError(f"least is {self.least} and margin {self.margin}; expected shares between 0 and 1")

    def settle(self, drafts: Sequence[str], blind: Sequence[str]) -> str:
        """The report.

        Args:
            drafts: of the study. blind: drafts to which nothing was shown.
        """
        if self.findings is None:
            return nearest_to_all(drafts)
        read, unseen = ([self.findings(text) for text in texts] for texts in (drafts, blind))
        names = sorted({name for one in (*read, *unseen) for name in one})
        shares, chance = _shares(read, names), _shares(unseen, names)
        told = {f for f in names if abs(shares[f] - chance[f]) >= self.margin}
        stated = {f for f in told if shares[f] > self.least}

        # The draft that agrees with the vote on most findings, the first of them.
        agree = [sum(one.get(f, False) == (f in stated) for f in told) for one in read]
        text = drafts[agree.index(max(agree))]
        return text if told == set(names) else _without(text, self.findings, set(names) - told)


def nearest_to_all(drafts: Sequence[str]) -> str:
    """The draft with the highest mean F1 of words with all drafts, the first of them."""
    bags = [Counter(re.findall(r"\w+", text.lower())) for text in drafts]
    scores = [sum(_overlap(one, other) for other in bags) for one in bags]
    return drafts[scores.index(max(scores))]


def _overlap(a: Counter[str], b: Counter[str]) -> float:
    size = a.total() + b.total()
    return 2 * (a & b).total() / size if size else 1.0


def _shares(read: Sequence[Mapping[str, bool]], names: Sequence[str]) -> dict[str, float]:
    """Finding -> share of the texts that state it; 0 of no text."""
    return {name: sum(one.get(name, False) for one in read) / max(1, len(read)) for name in names}


def _without(text: str, findings: Labeller, untold: set[str]) -> str:
    """The sentences of a text that speak of none of these findings."""
    sentences = re.findall(r"[^.!?]+[.!?]*", text)
    return "".join(sentence for sentence in sentences if not untold & set(findings(sentence))).strip()
