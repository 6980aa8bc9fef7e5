"""The optimiser on parameter groups, and the learning rate as a closed form of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medssml.model import MultimodalModel
from medssml.schema import nearest
from medssml.trainers.freezing import blocks_of, depths_of
from medssml.trainers.lars import LARS, TRUST
from medssml.trainers.settings import Optim

#: Modules whose matrices weight decay shrinks. Everything else (norms, embeddings, tokens, temperatures) keeps its scale.
_DECAYED = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)


def decayed_parameters(module: nn.Module) -> set[int]:
    """The ids of the parameters that weight decay applies to: matrices of linear maps and convolutions."""
    return {
        id(parameter)
        for part in module.modules()
        if isinstance(part, _DECAYED)
        for parameter in part.parameters(recurse=False)
        if parameter.ndim >= 2
    }


def parameter_groups(learner: nn.Module, optim: Optim) -> list[dict]:
    """Groups for an optimiser: with and without decay, one pair per learning rate; each holds its own `base_lr`.

    Args:
        learner: with the part `model`, whose parameters are named from there on ("encoders.ct..."), and others such as
            `objectives` ("objectives.0...").
        optim: the settings.

    Raises:
        ValueError: a key of `optim.scales` begins no parameter's name.
    """
    trainable = [(_of_part(name), p) for name, p in learner.named_parameters() if p.requires_grad]
    everything = [_of_part(name) for name, _ in learner.named_parameters()]
    for prefix in optim.scales:
        if not any(_begins(name, prefix) for name in everything):
            known = sorted({".".join(name.split(".")[:2]) for name in everything})
            raise ValueError(f"optim.scales names {prefix}, which no parameter begins with{nearest(prefix, known)}")
    decayed = decayed_parameters(learner)
    # A matrix that is also an embedding (tied weights of a language model) is an embedding.
    embeddings = {id(p) for part in learner.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}

    by_depth = depth_scales(learner, optim.layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in trainable:
        scale = scale_of(name, optim.scales) * by_depth.get(id(parameter), 1.0)
        if scale == 0:
            continue
        decays = id(parameter) in decayed and id(parameter) not in embeddings
        groups.setdefault((scale, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "base_lr": optim.lr * scale,
            "weight_decay": optim.weight_decay if decays else 0.0,
            # Of LARS, which treats the same matrices layer by layer, whatever their decay is.
            "trust": TRUST if decays else 0.0,
        }
        for (scale, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def _of_part(name: str) -> str:
    """A parameter by its part of the model; that of a second model that learns along is called as the first one's."""
    return re.sub(r"^(model|objectives\.\d+\.peer)\.", "", name)


def scale_of(name: str, scales: Mapping[str, float]) -> float:
    """The multiple of the learning rate of a parameter: that of the longest prefix of its name, 1 without any."""
    found = [prefix for prefix in scales if _begins(name, prefix)]
    return scales[max(found, key=len)] if found else 1.0


def depth_scales(learner: nn.Module, decay: float) -> dict[int, float]:
    """`id` of a parameter of an encoder -> the multiple of its learning rate, decay^(L - l) at depth l of L = blocks + 1."""
    if decay == 1:
        return {}
    models = [part for part in learner.modules() if isinstance(part, MultimodalModel)]
    found = {}
    for encoder in (encoder for model in models for encoder in model.encoders.values()):
        last = 1 + max(1, len(blocks_of(encoder)))
        found.update({one: decay ** (last - depth) for one, depth in depths_of(encoder).items()})
    return found


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def optimiser(groups: list[dict], optim: Optim) -> torch.optim.Optimizer:
    """The optimiser that the settings name.

    AdamW is fused: on a CPU 6.6 times faster than the default.

    Raises:
        ValueError: nothing is trainable.
    """
    if not groups:
        raise ValueError("no parameter is trainable; fix: freeze less, or give the model a task")
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=True)
    if optim.name == "lars":
        return LARS(groups, lr=optim.lr, momentum=optim.momentum)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True)


def warmup_steps(optim: Optim, total: int) -> int:
    """How many of `total` steps are warm-up."""
    return optim.warmup_steps if optim.warmup_steps is not None else round(optim.warmup * total)


def lr_factor(step: int, total: int, optim: Optim) -> float:
    """What the learning rate of step `step` (0 .. total - 1) is multiplied with.

    Warm-up is linear and its first step already moves: (step + 1) / (warm-up + 1). The schedule then goes from 1 to
    `optim.final`, which the step after the last would have.
    """
    warm = warmup_steps(optim, total)
    if step < warm:
        return (step + 1) / (warm + 1)
    if optim.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warm) / max(1, total - warm))
    fall = 0.5 * (1 + math.cos(math.pi * done)) if optim.schedule == "cosine" else 1 - done
    return optim.final + (1 - optim.final) * fall


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate becomes `factor` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def clip_gradients(parameters: list[nn.Parameter], clip_norm: float) -> Tensor:
    """Scales the gradients down to `clip_norm` (0: leaves them) and returns their norm before that, a scalar."""
    return nn.utils.clip_grad_norm_(parameters, clip_norm if clip_norm > 0 else float("inf"), foreach=True)
