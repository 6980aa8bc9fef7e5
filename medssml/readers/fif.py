"""FIF recordings through MNE, whose chain of tags is verified first: a changed pointer would make MNE run in a circle.

Each tag is kind, type, size, next (four big-endian 32-bit numbers) and `size` bytes; next is 0 for "what follows", -1 for
"the last one", else a position. Format: Neuromag, Functional Image File Format, as in MNE-Python `mne/_fiff/tag.py`.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import MAX_BYTES, Flag, ReadError, human, require_file
from medssml.readers.source import Annotation, Break, Channel, Source, Timeline, placed
from medssml.readers.voltage import Unit, unit_of

if TYPE_CHECKING:
    from mne.io import BaseRaw

_FILE_ID, _BLOCK, _NEXT_NONE, _NEXT_FOLLOWS = 100, 104, -1, 0
_RAW_BLOCKS = frozenset({102, 112, 119})
_OTHER_BLOCKS = {373: "epochs", 104: "averages", 374: "an ICA", 352: "a forward solution", 355: "a covariance"}
_COPY = "copy the file again"
_VOLT, _NO_UNIT = 107, -1
_CHUNK_S = 600
_LOSSES = re.compile(
    r"omitted|outside the|limited|physical range|record number|discard|dropped|truncat|missing|not found", re.IGNORECASE
)
_SKIPPED, _JOINED = "BAD_ACQ_SKIP", ("EDGE BOUNDARY", "BAD BOUNDARY")


def fif_source(path: Path) -> Source:
    """The recording in `path`, its samples read in pieces: MNE works in float64, twice the memory of what is kept.

    Raises:
        ReadError: not FIF, truncated, a broken chain, epochs or averages, or a part that is missing.
    """
    path = require_file(path)
    check_fif(path)
    notes: list[str] = []
    with heard(notes):
        raw = _opened(path)
    folder = path.resolve().parent
    if any(file is not None and Path(file).resolve().parent != folder for file in raw.filenames):
        reason = "keeps its samples in a file outside its folder"
        raise ReadError(path, reason, "put both files into one folder", code="outside")
    rate = float(raw.info["sfreq"])

    def read(wanted: Sequence[int], first: int, last: int) -> NDArray[np.float32]:
        signal = np.empty((len(wanted), last - first), np.float32)
        scale = np.array([channels[row].unit.uv for row in wanted])[:, None]
        step = max(1, round(_CHUNK_S * rate))
        for begin in range(first, last, step):
            end = min(last, begin + step)
            piece = raw.get_data(picks=list(wanted), start=begin, stop=end, verbose="ERROR")
            signal[:, begin - first : end - first] = piece * scale
        return signal

    channels, seconds = _channels(raw, rate), float(raw.n_times / rate)
    return Source(channels, seconds, read, lambda: _timeline(raw, seconds), notes=tuple(notes))


def _opened(path: Path) -> BaseRaw:
    import mne

    try:
        return mne.io.read_raw_fif(path, preload=False, on_split_missing="raise", verbose="WARNING")
    except ValueError as error:
        text = " ".join(str(error).split())
        if part := re.search(r"next file (.+?) does not exist", text):
            name = Path(part[1].strip("'\"")).name
            raise ReadError(
                path, f"goes on in {name!r}, which is not beside it", "copy it there", code="missing"
            ) from error
        fix = "save the raw recording again (raw.save), or name another file"
        raise ReadError(path, f"holds no recording that MNE can read ({text[:160]})", fix) from error


@contextmanager
def heard(notes: list[str]) -> Iterator[None]:
    """MNE's warnings are kept from the console; those that tell of a loss become flags among `notes`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
    notes += [Flag(f"MNE says: {text[:160]}") for text in said if _LOSSES.search(text)]


def _channels(raw: BaseRaw, rate: float) -> tuple[Channel, ...]:
    bads = set(raw.info["bads"]) if set(raw.ch_names) - set(raw.info["bads"]) else set()
    channels = []
    for name, kind, info in zip(raw.ch_names, raw.get_channel_types(), raw.info["chs"], strict=True):
        code = int(info["unit"])
        unit = Unit("V", 1e6, stated=True) if code == _VOLT else Unit(f"code {code}", math.nan, stated=True)
        excluded = f"of type {kind.upper()}" if kind != "eeg" else "marked as bad in the file" if name in bads else ""
        channels.append(Channel(name, rate, unit_of("") if code == _NO_UNIT else unit, excluded=excluded))
    return tuple(channels)


def _timeline(raw: BaseRaw, seconds: float) -> Timeline:
    """Times count from the first sample that is in the file, which a crop moves; with a date or without."""
    shift = float(raw.first_time)
    said = zip(raw.annotations.onset, raw.annotations.duration, raw.annotations.description, strict=True)
    annotations = [Annotation(float(onset) - shift, float(duration), str(text)) for onset, duration, text in said]
    gaps = [(max(0.0, a.onset), min(seconds, a.onset + a.duration)) for a in annotations if a.text.upper() == _SKIPPED]
    breaks = [Break(a.onset) for a in annotations if a.text.upper() in _JOINED]
    return placed(annotations, breaks, seconds, [gap for gap in gaps if gap[0] < gap[1]])


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
    position, blocks = 0, set()
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
        if kind == _BLOCK and length == 4:
            blocks.add(int.from_bytes(file.read(4), "big", signed=True))
        if following == _NEXT_NONE:
            break
        if following != _NEXT_FOLLOWS and following < end:
            reason = f"is damaged: the tag at byte {position:,} points back to byte {following:,}"
            raise ReadError(path, reason, _COPY, code="damaged")
        position = following if following != _NEXT_FOLLOWS else end
    if not blocks & _RAW_BLOCKS and (other := [name for block, name in _OTHER_BLOCKS.items() if block in blocks]):
        fix = "save the raw recording (raw.save) before it is cut into epochs, or name its file"
        raise ReadError(path, f"holds {' and '.join(other)}, no continuous recording", fix, code="content")
