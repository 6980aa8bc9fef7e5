"""Writers of EEG files by their specifications, independent of the readers: GDF 1.25 and 2.20, BrainVision."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

LABELS = ("Fp1", "Cz", "T3")
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
    dtype = {"INT_16": "<i2", "INT_32": "<i4", "IEEE_FLOAT_32": "<f4"}[kind]
    values = signal / resolution
    stored = (np.rint(values) if kind != "IEEE_FLOAT_32" else values).astype(dtype)
    path.with_suffix(".eeg").write_bytes((stored if vectorized else stored.T).tobytes())
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
    common |= {key: value for key, value in changes.items() if key in common or key == "DataPoints"}
    channels = "\n".join(f"Ch{i}={label},,{resolution},{unit}" for i, label in enumerate(labels, start=1))
    lines = "\n".join(f"{key}={value}" for key, value in common.items())
    path.write_text(
        f"Brain Vision Data Exchange Header File Version 1.0\n; a comment\n\n[Common Infos]\n{lines}\n\n"
        f"[Binary Infos]\nBinaryFormat={changes.get('BinaryFormat', kind)}\n\n[Channel Infos]\n{channels}\n\n"
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
