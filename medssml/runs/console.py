"""What a verb says to the person in front of it. The library itself never prints; verbs say it through here.

With ``--json`` everything here goes to stderr, so that stdout holds the result and nothing else; with ``--quiet`` only
warnings remain.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from medssml.foreign_text import printable


@dataclass
class _Mode:
    quiet: bool = False
    json: bool = False


_mode = _Mode()


def configure(*, quiet: bool = False, json: bool = False) -> None:
    """How much is said, and where; the command line calls this once."""
    _mode.quiet, _mode.json = quiet, json


def _stream() -> TextIO:
    return sys.stderr if _mode.json else sys.stdout


def say(text: str = "") -> None:
    """One line of what is going on, or of the result."""
    if not _mode.quiet:
        print(printable(text), file=_stream(), flush=True)


def on_terminal() -> bool:
    """Whether somebody looks at what is said, so that a bar may move."""
    return _stream().isatty() and not _mode.quiet


def rich_console() -> Any:
    """A `rich` console on the stream where things are said."""
    from rich.console import Console

    return Console(file=_stream())


def warn(text: str) -> None:
    """One line that is shown with ``--quiet`` too."""
    print(f"warning: {printable(text)}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says `text` before a piece of work and its duration after it."""
    say(f"{text} ...")
    started = time.monotonic()
    yield
    say(f"{text}: done in {duration(time.monotonic() - started)}")


def stop_unless_done(done: Any) -> None:
    """Ends a script of several verbs with the exit code of one that was stopped or refused.

    4, a training that went to its end but lost many studies, has said so and is no reason to stop.
    """
    if isinstance(done, int) and done not in (0, 4):
        raise SystemExit(done)


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


def result(value: Any) -> None:
    """The value that a verb returns: JSON on stdout with ``--json``, the path of what was written otherwise."""
    if _mode.json:
        print(json.dumps(value, default=_plain, indent=2), flush=True)
    elif isinstance(value, Path):
        say(f"written: {value}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
