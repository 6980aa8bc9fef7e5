"""Files that are whole or not there: written beside the old one, flushed to the disk, then renamed.

A reader, another process or a run that is started again sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: A cell that a spreadsheet reads as a formula by its first character; quotes before it are what `neutral` adds.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@contextlib.contextmanager
def whole(path: str | Path, *, durable: bool = True, private: bool = False, one_writer: bool = False) -> Iterator[Path]:
    """A file beside `path` to write into; it takes the name `path` when the block ends, and goes when the block fails.

    Args:
        path: its folder is made where there is none.
        durable: flushed to the disk before it is renamed, so that a power cut leaves no empty file under the name. False
            for what has a checksum of its own and is made again.
        private: nobody but this user may read it.
        one_writer: only one process writes this file: the name beside it is always the same, so that killed runs leave
            one unfinished file behind and not one each.

    Raises:
        OSError: no space or no permission.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = "" if one_writer else f".{os.getpid()}.{secrets.token_hex(4)}"
    beside = path.with_name(f".{path.name}{own}.tmp")
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666))
        yield beside
        if durable:
            with beside.open("rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(beside, path)
    finally:
        # After the rename there is none. A folder that cannot be written must not hide the error before.
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # A rename is on the disk only when the folder is. Not every file system allows it (some network mounts).
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def require_ending(flag: str, path: str | Path | None, *endings: str) -> None:
    """Refuses a file whose name promises another format than what is written; None, where there is to be none, is none.

    Raises:
        ValueError: with the flag and the right endings.
    """
    if path is not None and Path(path).suffix.lower() not in endings:
        raise ValueError(
            f"{flag} {path}: what is written is {endings[0][1:]}; fix: a name that ends in {' or '.join(endings)}"
        )


def refuse_overwriting(flag: str, path: str | Path | None, *read: str | Path | None) -> None:
    """Refuses to write onto a file that is read, such as the study table, under whatever name or link.

    Args:
        flag: that names the file to be written. path: that file, or None.
        read: files that are read; None and folders are no matter.

    Raises:
        ValueError: with the flag.
    """
    if path is None or not Path(path).exists():
        return
    for given in read:
        if given is not None and Path(given).is_file() and Path(given).samefile(path):
            raise ValueError(f"{flag} {path} is read itself, and would be lost; fix: another name")


def private_folder(path: str | Path) -> Path:
    """Makes a folder that nobody but this user may look into (mode 700); one that is there stays as it is."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_bytes(path: str | Path, content: bytes, *, durable: bool = True) -> Path:
    """Writes `content` to `path`."""
    with whole(path, durable=durable) as beside:
        beside.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Writes `text` to `path` in UTF-8, its line ends as they are."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Writes `content` to `path`; a number that is not finite is null, as JSON has no other word for it."""
    return write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` as JSON holds it: numbers and arrays of numpy as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    # Arrays and numbers of numpy know how to become Python's: this file needs no numpy for it.
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def write_csv(path: str | Path, table: pd.DataFrame, *, digits: int | None = 6, private: bool = False) -> Path:
    """Writes a table to `path`: text as `neutral` has it, nothing where a number is missing.

    Args:
        path: the file.
        table: its index is not written.
        digits: significant digits of numbers; None for all.
        private: nobody but this user may read it.
    """
    told = _text_cells(table, neutral)
    with whole(path, private=private) as beside:
        told.to_csv(beside, index=False, float_format=f"%.{digits}g" if digits else None, lineterminator="\n")
    return Path(path)


def restored(table: pd.DataFrame) -> pd.DataFrame:
    """A table that pandas has read from what `write_csv` wrote, each cell as it was before `neutral`."""
    return _text_cells(table, original)


def _text_cells(table: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """`change` of every cell that may be text, and of the names of the columns."""
    changed = table.rename(columns=change)
    for name in changed.columns[[kind.kind not in "biufM" for kind in changed.dtypes]]:
        changed[name] = changed[name].map(change)
    return changed


def write_rows(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes rows of text to `path` as CSV: these columns and no other, each cell as `neutral` has it.

    A header alone where there is no row. File names that are not UTF-8 are written with backslashes.
    """
    text = csv_lines(columns, rows)
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> str:
    """The lines of `write_rows`, for a file that grows; without the header where there is one already."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow([neutral(name) for name in columns])
    writer.writerows([neutral(row.get(name, "")) for name in columns] for row in rows)
    return text.getvalue()


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows that `write_rows` or `write_csv` wrote, by their columns, each cell as it was before `neutral`."""
    with open(path, encoding="utf-8", newline="") as stream:
        lines = ([original(cell) for cell in line] for line in csv.reader(stream))
        columns = next(lines, [])
        return [dict(zip(columns, line, strict=False)) for line in lines]


def neutral(cell: Any) -> Any:
    """`cell` so that a spreadsheet shows it and does not run it: a quote before text that begins as a formula does.

    Numbers stay as they are, also those written as text ("-3.5"). `original` takes the quote away again.
    """
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def original(cell: Any) -> Any:
    """What `neutral` made `cell` of: the same without the quote before a formula."""
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _FORMULA.match(cell) else cell


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
