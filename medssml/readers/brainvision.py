"""The header of a BrainVision recording (.vhdr): its other files lie beside it and are as long as it says.

MNE reads the samples; it rounds a cut data file down to whole samples without a word, and follows whatever path the
header names. Format: Brain Products, BrainVision Core Data Format 1.0.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError, declared_bytes, human, require_file

_BYTES = {"INT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}
_UV_PER_UNIT = {"": 1.0, "uv": 1.0, "µv": 1.0, "μv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}
_MNE_VOLTS = {"": 1e-6, "V": 1.0, "mV": 1e-3, "µV": 1e-6, "uV": 1e-6, "nV": 1e-9}
_EXPORT = "export the recording again, its three files into one folder"
_MAX_HEADER = 1 << 20


class VHDR(NamedTuple):
    """labels, gains (uV per unit of MNE's values), stated (a unit of voltage): one per channel. notes: what is odd."""

    labels: tuple[str, ...]
    gains: NDArray[np.float64]
    stated: NDArray[np.bool_]
    sfreq: float
    seconds: float
    notes: tuple[str, ...]


def vhdr_header(path: str | Path) -> VHDR:
    """The header of `path`, checked against its data file.

    Raises:
        ReadError: no BrainVision header, a missing, foreign or truncated data file, or an unusable value in it.
    """
    path = require_file(path)
    config = _sections(path)
    count = _integer(config, "NumberOfChannels", path)
    interval = _number(config, "SamplingInterval", path)
    if not 1 <= count <= 4096 or not interval > 0:
        raise ReadError(path, f"declares {count} channels every {interval:g} us", _EXPORT)
    labels, gains, stated = _channels(config, count, path)
    data = _beside(path, _value(config, "DataFile", path), "data file")
    samples = _samples(config, data, count, path)
    declared_bytes(path, (count, samples), 4)
    notes: list[str] = []
    marker = config.get("Common Infos", "MarkerFile", fallback="").strip()
    if marker:
        try:
            _beside(path, marker, "marker file")
        except ReadError as error:
            if error.code not in ("missing", "empty"):
                raise
            notes.append(Flag("its marker file is missing: no annotations", "left_out"))
    return VHDR(labels, gains, stated, 1e6 / interval, samples * interval / 1e6, tuple(notes))


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
    config.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        config.read_string(re.split(r"(?im)^\[Comment\]", rest, maxsplit=1)[0])
    except configparser.Error as error:
        detail = " ".join(str(error.message).split())[-100:]
        raise ReadError(path, f"has a broken header ({detail})", _EXPORT, code="damaged") from error
    return config


def _channels(
    config: configparser.ConfigParser, count: int, path: Path
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_]]:
    labels, gains, stated = [], [], []
    for index in range(1, count + 1):
        text = config.get("Channel Infos", f"Ch{index}", fallback=None)
        if text is None:
            reason = f"declares {count} channels and describes no channel {index} (key Ch{index})"
            raise ReadError(path, reason, _EXPORT)
        name, _, resolution, unit = [*text.split(","), "", "", "", ""][:4]
        if resolution.strip() and not _is_scale(resolution):
            raise ReadError(path, f"channel {name!r} has resolution {resolution.strip()[:16]!r}: no scale", _EXPORT)
        unit = unit.strip().replace("\ufffd", "µ").removeprefix("Â")
        labels.append(name.replace("\\1", ",").strip())
        stated.append(unit.lower() in _UV_PER_UNIT)
        gains.append(_UV_PER_UNIT.get(unit.lower(), 1.0) / _MNE_VOLTS.get(unit, 1.0))
    return tuple(labels), np.array(gains), np.array(stated)


def _is_scale(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return bool(np.isfinite(value) and value != 0)


def _samples(config: configparser.ConfigParser, data: Path, count: int, path: Path) -> int:
    """Samples per channel, by the length of the data file."""
    kind = config.get("Common Infos", "DataFormat", fallback="BINARY").strip().upper()
    if kind != "BINARY":
        raise ReadError(
            path, f"has data format {kind[:16]}, expected BINARY", "export the recording as binary", code="format"
        )
    format_ = config.get("Binary Infos", "BinaryFormat", fallback="").strip().upper()
    if format_ not in _BYTES:
        known = ", ".join(_BYTES)
        raise ReadError(path, f"has BinaryFormat {format_[:16]!r}, expected one of {known}", _EXPORT, code="format")
    frame = count * _BYTES[format_]
    samples, rest = divmod(data.stat().st_size, frame)
    declared = config.get("Common Infos", "DataPoints", fallback="").strip()
    points = int(declared) if declared.isdigit() else samples
    if rest or points > samples:
        share = f"{data.stat().st_size:,} bytes, {max(points, samples + bool(rest)) * frame:,} expected"
        raise ReadError(
            data, f"is truncated: {share} for {count} channels of {format_}", "copy the file again", code="truncated"
        )
    if points < samples:
        share = f"{samples:,} samples, its header declares {points:,}"
        raise ReadError(data, f"holds {share}", "check NumberOfChannels and BinaryFormat", code="damaged")
    return samples


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
