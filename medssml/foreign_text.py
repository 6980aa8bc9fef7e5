"""What cells, files and libraries say, made fit for a line of ours: no control of the terminal, no second line, no address.

Warnings and log lines of libraries are collected where a file is read, so that they can be told with the file's name.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any

#: Controls of a terminal, marks that turn the direction of writing, and bytes of file names that are no text.
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *(set(range(32)) - {9, 10}),
        *range(127, 160),
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        *range(0xDC80, 0xDD00),
    )
}
#: "<_io.BytesIO object at 0x7f...>" differs from run to run, and tells a person nothing.
_OBJECT = re.compile(r"<([\w.]*?)(\w+)(?: object)? at 0x[0-9a-fA-F]+>")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_LIBRARIES = (
    "pydicom", "nibabel", "nibabel.global", "mne", "PIL", "monai", "ignite", "torch", "lightning", "lightning.pytorch",
    "lightning.fabric", "mlflow", "alembic",
)  # fmt: skip
#: Lines of one file, and of all files of an import, that are kept: some libraries warn of every element.
_MOST, _MOST_OF_ALL = 8, 1000
_DATED = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)

_heard: ContextVar[Heard | None] = ContextVar("heard", default=None)


def printable(text: str) -> str:
    """`text` with every control character but tab and line end spelled out: an escape sequence becomes text."""
    return text.translate(_CONTROLS)


def one_line(text: str, most: int = 400) -> str:
    """`text` on one line of at most `most` characters, printable, and without the addresses of objects."""
    line = _ADDRESS.sub("", _OBJECT.sub(r"\2", " ".join(text.split())))
    return printable(line if len(line) <= most else f"{line[:most]} ...")


class Heard(list[str]):
    """Lines of libraries, each once. name_files: with the file that was read before each."""

    def __init__(self, name_files: bool) -> None:
        super().__init__()
        self.name_files, self.file = name_files, ""

    def keep(self, library: str, text: str) -> None:
        """Adds a line, unless it is there, or there are enough."""
        line = f"{self.file}: {library}: {text}" if self.name_files and self.file else f"{library}: {text}"
        if line not in self and len(self) < (_MOST_OF_ALL if self.name_files else _MOST):
            self.append(line)


@contextmanager
def collecting(file: str = "", *, name_files: bool = False) -> Iterator[Heard]:
    """Inside, warnings and log lines of libraries go into the list, "pydicom: ..." each once, and not to the console.

    Within another such block the list is that of the outer one: who asked first tells.

    Args:
        file: what is read inside.
        name_files: put the names of the files that blocks within this one give before their lines.
    """
    outer = _heard.get()
    if outer is not None:
        before, outer.file = outer.file, file or outer.file
        try:
            yield outer
        finally:
            outer.file = before
        return
    lines = Heard(name_files)
    token = _heard.set(lines)
    try:
        with _listening(lines.keep):
            yield lines
    finally:
        _heard.reset(token)


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Inside, what libraries warn of or log goes to `handler`, each line once, and not to the console.

    Not with `--verbose`, where the console has it as well.
    """
    known: set[str] = set()

    def tell(library: str, text: str) -> None:
        if (line := f"{library}: {text}") not in known:
            known.add(line)
            handler.handle(logging.LogRecord(library, logging.WARNING, "", 0, text, None, None))

    with _listening(tell, alone=logging.getLogger().level > logging.INFO):
        yield


@contextmanager
def _listening(tell: Callable[[str, str], None], *, alone: bool = True) -> Iterator[None]:
    """Inside, tell(library, line) is called for each warning and log line; `alone`: nobody else gets it."""
    ear = _Ear(tell)
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    known = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    try:
        with warnings.catch_warnings():
            if alone:
                warnings.simplefilter("always")
            warnings.showwarning = ear.warned if alone else _both(ear.warned, warnings.showwarning)
            for logger, handlers, propagate in known:
                logger.handlers, logger.propagate = [ear] if alone else [*handlers, ear], propagate and not alone
            yield
    finally:
        for logger, handlers, propagate in known:
            logger.handlers, logger.propagate = handlers, propagate


def _both(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., None]:
    def call(*said: Any, **more: Any) -> None:
        first(*said, **more)
        second(*said, **more)

    return call


class LogLine(logging.Formatter):
    """One printable line of a log record: ours as it is, a library's under its name; a traceback only where it is asked for."""

    def __init__(self, pattern: str = "%(message)s", *, traceback: bool = False) -> None:
        super().__init__(pattern)
        self.traceback = traceback

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if self.traceback:
            return printable(super().format(record))
        library = record.name.split(".")[0]
        message = record.getMessage()
        text = printable(message) if library == "medssml" else f"{library}: {one_line(message)}"
        plain = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, text, None, None)
        plain.created, plain.msecs = record.created, record.msecs
        return super().format(plain)


class _Ear(logging.Handler):
    """Hears what is logged or warned."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """A log line; the traceback that it may carry is left out."""
        self.tell(record.name.split(".")[0], one_line(record.getMessage(), 200))

    def warned(self, message: Any, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        """A warning; what is meant for programmers, or comes from numpy's arithmetic in our own code, is no news of a file."""
        parts = PurePath(filename).parts
        library = parts[parts.index("site-packages") + 1] if "site-packages" in parts else ""
        if library and not issubclass(category, _DATED):
            self.tell(library.removesuffix(".py"), one_line(str(message), 200))
