"""medssml cache: what lies in a cache of prepared studies, whether it is whole, and how to make room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medssml.runs import console

if TYPE_CHECKING:
    from medssml.store.cache_folder import Item

_DAY_S = 86_400.0


class CacheError(ValueError):
    """No cache, or one of which nothing is to be removed yet."""

    exit_code = 2


def cache(
    action: Literal["ls", "verify", "clear"],
    *,
    cache: Path | None = None,
    transform: str | None = None,
    older_than_days: float | None = None,
    damaged: bool = False,
    yes: bool = False,
) -> dict[str, Any]:
    """Lists, verifies or clears a cache of prepared studies. Safe while others read and fill it.

    A cache needs no care: what is damaged or was removed is made again when it is asked for. Entries of settings that
    nobody uses any more take room until they are cleared.

    Args:
        action: ls (entries and sizes by modality and settings), verify (reads every entry), clear (removes entries).
        cache: folder of prepared studies; by default what MEDSSML_CACHE says, or runs/cache.
        transform: only entries of this transform, such as CTTransform.
        older_than_days: only entries written longer ago.
        damaged: clear only what verify finds damaged.
        yes: remove without asking; clear does nothing without it.

    Returns:
        entries, bytes, and groups (ls), damaged (verify), or removed (clear); exit_code 3 where verify finds damage.

    Raises:
        CacheError: no such folder, or clear without yes.
    """
    from medssml.runs.cache_place import RUNS, cache_place
    from medssml.store import cache_folder

    folder = cache_place(cache, RUNS / "any")
    if not folder.is_dir():
        raise CacheError(f"{folder}: no such cache; fix: name the folder with --cache, or fill it with medssml prepare")
    latest = None if older_than_days is None else time.time() - older_than_days * _DAY_S
    found = [
        item
        for item in cache_folder.items(folder)
        if (transform is None or item.transform == transform) and (latest is None or item.modified < latest)
    ]
    if action == "ls":
        return _list(found)
    if action == "verify":
        return _verify(found, folder)
    return _clear(_damaged(found) if damaged else found, folder, yes)


def _list(found: Sequence[Item]) -> dict[str, Any]:
    from medssml.store.cache_folder import groups

    listed = groups(found)
    now = time.time()
    console.table(
        [
            (
                group.modality or "(unknown)",
                group.transform,
                group.settings,
                group.entries,
                size(group.nbytes),
                f"{(now - group.newest) / _DAY_S:.1f} days ago",
            )
            for group in listed
        ],
        ("modality", "transform", "settings", "entries", "size", "newest"),
    )
    console.say(f"{len(found):,} entries, {size(_bytes(found))}")
    return {"entries": len(found), "bytes": _bytes(found), "groups": [group._asdict() for group in listed]}


def _verify(found: Sequence[Item], folder: Path) -> dict[str, Any]:
    from medssml.store.cache_folder import damaged, leftovers

    bad = [(item.path, reason) for item, reason in damaged(found, _progress(len(found)))]
    for path, reason in bad:
        console.warn(
            f"{path}: {reason}; fix: nothing, it is made again when asked for; medssml cache clear --damaged removes it"
        )
    left = leftovers(folder)
    if left:
        console.say(f"{len(left):,} unfinished files of killed processes; fix: medssml cache clear removes them too")
    console.say(f"{len(found):,} entries, {size(_bytes(found))}: {len(bad):,} damaged")
    result = {
        "entries": len(found),
        "bytes": _bytes(found),
        "damaged": [{"file": str(path.relative_to(folder)), "problem": reason} for path, reason in bad],
        "unfinished": len(left),
    }
    return {**result, "exit_code": 3} if bad else result


def _damaged(found: Sequence[Item]) -> list[Item]:
    from medssml.store.cache_folder import damaged

    return [item for item, _ in damaged(found, _progress(len(found)))]


def _clear(found: Sequence[Item], folder: Path, yes: bool) -> dict[str, Any]:
    from medssml.store.cache_folder import leftovers, remove

    what = f"{len(found):,} entries, {size(_bytes(found))}"
    if not yes:
        raise CacheError(f"{folder}: clear would remove {what}; fix: the same command with --yes removes them")
    remove([*(item.path for item in found), *leftovers(folder)])
    console.say(f"removed {what}")
    return {"removed": len(found), "bytes": _bytes(found)}


def _progress(total: int) -> Any:
    from medssml.runs.progress import Progress

    told = Progress("entries")
    return lambda done: told(done, total)


def _bytes(found: Sequence[Item]) -> int:
    return sum(item.nbytes for item in found)


def size(nbytes: float) -> str:
    """A number of bytes as a person says it."""
    from medssml.readers.errors import human

    return human(nbytes)
