"""Batches: their order, their randomness, and that stopping leaves no trace in either."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from medssml.batch import Batch
from medssml.data import loader as module
from medssml.data.collate import collate
from medssml.data.dataset import StudyDataset, StudyError
from medssml.data.epoch_order import balanced, quotas, shuffled
from medssml.data.loader import EvalLoader, LoaderStalled, TrainLoader
from medssml.manifest.manifest import Manifest
from medssml.store.cache import Cache


def dataset(plain: Manifest, transforms: dict, tmp_path: Path, seed: int = 0) -> StudyDataset:
    studies = plain.split("train").filter(plain.split("train").present.any(axis=1))
    return StudyDataset(studies, transforms, Cache(tmp_path / "cache"), seed=seed, train=True)


@pytest.fixture
def train(plain: Manifest, transforms: dict, tmp_path: Path) -> StudyDataset:
    return dataset(plain, transforms, tmp_path)


def told(batch: Batch) -> tuple:
    """All that a batch says, comparable."""
    inputs = {name: value.tolist() for name, value in batch.inputs.items()}  # type: ignore[union-attr]
    return batch.study_id, batch.key.tolist(), batch.present.tolist(), inputs, str(batch.targets["sick"].tolist())


def run(loader: TrainLoader, count: int) -> list[tuple]:
    """The next `count` batches, epoch after epoch, as a trainer takes them."""
    out: list[tuple] = []
    while len(out) < count:
        out += [told(batch) for batch in itertools.islice(iter(loader), count - len(out))]
    return out


def test_an_item_has_what_the_study_has(train: StudyDataset) -> None:
    sample = train.item(0, epoch=0)
    assert "xray" in sample and "report" not in sample
    assert sample["study_id"] == "000" and np.isnan(sample["targets"]["sick"])
    assert set(sample["content"]) == {"xray"} and type(sample["xray"]) is torch.Tensor
    assert train.item(0)["subject"] == train.item(1)["subject"] != train.item(2)["subject"]


def test_randomness_is_keyed(train: StudyDataset, plain: Manifest, transforms: dict, tmp_path: Path) -> None:
    assert torch.equal(train.item(3, 1)["xray"], train.item(3, 1)["xray"])
    others = [train.item(3, 2), train.item(3, 1, draw=1), dataset(plain, transforms, tmp_path, seed=1).item(3, 1)]
    assert all(not torch.equal(train.item(3, 1)["xray"], other["xray"]) for other in others)
    assert len({train.item(3, 1)["key"], *(other["key"] for other in others)}) == 4
    assert 0 <= train.item(3, 1)["key"] < 2**63


def test_a_study_draws_the_same_whoever_else_is_in_the_table(train: StudyDataset) -> None:
    alone = StudyDataset(train.manifest.filter([3]), train.transforms, train.cache, train=True)
    assert torch.equal(alone.item(0, 5)["xray"], train.item(3, 5)["xray"])


def test_evaluation_draws_nothing(train: StudyDataset) -> None:
    still = StudyDataset(train.manifest, train.transforms, train.cache)
    assert torch.equal(still.item(3, 0)["xray"], still.item(3, 7)["xray"])
    assert still.item(3, 0)["key"] == still.item(3, 7)["key"]


def test_a_broken_file_names_row_column_and_file(train: StudyDataset) -> None:
    (train.manifest.root / "x0.txt").write_text("bad")
    with pytest.raises(StudyError, match=r"row 2, column 'xray', file 'x0.txt': .*it says that it is bad"):
        train.item(0)
    (train.manifest.root / "x0.txt").unlink()
    with pytest.raises(StudyError, match="No such file"):
        StudyDataset(train.manifest, train.transforms, train.cache).item(0)


def test_collate_gathers_only_what_is_there(train: StudyDataset) -> None:
    batch = collate([train.item(i) for i in range(4)], ("xray", "report"), ("sick",))
    assert batch.present.tolist() == [[True, False], [False, True], [False, True], [True, False]]
    assert batch.inputs["xray"].shape == (2, 4) and batch.content["report"].shape == (2,)  # type: ignore[union-attr]
    assert batch.targets["sick"].dtype == torch.float64 and batch.targets["sick"].isnan().tolist() == [
        True,
        False,
        False,
        False,
    ]
    only = collate([train.item(0)], ("xray", "report"), ())
    assert "report" not in only.inputs
    with pytest.raises(ValueError, match="no samples"):
        collate([], ("xray",))


def test_collate_fills_up_ragged_rows() -> None:
    def sample(channels: int, samples: int) -> dict:
        signal = {
            "signal": torch.ones(channels, samples),
            "channels": torch.arange(1, channels + 1),
            "length": torch.tensor(samples),
        }
        return {"study_id": "a", "subject": 1, "key": 2, "targets": {}, "content": {"eeg": 3}, "eeg": signal}

    eeg = collate([sample(2, 5), sample(3, 4)], ("eeg",)).inputs["eeg"]
    assert isinstance(eeg, dict)
    assert eeg["signal"].shape == (2, 3, 5) and eeg["signal"].sum() == 10 + 12
    assert eeg["channels"].tolist() == [[1, 2, 0], [1, 2, 3]] and eeg["length"].tolist() == [5, 4]


def test_an_epoch_shows_every_study_once_in_another_order(train: StudyDataset) -> None:
    loader = TrainLoader(train, 9, tasks=["sick"])
    assert len(train) == 27 and len(loader) == 3
    epochs = [[study for batch in loader for study in batch.study_id] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(train.manifest.study_ids)
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_cohort_is_the_cohort(train: StudyDataset) -> None:
    assert len(TrainLoader(train, 500)) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [1, 5, 6, 7, 12, 17])
def test_going_on_from_a_saved_state_leaves_no_trace(train: StudyDataset, cut: int, workers: int) -> None:
    """27 studies in batches of 4 are 6 batches an epoch: cuts within, at and after an epoch's edge."""
    if workers and cut not in (5, 6):
        pytest.skip("two cuts are enough with loader processes")
    whole = run(TrainLoader(train, 4, tasks=["sick"], seed=7), 18)
    before = TrainLoader(train, 4, tasks=["sick"], seed=7, num_workers=workers)
    first = run(before, cut)
    after = TrainLoader(train, 4, tasks=["sick"], seed=7, num_workers=workers)
    waiting = iter(after)  # Lightning asks for the iterator before it restores the state
    after.load_state_dict(before.state_dict())
    rest = [told(batch) for batch in waiting]
    assert len(rest) == 6 - cut % 6
    rest += run(after, 18 - cut - len(rest))
    assert first + rest == whole


