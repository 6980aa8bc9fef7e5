"""Where an import writes: beside its inputs at most, never over one of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from medssml.files import write_rows
from medssml.importers.account import Account, Line
from medssml.importers.study import Options
from medssml.manifest.columns import REQUIRED

#: What the header of a manifest that an import has written always holds.
_MANIFEST = (*REQUIRED, "source")
#: Lies in a folder that an import has filled: what is in there may be written again.
_MARK = ".medssml-import"


def beside(out: Path) -> Path:
    """import_report.csv, with the manifest's name before it where that is not manifest.csv."""
    return out.with_name("import_report.csv" if out.stem == "manifest" else f"{out.stem}_import_report.csv")


def check_outputs(root: Path, out: Path, options: Options) -> None:
    """What will be written takes nobody's place; asked before anything is read.

    Raises:
        ValueError: an output is an input, or would overwrite a file that no import has written.
    """
    inputs = [path for path in (root, options.reports) if path is not None]
    for path, header in ((out, _MANIFEST), (beside(out), Line._fields)):
        if any(_same(path, other) for other in inputs):
            raise ValueError(f"--out {out}: {path} is what is imported; fix: write to another name")
        if path.is_dir():
            raise ValueError(
                f"--out {out}: {path} is a folder; fix: name a file in it, such as {path / 'manifest.csv'}"
            )
        if path.exists() and not _has(path, header):
            raise ValueError(f"--out {out}: {path} is there, and no import has written it; fix: write to another name")
    if options.write_into is not None:
        _check_folder(root, options.write_into, inputs)


def check_apart(root: Path, out: Path, account: Account) -> None:
    """The same of the files that were read.

    Raises:
        ValueError: an output is one of them.
    """
    for path in filter(Path.exists, (out, beside(out))):
        inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root)).replace(os.sep, "/")
        if inside in account.inputs:
            raise ValueError(f"--out {out}: {path} is part of what is imported; fix: write to another name")


def own_folder(folder: Path) -> Path:
    """`folder`, made and marked as one that an import fills."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    return folder


def write_report(lines: Iterable[Line], path: Path) -> Path:
    """import_report.csv, whole or not at all."""
    return write_rows(path, Line._fields, ({**line._asdict(), "row": line.row or ""} for line in lines))


def _check_folder(root: Path, folder: Path, inputs: Iterable[Path]) -> None:
    fix = "fix: name a new or empty folder below the root"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--write-into {folder}: is a file; {fix}")
    if any(path.resolve().is_relative_to(folder.resolve()) for path in inputs):
        raise ValueError(f"--write-into {folder}: holds what is imported; {fix}")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise ValueError(f"--write-into {folder}: holds files that no import has written; {fix}")


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other) or (
        path.exists() and other.exists() and path.samefile(other)
    )


def _has(path: Path, columns: tuple[str, ...]) -> bool:
    """Whether the first line of a file names all of these columns."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        return set(columns) <= set(next(csv.reader(file), []))
