"""BrainVision recordings (.vhdr): what the header says of channels and bytes, markers, and where the samples lie.

Every key that changes what the bytes mean is looked at, and one that is not read is refused by its name; the other files lie
beside the header and are as long as it says. Format: Brain Products, BrainVision Core Data Format 1.0.
"""

from __future__ import annotations

import configparser
import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssml.readers.channels import reference_name
from medssml.readers.errors import Flag, ReadError, human, require_file
from medssml.readers.records import Records, Run, read_records, size_of
from medssml.readers.source import Annotation, Break, Channel, Source, Timeline, placed
from medssml.readers.voltage import UV_BY_FORMAT, unit_of

_KINDS = {"INT_16": "i2", "UINT_16": "u2", "INT_32": "i4", "IEEE_FLOAT_32": "f4", "IEEE_FLOAT_64": "f8"}
_EXPORT = "export the recording again, its three files into one folder"
_CONTINUOUS = "export the continuous recording, unsegmented, in the time domain"
_MAX_HEADER, _MAX_MARKERS = 1 << 20, 1 << 26
_MARKER = re.compile(r"(?im)^Mk\d+[ \t]*=(.*)$")
_YES = frozenset({"yes", "true", "1", "on"})


def vhdr_source(path: Path) -> Source:
    """The recording of header `path`, checked against its data file.

    Raises:
        ReadError: no BrainVision header, a missing, foreign or truncated data file, epochs, averages or spectra, or an
            unusable value. A channel that cannot be read has its `fault`.
    """
    path = require_file(path)
    config = _sections(path)
    count = _integer(config, "NumberOfChannels", path)
    interval = _number(config, "SamplingInterval", path)
    if not 1 <= count <= 4096 or not interval > 0:
        raise ReadError(path, f"declares {count} channels every {interval:g} us", _EXPORT)
    kind = _kind(config, path)
    data = _beside(path, _value(config, "DataFile", path), "data file")
    notes: list[str] = []
    samples = _samples(config, data, count, size_of(kind), path, notes)
    _refuse_epochs(config, samples, path)
    vectorized = _said(config, "DataOrientation", "MULTIPLEXED").upper() == "VECTORIZED"
    run, step = (samples, samples * size_of(kind)) if vectorized else (1, size_of(kind))
    signals = [_signal(config, i, interval, Run(i * step, run, kind, 1.0), path) for i in range(count)]
    offset = _whole(config, "DataOffset", path)
    records = Records(data, offset, 1 if vectorized else samples, count * step)
    markers = _markers(config, path, notes)

    def read(wanted: Sequence[int], first: int, last: int) -> NDArray[np.float32]:
        return read_records(records, [signals[row][1] for row in wanted], first, last)

    def timeline() -> Timeline:
        return _timeline(markers, 1e6 / interval, samples * interval / 1e6)

    channels = tuple(channel for channel, _ in signals)
    return Source(channels, samples * interval / 1e6, read, timeline, notes=tuple(notes))


def _sections(path: Path) -> configparser.ConfigParser:
    """The settings of the header; the free text below [Comment] is not parsed."""
    if path.stat().st_size > _MAX_HEADER:
        raise ReadError(
            path, f"has {human(path.stat().st_size)}, a header has a few KiB", "name the .vhdr", code="format"
        )
    text = path.read_bytes().decode("utf-8", errors="replace")
    first, _, rest = text.lstrip("\ufeff").partition("\n")
    if not re.match(r"(Brain ?Vision )?.*Data Exchange Header File", first, re.IGNORECASE) or "ision" not in first:
        raise ReadError(path, "is not a BrainVision header (wrong first line)", "name the .vhdr file", code="format")
    config = configparser.ConfigParser(interpolation=None, comment_prefixes=(";",), delimiters=("=",), strict=True)
    body = re.split(r"(?im)^\[Comment\]", rest, maxsplit=1)[0]
    try:  # NeurOne writes [Common infos]
        config.read_string(re.sub(r"(?m)^\[([^\]]+)\]", lambda match: f"[{match[1].strip().title()}]", body))
    except configparser.Error as error:
        detail = " ".join(str(error.message).split())[-100:]
        raise ReadError(path, f"has a broken header ({detail})", _EXPORT, code="damaged") from error
    return config