def test_processes_do_not_change_the_batches(train: StudyDataset) -> None:
    runs = [run(TrainLoader(train, 4, tasks=["sick"], num_workers=workers), 8) for workers in (0, 2)]
    assert runs[0] == runs[1]


def test_starting_a_loader_does_not_touch_the_global_generator(train: StudyDataset) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run(TrainLoader(train, 4, tasks=["sick"]), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_the_state_says_epoch_and_batch(train: StudyDataset) -> None:
    loader = TrainLoader(train, 4, tasks=["sick"])
    run(loader, 8)
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 2)
    loader.load_state_dict({"epoch": 3, "batch": 5})
    assert loader.step == 23 and loader.epoch == 3
    for name, value in {"seed": 1, "batch_size": 5, "studies": "other"}.items():
        with pytest.raises(ValueError, match="fix:"):
            loader.load_state_dict(state | {name: value})


def test_set_epoch_goes_on_but_never_back(train: StudyDataset) -> None:
    loader = TrainLoader(train, 4, tasks=["sick"])
    run(loader, 8)
    loader.set_epoch(1)
    assert loader.step == 8
    loader.set_epoch(0)
    assert loader.step == 8
    iterator = iter(loader)
    loader.set_epoch(2)
    assert told(next(iterator)) == run(TrainLoader(train, 4, tasks=["sick"]), 13)[12]


