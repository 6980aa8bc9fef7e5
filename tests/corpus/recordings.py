"""Writers of EEG files by their specifications, independent of the readers: GDF 1.25 and 2.20, BrainVision."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

LABELS = ("Fp1", "Cz", "T3")
_AROUND = ("DataOffset", "TrailerSize")
_BINARY = ("BinaryFormat", "UseBigEndianOrder", "ChannelOffset", "SegmentHeaderSize", *_AROUND)
SFREQ = 100


def waves(channels: int = 3, seconds: float = 4, amplitude: float = 30.0) -> np.ndarray:
    """(C, T) uV: a sine per channel, no two alike."""
    t = np.arange(round(seconds * SFREQ)) / SFREQ
    return np.stack([amplitude * np.sin(2 * np.pi * (3 + 2 * c) * t + c) for c in range(channels)])


def _padded(texts: Sequence[str], width: int) -> bytes:
    return b"".join(text.encode("latin-1").ljust(width, b"\0") for text in texts)


def gdf(
    path: Path,
    signal: np.ndarray,
    labels: Sequence[str] = LABELS,
    version: str = "1.25",
    unit: str | int | None = None,
    events: Sequence[tuple[int, int, int]] = (),
    scale: float = 1.0,
) -> Path:
    """`signal` (C, T) as int16 in records of 1 s, one count per 0.01 units. events: (1-based sample, type, duration)."""
    old = float(version) < 1.9
    unit = unit if unit is not None else ("uV" if old else 4275)
    n, seconds = len(labels), signal.shape[1] // SFREQ
    counts = np.rint(signal * scale * 100).astype("<i2")
    limits = [(-327.68, 327.67, -32768, 32767)] * n
    fixed = bytearray(256)
    fixed[:8] = f"GDF {version}".encode().ljust(8)
    fixed[8:48] = b"secret-007 Secret^Name".ljust(40, b"\0")
    struct.pack_into("<q" if old else "<H", fixed, 184, 256 * (n + 1) if old else n + 1)
    struct.pack_into("<q2I", fixed, 236, seconds, 1, 1)
    struct.pack_into("<I" if old else "<H", fixed, 252, n)
    block = _padded(labels, 16) + bytes(80 * n)
    block += _padded([str(unit)] * n, 8) if old else bytes(6 * n) + struct.pack(f"<{n}H", *[unit] * n)
    for column in range(4):
        kind = "q" if old and column > 1 else "d"
        block += struct.pack(f"<{n}{kind}", *[int(row[column]) if kind == "q" else row[column] for row in limits])
    block += bytes(80 * n) + struct.pack(f"<{n}i", *[SFREQ] * n) + struct.pack(f"<{n}i", *[3] * n) + bytes(32 * n)
    data = b"".join(counts[:, s * SFREQ : (s + 1) * SFREQ].tobytes() for s in range(seconds))
    path.write_bytes(bytes(fixed) + block + data + _gdf_events(events, old))
    return path


def _gdf_events(events: Sequence[tuple[int, int, int]], old: bool) -> bytes:
    if not events:
        return b""
    positions, kinds, durations = zip(*events, strict=True)
    n = len(events)
    if old:
        head = bytes([3]) + SFREQ.to_bytes(3, "little") + struct.pack("<I", n)
    else:
        head = bytes([3]) + n.to_bytes(3, "little") + struct.pack("<f", SFREQ)
    body = struct.pack(f"<{n}I{n}H{n}H", *positions, *kinds, *[0] * n)
    return head + body + struct.pack(f"<{n}I", *durations)


def brainvision(
    path: Path,
    signal: np.ndarray,
    labels: Sequence[str] = LABELS,
    kind: str = "INT_16",
    unit: str = "µV",
    resolution: float = 0.01,
    vectorized: bool = False,
    markers: Sequence[tuple[int, str]] = ((101, "S  1"),),
    **changes: str,
) -> Path:
    """`signal` (C, T) in `unit` as .vhdr, .vmrk and .eeg beside each other. changes: keys of the header."""
    order = ">" if changes.get("UseBigEndianOrder", "NO") == "YES" else "<"
    dtype = order + {"INT_16": "i2", "INT_32": "i4", "IEEE_FLOAT_32": "f4"}[kind]
    values = signal / resolution
    stored = (np.rint(values) if kind != "IEEE_FLOAT_32" else values).astype(dtype)
    around = (bytes(int(changes.get(key, "0"))) if changes.get(key, "0").isdecimal() else b"" for key in _AROUND)
    path.with_suffix(".eeg").write_bytes((stored if vectorized else stored.T).tobytes().join(around))
    common = {
        "Codepage": "UTF-8",
        "DataFile": f"{path.stem}.eeg",
        "MarkerFile": f"{path.stem}.vmrk",
        "DataFormat": "BINARY",
        "DataOrientation": "VECTORIZED" if vectorized else "MULTIPLEXED",
        "NumberOfChannels": str(len(labels)),
        "SamplingInterval": str(1_000_000 // SFREQ),
    }
    if vectorized:
        common["DataPoints"] = str(signal.shape[1])
    binary = {"BinaryFormat": kind} | {key: value for key, value in changes.items() if key in _BINARY}
    common |= {key: value for key, value in changes.items() if key not in _BINARY}
    channels = "\n".join(f"Ch{i}={label},,{resolution},{unit}" for i, label in enumerate(labels, start=1))
    lines = "\n".join(f"{key}={value}" for key, value in common.items())
    settings = "\n".join(f"{key}={value}" for key, value in binary.items())
    path.write_text(
        f"Brain Vision Data Exchange Header File Version 1.0\n; a comment\n\n[Common Infos]\n{lines}\n\n"
        f"[Binary Infos]\n{settings}\n\n[Channel Infos]\n{channels}\n\n"
        "[Comment]\nAmplifier = 50% [x]\n",
        encoding="utf-8",
    )
    rows = "\n".join(f"Mk{i}=Stimulus,{text},{at},1,0" for i, (at, text) in enumerate(markers, start=1))
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\n"
        f"DataFile={path.stem}.eeg\n\n[Marker Infos]\n{rows}\n",
        encoding="utf-8",
    )
    return path


def edf_plus(
    path: Path,
    signals: Sequence[np.ndarray],
    labels: Sequence[str] = LABELS,
    *,
    rates: Sequence[int] = (SFREQ,) * 3,
    record_s: int = 1,
    onsets: Sequence[float] | None = None,
    events: Sequence[tuple[int, float, float, str]] = (),
    units: Sequence[str] = ("uV",) * 3,
    ranges: Sequence[tuple[float, float]] = ((-327.68, 327.67),) * 3,
    kind: str = "EDF+D",
) -> Path:
    """`signals` (T,) each at its own rate, in records of `record_s` s that begin at `onsets`, 0.01 units a count.

    events: (record, onset, duration, text). ranges: what the digital limits mean, (0, 0) for a channel without a scale.
    """
    wide = kind.startswith("BDF")
    width = [rate * record_s for rate in rates]
    count = len(signals[0]) // width[0]
    onsets = [record_s * i for i in range(count)] if onsets is None else onsets
    lists = [f"+{at:g}\x14\x14\0".encode() for at in onsets]
    for record, onset, duration, text in events:
        lists[record] += f"{onset:+g}\x15{duration:g}\x14{text}\x14\0".encode()
    size = -(-max(map(len, lists)) // 6) * 6
    plus, n = kind[3:4] == "+", len(labels)
    lows, highs = ([f"{r[end]:g}" for r in ranges] + ["-1", "1"][end:][:1] for end in (0, 1))
    columns: list[tuple[Sequence[str], int]] = [
        ([*labels, f"{kind[:3]} Annotations"], 16), ([""] * (n + 1), 80), ([*units, ""], 8), (lows, 8), (highs, 8),
        (["-32768"] * (n + 1), 8), (["32767"] * (n + 1), 8), ([""] * (n + 1), 80),
        ([str(w) for w in (*width, size // (3 if wide else 2))], 8), ([""] * (n + 1), 32),
    ]  # fmt: skip
    total = n + plus
    head = (b"\xffBIOSEMI" if wide else b"0".ljust(8)) + b"X X X X".ljust(80) + b"Startdate X X X X".ljust(80)
    for text, length in (("01.01.20", 8), ("10.00.00", 8), (256 * (total + 1), 8), (kind if plus else "", 44)):
        head += str(text).encode().ljust(length)
    head += str(count).encode().ljust(8) + str(record_s).encode().ljust(8) + str(total).encode().ljust(4)
    head += b"".join(str(cell).encode("latin-1").ljust(length) for cells, length in columns for cell in cells[:total])
    body = b""
    for record in range(count):
        for signal, per, (low, high) in zip(signals, width, ranges, strict=True):
            part = np.asarray(signal)[record * per : (record + 1) * per]
            counts = np.rint((part - low) / ((high - low) or 1) * 65535 - 32768).clip(-32768, 32767).astype("<i4")
            body += (
                np.ascontiguousarray(counts).view("u1").reshape(-1, 4)[:, :3] if wide else counts.astype("<i2")
            ).tobytes()
        body += lists[record].ljust(size, b"\0") if plus else b""
    path.write_bytes(head + body)
    return path
