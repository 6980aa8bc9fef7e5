"""A cell of a grid: one line of JSON, measured once; one that cannot be measured says why, and the others go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: What a method that does not suit the studies ends with; a wrong config is refused before anything runs.
CANNOT = (ValueError, KeyError, TypeError, RuntimeError)


def digest_of(config: Mapping[str, Any]) -> str:
    """Tells a config from another one."""
    return hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=8).hexdigest()


def kept_line(file: Path, identity: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The line of a cell: the one that is there, or a new one; a cell that failed is measured again.

    Args:
        file: of the line.
        identity: what the line begins with, `config` among it: the digest of what it was measured with.
        measure: gives the rest of the line. What it raises of `CANNOT` is written as `failed`.

    Raises:
        medssml.runs.run_folder.RunFolderError: the cell was measured with another config.
    """
    from medssml.files import write_text
    from medssml.runs.run_folder import RunFolderError

    if file.exists():
        line: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if line["config"] != identity["config"]:
            raise RunFolderError(
                f"{file} was measured with another config; fix: another --out, or the config as it was"
            )
        if "failed" not in line:
            return line
    try:
        found = dict(measure())
    except CANNOT as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        found = {"failed": " ".join(str(said).split())}
    line = {**identity, **found}
    write_text(file, json.dumps(line) + "\n")
    return line
