"""Where results come from: when, by which version, from which command and seed. The page says it on top.

A command is kept without the folders of its paths, which may name people.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medssml.files import write_json

FILE = "provenance.json"


def record(folder: Path, verb: str, seed: int | None = None) -> None:
    """Adds what a verb did to the file of its folder; what the same verb did there before is replaced."""
    path = folder / FILE
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    write_json(path, {**(known if isinstance(known, dict) else {}), verb: entry(verb, seed)})


def entry(verb: str, seed: int | None = None) -> dict[str, Any]:
    """Date (UTC), version, command and seed of what is being done now."""
    import medssml

    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": now, "version": medssml.__version__, "command": command(verb, sys.argv), "seed": seed}


def command(verb: str, argv: Sequence[str]) -> str:
    """The command line of this process, or the call in Python where it was none; of a path its last part alone."""
    program = Path(argv[0] if argv else "")
    if (program.name != "medssml" and program.parts[-2:] != ("medssml", "__main__.py")) or not argv[1:]:
        return f"medssml.{verb}(...)"
    return shlex.join(["medssml", *map(_without_folders, argv[1:])]).replace("'", "")


def _without_folders(part: str) -> str:
    name, equals, value = part.partition("=")
    if equals and not name.startswith(("/", ".", "~")):
        return f"{name}={_without_folders(value)}"
    return re.sub(r"^.*[/\\]([^/\\]+)[/\\]?$", r"…/\1", part)


def said(known: dict[str, Any]) -> list[str]:
    """Version, date, seed and command of one entry, as the page says them."""
    parts = [f"medssml {known['version']}"] if known.get("version") else []
    parts += [str(known["date"])[:16].replace("T", " ") + " UTC"] if known.get("date") else []
    parts += [f"seed {known['seed']}"] if known.get("seed") is not None else []
    return parts + ([str(known["command"])] if known.get("command") else [])
