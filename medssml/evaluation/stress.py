"""What a model answers where studies meet obstacles: each study is encoded once, and again only what an obstacle damages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from medssml.data.prepared_studies import PreparedStudies
from medssml.evaluation.encoded_studies import EncodedStudies, bits, encode_studies
from medssml.evaluation.subsets import predict_within
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.obstacles import OBSTACLES, Absence, AbsentByLabel, Damage, Mispaired, Obstacle, TableObstacle
from medssml.predictor import probability
from medssml.statistics.bootstrap import Array

#: Those that befall what a model is asked about; the others befall what it is taught.
AT_TEST: tuple[type[Obstacle], ...] = tuple(kind for kind in OBSTACLES if not kind.of_training)


@dataclass(frozen=True)
class Tested:
    """A model and the studies that it is asked about.

    Args:
        model: in evaluation mode, on `device`.
        cohort: the studies, prepared.
        clean: the same studies behind their encoders.
        device: where the model runs.
    """

    model: MultimodalModel
    cohort: PreparedStudies
    clean: EncodedStudies
    device: str = "cpu"

    @classmethod
    def of(cls, model: MultimodalModel, cohort: PreparedStudies, device: str = "cpu") -> Tested:
        """Encodes the studies."""
        return cls(model, cohort, encode_studies(model, cohort.batches(), device), device)


@dataclass(frozen=True)
class Answers:
    """What a model answers under an obstacle.

    Args:
        scores: task -> (N,) or (N, K) probabilities, or values of a regression.
        left: (N,) bits of the modalities that each study was answered from.
    """

    scores: dict[str, Array]
    left: Array


def possible(
    tested: Tested, table: Manifest, names: Sequence[str], task: str, seed: int
) -> tuple[list[Obstacle], dict]:
    """The obstacles that these studies can meet, at severity 0, and of the others why not.

    Args:
        tested: model and studies.
        table: all studies of the cohort, those of training among them.
        names: of the obstacles; none = all that befall studies that are asked about.
        task: whose label absence may depend on.
        seed: of the draws.

    Returns:
        obstacles, fitted, in the order of `OBSTACLES`; name -> reason.

    Raises:
        KeyError: no such obstacle. ValueError: one that befalls what a model is taught alone.
    """
    kinds = _asked(names)
    found: list[Obstacle] = []
    reasons: dict[str, str] = {}
    for kind in kinds:
        obstacle = AbsentByLabel(0.0, seed, task=task) if kind is AbsentByLabel else kind(0.0, seed)
        try:
            if reason := _why_not(tested, obstacle):
                reasons[obstacle.name] = reason
                continue
            if isinstance(obstacle, TableObstacle):
                obstacle.fit(table, tested.cohort.manifest)
        except ValueError as error:
            reasons[obstacle.name] = str(error).removeprefix(f"{obstacle.name}: ").split("; fix:")[0]
            continue
        found.append(obstacle)
    return found, reasons


def _asked(names: Sequence[str]) -> list[type[Obstacle]]:
    from medssml.schema import nearest

    known = {kind.name: kind for kind in OBSTACLES}
    for name in names:
        if name not in known:
            raise KeyError(f"no obstacle {name!r}{nearest(name, list(known))}")
        if known[name] not in AT_TEST:
            raise ValueError(
                f"{name} befalls what a model is taught, and not what it is asked; fix: data.obstacles of a fine-tuning "
                f"config, see docs/obstacles.md"
            )
    return [kind for kind in AT_TEST if not names or kind.name in names]


def _why_not(tested: Tested, obstacle: Obstacle) -> str | None:
    """Why an obstacle can change nothing of these studies, or None."""
    if not isinstance(obstacle, Damage):
        several = int((tested.clean.has.sum(axis=1) > 1).sum())
        return None if several else "no study has two modalities"
    if obstacle.modality not in tested.clean.encoded:
        return f"no study has {obstacle.modality}"
    return why_not_on(tested.cohort.transforms[obstacle.modality], obstacle)


def why_not_on(road: Any, obstacle: Damage) -> str | None:
    """Why a damage cannot be done to what a road reads, or None."""
    if not hasattr(road, "from_loader"):
        return f"the transform of {obstacle.modality}, {type(road).__name__}, is none of MONAI's steps behind a loader"
    return obstacle.why_not(road.from_loader().preparation)


def answered(tested: Tested, obstacle: Obstacle, tasks: Sequence[str]) -> Answers:
    """The model's answers to all studies under an obstacle.

    Args:
        tested: model and studies.
        obstacle: at its severity, fitted.
        tasks: of the model.
    """
    studies, within, source = tested.clean, tested.clean.present, None
    table = tested.cohort.manifest
    if isinstance(obstacle, Absence):
        within = _columns(tested, torch.from_numpy(obstacle.present(table)))
    elif isinstance(obstacle, Mispaired):
        partner = _columns(tested, torch.from_numpy(obstacle.partners(table)))
        source = torch.where(within, partner, torch.arange(len(studies))[:, None])
    elif isinstance(obstacle, Damage) and obstacle.severity > 0:
        studies = _damaged(tested, obstacle)
    logits = predict_within(tested.model, studies, within, source, device=tested.device)
    kinds = {task: tested.model.tasks[task].kind for task in tasks}
    # In double precision, as they are read again: a sweep that goes on gives the same figures to the last digit.
    scores = {t: probability(torch.from_numpy(logits[t]), kinds[t]).double().numpy() for t in tasks}
    return Answers(scores, bits(within.numpy()))


def _columns(tested: Tested, values: torch.Tensor) -> torch.Tensor:
    """(N, M) of the manifest's columns as (N, M) of the model's; a modality that the table lacks is False, or 0."""
    own = list(tested.cohort.manifest.modalities)
    nothing = torch.zeros(len(values), dtype=values.dtype)
    return torch.stack([values[:, own.index(m)] if m in own else nothing for m in tested.clean.modalities], dim=1)


def _damaged(tested: Tested, damage: Damage) -> EncodedStudies:
    """The studies with one modality encoded again, from what is left of it."""
    modality = damage.modality
    has = tested.clean.has[:, tested.clean.column(modality)]
    road: Any = tested.cohort.transforms[modality]
    cohort = replace(
        tested.cohort,
        manifest=tested.cohort.manifest.filter(has),
        transforms={modality: road.from_loader()},
        damages=(damage,),
    )
    again = encode_studies(tested.model, cohort.batches(tasks=()), tested.device)
    return replace(tested.clean, encoded={**tested.clean.encoded, modality: again.encoded[modality]})


def chosen_studies(table: Manifest, tasks: Sequence[str]) -> Manifest:
    """The studies with a label of one of the tasks that the table has labels of.

    Raises:
        ValueError: no study is labelled.
    """
    known = [task for task in tasks if task in table.tasks]
    labelled = table.labelled(*known) if known else table.filter(np.zeros(len(table), bool))
    if not len(labelled):
        raise ValueError(f"no study has a label of {', '.join(tasks)}; fix: --split, --task, or another manifest")
    return labelled
