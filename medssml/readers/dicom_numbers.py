"""Numbers and words of DICOM elements, whatever their representation; what is no number is told with its tag and its text."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.foreign_text import one_line
from medssml.readers.errors import ReadError

#: Representations in bytes of their own; the numbers of all others are text, whichever of them a writer took.
_BINARY = ("FD", "FL", "OD", "OF", "SL", "SS", "SV", "UL", "US", "UV", "US or SS")
_UNSTATED = "US or SS"
_REEXPORT = "export the file again"


def values_of(dataset: Any, tag: str) -> list[Any]:
    """The values of a tag, as numbers or as stripped text; [] where it is absent or empty.

    Text is not handed to the library: of a number that is none it names no tag, and of other odd values it warns.
    """
    from pydicom.errors import BytesLengthException

    raw = dataset.get_item(tag_of(tag))
    if raw is None:
        return []
    value, representation = raw.value, _representation(raw)
    if representation == _UNSTATED and isinstance(value, bytes):
        # whether 16 bits have a sign is for those to say who know the values
        return list(np.frombuffer(value[: len(value) // 2 * 2], "<u2" if raw.is_little_endian else ">u2").tolist())
    if representation in _BINARY or not isinstance(value, (bytes, str)):
        try:
            value = dataset[raw.tag].value
        except (ValueError, TypeError, NotImplementedError, BytesLengthException):
            return [f"{len(raw.value)} bytes"]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = value.split("\\")
    values = list(value) if isinstance(value, Iterable) else [value]
    stripped = [part.strip(" \0") if isinstance(part, str) else part for part in values]
    return [] if all(part is None or part == "" for part in stripped) else stripped


def words(dataset: Any, tag: str) -> list[str]:
    """The values of a tag as printable text in capitals, without blanks around them; [] where it is absent or empty."""
    found = ["" if part is None else one_line(str(part).strip(" \0").upper()) for part in values_of(dataset, tag)]
    return [part for part in found if part]


def numbers(dataset: Any, tag: str, count: int, path: Path) -> NDArray[np.float64] | None:
    """(count,) numbers of a tag, or None where it is absent or empty.

    Raises:
        ReadError: the tag holds another number of values, words, or values that are not finite.
    """
    parts = values_of(dataset, tag)
    if not parts:
        return None
    found = _floats(parts)
    if found is None:
        raise ReadError(path, f"{tag} holds {_quoted(parts)}, expected {count} numbers", _fix(parts))
    if len(found) != count or not np.isfinite(found).all():
        raise ReadError(path, f"{tag} holds {len(found)} values, expected {count} finite ones", _REEXPORT)
    return np.array(found, np.float64)


def every_number(dataset: Any, tag: str, path: Path) -> list[float]:
    """All numbers of a tag, [] where it is absent or empty.

    Raises:
        ReadError: words, or a value that is not finite.
    """
    parts = values_of(dataset, tag)
    found = _floats(parts)
    if found is None or not np.isfinite(found).all():
        raise ReadError(path, f"{tag} holds {_quoted(parts)}, expected finite numbers", _fix(parts))
    return found


def number(dataset: Any, tag: str, default: float, path: Path) -> float:
    """The first number of a tag, `default` where it is absent or empty.

    Raises:
        ReadError: as `every_number`.
    """
    found = every_number(dataset, tag, path)
    return found[0] if found else default


def number_if_any(dataset: Any, tag: str, default: float) -> float:
    """The first number of a tag that is not needed: `default` where there is none that can be read."""
    found = _floats(values_of(dataset, tag))
    return found[0] if found and np.isfinite(found[0]) else default


def whole(dataset: Any, tag: str, default: int, path: Path) -> int:
    """The whole number of a tag, `default` where it is absent or empty.

    Raises:
        ReadError: words, several values, or a fraction.
    """
    parts = values_of(dataset, tag)
    if not parts:
        return default
    found = _floats(parts)
    if found is None or len(found) != 1 or not float(found[0]).is_integer():
        raise ReadError(path, f"{tag} holds {_quoted(parts)}, expected a whole number", _fix(parts))
    return int(found[0])


@cache
def tag_of(name: str | int) -> Any:
    """The tag of a keyword; looked up once, as every file of a series is asked for the same ones."""
    from pydicom.tag import Tag

    return Tag(name)


def _representation(raw: Any) -> str:
    """The VR of an element, by the dictionary where the file does not state it."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if raw.VR in (None, "UN") and dictionary_has_tag(raw.tag):
        return dictionary_VR(raw.tag)
    return str(raw.VR)


def _floats(parts: list[Any]) -> list[float] | None:
    try:
        return [float(part) for part in parts]
    except (TypeError, ValueError):
        return None


def _quoted(parts: list[Any]) -> str:
    text = "\\".join(str(part) for part in parts)
    return repr(one_line(text, 48)).replace("\\\\", "\\")


def _fix(parts: list[Any]) -> str:
    comma = any(isinstance(part, str) and "," in part for part in parts)
    return "write decimals with a point, and \\ between values" if comma else _REEXPORT