def _kind(config: configparser.ConfigParser, path: Path) -> str:
    """NumPy's name of a sample's type; whatever would make the bytes mean something else is refused by its key."""
    for key, expected in (("DataFormat", "BINARY"), ("DataType", "TIMEDOMAIN")):
        if (value := _said(config, key, expected).upper()) != expected:
            fix = "export the recording as binary" if key == "DataFormat" else _CONTINUOUS
            raise ReadError(path, f"has {key} {value[:24]}, expected {expected}", fix, code="format")
    orientation = _said(config, "DataOrientation", "MULTIPLEXED").upper()
    if orientation not in ("MULTIPLEXED", "VECTORIZED"):
        raise ReadError(
            path,
            f"has DataOrientation {orientation[:24]!r}, expected MULTIPLEXED or VECTORIZED",
            _EXPORT,
            code="format",
        )
    for key in ("ChannelOffset", "SegmentHeaderSize"):
        if _whole(config, key, path):
            raise ReadError(path, f"has {key} {_said(config, key)[:16]}, expected 0", _EXPORT, code="format")
    name = _said(config, "BinaryFormat").upper()
    if name not in _KINDS:
        known = ", ".join(_KINDS)
        raise ReadError(path, f"has BinaryFormat {name[:16]!r}, expected one of {known}", _EXPORT, code="format")
    return (">" if _said(config, "UseBigEndianOrder").lower() in _YES else "<") + _KINDS[name]


def _refuse_epochs(config: configparser.ConfigParser, samples: int, path: Path) -> None:
    """Pieces around markers, and means of them, are no recording."""
    kind, length = _said(config, "SegmentationType", "NOTSEGMENTED").upper(), _whole(config, "SegmentDataPoints", path)
    if _said(config, "Averaged", "NO").lower() in _YES:
        raise ReadError(path, "holds an average over segments (Averaged), no recording", _CONTINUOUS, code="content")
    if kind != "NOTSEGMENTED" and length != samples:
        many = f"{samples / length:g} segments of {length:,} samples" if length else "segments"
        raise ReadError(
            path, f"holds {many} (SegmentationType {kind[:24]}), no continuous recording", _CONTINUOUS, code="content"
        )


def _signal(
    config: configparser.ConfigParser, index: int, interval: float, run: Run, path: Path
) -> tuple[Channel, Run]:
    """The channel and where it lies; one without a scale has a fault instead, as nobody may need it."""
    text = config.get("Channel Infos", f"Ch{index + 1}", fallback=None)
    if text is None:
        declared = config.get("Common Infos", "NumberOfChannels")
        reason = f"declares {declared.strip()} channels and describes no channel {index + 1} (key Ch{index + 1})"
        raise ReadError(path, reason, _EXPORT)
    name, reference, resolution, unit = [*text.split(","), "", "", "", ""][:4]
    meant = unit_of(unit) if unit.strip() else UV_BY_FORMAT
    channel = Channel(name.replace("\\1", ",").strip(), 1e6 / interval, meant, reference=reference_name(reference))
    scale = _scale(resolution)
    if scale is None:
        return channel._replace(fault=f"has resolution {resolution.strip()[:16]!r}: no scale"), run
    if run.kind[1] == "f":
        return channel, run._replace(scale=scale * channel.unit.uv)
    ends = [count * scale * channel.unit.uv for count in (np.iinfo(run.kind).min, np.iinfo(run.kind).max)]
    return channel._replace(limits=(min(ends), max(ends))), run._replace(scale=scale * channel.unit.uv)


def _scale(text: str) -> float | None:
    """uV, or whatever the unit is, per count; 1 where nothing is said."""
    try:
        value = float(text) if text.strip() else 1.0
    except ValueError:
        return None
    return value if math.isfinite(value) and value != 0 else None


def _samples(
    config: configparser.ConfigParser, data: Path, count: int, width: int, path: Path, notes: list[str]
) -> int:
    """Samples per channel: all that the data file holds, where that is a whole number for each of the channels."""
    frame = count * width
    size = data.stat().st_size - _whole(config, "DataOffset", path) - _whole(config, "TrailerSize", path)
    samples, rest = divmod(max(0, size), frame)
    text = _said(config, "DataPoints")
    points = int(text) if text.isdecimal() else samples
    if rest or points > samples or not samples:
        share = f"{size:,} bytes of samples, {max(points, samples + bool(rest), 1) * frame:,} expected"
        reason = f"is truncated: {share} for {count} channels of {8 * width} bits"
        raise ReadError(data, reason, "copy the file again", code="truncated")
    if config.get("Channel Infos", f"Ch{count + 1}", fallback=None) is not None:
        reason = f"describes channel {count + 1} (key Ch{count + 1}) and declares {count} channels"
        raise ReadError(path, reason, "correct NumberOfChannels", code="damaged")
    if points < samples:
        notes.append(
            Flag(f"the header states {points:,} samples, {samples:,} are in the data file: all are read", "reread")
        )
    return samples


