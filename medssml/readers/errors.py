"""What a reader raises, and the guards that come before any byte is decoded."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Self

from medssml.foreign_text import collecting, one_line
from medssml.readers.near_names import near_name

MAX_BYTES = 2 * 1024**3
"""The largest array, in bytes, that a file may declare: 2 GiB. Checked before anything is allocated."""

_declared_limit: ContextVar[int] = ContextVar("declared_limit", default=MAX_BYTES)


class ReadError(ValueError):
    """A file that cannot be read, in one line: the file, the reason with the measured figure, and the fix.

    `code` is the kind of fault: missing, empty, permission, format, truncated, damaged, too_large, geometry, units,
    content (nothing usable in it), mixed (several things in one), codec, outside, unreadable.
    """

    exit_code = 3

    def __init__(
        self,
        file: str | Path,
        reason: str,
        fix: str = "replace the file or leave the cell empty",
        *,
        code: str = "unreadable",
    ) -> None:
        super().__init__(str(file), reason, fix)
        self.file = str(file)
        self.reason = reason
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}; fix: {self.fix}"


class Note(str):
    """A line about a file that was read. `code` is its kind, by which `medssml.manifest.levels` says how grave it is.

    A plain text among notes has the code "fixed": put right as the file or its standard says, so that no value could change.
    """

    code: str

    def __new__(cls, text: str, code: str = "noted") -> Self:
        """A line of the kind `code`; without one, something worth knowing that asks nothing of anybody."""
        line = super().__new__(cls, text)
        line.code = code
        return line


class Flag(Note):
    """Something that was decided by judgement, with the figures before and after, or that is odd and was left as it is."""

    def __new__(cls, text: str, code: str = "odd") -> Self:
        """A line of the kind `code`, which is to be looked at."""
        return super().__new__(cls, text, code)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Every exception of a library below becomes a `ReadError` that names `path`; what it warns of or logs is collected.

    The one broad `except` of the readers: decoders raise whatever a broken byte makes them raise.
    """
    try:
        with collecting(path.name):
            yield
    except ReadError:
        raise
    except FileNotFoundError as error:
        if path.exists():
            named = str(error.filename or str(error).removeprefix("File ").removesuffix(" not found."))
            needed = Path(named).name
            raise ReadError(
                path, f"needs {needed!r}, which is not beside it", "copy it there", code="missing"
            ) from error
        raise _missing(path) from error
    except PermissionError as error:
        raise ReadError(path, "no permission to read it", "give this user read access", code="permission") from error
    except MemoryError as error:
        raise ReadError(
            path, f"{what} does not fit in memory", "read it on a larger machine or crop it", code="too_large"
        ) from error
    except Exception as error:
        detail = one_line(str(error), 160)
        code = "truncated" if "truncated" in detail else "unreadable"
        raise ReadError(path, f"{what} cannot be decoded ({type(error).__name__}: {detail})", code=code) from error


def require_file(path: str | Path) -> Path:
    """`path`, if it is a regular file with something in it.

    Raises:
        ReadError: missing, empty, a folder, a pipe or device, or without read permission.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(path) from error
    except (OSError, ValueError) as error:
        raise ReadError(path, f"cannot be opened ({type(error).__name__})", "correct the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise ReadError(path, "is a folder, expected a file", "name the file in it", code="format")
    if not stat.S_ISREG(found.st_mode):
        raise ReadError(path, "is not a regular file", "name a regular file", code="format")
    if not os.access(path, os.R_OK):
        raise ReadError(path, "no permission to read it", "give this user read access", code="permission")
    if found.st_size == 0:
        raise ReadError(path, "is empty (0 bytes)", code="empty")
    return path


def _missing(path: Path) -> ReadError:
    """The error of a file that is not there, with the one that may be meant."""
    near = near_name(path)
    reason = f"no such file; {near}" if near else "no such file"
    return ReadError(path, reason, "correct the path or leave the cell empty", code="missing")


@contextmanager
def declaring_at_most(size: int) -> Iterator[None]:
    """Lowers `MAX_BYTES` to `size` bytes for what is read inside, in this thread."""
    token = _declared_limit.set(min(size, MAX_BYTES))
    try:
        yield
    finally:
        _declared_limit.reset(token)


def declared_bytes(path: Path, shape: Sequence[int], itemsize: int) -> int:
    """Bytes of an array of `shape`, checked against `MAX_BYTES`, or what was set in its place, before anything
    is allocated.

    Raises:
        ReadError: a dimension below 1, or more than the limit.
    """
    if any(n < 1 for n in shape):
        raise ReadError(path, f"declares an array of {' x '.join(map(str, shape))}")
    size = math.prod(int(n) for n in shape) * itemsize
    limit = _declared_limit.get()
    if size > limit:
        raise ReadError(
            path,
            f"declares {human(size)}, limit {human(limit)}",
            "check the header, or crop the data",
            code="too_large",
        )
    return size


def human(size: float) -> str:
    """`size` bytes in words: 1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
