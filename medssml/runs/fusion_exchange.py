"""Another fusion for a model that is there already: remedies for absence, without a new pretraining."""

from __future__ import annotations

import inspect
from collections.abc import Collection

import torch

from medssml.config import Node, build, resolve
from medssml.fusion.base import Fusion
from medssml.fusion.imputation import Imputation
from medssml.model import MultimodalModel


def exchange_fusion(model: MultimodalModel, node: Node, seed: int, plugins: Collection[str] = ()) -> str:
    """Puts the fusion of `node` in the place of the model's; encoders and projections stay as they are.

    It has the model's modalities and width, which the node need not state. An imputing one that names no fusion wraps the
    model's, which goes on from its weights. One whose class derives from that of the model's (`PromptedAttention` of a
    `MaskedAttention`), or is the same, begins with the weights that both have in one shape. What is new is drawn from `seed`.

    Returns:
        what was done, in words.

    Raises:
        medssml.config.ConfigError: values that its class refuses, such as a fusion of tokens in an imputing one. ValueError:
            other modalities, or another width.
    """
    cls, earlier = resolve(str(node["class_path"]), plugins), _read(model.fusion)
    stated, accepted = dict(node.get("init_args") or {}), inspect.signature(cls).parameters
    known = {"modalities": list(model.modalities), "dim": model.dim}
    arguments = {**{name: value for name, value in known.items() if name in accepted}, **stated}
    wraps = issubclass(cls, Imputation) and "fusion" not in stated
    torch.manual_seed(seed)
    fusion: Fusion = build(
        {**node, "init_args": arguments}, Fusion, plugins=plugins, at="fusion", **({"fusion": earlier} if wraps else {})
    )
    said = f"the fusion is {_words(fusion)} in the place of {_words(model.fusion)}"
    model.exchange_fusion(fusion)
    if wraps:
        return f"{said}; {type(earlier).__name__} goes on from its weights"
    taken, new = _taken(_read(fusion), earlier)
    return f"{said}; {taken} of its {taken + new} weights go on" if taken else f"{said}; its weights are new"


def _read(fusion: Fusion) -> Fusion:
    """The fusion that joins vectors, within one that imputes."""
    return _read(fusion.fusion) if isinstance(fusion, Imputation) else fusion


def _words(fusion: Fusion) -> str:
    inner = f" around {_words(fusion.fusion)}" if isinstance(fusion, Imputation) else ""
    return f"{type(fusion).__name__}{inner}"


@torch.no_grad()
def _taken(fusion: Fusion, earlier: Fusion) -> tuple[int, int]:
    """How many weights of `fusion` begin as those of `earlier`, and how many are new."""
    if not isinstance(fusion, type(earlier)):
        return 0, len(list(fusion.parameters()))
    given, counts = dict(earlier.named_parameters()), [0, 0]
    for name, weight in fusion.named_parameters():
        fits = name in given and given[name].shape == weight.shape
        if fits:
            weight.copy_(given[name])
        counts[0 if fits else 1] += 1
    return counts[0], counts[1]
