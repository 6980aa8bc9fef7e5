"""What lies where a missing file should: the same name to the eye, in other letters, under other slashes or in another folder."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

_SHOWN = 2


def near_name(path: str | Path) -> str:
    """What is there in the place of `path`, which is not, and in what it differs; "" where nothing is.

    One look into each folder on the way. Names are quoted, so that lists without file names can leave them out.
    """
    folder, missing = _there(Path(path))
    if not missing:
        return ""
    parts = [part for name in missing for part in name.split("\\") if part]
    found = _walked(folder, parts) or _moved(folder, parts)
    if found is None:
        inner = len(missing) > 1 and not (folder / missing[0]).is_dir()
        return f"there is no folder {missing[0]!r}" if inner else ""
    return _told(found, folder, missing, parts)


def _there(path: Path) -> tuple[Path, list[str]]:
    """The nearest folder above that is there, and the names below it that are not."""
    missing: list[str] = []
    while not path.is_dir() and path != path.parent:
        missing.insert(0, path.name)
        path = path.parent
    return path, missing


def _walked(folder: Path, parts: list[str]) -> Path | None:
    """The path below `folder` whose names are these but for letters; the last one may have another ending, or none."""
    for place, part in enumerate(parts):
        if part in (".", ".."):
            return None
        names = _names(os.fspath(folder), _changed(folder))
        stem = f"{_key(part.split('.')[0])}.*" if place == len(parts) - 1 else ""
        name = names.get(_key(part)) or names.get(stem)
        if name is None:
            return None
        folder = folder / name
    return folder


def _moved(folder: Path, parts: list[str]) -> Path | None:
    """The path without its first folders: those of another machine, or of the archive."""
    for place in range(1, len(parts)):
        found = folder.joinpath(*parts[place:])
        if found.exists():
            return found
    return None


def _told(found: Path, folder: Path, missing: list[str], parts: list[str]) -> str:
    """In what the name that is there differs from the one that was asked for."""
    shown = "/".join(found.parts[-_SHOWN:])
    names = found.relative_to(folder).parts
    if len(parts) > len(missing):
        return f"backslashes: {shown!r} is there"
    if len(names) < len(parts):
        return f"{shown!r} is there: the first folders of the path are not"
    asked, there = "/".join(parts), "/".join(names)
    for form in ("NFC", "NFD"):
        if unicodedata.normalize(form, asked) == there:
            writer = ", as macOS writes it" if form == "NFD" else ""
            return f"the name on disk is in another Unicode form ({form}{writer}): {shown!r} is there"
    if unquote(asked) == there:
        code = "%20 stands for a blank" if "%20" in asked else "% and two digits stand for another sign"
        return f"{code}: {shown!r} is there"
    if asked.casefold() == there.casefold():
        return f"{shown!r} differs in capitals"
    return f"{shown!r} is there"


def _key(name: str) -> str:
    """What is the same of names that look the same."""
    return unicodedata.normalize("NFKC", unquote(name)).casefold().strip()


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _names(folder: str, changed: int) -> dict[str, str]:
    """What the names of a folder are the same of -> the name; and `stem.*` of those whose stem is there once."""
    try:
        listed = sorted(os.listdir(folder))
    except OSError:
        return {}
    found: dict[str, str] = {}
    stems: dict[str, list[str]] = {}
    for name in listed:
        found.setdefault(_key(name), name)
        stems.setdefault(_key(name.split(".")[0]), []).append(name)
    return found | {f"{stem}.*": names[0] for stem, names in stems.items() if len(names) == 1}
