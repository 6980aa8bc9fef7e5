"""What a verb says to the person in front of it. The library itself never prints; verbs say it through here.

With ``--json`` everything here goes to stderr, so that stdout holds the result and nothing else; what of a result a verb
does not return it adds with `tell`. With ``--quiet`` nothing is said, and warnings only where the verb does not end well.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TextIO

from medssml.foreign_text import printable


@dataclass
class _Mode:
    """piped: stdout is for what was asked for. command: as it was given. facts: what verbs have told. held: warnings that
    ``--quiet`` keeps back."""

    quiet: bool = False
    json: bool = False
    piped: bool = False
    command: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)


_mode = _Mode()


def configure(*, quiet: bool = False, json: bool = False, piped: bool = False, command: Sequence[str] = ()) -> None:
    """How much is said, and where; the command line calls this once."""
    _mode.quiet, _mode.json, _mode.piped, _mode.command = quiet, json, piped, tuple(command)
    _mode.facts, _mode.held = {}, []


def _stream() -> TextIO:
    return sys.stderr if _mode.json or _mode.piped else sys.stdout


def say(text: str = "") -> None:
    """One line of what is going on, or of the result."""
    if not _mode.quiet:
        print(printable(text), file=_stream(), flush=True)


def payload(text: str) -> None:
    """A line of what was asked for, such as a config, on stdout; with ``--json`` it is in the result instead."""
    if not _mode.json:
        print(text, flush=True)


def command() -> tuple[str, ...]:
    """The verb and its flags as they were given; empty where no command line was."""
    return _mode.command


def on_terminal() -> bool:
    """Whether somebody looks at what is said, so that a bar may move."""
    return _stream().isatty() and not _mode.quiet


def rich_console() -> Any:
    """A `rich` console on the stream where things are said."""
    from rich.console import Console

    return Console(file=_stream())


def warn(text: str) -> None:
    """One line that something is not as it should be; with ``--quiet`` it is kept back until the verb fails."""
    line = f"warning: {printable(text)}"
    if _mode.quiet:
        _mode.held.append(line)
    else:
        print(line, file=sys.stderr, flush=True)


def tell(facts: Mapping[str, Any], *, anew: bool = False) -> None:
    """Adds to what ``--json`` shows. anew: in place of what others have told, such as the verbs that a verb calls."""
    if _mode.json:
        _mode.facts = dict(facts) if anew else {**_mode.facts, **facts}


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says `text` before a piece of work and its duration after it."""
    say(f"{text} ...")
    started = time.monotonic()
    yield
    say(f"{text}: done in {duration(time.monotonic() - started)}")


def duration(seconds: float) -> str:
    """`seconds` as a person says it: 3.2 s, 2 min 05 s, 1 h 04 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> None:
    """Rows under their column names, numbers to the right, three digits after the point."""
    rows = [tuple(row) for row in rows]
    texts = [[_text(value) for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in texts)) if texts else len(name) for i, name in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    for cells in [list(columns), ["-" * width for width in widths], *texts]:
        aligned = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        say("  ".join(aligned).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def result(verb: str, value: Any) -> int:
    """Ends a verb: shows what it returned, and gives its exit code.

    With ``--json`` an object on stdout: verb, exit_code, what the verb returned (a path as `written`) and what it told.
    Otherwise the path of what was written.

    Args:
        value: an exit code, a path, a dict which may have an `exit_code`, or None.
    """
    code = value.get("exit_code", 0) if isinstance(value, Mapping) else value
    code = code if isinstance(code, int) and not isinstance(code, bool) else 0
    if code != 0:
        for line in _mode.held:
            print(line, file=sys.stderr, flush=True)
    if _mode.json:
        written = {"written": str(value)} if isinstance(value, (str, Path)) else {}
        returned = dict(value) if isinstance(value, Mapping) else written
        show_json({"verb": verb, "exit_code": code, **returned, **_mode.facts})
    elif isinstance(value, Path):
        say(f"written: {value}")
    return code


def show_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    """`value` as JSON has it: a number that is none, or not finite, is null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable):
        return [_plain(inner) for inner in value]
    return str(value)
