"""One input of the fault corpus: how it is made, what must become of it, and, where it is put right, the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """make(folder) writes the input and returns it. verdict: refused, flagged, fixed,
    note (the gravest level of what is said) or accepted. says: a pattern of
    the refusal or the note. oracle(result) raises where what was read is not what should have been."""

    family: str
    name: str
    verdict: str
    make: Callable[[Path], Path]
    says: str = ""
    oracle: Callable[[Any], None] | None = None


def put(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def patch(path: Path, *changes: tuple[int, bytes]) -> Path:
    """Overwrites bytes; a negative position counts from the end."""
    data = bytearray(path.read_bytes())
    for at, value in changes:
        at = at + len(data) if at < 0 else at
        data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def cut(path: Path, keep: int | float) -> Path:
    """The first `keep` bytes, or that share of the file; negative: without as many at the end."""
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    return path


def flip(path: Path, share: float, mask: int = 0x10) -> Path:
    """One byte of a file changed, at `share` of its length."""
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= mask
    path.write_bytes(data)
    return path


def equals(expected: np.ndarray, *, of: str = "array", atol: float = 0.0) -> Callable[[Any], None]:
    """An oracle: the attribute `of` of what was read is `expected`."""

    def check(result: Any) -> None:
        np.testing.assert_allclose(getattr(result, of), expected, atol=atol, rtol=0)

    return check
