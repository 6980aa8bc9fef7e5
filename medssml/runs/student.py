"""A student of one modality: a part of an architecture or of a trained model, begun from a seed as often as it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medssml.checkpoint import model_folder, read_config
from medssml.config import Node, build, resolved_config
from medssml.model import MultimodalModel
from medssml.predictor import load_transforms
from medssml.runs.training_config import Architecture, for_modalities
from medssml.schema import typed
from medssml.transforms.road import built_road

if TYPE_CHECKING:
    from medssml.transforms import Transform


@dataclass(frozen=True)
class Student:
    """What students of one modality are built from.

    Args:
        modality: that it reads.
        node: of its model.
        transform: what its inputs go through.
        weights: what it begins with, by name; None for new ones.
    """

    modality: str
    node: Node
    transform: Transform
    weights: Mapping[str, Tensor] | None = None

    def begin(self, seed: int, plugins: Collection[str] = ()) -> MultimodalModel:
        """The model; what is new in it is drawn from `seed`."""
        torch.manual_seed(seed)
        model: MultimodalModel = build(self.node, MultimodalModel, plugins=plugins)
        if self.weights is not None:
            model.load_state_dict(self.weights, strict=True)
        return model

    @classmethod
    def of_architecture(cls, modality: str, path: Path, plugins: Collection[str] = ()) -> Student:
        """The part of a pretraining config that reads `modality`.

        Raises:
            ValueError: it has no such part.
        """
        resolved, _ = resolved_config(path, Architecture, (), plugins)
        full = typed(Architecture, resolved)
        part = _part(full, modality, f"--architecture {path.stem}", plugins)
        return cls(
            modality, part.model, built_road(modality, part.transforms[modality], plugins, f"transforms.{modality}")
        )

    @classmethod
    def of_run(
        cls, modality: str, run: str | Path, flag: str, plugins: Collection[str] = (), *, trained: bool
    ) -> Student:
        """The part of a run's model that reads `modality`.

        Args:
            flag: that named the run. trained: with the run's weights.

        Raises:
            ValueError: it does not read it, or its fusion cannot do without the other modalities.
        """
        known = read_config(model_folder(run))
        whole = Architecture(model=known["model"], transforms=known.get("transforms", {}))
        part = _part(whole, modality, f"{flag} {Path(run).name}", plugins)
        transform = load_transforms(run, plugins)[modality]
        if not trained:
            return cls(modality, part.model, transform)
        model = MultimodalModel.load(run, plugins)
        for task in list(model.tasks):
            model.drop_task(task)
        fresh: MultimodalModel = build(part.model, MultimodalModel, plugins=plugins)
        weights = part_of_weights(model.state_dict(), fresh.state_dict(), model.modalities, modality)
        return cls(modality, part.model, transform, weights)


def part_of_weights(
    whole: Mapping[str, Tensor], wanted: Mapping[str, Tensor], modalities: Collection[str], modality: str
) -> dict[str, Tensor]:
    """The weights of the model of one modality, from those of the model of all `modalities`.

    What both have in one shape is taken; where a table has a row for each modality, the row of this one.

    Raises:
        ValueError: a weight of another shape: the fusion joins the modalities in a way that none is left of.
    """
    place, found = list(modalities).index(modality), {}
    for name, like in wanted.items():
        value = whole.get(name)
        if value is not None and value.ndim and value.shape[1:] == like.shape[1:] and len(like) == 1:
            value = value[place : place + 1] if len(value) == len(modalities) else value
        if value is None or value.shape != like.shape:
            raise ValueError(f"{name} of the model cannot be taken for {modality} alone; fix: --checkpoint none")
        found[name] = value.clone()
    return found


def _part(full: Architecture, modality: str, named: str, plugins: Collection[str]) -> Architecture:
    if modality not in full.transforms:
        raise ValueError(
            f"{named} does not read {modality}, but {', '.join(full.transforms)}; fix: --architecture with an encoder of it"
        )
    # What the whole model learned from is no matter here.
    return for_modalities(replace(full, objectives=None), [modality], plugins)[0]
