"""The last act of a fine-tuning with `calibrate: true`: of the final weights, on all validation and training studies."""

from __future__ import annotations

import logging
from collections.abc import Callable

from medssml.data.datamodule import StudyDataModule
from medssml.evaluation.encoded_studies import encode_studies
from medssml.model import MultimodalModel
from medssml.runs.finetuning import counted_labels
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
        weights = counted_labels(config, data.manifest, ("train", "val"))
        for task, said in calibrate(model, config.tasks, held_out, learned, weights, config.presence_weights).items():
            logging.getLogger(__name__).info("%s: %s", task, said)

    return finish if config.calibrate else None
