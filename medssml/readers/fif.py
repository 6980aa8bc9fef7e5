"""The chain of tags of a FIF file, verified before MNE follows it: a changed pointer would make it run in a circle.

Each tag is kind, type, size, next (four big-endian 32-bit numbers) and `size` bytes; next is 0 for "what follows", -1 for
"the last one", else a position. Format: Neuromag, Functional Image File Format, as in MNE-Python `mne/_fiff/tag.py`.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import BinaryIO, cast

from medssml.readers.errors import MAX_BYTES, ReadError, human

_FILE_ID, _NEXT_NONE, _NEXT_FOLLOWS = 100, -1, 0
_COPY = "copy the file again"


def check_fif(path: Path) -> None:
    """Refuses a chain that turns back, or a tag that does not fit into the file.

    Raises:
        ReadError: not FIF, truncated, or a broken chain.
    """
    packed = path.name.lower().endswith(".gz")
    with cast(BinaryIO, gzip.open(path) if packed else path.open("rb")) as file:
        size = _inflated_size(file, path) if packed else path.stat().st_size
        file.seek(0)
        _walk(file, size, path)


def _inflated_size(file: BinaryIO, path: Path) -> int:
    """Bytes of the inflated stream, whose checksum is verified on the way."""
    size = 0
    while piece := file.read(1 << 20):
        size += len(piece)
        if size > MAX_BYTES:
            raise ReadError(path, f"inflates to over {human(MAX_BYTES)}", "split the recording", code="too_large")
    return size


def _walk(file: BinaryIO, size: int, path: Path) -> None:
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 16:
            raise ReadError(path, f"is truncated within the tag at byte {position:,}", _COPY, code="truncated")
        kind, _, length, following = struct.unpack(">iIii", head)
        if position == 0 and kind != _FILE_ID:
            raise ReadError(path, f"is not FIF (starts with tag {kind})", "name a FIF file", code="format")
        end = position + 16 + length
        if length < 0 or end > size:
            reason = (
                f"is truncated: the tag at byte {position:,} states {length:,} bytes, {size - position - 16:,} follow"
            )
            raise ReadError(path, reason, _COPY, code="truncated")
        if following == _NEXT_NONE:
            return
        if following != _NEXT_FOLLOWS and following < end:
            reason = f"is damaged: the tag at byte {position:,} points back to byte {following:,}"
            raise ReadError(path, reason, _COPY, code="damaged")
        position = following if following != _NEXT_FOLLOWS else end
