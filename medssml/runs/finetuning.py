"""What learns from labels, as a fine-tuning config says."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from medssml.config import LeftOut, build, resolve
from medssml.manifest.columns import MODALITIES
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.objectives import Modulation, Supervised
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.study_loss import CrossEntropy, StudyLoss
from medssml.predictor import load_transforms
from medssml.runs.labels import label_weights
from medssml.runs.presence_weights import label_weights_by_presence, presence_weights
from medssml.runs.training_config import Finetuning
from medssml.trainers.finetune import finetuner
from medssml.trainers.label_weights import LabelWeights
from medssml.trainers.learner import Learner


def learner_of(
    config: Finetuning,
    model: MultimodalModel,
    class_weights: Mapping[str, Sequence[float]] | None,
    *,
    study_weights: Mapping[str, Sequence[float]] | None = None,
    others: Sequence[Objective] = (),
    given: MultimodalModel | None = None,
    seed: int | None = None,
    plugins: Collection[str] = (),
) -> Learner:
    """The learner of the labels of `config.tasks`, whose heads the model has; rates of modalities that it lacks are left out.

    Args:
        class_weights: of `balanced_weights`; None weighs all classes alike. study_weights: of `study_weights`.
        others: objectives beside the labels and those of the config, of which a `Supervised` takes the place of the labels.
        given: the teacher that they ask for.
        seed: of what is drawn in training; the config's by default.
        plugins: packages that classes may come from.

    Raises:
        ValueError: a loss that is not for one of the tasks.
    """
    beside = [*others, *beside_labels(config, model, plugins)]
    own = [objective for objective in beside if isinstance(objective, Supervised)]
    if own:
        _refuse_unused(config, type(own[0]).__name__, class_weights, study_weights)
    labels = (
        own[0]
        if own
        else Supervised(
            model,
            config.tasks,
            loss=loss_of(config, plugins),
            modality_dropout=build(config.modality_dropout, Ramp, at="modality_dropout"),
            unimodal_weight=build(config.unimodal_weight, Ramp, at="unimodal_weight"),
            fused_weight=build(config.fused_weight, Ramp, at="fused_weight"),
            class_weights=class_weights or None,
            study_weights=study_weights,
            modulation=modulation_of(config, plugins),
        )
    )
    known = {*MODALITIES, *(config.architecture.transforms if config.architecture is not None else ())}
    return finetuner(
        model,
        labels,
        config.optim.without(known - set(model.modalities)),
        freeze=config.freeze,
        others=[objective for objective in beside if objective is not labels],
        given=given,
        lora=config.lora,
        seed=config.seed if seed is None else seed,
    )


def teacher_of(
    config: Finetuning, transforms: Mapping[str, Any], plugins: Collection[str] = ()
) -> MultimodalModel | None:
    """The model that objectives may ask, if the config names one.

    Args:
        transforms: of the model that learns; the teacher sees what goes through them.

    Raises:
        ValueError: its own transforms are others, so that it would not see what it was trained on.
    """
    if config.teacher is None:
        return None
    own = load_transforms(config.teacher.checkpoint, plugins)
    other = [name for name in own if name in transforms and own[name].spec() != transforms[name].spec()]
    if other:
        raise ValueError(
            f"the teacher was trained on {', '.join(other)} through other transforms than the model's; fix: a teacher that "
            f"began as this model did"
        )
    return MultimodalModel.load(config.teacher.checkpoint, plugins)


def study_weights(config: Finetuning, table: Manifest) -> dict[str, list[float]]:
    """Task -> weight of the label of each training study: that of its column, times that of its presence where asked for.

    Raises:
        medssml.manifest.refusal.ManifestError: see `label_weights`.
    """
    found = label_weights(table, config.tasks)
    if config.presence_weights:
        for task, weights in presence_weights(table, config.tasks).items():
            found[task] = [a * b for a, b in zip(weights, found.get(task, [1.0] * len(weights)), strict=True)]
    return found


def counted_labels(config: Finetuning, table: Manifest, splits: Sequence[str] = ("train",)) -> dict[str, LabelWeights]:
    """Task -> how much the labels of the studies of `splits` count: those of `study_weights`, of validation studies, too, and
    what they are where a part of each study is seen."""
    parts = [table.split(split) for split in splits]
    studies = [str(study) for part in parts for study in part.study_codes]
    present = np.concatenate([part.present for part in parts])
    of_labels, found = label_weights(table, config.tasks), {}
    for task in config.tasks:
        label, y = np.ones(len(studies)), np.concatenate([part.targets[task] for part in parts])
        label[: len(parts[0])] = of_labels.get(task, 1.0)
        if not config.presence_weights or table.tasks[task].kind == "regression":
            y = np.full(len(y), np.nan)  # nothing to weigh by
        found[task] = label_weights_by_presence(studies, table.modalities, present, y, label)
    return found


def beside_labels(config: Finetuning, model: MultimodalModel, plugins: Collection[str] = ()) -> list[Objective]:
    """The further objectives of the config; one that has nothing to do with the modalities of this model is left out, with a line
    in the log.

    Raises:
        medssml.config.ConfigError: values that an objective refuses.
    """
    found = []
    for place, node in enumerate(config.objectives):
        kind = resolve(str(node["class_path"]), plugins)
        try:
            arguments = kind.restricted_to(dict(node.get("init_args") or {}), model.modalities)  # type: ignore[attr-defined]
        except LeftOut as reason:
            logging.getLogger(__name__).info("%s is left out: it %s", kind.__name__, reason)
            continue
        restricted = {**node, "init_args": arguments}
        found.append(build(restricted, Objective, plugins=plugins, at=f"objectives.{place}", model=model))
    return found


def loss_of(config: Finetuning, plugins: Collection[str] = ()) -> StudyLoss:
    """What a wrong answer costs.

    Raises:
        medssml.config.ConfigError: values that the loss refuses.
    """
    if config.loss is None:
        return CrossEntropy(config.label_smoothing)
    return build(config.loss, StudyLoss, plugins=plugins, at="loss")  # type: ignore[no-any-return]


def modulation_of(config: Finetuning, plugins: Collection[str] = ()) -> Modulation | None:
    """What balances the encoders' gradients, if anything does.

    Raises:
        medssml.config.ConfigError: values that it refuses.
    """
    if config.modulation is None:
        return None
    return build(config.modulation, Modulation, plugins=plugins, at="modulation")  # type: ignore[no-any-return]


def _refuse_unused(config: Finetuning, name: str, class_weights: Any, study_weights: Any) -> None:
    """What an objective that takes the place of the labels would pass over."""
    unused = {
        "loss": config.loss,
        "modulation": config.modulation,
        "unimodal_weight": config.unimodal_weight,
        "fused_weight": config.fused_weight != 1,
        "label_smoothing": config.label_smoothing,
        "class_weights": class_weights,
        "weights below 1 of the table, other than 0,": study_weights,
    }
    found = [key for key, value in unused.items() if value]
    if found:
        raise ValueError(f"{name} takes the place of the labels, and {found[0]} would not count; fix: leave it out")
