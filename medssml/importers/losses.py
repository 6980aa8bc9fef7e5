"""What an import has lost, by table, file column, split, source and label; too much of it stops the import.

Left out and lost are two things: a row that repeats another, a localizer or a laboratory report is put aside (`Aside`); a row
whose file is not there is lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssml.importers.account import Account, LostError, plain
from medssml.importers.study import OFFICIAL, Study

#: Columns that say where a study comes from.
_SOURCES = ("source", "dataset", "site", "hospital", "center", "centre", "institution", "scanner")
_MOST_SOURCES = 50
_SHOWN, _CAUSES = 8, 3


@dataclass(frozen=True)
class Loss:
    """One thing that is lost. what: in words. lost, of: how many. causes: why -> how often."""

    what: str
    lost: int
    of: int
    causes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """`table train.csv: all 3 rows (3 x no such image on disk)`."""
        counted: Counter[str] = Counter()
        for reason, count in self.causes.items():
            counted[plain(reason).partition("; fix:")[0]] += count
        why = ", ".join(f"{count:,} x {reason}" for reason, count in counted.most_common(_CAUSES))
        many = f"all {self.of:,}" if self.lost == self.of else f"{self.lost:,} of {self.of:,}"
        return f"{self.what.format(many)} ({why})" if why else self.what.format(many)


def losses(found: Sequence[Study], kept: Sequence[Study], account: Account, limit: float) -> list[Loss]:
    """What is lost as a whole, or by more than the share `limit`; none where the limit is 1.

    Args:
        found: the studies that the source names. kept: those of the manifest.
    """
    if limit >= 1:
        return []
    tallies = account.tallies()
    lost = []
    for table, tally in tallies.items():
        if tally.share > limit:
            what = f"{table}: {{}} rows" if table else "{} files"
            lost.append(Loss(what, tally.lost.total(), tally.lost.total() + tally.imported, tally.lost))
    have = Counter(modality for study in kept for modality, files in study.files.items() for _ in files)
    have["report"] = sum(bool(study.report) for study in kept)
    for (table, column), causes in account.missing.items():
        missing, there = causes.total(), have[column.removesuffix("_lateral")]
        if missing > limit * (missing + there):
            named = f"{table}: {{}} files that it names" + (f" for {column}" if column else "")
            lost.append(Loss(named, missing, missing + there, causes))
    return lost + list(_groups(found, kept))


def _groups(found: Sequence[Study], kept: Sequence[Study]) -> Iterator[Loss]:
    """Splits, sources and label columns of which nothing is left."""
    yield from _gone("split {!r}: {{}} studies", found, kept, _split)
    columns = dict.fromkeys(name for study in found for name in study.columns)
    for column in (name for name in columns if name.removeprefix("group_") in _SOURCES):
        if len({study.columns.get(column) for study in found}) > min(_MOST_SOURCES, len(found) / 2):
            continue  # an address or a file of each study, no place that studies share
        yield from _gone(f"{column} {{!r}}: {{{{}}}} studies", found, kept, lambda s, c=column: s.columns.get(c, ""))  # type: ignore[misc]
    had, have = ({name for study in studies for name in _labels(study)} for studies in (found, kept))
    labelled = Counter(name for study in found for name in _labels(study))
    for name in sorted(had - have):
        yield Loss(f"{name}: {{}} labels", labelled[name], labelled[name])


def _gone(what: str, found: Iterable[Study], kept: Iterable[Study], of: Callable[[Study], str]) -> Iterator[Loss]:
    """The values of which studies were found and none is kept."""
    named, left = Counter(map(of, found)), {of(study) for study in kept}
    for value, count in named.items():
        if value and value not in left:
            yield Loss(what.format(value), count, count)


def _split(study: Study) -> str:
    """The split as the source names it; where it was settled, `official_split` keeps that."""
    name = study.columns.get("official_split") or study.split
    return OFFICIAL.get(name.strip().lower(), name)


def _labels(study: Study) -> list[str]:
    return [name for name, cell in study.columns.items() if name.startswith("label_") and cell]


def refuse_losses(lost: Sequence[Loss], root: Path, report: Path, limit: float) -> None:
    """Raises where something is lost.

    Raises:
        LostError: what is lost and why, in one line.
    """
    if not lost:
        return
    shown = "; ".join(map(str, lost[:_SHOWN]))
    more = f"; and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    share = max(1.0 if loss.lost == loss.of else loss.lost / loss.of for loss in lost)
    raise LostError(
        f"{root}: the import loses too much, no manifest is written: {shown}{more}; the limit is {limit:.0%} of a table, and "
        f"nothing as a whole; every row is in {report}; fix: put right what is said there, or accept it with "
        f"--max-lost {math.ceil(100 * share) / 100:g}"
    )
