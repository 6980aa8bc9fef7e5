"""A run through a fusion that fits something to all training studies, stopped within an epoch and at its edge: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from medssml.batch import Batch
from medssml.fusion import ConcatFusion, Fusion, PriorImputation, RegressionImputation, RetrievalImputation
from medssml.model import Task
from medssml.objectives import SMIL, Supervised
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings
from tests.objectives.vectors import vector_batch, vector_model

NAMES, DIM, STEPS = ("a", "b", "c"), 4, 6
FUSIONS: dict[str, Any] = {
    "regression": lambda names, dim: RegressionImputation(names, dim, ConcatFusion(names, dim)),
    "retrieval": lambda names, dim: RetrievalImputation(names, dim, ConcatFusion(names, dim), neighbours=2, memory=20),
    "prior": lambda names, dim: PriorImputation(names, dim, ConcatFusion(names, dim), centres=3, noise=0.2),
}


class Loader:
    """Two batches of eight studies an epoch, in their order, with new keys in each."""

    def __init__(self, stop: int | None = None) -> None:
        g = torch.Generator().manual_seed(1)
        cause = torch.randn(16, 1, DIM, generator=g)
        self.table = cause + torch.randn(16, 3, DIM, generator=g)
        self.present = torch.rand(16, 3, generator=g) < 0.6
        self.present[:, 0] |= ~self.present.any(1)
        self.y = (cause.sum((1, 2)) > 0).float()
        self.stop, self.step = stop, 0

    def __len__(self) -> int:
        return 2

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = 2 * state["epoch"] + state["batch"]

    def take(self) -> Batch:
        if self.step == self.stop:
            raise KeyboardInterrupt
        epoch, place = divmod(self.step, 2)
        self.step += 1
        return self._rows(slice(8 * place, 8 * place + 8), epoch)

    def __iter__(self) -> Any:
        return (self._rows(slice(start, start + 8), 0) for start in (0, 8))

    def _rows(self, rows: slice, epoch: int) -> Batch:
        vectors = {name: self.table[rows, column] for column, name in enumerate(NAMES)}
        return vector_batch(vectors, self.present[rows], {"y": self.y[rows]}, epoch=epoch)


def run(folder: Path, name: str, stop: int | None = None) -> Learner:
    torch.manual_seed(0)
    model = vector_model(NAMES, DIM, FUSIONS[name], {"y": Task()})
    for layer in model.project.values():
        layer.requires_grad_(True)
    objective = SMIL(model) if name == "prior" else Supervised(model, modality_dropout=0.3)
    learner = Learner(model, [objective], Optim(lr=1e-2, warmup=0.0), seed=3)
    settings = TrainerSettings(max_steps=STEPS, save_every_steps=1, device="cpu", precision="32")
    fit(learner, Loader(stop), folder, settings, studies=Loader())
    return learner


@pytest.mark.parametrize("name", FUSIONS)
def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    torch.set_num_threads(1)
    whole = run(tmp_path / "whole", name)
    for cut in (3, 4):
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path / str(cut), name, stop=cut)
        resumed = run(tmp_path / str(cut), name).state_dict()
        assert all(torch.equal(value, resumed[key]) for key, value in whole.state_dict().items()), cut
    fusion: Fusion = whole.model.fusion
    fitted = dict(fusion.named_buffers())
    assert set(fitted) <= {key.removeprefix("model.fusion.") for key in whole.state_dict()}
    assert any(bool(value.any()) for value in fitted.values()), "something was fitted"
