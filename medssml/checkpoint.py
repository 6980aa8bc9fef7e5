"""The model folder: config.json, model.safetensors, a model card. Written whole or not at all; read without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssml.files import sha256_of, whole, write_json, write_text

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
DIGEST = "weights_sha256"
_SAVE = "fix: copy the folder again, or save the model again"
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


class CheckpointError(ValueError):
    """A checkpoint that is refused: what, where, why, and the way out."""

    exit_code = 5


def write_checkpoint(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], card: str) -> None:
    """Writes the three files into `folder`; the config last, so that a folder that has one is whole."""
    from safetensors.torch import save_file

    # Clones, as safetensors refuses tensors that share memory.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
    with whole(folder / WEIGHTS) as beside:
        save_file(tensors, beside, metadata={"format": "pt"})
    write_text(folder / CARD, card)
    write_json(folder / CONFIG, {"format": FORMAT, **config, DIGEST: sha256_of(folder / WEIGHTS)})


def model_folder(path: str | Path) -> Path:
    """The model folder of a run folder, or the model folder itself.

    Raises:
        CheckpointError: `path` is a pickle, or holds no model.
    """
    path = Path(path)
    if path.is_file():
        why = "is a pickle file, which can run code" if path.suffix.lower() in PICKLES else "is a file"
        raise CheckpointError(f"{path.name} {why}; fix: give the run folder, or its model/ folder with {WEIGHTS}")
    for folder in (path / "model", path):
        if (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        raise CheckpointError(f"no folder {path}; fix: give a run folder that a verb has written")
    raise CheckpointError(f"no model in {path}: neither {CONFIG} nor model/{CONFIG}; fix: did the run finish?")


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a model folder.

    Raises:
        CheckpointError: not readable, or of a format that this version does not know.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read: {error}; {_SAVE}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise CheckpointError(f"{folder / CONFIG} has no entry 'model': no checkpoint of medssml; {_SAVE}")
    if config.get("format") != FORMAT:
        version = config.get("medssml", "an unknown version")
        raise CheckpointError(
            f"{folder / CONFIG} has format {config.get('format')!r}, written by medssml {version}; this version reads "
            f"format {FORMAT}; fix: load it with the version that wrote it"
        )
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> tensor of model.safetensors, on the CPU.

    Raises:
        CheckpointError: missing, damaged, or a pickle in its place.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        pickles = sorted(other.name for other in folder.iterdir() if other.suffix.lower() in PICKLES)
        hint = f"; {pickles[0]} is a pickle, which can run code, and is refused" if pickles else ""
        raise CheckpointError(f"no {WEIGHTS} in {folder}{hint}; {_SAVE}")
    try:
        expected = read_config(folder).get(DIGEST)
        if expected is not None and sha256_of(path) != expected:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not that in {CONFIG}; {_SAVE}")
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {error}; {_SAVE}") from error
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} weights are not finite ({broken[0]}); fix: use another checkpoint"
        )
    return weights


def load_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Puts `weights` into `module`: every parameter, and nothing else.

    Raises:
        CheckpointError: names or shapes differ.
    """
    own = module.state_dict()
    faults = {
        "missing": sorted(set(own) - set(weights)),
        "unexpected": sorted(set(weights) - set(own)),
        "of another shape": sorted(
            f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
            for name in set(own) & set(weights)
            if own[name].shape != weights[name].shape
        ),
    }
    told = [f"{len(names)} {fault} ({', '.join(names[:4])})" for fault, names in faults.items() if names]
    if told:
        raise CheckpointError(
            f"the weights in {where} do not fit the model of its {CONFIG}: {'; '.join(told)}; {_SAVE}"
        )
    module.load_state_dict(dict(weights))
