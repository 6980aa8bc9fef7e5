"""What learns from labels, as a fine-tuning config says."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from medssml.config import build
from medssml.manifest.columns import MODALITIES
from medssml.model import MultimodalModel
from medssml.objectives import Supervised
from medssml.objectives.base import Objective
from medssml.objectives.study_loss import CrossEntropy, StudyLoss
from medssml.runs.training_config import Finetuning
from medssml.trainers.finetune import finetuner
from medssml.trainers.learner import Learner


def learner_of(
    config: Finetuning,
    model: MultimodalModel,
    class_weights: Mapping[str, Sequence[float]] | None,
    *,
    others: Sequence[Objective] = (),
    given: MultimodalModel | None = None,
    seed: int | None = None,
    plugins: Collection[str] = (),
) -> Learner:
    """The learner of the labels of `config.tasks`, whose heads the model has; rates of modalities that it lacks are left out.

    Args:
        class_weights: of `balanced_weights`; None weighs all classes alike.
        others: objectives beside the labels. given: the teacher that they ask for.
        seed: of what is drawn in training; the config's by default.
        plugins: packages that classes may come from.

    Raises:
        ValueError: a loss that is not for one of the tasks.
    """
    labels = Supervised(
        model,
        config.tasks,
        loss=loss_of(config, plugins),
        modality_dropout=config.modality_dropout,
        unimodal_weight=config.unimodal_weight,
        class_weights=class_weights or None,
    )
    known = {*MODALITIES, *(config.architecture.transforms if config.architecture is not None else ())}
    return finetuner(
        model,
        labels,
        config.optim.without(known - set(model.modalities)),
        freeze=config.freeze,
        others=others,
        given=given,
        seed=config.seed if seed is None else seed,
    )


def loss_of(config: Finetuning, plugins: Collection[str] = ()) -> StudyLoss:
    """What a wrong answer costs.

    Raises:
        medssml.config.ConfigError: values that the loss refuses.
    """
    if config.loss is None:
        return CrossEntropy(config.label_smoothing)
    return build(config.loss, StudyLoss, plugins=plugins, at="loss")  # type: ignore[no-any-return]
