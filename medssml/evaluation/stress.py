"""What a model answers where studies meet obstacles: each study is encoded once, and again only what an obstacle damages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from medssml.batch import Encoded
from medssml.data.prepared_studies import PreparedStudies
from medssml.evaluation.encoded_studies import EncodedStudies, bits, encode_studies
from medssml.evaluation.subsets import predict_within
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.obstacles import OBSTACLES, Damage, Obstacle, TableObstacle
from medssml.obstacles.base import why_not_on
from medssml.obstacles.together import Named, label_of, named, parts_of, together
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
        names: of the obstacles, or of several at once; none = all that befall studies that are asked about.
        task: whose label absence may depend on.
        seed: of the draws.

    Returns:
        obstacles, fitted, in the order of `OBSTACLES`; name -> reason.

    Raises:
        KeyError: no such obstacle. ValueError: one that befalls what a model is taught alone.
    """
    found: dict[str, Obstacle] = {}
    reasons: dict[str, str] = {}
    for asked in _asked(names):
        obstacle = together(asked, 0.0, seed, task=task)
        try:
            if reason := next(filter(None, (_why_not(tested, part) for part in parts_of(obstacle))), None):
                reasons[obstacle.name] = reason
                continue
            obstacle.fit(table, tested.cohort.manifest)
        except ValueError as error:
            reasons[obstacle.name] = str(error).split(": ", 1)[-1].split("; fix:")[0]
            continue
        found[obstacle.name] = obstacle
    return list(found.values()), reasons


def _asked(names: Sequence[str]) -> list[tuple[Named, ...]]:
    """Each obstacle, or several at once; single ones without more in the order of `OBSTACLES`, then the others."""
    asked = {label_of(parts): parts for parts in map(named, names)}
    for part in (part for parts in asked.values() for part in parts):
        if part.kind.of_training or part.taught:
            raise ValueError(
                f"{part.label} befalls what a model is taught, and not what it is asked; fix: data.obstacles of a "
                f"fine-tuning config, see docs/obstacles.md"
            )
    plain = [(Named(kind),) for kind in AT_TEST if not names or kind.name in asked]
    return plain + [parts for parts in asked.values() if parts not in plain]


def _why_not(tested: Tested, obstacle: Obstacle) -> str | None:
    """Why an obstacle can change nothing of these studies, or None."""
    if not isinstance(obstacle, Damage):
        several = int((tested.clean.has.sum(axis=1) > 1).sum())
        return None if several else "no study has two modalities"
    if obstacle.modality not in tested.clean.encoded:
        return f"no study has {obstacle.modality}"
    return why_not_on(tested.cohort.transforms[obstacle.modality], obstacle)


def answered(tested: Tested, obstacle: Obstacle, tasks: Sequence[str]) -> Answers:
    """The model's answers to all studies under an obstacle.

    Args:
        tested: model and studies.
        obstacle: at its severity, fitted.
        tasks: of the model.
    """
    table, own = tested.cohort.manifest, np.arange(len(tested.clean))[:, None]
    origin, damages = np.where(table.present, own, -1), list[Damage]()
    for part in parts_of(obstacle):
        if isinstance(part, TableObstacle):
            partner = part.partners(table)
            origin = np.where(partner >= 0, np.take_along_axis(origin, partner.clip(min=0), axis=0), -1)
            table = part.applied(table)
        elif isinstance(part, Damage) and part.severity > 0:
            damages.append(part)
    studies = _damaged(tested, damages)
    within = tested.clean.present & _columns(tested, torch.from_numpy(origin >= 0))
    moved = bool(((origin >= 0) & (origin != own)).any())
    source = torch.where(within, _columns(tested, torch.from_numpy(origin)), torch.from_numpy(own)) if moved else None
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


def _damaged(tested: Tested, damages: Sequence[Damage]) -> EncodedStudies:
    """The studies with the damaged modalities encoded again, from what is left of them."""
    modalities = dict.fromkeys(damage.modality for damage in damages)
    again = {m: _encoded_again(tested, m, [damage for damage in damages if damage.modality == m]) for m in modalities}
    return replace(tested.clean, encoded={**tested.clean.encoded, **again}) if again else tested.clean


def _encoded_again(tested: Tested, modality: str, damages: Sequence[Damage]) -> Encoded:
    has = tested.clean.has[:, tested.clean.column(modality)]
    road: Any = tested.cohort.transforms[modality]
    cohort = replace(
        tested.cohort,
        manifest=tested.cohort.manifest.filter(has),
        transforms={modality: road.from_loader()},
        damages=tuple(damages),
    )
    again = encode_studies(tested.model, cohort.batches(tasks=()), tested.device)
    return again.encoded[modality]


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
