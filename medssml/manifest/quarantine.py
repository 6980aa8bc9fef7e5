"""How many studies may be quarantined before check, prepare, training and the verbs that use a model say that it is too many."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Allowance:
    """The greater of a share of the studies, and of a few studies where those are no large part of all.

    Args:
        share: of the studies, that may be quarantined.
        rows: studies that may be quarantined where the share allows fewer.
        most: share of the studies that `rows` may amount to: of 10 studies 5 are half.
    """

    share: float = 0.01
    rows: int = 5
    most: float = 0.2

    def of(self, studies: int) -> int:
        """How many of `studies` may be quarantined."""
        return max(int(self.share * studies), min(self.rows, int(self.most * studies)))

    def excess(self, quarantined: int, studies: int) -> str | None:
        """What to say where more are quarantined than may be; None where all is within the limit."""
        allowed = self.of(studies)
        if quarantined <= allowed:
            return None
        return f"{quarantined:,} of {studies:,} studies are quarantined, the limit is {allowed:,}"
