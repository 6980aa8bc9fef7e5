"""The structure of a MATLAB 5 file (an EEGLAB .set), verified before it is decoded.

SciPy's decoder trusts the sizes that a file states: one changed byte can end the interpreter instead of raising. Here
every element must lie inside its parent and hold as many values as its dimensions say.
Format: MathWorks, MAT-File Format, chapter 1 (version 5).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from medssml.readers.errors import MAX_BYTES, ReadError, human

_ITEM_SIZE = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 5, 6, 14, 15, 16
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x800
_MAX_DEPTH = 16
_SAVE = "open it in EEGLAB and save it again (as -v6 or -v7)"


class _Element(NamedTuple):
    kind: int
    start: int
    end: int
    following: int


class _Broken(ValueError):
    """The structure contradicts itself; the message says where."""


def check_mat5(path: Path) -> None:
    """Refuses a file whose structure is not that of MATLAB 5, with the position of the first contradiction.

    Raises:
        ReadError: MATLAB 7.3 (HDF5), another format, truncated, or inconsistent.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ReadError(path, f"has {human(size)}, limit {human(MAX_BYTES)}", "split the recording", code="too_large")
    data = path.read_bytes()
    if data[:4] == b"\x89HDF" or data[:10] == b"MATLAB 7.3":
        raise ReadError(path, "is MATLAB 7.3 (HDF5), expected MATLAB 5", _SAVE, code="format")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ReadError(path, "is not MATLAB 5 (no byte-order mark at byte 126)", "name an EEGLAB .set", code="format")
    try:
        _walk_file(memoryview(data), order)
    except _Broken as error:
        raise ReadError(path, f"has a broken structure: {error}", "copy the file again", code="damaged") from error


def _walk_file(data: memoryview, order: str) -> None:
    position = 128
    while position < len(data):
        element = _element(data, position, len(data), order)
        if element.kind == _COMPRESSED:
            inner = _inflate(data[element.start : element.end], position)
            _walk_matrix(inner, _element(inner, 0, len(inner), order), order, 0)
        else:
            _walk_matrix(data, element, order, 0)
        position = element.following


def _inflate(packed: memoryview, position: int) -> memoryview:
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(packed, min(MAX_BYTES, 256 * len(packed) + (1 << 20)))
    except zlib.error as error:
        raise _Broken(f"the variable at byte {position:,} cannot be inflated ({error})") from error
    if not decoder.eof:
        raise _Broken(f"the variable at byte {position:,} is truncated, or inflates to over {human(len(data))}")
    return memoryview(data)


def _element(data: memoryview, position: int, end: int, order: str) -> _Element:
    """The element at `position`, which must end before `end`."""
    if position + 8 > end:
        raise _Broken(f"ends within the tag at byte {position:,}")
    first, second = struct.unpack_from(f"{order}II", data, position)
    if first >> 16:
        kind, size, start = first & 0xFFFF, first >> 16, position + 4
        if size > 4:
            raise _Broken(f"a small element of {size} bytes at byte {position:,}")
        following = position + 8
    else:
        kind, size, start = first, second, position + 8
        following = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
    if start + size > end:
        raise _Broken(f"is truncated: the element at byte {position:,} states {size:,} bytes, {end - start:,} follow")
    return _Element(kind, start, start + size, min(following, end))


def _walk_matrix(data: memoryview, matrix: _Element, order: str, depth: int) -> int:
    """Verifies one array and all in it; returns where the next element starts."""
    if matrix.kind != _MATRIX or depth > _MAX_DEPTH:
        raise _Broken(f"no array where one is due, at byte {matrix.start:,}")
    if matrix.start == matrix.end:
        return matrix.following
    end = matrix.end
    flags = _expect(data, matrix.start, end, order, _UINT32, 8)
    dims = _expect(data, flags.following, end, order, _INT32)
    name = _expect(data, dims.following, end, order, _INT8)
    sizes = [size for (size,) in struct.iter_unpack(f"{order}i", data[dims.start : dims.end])]
    if not 2 <= len(sizes) <= 8 or min(sizes) < 0:
        raise _Broken(f"dimensions {sizes[:8]} at byte {dims.start:,}")
    count = 1
    for size in sizes:
        count *= size
    (word,) = struct.unpack_from(f"{order}I", data, flags.start)
    _walk_content(data, name.following, end, order, depth, word, count)
    return matrix.following


def _walk_content(data: memoryview, at: int, end: int, order: str, depth: int, flags: int, count: int) -> None:
    kind = flags & 0xFF
    if kind in (_CELL, _STRUCT):
        if kind == _STRUCT:
            length = _expect(data, at, end, order, _INT32, 4)
            names = _expect(data, length.following, end, order, _INT8)
            (width,) = struct.unpack_from(f"{order}i", data, length.start)
            if width < 1 or (names.end - names.start) % width:
                raise _Broken(f"field names of {width} characters at byte {names.start:,}")
            count *= (names.end - names.start) // width
            at = names.following
        for _ in range(count):
            at = _walk_matrix(data, _element(data, at, end, order), order, depth + 1)
    elif kind == _CHAR or kind in _NUMERIC:
        for _ in range(2 if flags & _COMPLEX and kind != _CHAR else 1):
            if at == end and count == 0:
                return
            values = _element(data, at, end, order)
            if _values(data, values, kind) != count:
                raise _Broken(f"{count:,} values stated at byte {at:,}, others found")
            at = values.following
    else:
        raise _Broken(f"an array of class {kind}, which no recording needs, at byte {at:,}")


def _values(data: memoryview, element: _Element, kind: int) -> int:
    """How many values, or characters, an element holds; -1 for a type that it cannot have."""
    width = _ITEM_SIZE.get(element.kind)
    size = element.end - element.start
    if width is None or size % width or (kind != _CHAR and element.kind >= _UTF8):
        return -1
    if element.kind != _UTF8:
        return size // width
    try:
        return len(bytes(data[element.start : element.end]).decode("utf-8"))
    except UnicodeDecodeError:
        return -1


def _expect(data: memoryview, at: int, end: int, order: str, kind: int, size: int | None = None) -> _Element:
    element = _element(data, at, end, order)
    found = element.end - element.start
    if element.kind != kind or (found % _ITEM_SIZE[kind] if size is None else found != size):
        raise _Broken(f"an element of type {element.kind} and {found} bytes at byte {at:,}")
    return element
