"""What lies in a cache folder: how much, of what, whether it is whole; and how to make room.

Nothing here waits for those who use the cache: a file that somebody has mapped stays readable after it is removed, and
an entry that is no longer there is made again.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medssml.store.cache import DamagedEntry, read_entry

#: Below a cache folder, entries and nothing else have such names: a folder named by mistake loses no file.
_ENTRY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{38}\.safetensors")
_LEFTOVER = re.compile(r"[0-9a-f]{2}/\.[0-9a-f]{38}\.safetensors\.\d+\.[0-9a-f]{8}\.tmp")
#: Folders in which the processes of a preparation note what they are at.
NOTES_PREFIX = ".reading-"
#: s after which a temporary file is no longer being written.
_ABANDONED_S = 3600.0
#: Longest header of an entry that is looked at, in bytes.
_MAX_HEADER = 1 << 20


class Item(NamedTuple):
    """One entry. modified: s since 1970. modality, transform: "" where its header does not say; settings: its own."""

    path: Path
    nbytes: int
    modified: float
    modality: str = ""
    transform: str = ""
    settings: str = ""


class Group(NamedTuple):
    """Entries of one modality prepared in one way."""

    modality: str
    transform: str
    settings: str
    entries: int
    nbytes: int
    newest: float


def items(folder: Path) -> Iterator[Item]:
    """Every entry, by what its header says; it is not checked.

    Raises:
        FileNotFoundError: no such folder.
    """
    for path in _files(folder, _ENTRY):
        try:
            stat = path.stat()
            yield Item(path, stat.st_size, stat.st_mtime, *_about(path))
        except FileNotFoundError:  # removed by somebody since
            continue


def leftovers(folder: Path) -> list[Path]:
    """Temporary files, and folders of notes, that a killed process has left; nobody wrote in them for an hour."""
    notes = [path for path in folder.glob(f"{NOTES_PREFIX}*") if path.is_dir()]
    ages = [(path, min([_age(path), *map(_age, path.iterdir())])) for path in notes]
    ages += [(path, _age(path)) for path in _files(folder, _LEFTOVER)]
    return [path for path, age in ages if age > _ABANDONED_S]


def groups(found: Iterable[Item]) -> list[Group]:
    """Entries by modality and settings, in the order of their names."""
    table: dict[tuple[str, str, str], list[Item]] = {}
    for item in found:
        table.setdefault(item[3:], []).append(item)
    return [
        Group(*key, len(group), sum(i.nbytes for i in group), max(i.modified for i in group))
        for key, group in sorted(table.items())
    ]


def damaged(found: Iterable[Item], progress: Callable[[int], None] | None = None) -> Iterator[tuple[Item, str]]:
    """The entries that are not what was written, and why. Every byte is read.

    Args:
        progress: told the number of entries read after each.
    """
    for number, item in enumerate(found, 1):
        try:
            read_entry(item.path)
        except FileNotFoundError:
            pass
        except (DamagedEntry, OSError) as error:
            yield item, str(error)
        if progress is not None:
            progress(number)


def remove(paths: Iterable[Path]) -> None:
    """Removes entries and leftovers; what somebody else has removed already is no fault."""
    for path in paths:
        if path.name.startswith(NOTES_PREFIX):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _files(folder: Path, name: re.Pattern[str]) -> list[Path]:
    found = (child for part in sorted(folder.iterdir()) if part.is_dir() for child in sorted(part.iterdir()))
    return [path for path in found if name.fullmatch(f"{path.parent.name}/{path.name}")]


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _about(path: Path) -> tuple[str, str, str]:
    """modality, transform and settings as the header has them; empty texts where it is damaged or has none."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(length, _MAX_HEADER))
    try:
        about = json.loads(json.loads(header)["__metadata__"]["about"])
        return str(about["modality"]), str(about["class"]), _settings(about["settings"])
    except (ValueError, KeyError, TypeError):
        return "", "", ""


def _settings(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in sorted(settings.items()))
