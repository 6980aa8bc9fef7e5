"""The last act of a fine-tuning with `calibrate: true`: of the final weights, on all validation and training studies."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from medssml.data.datamodule import StudyDataModule
from medssml.evaluation.encoded_studies import encode_studies
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.runs.labels import label_weights
from medssml.runs.presence_weights import independent_of_presence
from medssml.runs.training_config import Finetuning
from medssml.trainers.calibration import calibrate
from medssml.trainers.precision import device_type


def calibration_of(model: MultimodalModel, data: StudyDataModule, config: Finetuning) -> Callable[[], None] | None:
    """What `medssml.runs.training.train` calls at the end; None where the config does not ask for it."""

    def finish() -> None:
        device = device_type(config.trainer.device)
        held_out = encode_studies(model, data.loader("val"), device) if len(data.manifest.split("val")) else None
        learned = encode_studies(model, data.loader("train"), device)
        model.to("cpu")
        weights = calibration_weights(config, data.manifest)
        for task, said in calibrate(model, config.tasks, held_out, learned, weights).items():
            logging.getLogger(__name__).info("%s: %s", task, said)

    return finish if config.calibrate else None


def calibration_weights(config: Finetuning, table: Manifest) -> dict[str, dict[str, float]]:
    """Task -> study -> weight of its label in calibration: as in training, with validation studies weighed by presence."""
    splits = [table.split(split) for split in ("train", "val")]
    studies = [str(study) for part in splits for study in part.study_codes]
    of_labels = label_weights(table, config.tasks)
    found = {}
    for task in config.tasks:
        weights = np.ones(len(studies))
        if config.presence_weights and table.tasks[task].kind != "regression":
            y = np.concatenate([part.targets[task] for part in splits])
            weights = independent_of_presence(np.concatenate([part.present for part in splits]), y)
        weights[: len(splits[0])] *= of_labels.get(task, 1.0)
        found[task] = dict(zip(studies, weights.tolist(), strict=True))
    return found
