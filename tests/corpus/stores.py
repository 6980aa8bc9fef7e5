"""Caches, model folders and training checkpoints: one kind of damage each, and controls."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssml.store.cache import write_entry
from tests.corpus.case import Case, cut, flip, patch, put

Maker = Callable[[Path], Path]
ARRAYS = {"hu": np.arange(24, dtype=np.int16).reshape(2, 3, 4), "mask": np.ones(5, np.float32)}


class Harmful:
    """Unpickled, it leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.folder / "CODE_RAN",)


# Cache entries: a damaged one is made again


def entry(damage: Callable[[Path], object] | None = None) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "cache" / "ab" / f"{'c' * 38}.safetensors"
        write_entry(path, ARRAYS)
        if damage is not None:
            damage(path)
        return path

    return make


def _layout(path: Path, **changes: Any) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    layout = json.loads(data[8 : 8 + length])
    layout["hu"] |= changes
    head = json.dumps(layout).encode()
    put(path, struct.pack("<Q", len(head)) + head + data[8 + length :])


CACHE: list[tuple[str, Maker]] = [
    ("empty", entry(lambda p: put(p, b""))),
    *[(f"cut at {k}", entry(lambda p, k=k: cut(p, k))) for k in (4, 8, 0.3, 0.9, -1)],
    *[(f"bit flipped at {s}", entry(lambda p, s=s: flip(p, s))) for s in (0.0, 0.1, 0.5, 0.9, 1.0)],
    ("header length", entry(lambda p: patch(p, (0, b"\xff" * 8)))),
    ("text", entry(lambda p: put(p, "nothing of the kind" * 9))),
    ("pickle", entry(lambda p: put(p, pickle.dumps(Harmful(p.parents[2]))))),
    ("another shape", entry(lambda p: _layout(p, shape=[2, 3, 5]))),
    ("another type", entry(lambda p: _layout(p, dtype="F64"))),
    ("unknown type", entry(lambda p: _layout(p, dtype="O"))),
    ("offsets outside", entry(lambda p: _layout(p, data_offsets=[0, 1 << 40]))),
    ("no metadata", entry(lambda p: put(p, struct.pack("<Q", 2) + b"{}"))),
    ("a list", entry(lambda p: put(p, struct.pack("<Q", 2) + b"[]"))),
]


# Model folders


@cache
def _model() -> Any:
    from medssml.encoders import TextEncoder, ViT
    from medssml.fusion import ConcatFusion
    from medssml.model import MultimodalModel

    torch.manual_seed(0)
    encoders = {
        "xray": ViT(input_size=(16, 16), patch_size=8, dim=8, depth=1, heads=2),
        "report": TextEncoder(vocab_size=16, dim=8, depth=1, heads=2, max_length=8),
    }
    return MultimodalModel(encoders, ConcatFusion(("xray", "report"), 8))


def model(damage: Callable[[Path], object] | None = None) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "model"
        _model().save(path)
        if damage is not None:
            damage(path)
        return path

    return make


def _config(**changes: Any) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text("utf-8"))
        put(path / "config.json", json.dumps({**config, **changes}))

    return damage


