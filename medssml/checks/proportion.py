"""Whether what is left of a table is still that table: no whole split, source, label or modality may go without a word.

A limit on rows alone never bites where a table is small, or where all of the loss is in one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medssml.checks.limits import Limits
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import Accounting, Problem

_MOST_CLASSES = 20


def losses(
    manifest: Manifest | None,
    problems: Sequence[Problem],
    accounting: Accounting,
    limits: Limits,
    source: str | None = None,
) -> list[str]:
    """What was lost that a study cannot do without, one line each with its causes; none where all is in proportion.

    Args:
        manifest: the studies; None where the table is refused as a whole.
        problems: what was found.
        accounting: where the rows went.
        limits: how many rows may be quarantined.
        source: the column that says where a study comes from.
    """
    if not accounting.rows:
        return ["the table has no row"]
    causes = _causes(problems)
    lost = accounting.quarantined
    if lost and not accounting.accepted:
        return [f"no study is left: {lost:,} of {accounting.rows:,} are quarantined ({_told(causes.values())})"]
    found = []
    if excess := limits.quarantine.excess(lost, accounting.rows):
        found.append(f"{excess} ({_told(causes.values())})")
    if manifest is not None:
        gone = np.array([row in causes for row in manifest.table.index], dtype=bool)
        if not manifest.present.any():
            found.append("no study has a file, a text or a value of any modality")
        for name, members in _groups(manifest, source):
            if members.any() and not (members & ~gone).any():
                reasons = _told(causes[int(row)] for row in manifest.table.index[members])
                count = int(members.sum())
                found.append(f"no study {name} is left: {'the one' if count == 1 else f'all {count:,}'} ({reasons})")
    return found


def _causes(problems: Sequence[Problem]) -> dict[int, str]:
    """Row -> the code for which it is quarantined, the first of several."""
    causes: dict[int, str] = {}
    for problem in problems:
        if problem.action == "quarantined":
            causes.setdefault(problem.row, f"{problem.column} {problem.code}".strip())
    return causes


def _told(causes: Iterable[str]) -> str:
    counts = Counter(causes)
    return ", ".join(f"{cause} {count:,}" for cause, count in counts.most_common(5))


def _groups(manifest: Manifest, source: str | None) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(what a study is, (rows,) which are it) for every split, source, modality, label and class."""
    for split in dict.fromkeys(manifest.splits):
        yield f"of split {split}", manifest.splits == split
    if source is not None:
        sources = manifest.table[source].to_numpy(dtype=object)
        for name in dict.fromkeys(sources):
            yield f"of {source} {name or '(empty)'}", sources == name
    for column, modality in enumerate(manifest.modalities):
        yield f"with {modality}", manifest.present[:, column]
    for task, values in manifest.targets.items():
        known = ~np.isnan(values)
        classes = np.unique(values[known])
        yield f"with a label {task}", known
        if manifest.tasks[task].kind != "regression" and len(classes) <= _MOST_CLASSES:
            for value in classes:
                yield f"with {task} {value:g}", values == value
