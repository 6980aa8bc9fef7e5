"""Low-rank adapters: encoders stay as they are, and what is learned beside each of their maps is a product of two small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medssml.bounds import bounded
from medssml.model import MultimodalModel
from medssml.randomness import hash64, mix
from medssml.store.engines import MissingExtra

#: Name of the adapter, in peft.
_NAME = "default"


@dataclass(frozen=True)
class Lora:
    """Adapters of the encoders, W x + (alpha / rank) B A x, of which A and B alone are trained (Hu et al. 2022).

    Args:
        rank: of B A. alpha: scale; B begins at 0, so that the first answer is that of the model as it is.
    """

    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        bounded("lora.rank", self.rank, least=1)
        bounded("lora.alpha", self.alpha, above=0)


def adapt(model: MultimodalModel, lora: Lora, seed: int = 0) -> list[nn.Module]:
    """Puts an adapter beside every linear map and convolution of the encoders, whose own weights no longer learn.

    Args:
        seed: of A; nothing else is drawn, so that what is drawn next does not depend on adapters.

    Returns:
        the encoders, as parts that stay in evaluation mode: norms keep their statistics.

    Raises:
        MissingExtra: peft is not installed. ValueError: encoders without such a map.
    """
    peft = _peft()
    names = [
        name for name, part in model.encoders.named_modules() if _adapted(part) and not _within_attention(model, name)
    ]
    if not names:
        raise ValueError("no encoder has a linear map or a convolution that lora could adapt; fix: leave lora out")
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=names, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, hash64("lora")))
        peft.inject_adapter_in_model(config, model.encoders, _NAME)
    return list(model.encoders.values())


@torch.no_grad()
def merge_adapters(model: MultimodalModel) -> None:
    """W <- W + (alpha / rank) B A, and the adapters leave: what is saved is a model as any other, and needs no library."""
    for path, part in list(model.encoders.named_modules()):
        if not hasattr(part, "get_base_layer"):
            continue
        part.merge()
        parent, _, name = path.rpartition(".")
        setattr(model.encoders.get_submodule(parent), name, part.get_base_layer())


def _adapted(part: nn.Module) -> bool:
    # Of a convolution in groups an adapter would be as large as what it adapts.
    whole = not isinstance(part, nn.modules.conv._ConvNd) or part.groups == 1
    return isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and whole


def _within_attention(model: MultimodalModel, name: str) -> bool:
    # PyTorch's attention reads the weights of its parts and passes an adapter beside them by.
    return isinstance(model.encoders.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)


def _peft() -> Any:
    """The library of adapters.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("lora: package 'peft' is not installed; fix: pip install 'medssml[lora]'") from error
    return peft
