"""Finds and reads the result files of a run. Reports are made from these files and from nothing else."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssml.files import read_rows
from medssml.provenance import FILE

log = logging.getLogger(__name__)

#: Folders that hold no result files, too many to look through, or those of what a run is compared with.
NOT_HERE = {"checkpoints", "model", "mlartifacts", "cache", "figures", "scratch"}
DEPTH = 3

#: What a transfer found. Below a run it stands for all of its folder: its students have a page of their own.
TRANSFER = "transfer_gain.json"

#: What may be found, and the verb that writes it.
WRITTEN_BY = {
    "presence.json": "pretrain and finetune",
    "history.csv": "pretrain and finetune",
    "embedding_map.csv": "evaluate",
    "retrieval.json": "evaluate",
    "metrics.json": "evaluate",
    "gain.json": "demo",
    "impact.json": "impact",
    "impact.csv": "impact",
    TRANSFER: "transfer",
    "problems.csv": "check, pretrain and finetune",
    "config.yaml": "pretrain and finetune",
    FILE: "every verb that writes results",
}

Row = dict[str, str]


@dataclass(frozen=True)
class Results:
    """The result files of a run folder and of the folders below it.

    `files` maps a file's name to what each holds, by the folder that it lies in ("" = the run folder itself).
    """

    root: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Any]:
        """Folder -> content of the files called `name`."""
        return self.files.get(name, {})


def read_results(root: Path, names: Collection[str] | None = None, *, may_lack: bool = False) -> Results:
    """Everything in `root` that a report can show; a file that cannot be read is left out, with a warning.

    Args:
        root: a run folder; folders below it are looked through too.
        names: of the files to read, and then of those in `root` itself and nowhere else; all by default.
        may_lack: nothing to report is no error.

    Raises:
        ValueError: no such folder, or nothing in it to report.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; fix: give the run folder that pretrain, finetune or evaluate wrote")
    files: dict[str, dict[str, Any]] = {}
    for path in _candidates(root, 0) if names is None else [root / name for name in names if (root / name).is_file()]:
        try:
            content = _read(path)
        except (OSError, ValueError, UnicodeDecodeError, csv.Error) as error:
            log.warning("%s left out of the report: %s", path.name, error)
            continue
        name = _kind(path.name)
        if content or name == "problems.csv":  # an empty list of problems says that there are none
            folder = path.parent if name == path.name else path.with_suffix("")
            place = folder.relative_to(root).as_posix()
            files.setdefault(name, {})["" if place == "." else place] = content
    if not files and not may_lack:
        raise ValueError(
            f"{root} holds no result file ({', '.join(WRITTEN_BY)}); fix: give the folder that a verb wrote with --out"
        )
    return Results(root, files)


def result_folders(root: Path) -> Iterator[Path]:
    """A run folder and the folders below it that may hold results, the nearest first."""
    below = [root]
    for _ in range(DEPTH + 1):
        yield from below
        entries = [entry for folder in below for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
        below = [Path(entry.path) for entry in entries if _may_hold(entry)]


def _may_hold(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".") or entry.name in NOT_HERE
    return not hidden and entry.is_dir(follow_symlinks=False)


def _kind(name: str) -> str:
    """The entry of WRITTEN_BY that a file is: problems_VERB.csv lists the problems of a verb that shares the folder."""
    return "problems.csv" if name.startswith("problems_") and name.endswith(".csv") else name


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    if depth and any(entry.name == TRANSFER for entry in entries):
        yield folder / TRANSFER
        return
    yield from (Path(entry.path) for entry in entries if _kind(entry.name) in WRITTEN_BY and entry.is_file())
    if depth < DEPTH:
        for entry in entries:
            if _may_hold(entry):
                yield from _candidates(Path(entry.path), depth + 1)


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".yaml":
        import yaml

        try:
            return yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"no YAML: {error}") from error
    return read_rows(path)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """`value` as a finite number: itself, the text of one, or the "estimate" of an interval; None where it is none."""
    if isinstance(value, dict):
        value = value.get("estimate")
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """The entries of `values` that are numbers."""
    found = {name: number(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; None where it is not known."""

    value: float
    low: float | None = None
    high: float | None = None


def estimate(value: Any) -> Estimate | None:
    """The interval that a result file holds, or None where it has no estimate."""
    found = number(value)
    if found is None:
        return None
    ends = _mapping(value)
    return Estimate(found, number(ends.get("ci_low")), number(ends.get("ci_high")))


def series(history: list[Row], column: str) -> tuple[list[float], list[float]]:
    """Steps and values of one column of a history.csv, without its gaps."""
    pairs = [(number(row.get("step")), number(row.get(column))) for row in history]
    known = [(step, value) for step, value in pairs if step is not None and value is not None]
    return [step for step, _ in known], [value for _, value in known]
