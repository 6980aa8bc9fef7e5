"""A problem as it may be kept: with codes in the place of ids and file names, and without what a file says itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from medssml.privacy import Pseudonyms

if TYPE_CHECKING:
    from medssml.manifest.problems import Problem

#: Quoted text is what a cell or a file says; a colon behind the name of an error begins what a library says of it.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_TOLD = re.compile(r"\b(\w*(?:Error|Exception|Warning)): [^)]*(\)?).*", re.DOTALL)
_LEFT_OUT = "(...)"
#: What a library says is quoted from the file as a whole.
_LIBRARY = "library"


def redacted(problems: Iterable[Problem], ids: Pseudonyms) -> list[Problem]:
    """The same problems for a file that may leave the site; unchanged where ids are not hashed.

    Row and column stay: they lead who has the table to the study and the file.
    """
    return [_redacted(problem, ids) if ids.strict else problem for problem in problems]


def _redacted(problem: Problem, ids: Pseudonyms) -> Problem:
    return replace(
        problem,
        study_id=ids.study(problem.study_id) if problem.study_id else "",
        file=ids.file(problem.file),
        problem=problem.problem.partition(":")[0]
        if problem.code == _LIBRARY
        else _without_names(problem.problem, problem),
        fix=_without_names(problem.fix, problem),
    )


def _without_names(text: str, problem: Problem) -> str:
    text = _QUOTED.sub(_LEFT_OUT, _TOLD.sub(r"\1\2", text))
    parts = [name for part in PurePath(problem.file).parts for name in (part, PurePath(part).stem, part.split(".")[0])]
    for name in sorted({problem.file, problem.study_id, *parts}, key=len, reverse=True):
        if len(name) > 2:
            text = text.replace(name, _LEFT_OUT)
    return text
