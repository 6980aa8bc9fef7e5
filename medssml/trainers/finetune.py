"""Learning with labels: several tasks, of which a study may have any; the model whole, partly or wholly frozen."""

from __future__ import annotations

from collections.abc import Sequence

from medssml.model import MultimodalModel
from medssml.objectives import Supervised
from medssml.objectives.base import Objective
from medssml.trainers.adapters import Lora, adapt
from medssml.trainers.freezing import train_only
from medssml.trainers.judges import TaskJudge
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim


def finetuner(
    model: MultimodalModel,
    supervised: Supervised,
    optim: Optim,
    *,
    freeze: str | int = "none",
    others: Sequence[Objective] = (),
    given: MultimodalModel | None = None,
    lora: Lora | None = None,
    seed: int = 0,
) -> Learner:
    """A learner of the tasks of `supervised`, scored by them.

    Args:
        model: has a head for every task.
        supervised: the labels as an objective.
        optim: the optimiser.
        freeze: see `medssml.trainers.freezing.train_only`.
        others: further objectives that are learned beside the labels.
        given: another model that they may ask.
        lora: adapters of the encoders, whose own weights then stay as they are; None for none.
        seed: of dropout and modality dropout.
    """
    models = [model, *supervised.peers, *(peer for other in others for peer in other.peers)]
    frozen = [part for one in models for part in train_only(one, supervised.tasks, freeze)]
    if lora is not None:
        frozen += [part for one in models for part in adapt(one, lora, seed)]
    judge = TaskJudge(supervised.tasks)
    return Learner(model, [supervised, *others], optim, judge=judge, frozen=frozen, given=given, seed=seed)
