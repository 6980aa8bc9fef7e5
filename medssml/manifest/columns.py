"""Names of the study table's columns: which are known, and which are one slip of the finger away from a known one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from medssml.manifest.refusal import ManifestError, refuse
from medssml.manifest.row_rules import INLINE_VALUE
from medssml.manifest.saved_text import plain_name
from medssml.manifest.stated_header import given_columns

REQUIRED = ("subject_id", "study_id")
MODALITIES = ("ct", "xray", "eeg", "report", "table")
#: Real words that are one edit away from a known column.
_WORDS = frozenset({"ecg", "ekg", "reports"})


def modality_columns(table: pd.DataFrame, declared: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the modalities: ct, xray, eeg, report, table first, then others as declared."""
    if declared is not None:
        return in_order(declared)
    return tuple(m for m in MODALITIES if m in table or inline_columns(m, table.columns))


def inline_columns(modality: str, columns: Iterable[str]) -> list[str]:
    """The columns that hold a modality itself and not the name of its file: report_text, or table_<feature>."""
    prefix = {"report": "report_text", "table": INLINE_VALUE}.get(modality)
    return [c for c in columns if c == prefix or (prefix == INLINE_VALUE and c.startswith(prefix))]


def check_columns(path: Path, columns: list[str], declared: Sequence[str] | None) -> None:
    """Refuses a table without ids, with a column twice, or with a near miss.

    Raises:
        ManifestError: naming the column and what it should be.
    """
    for name in REQUIRED:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"rename the column {near[0]!r}" if near else "add it"
            raise refuse(path, 1, name, f"the table has no such column; fix: {hint}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise refuse(path, 1, twice[0], "the table has this column twice; fix: remove or rename one")
    modalities = (*MODALITIES, *(declared or ()))
    known = {*REQUIRED, *modalities, *given_columns(modalities), "split", "report_text"}
    problems: list[tuple[int | None, str | None, str]] = []
    for name in columns:
        miss = None if name in known or name.lower() in _WORDS - {*known} else near_miss(name, known)
        if miss is not None:
            problems.append((1, name, f"unknown column; did you mean {miss!r}? fix: rename it"))
    if problems:
        raise ManifestError(path, problems)


def known_names(path: Path, columns: Sequence[str], notes: list[str]) -> list[str]:
    """The names of the columns, those that are known but for capitals and blanks as they are documented.

    Raises:
        ManifestError: two columns that are one but for capitals and blanks.
    """
    known = {*REQUIRED, *MODALITIES, *given_columns(MODALITIES), "split", "report_text"}
    names = [_known_name(name, known) for name in columns]
    read = [(old, new) for old, new in zip(columns, names, strict=True) if old != new]
    for old, new in read:
        if names.count(new) > 1:
            others = ", ".join(repr(name) for name, same in zip(columns, names, strict=True) if same == new)
            raise refuse(path, 1, old, f"{others} are the one column {new!r}; fix: remove or rename one")
    if read:
        notes.append("columns read by their known names: " + ", ".join(f"{old!r} as {new}" for old, new in read))
    return names


def _known_name(name: str, known: Iterable[str]) -> str:
    plain = plain_name(name)
    if plain in known:
        return plain
    for prefix in ("label_", "group_", INLINE_VALUE):
        if plain.startswith(prefix) and len(plain) > len(prefix) and not name.startswith(prefix):
            return prefix + re.sub(r"\s+", "_", name.strip()[len(prefix) :])
    return name


def near_miss(name: str, known: Iterable[str]) -> str | None:
    """The known column, or prefix `label_` / `group_`, that `name` is one edit away from; None if there is none."""
    for prefix in ("label_", "group_", INLINE_VALUE):
        if name.startswith(prefix):
            return None
        head, mark, rest = name.partition("_")
        if mark and rest and one_edit(head.lower(), prefix[:-1]):
            return prefix + rest
    return next((right for right in sorted(known) if one_edit(name.lower(), right)), None)


def one_edit(text: str, word: str) -> bool:
    """Whether `text` is `word`, but for one letter too much, too few, wrong, or two neighbours swapped.

    Two-letter words are only matched with a letter more or swapped letters: `wt` and `pt` are no misspelt `ct`.
    """
    if text == word:
        return True
    if abs(len(text) - len(word)) > 1:
        return False
    if len(text) == len(word):
        differ = [i for i, (a, b) in enumerate(zip(text, word, strict=True)) if a != b]
        swapped = (
            len(differ) == 2
            and differ[1] == differ[0] + 1
            and text[differ[0]] == word[differ[1]]
            and text[differ[1]] == word[differ[0]]
        )
        return swapped or (len(differ) == 1 and len(word) > 2)
    shorter, longer = sorted((text, word), key=len)
    if len(shorter) < 2:
        return False
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))


def in_order(modalities: Iterable[str]) -> tuple[str, ...]:
    """Modalities in the order in which they are always named: ct, xray, eeg, report, table, then others as they come."""
    names = list(modalities)
    return tuple(m for m in MODALITIES if m in names) + tuple(m for m in names if m not in MODALITIES)