@pytest.mark.parametrize("groups", [None, "balanced"])
def test_two_ranks_share_the_batches_of_one(
    train: StudyDataset, groups: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = None if groups is None else list(train.manifest.table["source"])
    whole = [b.study_id + tuple(b.key.tolist()) for b in TrainLoader(train, 8, groups=names)]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(module, "_rank", lambda rank=rank: (rank, 2))
        parts.append([(b.study_id, b.key.tolist()) for b in TrainLoader(train, 8, groups=names)])
    assert [a[0] + b[0] + tuple(a[1] + b[1]) for a, b in zip(*parts, strict=True)] == whole
    with pytest.raises(ValueError, match="divided among 2 ranks"):
        TrainLoader(train, 7)


def test_evaluation_follows_the_table(train: StudyDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = EvalLoader(train, 8, tasks=["sick"])
    batches = list(loader)
    assert [len(batch) for batch in batches] == [8, 8, 8, 3] and len(loader) == 4
    assert [study for batch in batches for study in batch.study_id] == list(train.manifest.study_ids)
    seen = []
    for rank in range(2):
        monkeypatch.setattr(module, "_rank", lambda rank=rank: (rank, 2))
        seen.append([batch.study_id for batch in EvalLoader(train, 8, spread=True)])
    assert [len(part) for part in seen[0]] == [len(part) for part in seen[1]] == [4, 4, 4, 1]
    assert len({study for rank in seen for part in rank for study in part}) == 26


def test_rare_groups_are_shown_more_often() -> None:
    groups = ["often"] * 90 + ["rare"] * 10
    counts = Counter()
    for epoch in range(6):
        order = balanced(groups, seed=0, epoch=epoch, power=0.5)
        assert len(order.rows) == 100 and len(set(zip(order.rows, order.draw, strict=True))) == 100
        counts.update(int(row) for row in order.rows)
        rare = [int((order.rows[start : start + 20] >= 90).sum()) for start in range(0, 100, 20)]
        assert min(rare) >= 4 and max(rare) <= 6
    assert sum(counts[row] for row in range(90, 100)) == 6 * 25
    assert {counts[row] for row in range(90, 100)} == {15}
    assert {counts[row] for row in range(90)} == {5}


def test_power_says_how_much() -> None:
    assert quotas([90, 10], 1.0) == [90, 10]
    assert quotas([90, 10], 0.0) == [50, 50]
    assert quotas([1000, 1, 1], 1.0) == [1000, 1, 1]
    assert sorted(balanced(["a"] * 5, 0, 3, 1.0).rows) == list(range(5))
    assert not np.array_equal(shuffled(50, 0, 0).rows, shuffled(50, 0, 1).rows)
    with pytest.raises(ValueError, match="balance_power"):
        balanced(["a"], 0, 0, 2.0)


class _Stalls:
    """A transform that stalls, or dies, at one study."""

    def __init__(self, how: str) -> None:
        self.how = how

    def spec(self) -> dict[str, str]:
        return {"how": self.how}

    def prepare(self, source: Path | str) -> dict[str, np.ndarray]:
        if str(source).endswith("x9.txt"):
            if self.how == "dies":
                os._exit(9)
            time.sleep(60)
        return {"values": np.zeros(2, np.uint8)}

    def __call__(self, prepared: dict[str, np.ndarray], rng: object = None) -> torch.Tensor:
        return torch.zeros(2)


@pytest.mark.parametrize("how", ["stalls", "dies"])
def test_a_process_that_stalls_or_dies_names_the_file(plain: Manifest, tmp_path: Path, how: str) -> None:
    studies = plain.filter([9])
    loader = EvalLoader(
        StudyDataset(studies, {"xray": _Stalls(how)}, Cache(tmp_path / "cache")),
        1,
        num_workers=1,
        timeout_s=1,  # type: ignore[dict-item]
    )
    with pytest.raises(LoaderStalled, match=r"row 11 \(x9.txt\)"):
        next(iter(loader))
