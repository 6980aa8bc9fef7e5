"""Labels as datasets write them -> "1", "0" or "" (unlabelled)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from medssml.importers.study import Options, Study, slug
from medssml.importers.tree import Row

_TRUTH = {"true": "1", "1": "1", "1.0": "1", "yes": "1", "false": "0", "0": "0", "0.0": "0", "no": "0"}


def ternary(cell: str, options: Options) -> str:
    """A CheXpert-style label: 1, 0, -1 (uncertain) or blank (not mentioned).

    Raises:
        ValueError: anything else.
    """
    value = cell.strip()
    if not value:
        return {"empty": "", "negative": "0"}[options.unmentioned]
    number = float(value)
    if number == -1:
        return {"empty": "", "negative": "0", "positive": "1"}[options.uncertain]
    if number not in (0.0, 1.0):
        raise ValueError(f"label {cell!r} is none of 1, 0, -1 and blank")
    return str(int(number))


def add_ternary(study: Study, cells: Mapping[str, str], options: Options) -> None:
    """`label_*` of every finding; the names of uncertain ones go to `uncertain_labels`.

    Raises:
        ValueError: a cell that is none of 1, 0, -1 and blank.
    """
    findings = {slug(finding): cell for finding, cell in cells.items()}
    study.columns.update({f"label_{name}": ternary(cell, options) for name, cell in findings.items()})
    uncertain = [name for name, cell in findings.items() if cell.strip() and float(cell) == -1]
    if uncertain:
        study.columns["uncertain_labels"] = ";".join(uncertain)


def but(row: Row, *columns: str) -> dict[str, str]:
    """The cells of a row without some columns."""
    return {column: cell for column, cell in row.items() if column not in columns}


def truth(cell: str) -> str:
    """True and false in their spellings; anything else, "Censored" for one, is unlabelled."""
    return _TRUTH.get(cell.strip().lower(), "")


def add_findings(found: Iterable[tuple[Study, list[str]]], least: float = 0.0) -> list[str]:
    """`label_*` for lists of findings: 1 where a study names it, 0 where it names others. Returns the columns.

    Args:
        found: study -> its findings. least: a finding in a smaller share of the studies gets no column.
    """
    listed = [(study, {slug(finding) for finding in findings}) for study, findings in found]
    count = Counter(finding for _, findings in listed for finding in findings)
    kept = sorted(finding for finding, times in count.items() if times >= least * len(listed))
    for study, findings in listed:
        study.columns.update({f"label_{finding}": str(int(finding in findings)) for finding in kept})
    return [f"label_{finding}" for finding in kept]
