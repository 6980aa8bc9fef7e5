"""gzip files, whole and with every checksum verified: at once where that is possible, else as a stream.

Inflating is most of what reading a .nii.gz takes. libdeflate does it two to three times as fast as zlib, but needs the
length beforehand and stops after the first member; whatever it refuses is left to the stream, which says why.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import ReadError, human

try:
    import deflate
except ImportError:  # no wheel for this platform: the stream reads the same bytes
    deflate = None  # type: ignore[assignment]

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 18
_SPARE = 1 << 20
#: Header and trailer of a member.
_LEAST_MEMBER = 18

#: CRC-32 of bytes, and of what follows them: crc32(data, crc32(before)).
crc32: Callable[..., int] = zlib.crc32 if deflate is None else deflate.crc32


def inflate(path: Path, size: int, fix: str) -> NDArray[np.uint8]:
    """(size,) first bytes of a gzip file, which is read to its end so that every member's CRC is verified.

    Args:
        fix: what to do about a file that holds more than it should.

    Raises:
        ReadError: truncated, damaged, or more than 1 MiB longer than `size`.
    """
    whole = _at_once(path, size)
    if whole is not None:
        return whole
    out = np.empty(size, np.uint8)
    _drain(path, out, fix)
    return out


def inflated_length(path: Path, size: int, fix: str) -> int:
    """Bytes of a gzip stream, its CRC verified, which has at least `size` of them.

    Raises:
        ReadError: as `inflate`.
    """
    return _drain(path, np.empty(size, np.uint8), fix)


def _at_once(path: Path, size: int) -> NDArray[np.uint8] | None:
    """All bytes of a sound file of one member and exactly `size` bytes; None of any other."""
    # What cannot be compressed grows by 5 bytes in 16 KiB at most: a longer file is not read into memory.
    if deflate is None or path.stat().st_size > size + size // 1000 + CHUNK:
        return None
    packed = path.read_bytes()
    if len(packed) < _LEAST_MEMBER or int.from_bytes(packed[-4:], "little") != size:
        return None
    try:
        plain = deflate.gzip_decompress(packed, size)
    except (deflate.DeflateError, MemoryError):
        return None
    return np.frombuffer(plain, np.uint8) if len(plain) == size and _ends_here(packed, plain) else None


def _ends_here(packed: bytes, plain: bytes | bytearray) -> bool:
    """Whether the first member, which is `plain`, is the last: what ends the file are its checksum and length.

    Behind it, only a member of the same bytes would end so too: the file twice.
    """
    half = len(packed) // 2
    twice = len(packed) % 2 == 0 and packed[:half] == packed[half:]
    return not twice and crc32(plain) == int.from_bytes(packed[-8:-4], "little")


def _drain(path: Path, out: NDArray[np.uint8], fix: str) -> int:
    """Fills `out` with the first bytes of a gzip file, reads the rest for its checksum; returns the length of all."""
    view, size = out.data, out.size
    written = total = 0
    decoder = zlib.decompressobj(31)
    with path.open("rb") as file:
        pending = file.read(CHUNK)
        while pending:
            try:
                piece = decoder.decompress(pending, 1 << 20)
            except zlib.error as error:
                raise ReadError(
                    path, f"gzip stream is damaged after {human(total)} ({error})", code="damaged"
                ) from error
            kept = min(len(piece), size - written)
            view[written : written + kept] = piece[:kept]
            written += kept
            total += len(piece)
            if total > size + _SPARE:
                reason = f"gzip stream holds more than the {human(size)} its header declares"
                raise ReadError(path, reason, fix, code="damaged")
            pending, decoder = _next_input(decoder, file.read)
    if not decoder.eof or written < size:
        raise ReadError(
            path, f"gzip stream is truncated: {total:,} of {size:,} bytes", "copy the file again", code="truncated"
        )
    return total


def _next_input(decoder: Any, read: Any) -> tuple[bytes, Any]:
    """What the decoder sees next; after a member's end, a new decoder for the member that follows, if any."""
    if not decoder.eof:
        return decoder.unconsumed_tail or read(CHUNK), decoder
    rest = decoder.unused_data or read(CHUNK)
    rest = rest.lstrip(b"\0")
    return (rest, zlib.decompressobj(31)) if rest[:2] == GZIP_MAGIC else (b"", decoder)