def _reworded(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: put(path / "config.json", (path / "config.json").read_text("utf-8").replace(old, new))


def _weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_file(change(load_file(path / "model.safetensors")), path / "model.safetensors")
        _config(weights_sha256=None)(path)  # as from a version that wrote none

    return damage


def _pickled(path: Path) -> None:
    (path / "model.safetensors").unlink()
    put(path / "pytorch_model.bin", pickle.dumps(Harmful(path.parent)))


WEIGHTS = "model.safetensors"
MODEL: list[tuple[str, Maker, str]] = [
    ("missing", lambda f: f / "none", "no folder"),
    ("empty folder", lambda f: f, "no model in"),
    ("a pickle file", lambda f: put(f / "model.pt", pickle.dumps(Harmful(f))), "pickle file, which can run code"),
    ("a text file", lambda f: put(f / "model.txt", "x"), "is a file"),
    ("no weights", model(lambda p: (p / WEIGHTS).unlink()), "no model.safetensors"),
    ("pickle for weights", model(_pickled), "pytorch_model.bin is a pickle"),
    ("pickle under that name", model(lambda p: put(p / WEIGHTS, pickle.dumps(Harmful(p.parent)))), "is damaged"),
    ("empty weights", model(lambda p: put(p / WEIGHTS, b"")), "damaged"),
    *[(f"weights cut at {k}", model(lambda p, k=k: cut(p / WEIGHTS, k)), "damaged") for k in (5, 0.1, 0.7, -1)],
    *[(f"weights bit at {s}", model(lambda p, s=s: flip(p / WEIGHTS, s)), "damaged") for s in (0.0, 0.5, 0.8, 1.0)],
    ("weights of another shape", model(_weights(lambda w: {k: v.reshape(-1)[:1] for k, v in w.items()})), "of another shape"),
    ("a weight too few", model(_weights(lambda w: dict(list(w.items())[1:]))), "1 missing"),
    ("a weight too many", model(_weights(lambda w: {**w, "extra": torch.zeros(1)})), "1 unexpected"),
    ("weights are nan", model(_weights(lambda w: {k: v * float("nan") for k, v in w.items()})), "not finite"),
    ("config empty", model(lambda p: put(p / "config.json", b"")), "config.json cannot be read"),
    ("config cut", model(lambda p: cut(p / "config.json", 0.5)), "config.json cannot be read"),
    ("config binary", model(lambda p: put(p / "config.json", bytes(range(256)))), "config.json cannot be read"),
    ("config a list", model(lambda p: put(p / "config.json", "[]")), "no entry 'model'"),
    ("config deep", model(lambda p: put(p / "config.json", "[" * 90_000)), "config.json cannot be read"),
    ("another format", model(_config(format=99)), "format 99"),
    ("no format", model(_config(format=None)), "format None"),
    ("class elsewhere", model(_reworded("ViT", "os.system")), "--plugin os"),
    ("unknown class", model(_reworded("ViT", "VIT")), "did you mean 'ViT'"),
    ("unknown argument", model(_reworded("patch_size", "patchsize")), "patchsize"),
    ("model a number", model(_config(model=7)), "no entry 'model'"),
    ("tasks of another kind", model(_config(tasks={"a": {"kind": "guess"}})), "cannot be built"),
]  # fmt: skip


# Training checkpoints

STATE = {"step": 3, "weights": {"w": torch.arange(4096.0)}}


def checkpoint(damage: Callable[[Path], object] | None = None) -> Maker:
    def make(folder: Path) -> Path:
        from medssml.trainers import checkpoint as trainer_checkpoint

        path = folder / "last.ckpt"
        trainer_checkpoint.save(path, STATE)
        if damage is not None:
            damage(path)
        return path

    return make


CHECKPOINT: list[tuple[str, Maker, str]] = [
    ("empty", checkpoint(lambda p: put(p, b"")), "cannot be read"),
    ("text", checkpoint(lambda p: put(p, "nothing")), "cannot be read"),
    *[(f"cut at {k}", checkpoint(lambda p, k=k: cut(p, k)), "cannot be read") for k in (10, 0.3, 0.9, -1)],
    *[(f"bit flipped at {s}", checkpoint(lambda p, s=s: flip(p, s)), "cannot be read") for s in (0.3, 0.5, 0.7)],
    ("pickle", checkpoint(lambda p: put(p, pickle.dumps(Harmful(p.parent)))), "cannot be read"),
    ("pickle inside", checkpoint(lambda p: torch.save({"format": 1, "step": Harmful(p.parent)}, p)), "cannot be read"),
    ("another format", checkpoint(lambda p: torch.save({"format": 99}, p)), "format 99"),
    ("a list", checkpoint(lambda p: torch.save([1, 2], p)), "format list"),
    ("a model", checkpoint(lambda p: torch.save(torch.nn.Linear(2, 2), p)), "cannot be read"),
]


def cases() -> list[Case]:
    found = [Case("cache", name, "fixed", make) for name, make in CACHE]
    found += [Case("model", name, "refused", make, says) for name, make, says in MODEL]
    found += [Case("checkpoint", name, "refused", make, says) for name, make, says in CHECKPOINT]
    controls = {"cache": entry(), "model": model(), "checkpoint": checkpoint()}
    return found + [Case(family, "whole", "accepted", make) for family, make in controls.items()]
