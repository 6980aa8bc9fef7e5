"""Configs: a pretraining with one fault each, and controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.corpus.case import Case, put

GOOD = """\
model:
  class_path: MultimodalModel
  init_args:
    encoders:
      xray:
        class_path: ViT
        init_args: {input_size: [32, 32], patch_size: 16, dim: 16, depth: 1, heads: 2}
      report:
        class_path: TextEncoder
        init_args: {vocab_size: 64, dim: 16, depth: 1, heads: 2, max_length: 16}
    fusion:
      class_path: MaskedAttention
      init_args: {modalities: [xray, report], dim: 16, depth: 1, heads: 2}
transforms:
  xray: {class_path: XrayTransform, init_args: {size: 32}}
  report: {class_path: ReportTransform, init_args: {vocab_size: 64, max_length: 16}}
objectives:
  - class_path: CrossModalContrast
    init_args: {dim: 16}
  - class_path: MaskedReconstruction
    init_args: {mask_ratio: {xray: 0.5}, decoder_dim: 16, decoder_depth: 1, decoder_heads: 2}
optim: {lr: 1e-3}
trainer: {max_epochs: 3}
data: {batch_size: 8}
seed: 7
"""
RUNS = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [CODE_RAN]]"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
Maker = Callable[[Path], Path]


def config(old: str = "", new: str = "", text: str | bytes | None = None) -> Maker:
    if old and old not in GOOD:
        raise ValueError(f"{old!r} is no part of the config")
    content = GOOD.replace(old, new, 1) if text is None else text
    return lambda folder: put(folder / "c.yaml", content)


REFUSED: list[tuple[str, Maker, str]] = [
    ("missing", lambda f: f / "none.yaml", "none.yaml"),
    ("folder", lambda f: f, "."),
    ("empty", config(text=""), "c.yaml"),
    ("a word", config(text="pretrain"), "c.yaml"),
    ("a list", config(text="- model\n- data\n"), "c.yaml"),
    ("binary", config(text=bytes(range(256))), "c.yaml"),
    ("utf-16", config(text=GOOD.encode("utf-16")), "c.yaml"),
    ("tab", config("trainer: {", "trainer:\n\tmax_epochs: 3\nother: {"), "c.yaml:24"),
    ("unclosed brace", config("{max_epochs: 3}", "{max_epochs: 3"), "c.yaml:2"),
    ("unclosed quote", config("seed: 7", "seed: '7"), "c.yaml:2"),
    ("two documents", config("seed: 7", "seed: 7\n---\nseed: 8"), "c.yaml"),
    ("unknown key", config("max_epochs", "max_epoch"), "c.yaml:23.*'max_epoch'.*did you mean 'max_epochs'"),
    ("unknown section", config("optim:", "optimizer:"), "c.yaml:22.*'optimizer'"),
    ("unknown argument", config("mask_ratio", "mask_rato"), "c.yaml:21.*'mask_rato'.*did you mean 'mask_ratio'"),
    ("unknown class", config("ViT", "VIT"), "c.yaml:6.*VIT.*did you mean 'ViT'"),
    ("class elsewhere", config("ViT", "os.system"), "c.yaml:6.*--plugin os"),
    ("class in a module", config("ViT", "medssml.os.system"), "c.yaml:6.*no class"),
    ("class of another kind", config("class_path: MaskedAttention", "class_path: ViT"), "c.yaml"),
    ("duplicated key", config("seed: 7", "seed: 7\nseed: 8"), "c.yaml:26.*'seed'"),
    ("duplicated argument", config("{size: 32}", "{size: 32, size: 64}"), "c.yaml:15.*'size'"),
    ("text for a number", config("batch_size: 8", "batch_size: eight"), "c.yaml:24.*batch_size"),
    ("number for text", config("class_path: ViT", "class_path: 7"), "c.yaml:6"),
    ("fraction for a whole number", config("depth: 1", "depth: 1.5"), "c.yaml:7.*depth"),
    ("list for a number", config("lr: 1e-3", "lr: [1e-3]"), "c.yaml:22.*lr"),
    ("number for a list", config("[32, 32]", "32"), "c.yaml:7.*input_size"),
    ("mapping for a list", config("modalities: [xray, report]", "modalities: {xray: 1}"), "c.yaml:13.*modalities"),
    ("list for a mapping", config("{lr: 1e-3}", "[lr]"), "c.yaml:22.*optim"),
    ("nothing for a section", config("{batch_size: 8}", ""), "c.yaml:24|data"),
    ("no model", config(text=GOOD[GOOD.index("transforms") :]), "c.yaml.*model"),
    ("no transforms", config(text=GOOD[: GOOD.index("transforms")] + GOOD[GOOD.index("objectives") :]), "transforms"),
    ("lr nan", config("1e-3", ".nan"), "c.yaml:22.*lr"),
    ("lr infinite", config("1e-3", ".inf"), "c.yaml:22.*lr"),
    ("lr negative", config("1e-3", "-1"), "lr"),
    ("batch size 0", config("batch_size: 8", "batch_size: 0"), "batch_size"),
    ("epochs negative", config("max_epochs: 3", "max_epochs: -3"), "max_epochs"),
    ("epochs of words", config("max_epochs: 3", "max_epochs: three"), "c.yaml:23.*max_epochs"),
    ("seed of text", config("seed: 7", "seed: lucky"), "c.yaml:25.*seed"),
    ("heads do not divide", config("heads: 2}\n      report", "heads: 3}\n      report"), "model.encoders.xray.*heads 3"),
    ("patch over the image", config("patch_size: 16", "patch_size: 17"), "model.encoders.xray.*patch_size"),
    ("mask ratio 2", config("xray: 0.5", "xray: 2"), "objectives.1.*mask_ratio"),
    ("modality nobody encodes", config("[xray, report]", "[xray, ct]"), "key .model., MultimodalModel.*fusion of"),
    ("runs code", config("seed: 7", f"seed: {RUNS}"), "c.yaml:25"),
    ("python name", config("seed: 7", "seed: !!python/name:os.system"), "c.yaml:25"),
    ("python module", config("seed: 7", "seed: !!python/module:os"), "c.yaml:25"),
    ("own tag", config("seed: 7", "seed: !mine 7"), "c.yaml:25"),
    ("expression", config("seed: 7", "seed: $import os"), "c.yaml:25.*seed"),
    ("many aliases", config(text=LAUGHS), "c.yaml"),
    ("alias of itself", config("seed: 7", "seed: &a [*a]"), "c.yaml"),
    ("unknown alias", config("seed: 7", "seed: *gone"), "c.yaml:25"),
    ("very deep", config(text="a: " + "[" * 3000 + "]" * 3000), "c.yaml"),
    ("key of a list", config("seed: 7", "? [a, b]\n: 7"), "c.yaml:25"),
    ("argument of a handed part", config("{dim: 16}", "{dim: 16, model: ViT}"), "c.yaml:19.*'model'"),
]  # fmt: skip
ACCEPTED: list[tuple[str, Maker]] = [
    ("plain", config()),
    ("comments and blanks", config("seed: 7", "# a comment\n\nseed: 7  # another\n")),
    ("1e-3 as a number", config("1e-3", "1e-03")),
    ("fraction without a zero", config("xray: 0.5", "xray: .5")),
    ("windows line ends", config(text=GOOD.replace("\n", "\r\n"))),
    ("byte-order mark", config(text=GOOD.encode("utf-8-sig"))),
    ("an alias", config("{size: 32}", "{size: &s 32}")),
]


def cases() -> list[Case]:
    found = [Case("config", name, "refused", make, says) for name, make, says in REFUSED]
    return found + [Case("config", name, "accepted", make) for name, make in ACCEPTED]
