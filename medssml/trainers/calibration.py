"""Calibration of a trained model: probabilities as sure as they are right, whatever a study lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.subsets import Predictions, predict_subsets
from medssml.model import MultimodalModel
from medssml.statistics.pattern_calibration import Answers, fitted, monotone
from medssml.trainers.label_weights import LabelWeights

#: With more modalities, most of the 2^M subsets are of no study.
MODALITIES = 8


def calibrate(
    model: MultimodalModel,
    tasks: Sequence[str],
    held_out: EncodedStudies | None,
    learned: EncodedStudies,
    weights: Mapping[str, LabelWeights] | None = None,
    balanced: bool = False,
) -> dict[str, str]:
    """Scales the answers to each binary and multiclass task by what was seen: see `medssml.statistics.pattern_calibration`.

    Args:
        model: changed, by `MultimodalModel.calibrate`.
        tasks: of the model.
        held_out: of the validation split, from `encode_studies`; None without one.
        learned: of the training split.
        weights: of labels.
        balanced: what is there says nothing of the label; see `medssml.statistics.pattern_calibration.fitted`.

    Returns:
        task -> what was done, in words.
    """
    size = len(model.modalities)
    if size > MODALITIES:
        return dict.fromkeys(
            tasks, f"not calibrated: {size} modalities have {2**size:,} subsets; up to {MODALITIES} are taken"
        )
    names = [name for name in tasks if model.tasks[name].kind != "regression"]
    said = {name: "not calibrated: a regression has no probabilities" for name in tasks if name not in names}
    if not names:
        return said
    for name in names:
        model.uncalibrate(name)
    of_learned = predict_subsets(model, learned, names)
    of_held_out = None if held_out is None else predict_subsets(model, held_out, names)
    for name in names:
        seen = _answers(of_learned, name, weights)
        held = seen._replace(y=np.full(len(seen.y), np.nan))
        if of_held_out is not None:
            held = _answers(of_held_out, name, weights)
        if not all(np.isfinite(part.logits).all() for part in (seen, held)):
            said[name] = "not calibrated: some of its answers are not finite"
            continue
        scaling = monotone(fitted(held, seen, balanced=balanced), [seen] if of_held_out is None else [held, seen])
        model.calibrate(name, torch.from_numpy(scaling.scale), torch.from_numpy(scaling.shift))
        whole = scaling.scale[-1]
        said[name] = (
            f"calibrated per subset on {len(held.known.y)} validation and {len(seen.known.y)} training studies; "
            f"with every modality there, logits times {whole:.2f}"
        )
    return said


def _answers(predictions: Predictions, task: str, weights: Mapping[str, LabelWeights] | None) -> Answers:
    counts, y = (weights or {}).get(task), predictions.target(task)
    return Answers(
        predictions.outputs[task].astype(np.float64),
        y,
        predictions.present,
        np.ones(len(y)) if counts is None else counts.of_label(predictions.study_id),
    )
