"""A study of several runs that is continued: it is the same study, or refused; and what becomes of a run that was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssml.runs.cache_place import STUDY


class StudyStopped(Exception):
    """A run of a study was stopped or refused; what is done is kept."""

    def __init__(self, run: str, code: int) -> None:
        super().__init__(f"{run} was stopped; fix: the same command continues")
        self.exit_code = code


def unless_stopped(run: str, done: Any) -> None:
    """Ends a study where one of its verbs was stopped.

    4, a training that went to its end but lost many studies, has said so and is no reason to stop.

    Args:
        run: the name of the run, for the message.
        done: what the verb returned.

    Raises:
        StudyStopped: with the verb's exit code.
    """
    if isinstance(done, int) and done not in (0, 4):
        raise StudyStopped(run, done)


def same_study(out: Path, settings: Mapping[str, Any]) -> None:
    """Writes down what a study is, or checks that the folder holds no other one: answers that are there are not asked again.

    Args:
        out: folder of the study.
        settings: whatever its numbers depend on.

    Raises:
        medssml.runs.run_folder.RunFolderError: the folder holds another study; says what differs.
    """
    import json

    from medssml.files import write_json
    from medssml.runs.run_folder import RunFolderError, differences, plain

    file = out / STUDY
    if not file.exists():
        write_json(file, settings)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    differing = [
        f"{name}: {found}"
        for name, now in plain(settings).items()
        for found in differences(before.get(name), now) or ()
    ]
    if differing:
        raise RunFolderError(
            f"{out} holds a study with other settings: {'; '.join(differing[:5])}; fix: another --out, or the same settings"
        )
