"""A small model, its data and its run, for the tests of the trainers; as a script, the run that the tests kill.

python tests/trainers/toy.py FOLDER [--kill STEP] [--slow]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded
from medssml.encoders.base import Encoder, refuse_keep
from medssml.fusion import ConcatFusion, Fusion
from medssml.model import MultimodalModel, Task
from medssml.objectives import Supervised
from medssml.trainers.finetune import finetuner
from medssml.trainers.learner import Learner
from medssml.trainers.loop import Outcome, fit
from medssml.trainers.settings import Optim, TrainerSettings

WIDTH = 6
MODALITIES = ("ct", "report")


class Dense(Encoder):
    """Linear, dropout: (n, WIDTH) -> one token of width dim."""

    def __init__(self, dim: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.dim = dim
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, dim), nn.Linear(dim, dim)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Encoded:
        refuse_keep(self, keep)
        hidden = self.blocks[1](self.dropout(torch.tanh(self.blocks[0](inputs))))
        return Encoded(hidden[:, None], torch.ones(len(hidden), 1, dtype=torch.bool), hidden)


def toy_model(
    seed: int = 0, tasks: tuple[str, ...] = ("sick",), dropout: float = 0.2, fusion: Fusion | None = None
) -> MultimodalModel:
    torch.manual_seed(seed)
    encoders = {name: Dense(dropout=dropout) for name in MODALITIES}
    fusion = ConcatFusion(MODALITIES, dim=8) if fusion is None else fusion
    return MultimodalModel(encoders, fusion, {task: Task("binary", 2) for task in tasks})


def tuner(
    model: MultimodalModel, tasks: Any, optim: Optim, *, freeze: str | int = "none", seed: int = 0, **supervised: Any
) -> Learner:
    """A fine-tuning of the model."""
    return finetuner(model, Supervised(model, tasks, **supervised), optim, freeze=freeze, seed=seed)


class ToyLoader:
    """Batches of studies whose label is the sign of their first number; order and keys are f(seed, epoch)."""

    def __init__(self, studies: int = 48, size: int = 8, seed: int = 0, labels: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(studies, len(MODALITIES), WIDTH, generator=generator)
        self.present = torch.rand(studies, len(MODALITIES), generator=generator) > 0.3
        self.present[:, 0] |= ~self.present.any(1)
        label = (self.x[:, :, 0].mean(1) > 0).float()
        hidden = torch.rand(studies, generator=generator) >= labels
        self.label = label.masked_fill(hidden, float("nan"))
        self.size, self.seed = size, seed
        self.step = 0
        self.before_batch: Any = None

    def __len__(self) -> int:
        return len(self.x) // self.size

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["epoch"] * len(self) + state["batch"]

    def take(self) -> Batch:
        if self.before_batch is not None:
            self.before_batch(self.step)
        epoch, place = divmod(self.step, len(self))
        self.step += 1
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        return self.batch(order[place * self.size : (place + 1) * self.size], epoch)

    def __iter__(self) -> Iterator[Batch]:
        """For validation: every study once, in order."""
        return (self.batch(rows) for rows in torch.arange(len(self.x)).split(self.size))

    def batch(self, rows: Tensor, epoch: int = 0) -> Batch:
        present = self.present[rows]
        return Batch(
            inputs={m: self.x[rows, j][present[:, j]] for j, m in enumerate(MODALITIES) if present[:, j].any()},
            present=present,
            modalities=MODALITIES,
            study_id=tuple(f"study-{int(row)}" for row in rows),
            subject=rows.clone(),
            key=rows * 7919 + epoch * 104729,
            targets={"sick": self.label[rows]},
            index=rows.clone(),
        )


def toy_run(
    folder: Path,
    *,
    loader: ToyLoader | None = None,
    learner: Learner | None = None,
    identity: Any = None,
    **settings: Any,
) -> tuple[Learner, Outcome]:
    """Four epochs of six batches with modality dropout, a running mean of the weights and validation."""
    torch.set_num_threads(1)
    options: dict[str, Any] = {"max_epochs": 4, "save_every_steps": 3, "ema": 0.9, "log_every": 2}
    options |= {"device": "cpu", "precision": "32"}
    if "max_steps" in settings:
        del options["max_epochs"]
    learner = learner or tuner(toy_model(), None, Optim(lr=0.01), modality_dropout=0.3, seed=3)
    outcome = fit(
        learner,
        loader or ToyLoader(),
        folder,
        TrainerSettings(**{**options, **settings}),
        val=ToyLoader(seed=9),
        identity=identity or {"config": "toy"},
    )
    return learner, outcome
