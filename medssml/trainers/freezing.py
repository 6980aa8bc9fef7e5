"""Which part of a model learns, and which stays as it is."""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import nn

from medssml.model import MultimodalModel


def train_only(model: MultimodalModel, tasks: Collection[str], freeze: str | int = "none") -> list[nn.Module]:
    """Makes the heads of `tasks` and what `freeze` leaves of the rest trainable; returns the parts that are frozen whole.

    What pretraining kept with the model (the space of a contrast) belongs to encoders as they were: it goes, unless all but
    the heads stay.

    Args:
        freeze: "none"; "encoders": projections, fusion and heads learn; "all_but_heads"; or n: the first n blocks of
            every encoder, and what comes before them, stay as they are.

    Raises:
        ValueError: no such choice, or an encoder without that many blocks.
    """
    if freeze != "all_but_heads":
        model.kept = nn.ModuleDict()
    frozen = freeze_parts(model, freeze)
    for name, head in model.heads.items():
        head.requires_grad_(name in tasks)
    return frozen


def check_freeze(freeze: str | int) -> None:
    """Refuses what is neither a choice nor a number of blocks.

    Raises:
        ValueError: with the choices.
    """
    if freeze not in ("none", "encoders", "all_but_heads") and not str(freeze).isdigit():
        raise ValueError(f"freeze is {freeze!r}; accepted: none, encoders, all_but_heads, or a number of first blocks")


def freeze_parts(model: MultimodalModel, freeze: str | int) -> list[nn.Module]:
    """Makes part of `model` untrainable and returns that part.

    Raises:
        ValueError: no such choice, or an encoder without that many blocks.
    """
    check_freeze(freeze)
    model.requires_grad_(True)
    if freeze == "none":
        return []
    if freeze == "encoders":
        parts: list[nn.Module] = list(model.encoders.values())
    elif freeze == "all_but_heads":
        parts = [model.encoders, model.standardise, model.project, model.fusion, model.kept]
    else:
        parts = [part for name, encoder in model.encoders.items() for part in _first_blocks(name, encoder, int(freeze))]
    for part in parts:
        part.requires_grad_(False)
    return parts


def _first_blocks(name: str, encoder: nn.Module, count: int) -> list[nn.Module]:
    """Freezes an encoder up to its block `count`; returns the modules that are frozen as a whole."""
    blocks = blocks_of(encoder)
    if count > len(blocks):
        raise ValueError(
            f"freeze={count}, but the encoder of {name}, {type(encoder).__name__}, has {len(blocks)} blocks; "
            f"fix: at most that many, or freeze=encoders"
        )
    if count == 0:
        return []
    depths = depths_of(encoder)
    frozen = {id(parameter) for parameter in encoder.parameters() if depths[id(parameter)] <= count}
    for parameter in encoder.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)
    owned = ((module, [id(p) for p in module.parameters()]) for module in encoder.modules())
    return [module for module, ids in owned if ids and frozen.issuperset(ids)]


def blocks_of(encoder: nn.Module) -> list[nn.Module]:
    """The longest list of modules in an encoder, or layer1, layer2, ... of a residual network; of those that have weights."""
    lists = [list(module) for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    stages = [module for path, module in encoder.named_modules() if re.fullmatch(r"(.*\.)?layer\d+", path)]
    return [block for block in max([*lists, stages], key=len) if any(True for _ in block.parameters())]


def depths_of(encoder: nn.Module) -> dict[int, int]:
    """`id` of a parameter -> its depth: 0 before the first of n blocks, k in block k, n + 1 after the last one.

    By the order in which parameters were registered, which is that of the forward pass; an encoder without blocks is one.
    """
    order = [id(parameter) for parameter in encoder.parameters()]
    blocks = [{id(parameter) for parameter in block.parameters()} for block in blocks_of(encoder)]
    if not blocks:
        return dict.fromkeys(order, 1)
    first = min(place for place, one in enumerate(order) if one in blocks[0])
    ends = [max(place for place, one in enumerate(order) if one in block) for block in blocks]
    return {one: 0 if place < first else 1 + sum(end < place for end in ends) for place, one in enumerate(order)}
