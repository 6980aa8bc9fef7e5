"""Studies as the vectors that a pretrained model's encoders give: encoded once, then learned from as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded
from medssml.data.prepared_studies import prepare_studies
from medssml.encoders import Encoder
from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.manifest.manifest import Manifest
from medssml.predictor import load
from medssml.randomness import study_key
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit

SPLITS = ("train", "val", "test")


class Cohort(NamedTuple):
    """Split -> studies behind the encoders.

    table: split -> the table of the same studies, in their order. standardise: modality -> what the model does to vectors.
    """

    studies: dict[str, EncodedStudies]
    table: dict[str, Manifest]
    tasks: list[str]
    standardise: nn.ModuleDict


def read(checkpoint: str, manifest: Path, cache: Path) -> Cohort:
    """Every study through the encoders, once."""
    predictor = load(checkpoint)
    table = Manifest.read(manifest, modalities=predictor.modalities)
    studies, tables = {}, {}
    for split in SPLITS:
        prepared = prepare_studies(table.split(split), predictor.transforms, cache)
        studies[split], tables[split] = encode_studies(predictor.model, prepared.batches()), prepared.manifest
    tasks = [task for task, label in table.tasks.items() if label.kind == "binary"]
    return Cohort(studies, tables, tasks, predictor.model.standardise)


def train_to_the_end(learner: Learner, *given: Any, **options: Any) -> None:
    """`medssml.trainers.loop.fit`; one that a signal stopped ends the program, so that no half-trained model is measured."""
    outcome = fit(learner, *given, **options)
    if outcome.status == "stopped":
        raise SystemExit(outcome.exit_code)


class Given(Encoder):
    """Vectors that another model made, as they are."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, inputs: Any, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        return Encoded(inputs[:, None], torch.ones(len(inputs), 1, dtype=torch.bool), inputs)


class Vectors:
    """Batches of the studies of one split: drawn by `take` in training, in order where it is iterated over.

    Args:
        studies: of the split.
        targets: task -> (N,) what training is told.
        seed: of the order.
        size: of a batch.
        present: (N, M) bool, what of each study is there; all that it has by default.
    """

    def __init__(
        self,
        studies: EncodedStudies,
        targets: Mapping[str, np.ndarray],
        seed: int,
        size: int = 64,
        present: np.ndarray | None = None,
    ) -> None:
        self.studies, self.targets, self.seed, self.size, self.step = studies, targets, seed, size, 0
        self.present = studies.present if present is None else torch.as_tensor(present) & studies.present
        self.position = {m: studies.position(m) for m in studies.raw}

    def __len__(self) -> int:
        return len(self.studies) // self.size

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["epoch"] * len(self) + state["batch"]

    def take(self) -> Batch:
        epoch, place = divmod(self.step, len(self))
        self.step += 1
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.studies))
        return self.batch(order[place * self.size : (place + 1) * self.size], epoch)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.studies), 256):
            yield self.batch(np.arange(start, min(start + 256, len(self.studies))), 0)

    def batch(self, rows: np.ndarray, epoch: int) -> Batch:
        """The studies at `rows`."""
        index = torch.as_tensor(rows)
        present, inputs = self.present[index], {}
        for m, place in self.position.items():
            seen = index[present[:, self.studies.column(m)]]
            if len(seen):
                inputs[m] = self.studies.raw[m][place[seen]]
        ids = [self.studies.study_id[row] for row in rows]
        return Batch(
            inputs=dict(inputs),
            present=present,
            modalities=self.studies.modalities,
            study_id=tuple(ids),
            subject=torch.as_tensor(self.studies.subject[rows]),
            key=torch.tensor([study_key(self.seed, epoch, name, 0) for name in ids], dtype=torch.int64),
            targets={task: torch.as_tensor(values[rows]) for task, values in self.targets.items()},
            index=index,
        )
