"""What the frozen embedding of a model holds, and that of the same model with its first weights: the probes of a cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch

from medssml.batch import Batch
from medssml.config import build
from medssml.data.prepared_studies import PreparedStudies, prepare_studies
from medssml.evaluation.encoded_studies import encode_studies
from medssml.evaluation.probes import linear_readout
from medssml.evaluation.subsets import embed_subset
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.predictor import load_transforms
from medssml.runs.labels import labelled_studies
from medssml.standardise import FIRST, Standardise
from medssml.statistics.bootstrap import Array

#: What a probe of the fused embedding of whatever a study has is called.
ALL = "all"
SPLITS = ("train", "val", "test")


def random_twin(model: MultimodalModel, seed: int) -> MultimodalModel:
    """The model as it was before its first step: its weights drawn from the same seed, and what it measures by hand fitted."""
    torch.manual_seed(seed)
    twin = build(model.described(), MultimodalModel, at="model")
    twin.descriptors.load_state_dict(model.descriptors.state_dict())
    return twin


def moved(model: MultimodalModel, seed: int) -> list[str]:
    """The modalities whose encoder the training has changed."""
    first = random_twin(model, seed)
    pairs = {name: (model.encoders[name].parameters(), first.encoders[name].parameters()) for name in model.modalities}
    return [
        name for name, (now, was) in pairs.items() if any(not torch.equal(a, b) for a, b in zip(now, was, strict=True))
    ]


def standardised(model: MultimodalModel, batches: Sequence[Batch], device: str) -> None:
    """Gives the model the statistics of its encoders' features that a training takes from its first batches.

    A model that was trained has them, but for modalities that its objectives did not look at; the random one has none,
    and would be worse than it is: its fused embedding would be that of the modality of the largest features.
    """
    model.eval().to(device)
    with torch.inference_mode():
        for batch in batches[:FIRST]:
            raw = model.encode_raw(model.align(batch.to(device)))
            for name, layer in model.standardise.items():
                cast(Standardise, layer.train()).follow(raw[name].pooled if name in raw else None)
    model.eval()


@dataclass(frozen=True)
class Probed:
    """The studies that models are probed on.

    Args:
        studies: prepared by the transforms of the models. device: where the models run.
    """

    studies: PreparedStudies
    device: str

    @classmethod
    def prepared(cls, run: Path, manifest: Path, root: Path | None, cache: Path, device: str) -> Probed:
        """The studies of a table, whose paths are relative to `root`, as the run has seen them."""
        return cls(prepare_studies(Manifest.read(manifest, root), load_transforms(run / "model"), cache), device)

    def answers(
        self, model: MultimodalModel, random: MultimodalModel, tasks: Sequence[str], shares: Sequence[float]
    ) -> pd.DataFrame:
        """What linear probes of both models say of validation and test studies.

        Args:
            model: trained. random: its twin with random weights.
            tasks: of two classes.
            shares: of the labelled training subjects, each with probes of its own.

        Returns:
            labels, task, subset, split, study_id, subject, y, probability (of `model`), random; a row per study that has
            the subset, one modality or `ALL`.
        """
        batches = {split: list(self.studies.batches(self.studies.manifest.split(split))) for split in SPLITS}
        views = [Views(one, batches, self.device) for one in (model, random)]
        rows = []
        for share in shares:
            known = self._labelled(tasks, share)
            for task in tasks:
                for subset in (*model.modalities, ALL):
                    rows += [part.assign(labels=share) for part in _asked(views, task, subset, known)]
        if not rows:
            raise ValueError(
                f"no probe can be fitted to {', '.join(tasks)}: too few labelled training studies of a class"
            )
        return pd.concat(rows, ignore_index=True)

    def _labelled(self, tasks: Sequence[str], share: float) -> set[str]:
        """Training studies whose labels the probes see: the same for all models and seeds."""
        chosen = labelled_studies(self.studies.manifest, tasks, share, seed=0).split("train")
        return set(map(str, chosen.study_codes))


class Views:
    """Embeddings of studies, split -> batches, by a model that has the statistics of those of training."""

    def __init__(self, model: MultimodalModel, batches: Mapping[str, Sequence[Batch]], device: str) -> None:
        standardised(model, batches["train"], device)
        self.encoded = {split: encode_studies(model, part, device) for split, part in batches.items()}
        self._fused = {split: embed_subset(model, studies, device=device) for split, studies in self.encoded.items()}

    def of(self, split: str, subset: str) -> tuple[Array, Array]:
        """(n,) studies that have the subset, and their (n, D) embeddings: its encoder's own, or the fused one."""
        studies = self.encoded[split]
        if subset == ALL:
            return np.arange(len(studies)), self._fused[split].astype(np.float64)
        rows = np.flatnonzero(studies.has[:, studies.column(subset)])
        return rows, studies.raw[subset].double().numpy() if len(rows) else np.zeros((0, 1))


def _asked(views: Sequence[Views], task: str, subset: str, known: set[str]) -> Iterator[pd.DataFrame]:
    """The answers of the probes of each model to one task from one subset; nothing where they cannot be fitted."""
    scores = [_scores(view, task, subset, known) for view in views]
    if any(found is None for found in scores):
        return
    for split in SPLITS[1:]:
        studies = views[0].encoded[split]
        rows, _ = views[0].of(split, subset)
        y = studies.targets[task][rows]
        table = pd.DataFrame(
            {
                "task": task,
                "subset": subset,
                "split": split,
                "study_id": np.array(studies.study_id, dtype=object)[rows],
                "subject": studies.subject[rows],
                "y": y,
                "probability": cast(dict[str, Array], scores[0])[split],
                "random": cast(dict[str, Array], scores[1])[split],
            }
        )
        yield table.loc[np.isfinite(y)]


def _scores(view: Views, task: str, subset: str, known: set[str]) -> dict[str, Array] | None:
    """Split -> (n,) probabilities of a probe fitted on the training studies `known`, its penalty chosen on validation."""
    seen = {split: view.of(split, subset) for split in SPLITS}
    train = view.encoded["train"]
    (rows, x), (held, x_held), (_, x_test) = (seen[split] for split in SPLITS)
    labelled = np.array([train.study_id[row] in known for row in rows], dtype=bool)
    rows, x = rows[labelled], x[labelled]
    readout = linear_readout(
        x, train.targets[task][rows], train.subject[rows], validation=(x_held, view.encoded["val"].targets[task][held]),
        block=train.measured.get(subset, 0),
    )  # fmt: skip
    if isinstance(readout, str):
        return None
    return {"val": readout.scores(x_held), "test": readout.scores(x_test)}
