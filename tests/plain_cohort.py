"""A small cohort whose transforms are as plain as can be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from medssml.manifest.manifest import Manifest


class Bytes:
    """The bytes of a file or text as numbers; training adds noise, so that its randomness can be seen."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.prepared = 0
        self.seen: list[bytes] = []

    def spec(self) -> dict[str, float]:
        return {"scale": self.scale}

    def prepare(self, source: Path | str) -> dict[str, np.ndarray]:
        self.prepared += 1
        raw = source.encode() if isinstance(source, str) else source.read_bytes()
        if raw.startswith(b"bad"):
            raise ValueError("it says that it is bad")
        return {"values": np.frombuffer(raw[:4].ljust(4), dtype=np.uint8)}

    def __call__(self, prepared: dict[str, np.ndarray], seed: int | None = None) -> torch.Tensor:
        values = prepared["values"].astype(np.float32) * self.scale
        if seed is None:
            return torch.from_numpy(values)
        return torch.from_numpy(values + np.random.default_rng(seed).standard_normal(4, dtype=np.float32))

    def fit_training(self, prepared: Iterable[dict[str, np.ndarray]], subjects: Sequence[str] | None = None) -> None:
        self.seen = [bytes(entry["values"]) for entry in prepared]


@pytest.fixture
def plain(tmp_path: Path) -> Manifest:
    """40 studies of 20 subjects: 30 train, 4 val, 6 test; a third has xray, two thirds a report, four nothing at all."""
    rows = ["subject_id,study_id,split,xray,report_text,label_sick,source"]
    for i in range(40):
        subject = i // 2
        split = "train" if subject < 15 else "val" if subject < 17 else "test"
        xray = f"x{i}.txt" if i % 3 == 0 and i % 10 != 7 else ""
        text = f"t{i:02d}" if i % 3 and i % 10 != 7 else ""
        if xray:
            (tmp_path / xray).write_text(f"x{i:02d}")
        rows.append(
            f"s{subject},{i:03d},{split},{xray},{text},{'' if i % 4 == 0 else i % 2},{'rare' if i % 8 == 0 else 'often'}"
        )
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Manifest.read(path)


@pytest.fixture
def transforms() -> dict[str, Bytes]:
    return {"xray": Bytes(), "report": Bytes()}
