"""A run that was stopped and goes on ends with the same bits, for every objective: queues, teachers and clusters included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medssml.batch import Batch
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings
from tests.examples import OBJECTIVES, PATTERNS, batch_of, study, tiny_model

#: Two batches of five studies an epoch; the run is cut in the middle of an epoch and at its edge.
STEPS, CUTS = 6, (3, 4)


class Loader:
    """Ten studies, five at a time, in their order; masks and augmentation are drawn anew every epoch."""

    def __init__(self, views: int, stop: int | None = None) -> None:
        self.views, self.stop, self.step = views, stop, 0

    def __len__(self) -> int:
        return 2

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = 2 * state["epoch"] + state["batch"]

    def take(self) -> Batch:
        if self.step == self.stop:
            raise KeyboardInterrupt
        epoch, place = divmod(self.step, 2)
        self.step += 1
        studies = [study(n, PATTERNS[n], epoch=epoch) for n in range(5 * place, 5 * place + 5)]
        return batch_of(studies, views=self.views)

    def __iter__(self) -> Iterator[Batch]:
        return (batch_of([study(n, PATTERNS[n]) for n in range(start, start + 5)]) for start in (0, 5))


def learner_of(name: str) -> Learner:
    model = tiny_model()
    torch.manual_seed(1)
    objective = OBJECTIVES[name](model)
    given = tiny_model(seed=5) if objective.teacher == "given" else None
    return Learner(model, [objective], Optim(lr=1e-3), given=given, seed=3)


def run(folder: Path, name: str, stop: int | None = None) -> Learner:
    learner = learner_of(name)
    settings = TrainerSettings(max_steps=STEPS, save_every_steps=1, device="cpu", precision="32")
    fit(learner, Loader(learner.views, stop), folder, settings, studies=Loader(1))
    return learner


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_stopped_run_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    torch.set_num_threads(1)
    whole = run(tmp_path / "whole", name).state_dict()
    begun = learner_of(name).state_dict()
    for cut in CUTS:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path / str(cut), name, stop=cut)
        resumed = run(tmp_path / str(cut), name).state_dict()
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items()), cut
    assert any(not torch.equal(value, whole[key]) for key, value in begun.items() if value.shape == whole[key].shape)
