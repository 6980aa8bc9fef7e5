"""gzip at once and as a stream: the same bytes, and of the same damaged file the same refusal."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from medssml.readers import inflate as module
from medssml.readers.errors import ReadError
from medssml.readers.inflate import crc32, inflate

PLAIN = np.random.default_rng(0).integers(0, 40, 50_000).astype(np.uint8).tobytes()
PACKED = gzip.compress(PLAIN, 6, mtime=7)
EMPTY = gzip.compress(b"", mtime=7)


def outcome(path: Path, size: int) -> bytes | str:
    """The bytes, or what the refusal says."""
    try:
        return bytes(inflate(path, size, "export it again"))
    except ReadError as error:
        return str(error)


def both(monkeypatch: pytest.MonkeyPatch, path: Path, size: int) -> tuple[bytes | str, bytes | str]:
    """The outcome as it is, and that of the stream alone."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "deflate", None)
        stream = outcome(path, size)
    return outcome(path, size), stream


def test_libdeflate_is_what_reads_a_sound_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deflate", reason="no wheel for this platform")
    path = tmp_path / "a.gz"
    path.write_bytes(PACKED)

    def never(*_: object) -> int:
        raise AssertionError("the stream was used")

    monkeypatch.setattr(module, "_drain", never)
    assert outcome(path, len(PLAIN)) == PLAIN


CASES = {
    "sound": (PACKED, len(PLAIN)),
    "named": (gzip.compress(b"", mtime=1)[:3] + b"\x08" + PACKED[4:10] + b"a.nii\0" + PACKED[10:], len(PLAIN)),
    "stored, not compressed": (gzip.compress(PLAIN, 0), len(PLAIN)),
    "longer than asked for": (PACKED, len(PLAIN) - 100),
    "shorter than asked for": (PACKED, len(PLAIN) + 100),
    "two members": (gzip.compress(PLAIN[:99]) + gzip.compress(PLAIN[99:]), len(PLAIN)),
    "the same member twice": (PACKED + PACKED, len(PLAIN)),
    "another member of the same length": (PACKED + gzip.compress(PLAIN[::-1]), len(PLAIN)),
    "an empty member after it": (PACKED + EMPTY, len(PLAIN)),
    "an empty member before it": (EMPTY + PACKED, len(PLAIN)),
    "zeros after it": (PACKED + bytes(512), len(PLAIN)),
    "a bomb behind it": (PACKED + gzip.compress(bytes(4 << 20)), len(PLAIN)),
    "no gzip": (b"hello" * 100, len(PLAIN)),
    "length alone": (PACKED[:10] + PACKED[-4:], len(PLAIN)),
    "another length declared": (PACKED[:-4] + (1 << 30).to_bytes(4, "little"), len(PLAIN)),
    "another checksum": (PACKED[:-8] + bytes(4) + PACKED[-4:], len(PLAIN)),
    **{f"cut at {keep}": (PACKED[:keep], len(PLAIN)) for keep in (1, 12, 5000, len(PACKED) - 9, len(PACKED) - 1)},
}


@pytest.mark.parametrize("case", CASES)
def test_at_once_and_as_a_stream_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    packed, size = CASES[case]
    path = tmp_path / "a.gz"
    path.write_bytes(packed)
    found, stream = both(monkeypatch, path, size)
    assert found == stream
    if isinstance(found, bytes):
        assert found == PLAIN[:size]


def test_no_flipped_bit_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the ten bytes of the header, time, level and system mean nothing for the data."""
    path = tmp_path / "a.gz"
    rng = np.random.default_rng(1)
    places = [*range(4), *rng.integers(10, len(PACKED), 60), *range(len(PACKED) - 8, len(PACKED))]
    for place in places:
        body = bytearray(PACKED)
        body[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(body))
        found, stream = both(monkeypatch, path, len(PLAIN))
        assert found == stream, place
        assert isinstance(found, str) or found == PLAIN, place


def test_the_checksum_is_that_of_zlib() -> None:
    assert crc32(PLAIN[99:], crc32(PLAIN[:99])) == zlib.crc32(PLAIN)
    assert crc32(memoryview(PLAIN)) == zlib.crc32(PLAIN) and crc32(b"") == 0