def _markers(config: configparser.ConfigParser, path: Path, notes: list[str]) -> str:
    """The text of the marker file; "" where there is none, which is noted."""
    name = _said(config, "MarkerFile")
    if not name:
        return ""
    try:
        file = _beside(path, name, "marker file")
    except ReadError as error:
        if error.code not in ("missing", "empty"):
            raise
        notes.append(Flag("its marker file is missing: no annotations, and no interruptions are known", "left_out"))
        return ""
    if file.stat().st_size > _MAX_MARKERS:
        raise ReadError(
            file, f"has {human(file.stat().st_size)}, limit {human(_MAX_MARKERS)}", _EXPORT, code="too_large"
        )
    packed = file.read_bytes()
    try:
        return packed.decode("utf-8-sig")
    except UnicodeDecodeError:
        return packed.decode("latin-1")


def _timeline(markers: str, rate: float, seconds: float) -> Timeline:
    """Every marker as an annotation; each new segment but the first is an interruption."""
    annotations, breaks = [], []
    last: tuple[float, datetime | None] = (0.0, None)
    for line in _MARKER.findall(markers):
        kind, text, position, points, _, date = [*(part.strip() for part in line.split(",")), *[""] * 6][:6]
        if not position.isdecimal():
            continue
        onset = (int(position) - 1) / rate
        annotations.append(
            Annotation(onset, int(points) / rate if points.isdecimal() else 0.0, f"{kind}/{text}".replace("\\1", ","))
        )
        if kind.lower() == "new segment":
            began = _date(date)
            lost = None if began is None or last[1] is None else (began - last[1]).total_seconds() - (onset - last[0])
            if lost is None or abs(lost) > 1 / rate:  # recording went on where no time is missing
                breaks.append(Break(onset, lost if lost is not None and lost > 0 else None))
            last = (onset, began)
    return placed(annotations, breaks, seconds)


def _date(text: str) -> datetime | None:
    """YYYYMMDDhhmmss and six digits of the second; None for what is none, such as the zeros of de-identified files."""
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S%f")  # noqa: DTZ007
    except ValueError:
        return None


def _said(config: configparser.ConfigParser, key: str, default: str = "") -> str:
    """The value of a key, in whichever section writers put it."""
    for section in ("Common Infos", "Binary Infos"):
        if value := config.get(section, key, fallback="").strip():
            return value
    return default


def _whole(config: configparser.ConfigParser, key: str, path: Path) -> int:
    """A count of bytes or samples, 0 where nothing is said."""
    text = _said(config, key, "0")
    if not text.isdecimal():
        raise ReadError(path, f"has {key} {text[:16]!r}, expected a whole number", _EXPORT)
    return int(text)


def _beside(path: Path, name: str, what: str) -> Path:
    """The file `name`, which must lie in the folder of `path`."""
    name = name.strip().replace("$b", path.stem)
    file = path.parent / name
    if "\0" in name or file.resolve().parent != path.resolve().parent:
        raise ReadError(
            path, f"names a {what} outside its folder", "put its three files into one folder", code="outside"
        )
    try:
        return require_file(file)
    except ReadError as error:
        if error.code != "missing":
            raise
        fix = "copy it there, or correct the name in the header"
        raise ReadError(path, f"names the {what} {name[:80]!r}, which is not beside it", fix, code="missing") from error


def _value(config: configparser.ConfigParser, key: str, path: Path) -> str:
    value = config.get("Common Infos", key, fallback="").strip()
    if not value:
        raise ReadError(path, f"has no {key} in [Common Infos]", _EXPORT)
    return value


def _number(config: configparser.ConfigParser, key: str, path: Path) -> float:
    text = _value(config, key, path)
    try:
        value = float(text)
    except ValueError as error:
        raise ReadError(path, f"has {key} {text[:16]!r}, expected a number", _EXPORT) from error
    if not np.isfinite(value):
        raise ReadError(path, f"has {key} {text[:16]!r}, expected a finite number", _EXPORT)
    return value


def _integer(config: configparser.ConfigParser, key: str, path: Path) -> int:
    value = _number(config, key, path)
    if not value.is_integer():
        raise ReadError(path, f"has {key} {value:g}, expected a whole number", _EXPORT)
    return int(value)
