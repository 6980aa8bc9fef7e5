"""The order in which shards are read: each opened once, few at a time, and stopping leaves no trace."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medssml.data.dataset import StudyDataset
from medssml.data.epoch_order import Window, balanced, gathered, shuffled
from medssml.data.loader import EvalLoader, TrainLoader
from medssml.data.prepare import prepare_all, usable
from medssml.data.shard_dataset import ShardDataset, Shards, ShardSettings
from medssml.data.shard_writer import write_shards
from medssml.manifest.manifest import Manifest
from medssml.store.cache import Cache
from medssml.store.shards import Storage

SHARD = np.repeat(np.arange(40), 25)


def open_at_most(order: np.ndarray, shard: np.ndarray) -> int:
    """The most shards that are open at a time: from the first to the last of their studies."""
    first, last = {}, {}
    for place, row in enumerate(order):
        first.setdefault(int(shard[row]), place)
        last[int(shard[row])] = place
    return max(sum(first[s] <= place <= last[s] for s in first) for place in range(len(order)))


@pytest.mark.parametrize("width", [1, 2, 8, 39])
def test_few_shards_are_open_at_a_time_and_every_study_comes_once(width: int) -> None:
    order = gathered(shuffled(1000, 0, 3), Window(SHARD, width), 0, 3)
    assert sorted(order.rows) == list(range(1000))
    assert open_at_most(order.rows, SHARD) <= width
    assert open_at_most(shuffled(1000, 0, 3).rows, SHARD) > 39


def test_shards_of_any_size(seed: int = 5) -> None:
    shard = np.repeat(np.arange(12), np.random.default_rng(seed).integers(1, 60, 12))
    order = gathered(shuffled(len(shard), 1, 0), Window(shard, 4), 1, 0)
    assert sorted(order.rows) == list(range(len(shard))) and open_at_most(order.rows, shard) <= 4


def test_a_window_of_all_shards_is_the_plain_shuffle() -> None:
    plain = shuffled(1000, 7, 2)
    for width in (40, 50):
        assert (gathered(plain, Window(SHARD, width), 7, 2).rows == plain.rows).all()


def test_the_order_is_keyed() -> None:
    def rows(seed: int, epoch: int) -> list[int]:
        return list(gathered(shuffled(1000, seed, epoch), Window(SHARD, 8), seed, epoch).rows)

    assert rows(0, 1) == rows(0, 1) and rows(0, 1) != rows(0, 2) and rows(0, 1) != rows(1, 1)
    turns = [list(dict.fromkeys(SHARD[rows(0, epoch)])) for epoch in range(3)]
    assert turns[0] != turns[1] != turns[2]


def test_batches_are_mixtures_and_neighbours_change() -> None:
    """A batch of 32 holds nearly as many shards as 32 draws from the window would."""
    orders = [gathered(shuffled(1000, 0, epoch), Window(SHARD, 16), 0, epoch).rows for epoch in (0, 1)]
    batches = [[set(rows[start : start + 32]) for start in range(0, 992, 32)] for rows in orders]
    held = np.mean([len({SHARD[row] for row in batch}) for batch in batches[0]])
    assert held > 0.85 * 16 * (1 - (1 - 1 / 16) ** 32)
    # Of two studies that shared a batch, few share one again: 3.1 % would by chance.
    pairs = [{pair for batch in epoch for pair in itertools.combinations(sorted(batch), 2)} for epoch in batches]
    assert len(pairs[0] & pairs[1]) / len(pairs[0]) < 3 * 0.031


def test_balanced_groups_stay_balanced() -> None:
    groups = ["rare" if row % 20 == 0 else "often" for row in range(1000)]
    plain = balanced(groups, 0, 0, power=0.5)
    order = gathered(plain, Window(SHARD, 8), 0, 0)
    assert Counter(zip(order.rows, order.draw, strict=True)) == Counter(zip(plain.rows, plain.draw, strict=True))
    assert open_at_most(order.rows, SHARD) <= 8
    share = [np.mean([groups[row] == "rare" for row in part]) for part in np.split(order.rows, 10)]
    assert min(share) > 0.5 * np.mean(share) and max(share) < 1.6 * np.mean(share)


def test_no_window_is_refused() -> None:
    with pytest.raises(ValueError, match="0 shards wide; fix: 1 or more"):
        gathered(shuffled(4, 0, 0), Window(np.zeros(4, np.int64), 0), 0, 0)


@pytest.fixture
def url(plain: Manifest, transforms: dict, tmp_path: Path) -> str:
    """27 training studies in nine shards and more, behind a URL from which they are fetched."""
    everything = StudyDataset(plain, transforms, Cache(tmp_path / "cache"))
    accepted, _ = usable(everything, prepare_all(everything, workers=0))
    usable_studies = StudyDataset(plain.filter(accepted), transforms, everything.cache)
    write_shards(usable_studies, Storage(tmp_path / "shards"), shard_mb=3 * 256 / 2**20)
    return f"file://{tmp_path}/shards"


def train(url: str, folder: Path, transforms: dict, window: int = 3, room: int = 6) -> ShardDataset:
    shards = Shards(url, folder, ShardSettings(window=window, gib=room * 3 * 256 / 2**30))
    return ShardDataset(shards.index.manifest().split("train"), transforms, shards, train=True)


def told(loader: TrainLoader, count: int) -> list[tuple]:
    batches = [loader.take() for _ in range(count)]
    loader.close()
    return [(b.study_id, b.key.tolist(), {m: b.inputs[m].tolist() for m in b.inputs}) for b in batches]  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("groups", [False, True])
def test_stopped_and_resumed_the_batches_are_the_same(
    url: str, transforms: dict, tmp_path: Path, workers: int, groups: bool
) -> None:
    def loader(folder: str) -> TrainLoader:
        dataset = train(url, tmp_path / folder, transforms)
        named = [str(cell) for cell in dataset.manifest.table["source"]] if groups else None
        return TrainLoader(dataset, 4, seed=3, groups=named, num_workers=workers)

    whole = told(loader("one"), 14)
    first = loader("two")
    began = told(first, 8)
    resumed = loader("three")
    resumed.load_state_dict(first.state_dict())
    assert began + told(resumed, 6) == whole


def test_another_window_or_other_shards_cannot_go_on(url: str, transforms: dict, tmp_path: Path) -> None:
    state = TrainLoader(train(url, tmp_path / "fetched", transforms), 4).state_dict()
    with pytest.raises(ValueError, match=r"made with shards.window 3, now 2; fix: "):
        TrainLoader(train(url, tmp_path / "fetched", transforms, window=2), 4).load_state_dict(state)
    dataset = train(url, tmp_path / "fetched", transforms)
    dataset.window = Window(dataset.window.shard // 2, 3)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="made with the training studies"):
        TrainLoader(dataset, 4).load_state_dict(state)


@pytest.mark.parametrize(("workers", "room"), [(0, 5), (2, 7)])
def test_every_shard_is_fetched_once_an_epoch(
    url: str,
    transforms: dict,
    tmp_path: Path,
    workers: int,
    room: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the folder holds the window, the next shard, and those of the batches that loader processes have before them."""
    log, read = tmp_path / "log", Storage.read

    def counted(storage: Storage, name: str, start: int | None = None, end: int | None = None) -> bytes:
        with log.open("a") as file:
            file.write(f"{name}\n")
        return read(storage, name, start, end)

    dataset = train(url, tmp_path / "fetched", transforms, window=2, room=room)
    monkeypatch.setattr(Storage, "read", counted)
    loader = TrainLoader(dataset, 1, num_workers=workers)
    epoch = [loader._plan.at(step) for step in range(len(loader))]
    assert sum(len(batch.study_id) for batch in loader._stream(epoch)) == 27
    assert caplog.text == ""
    shards = {dataset.shards.index.shards[number].name for number in dataset.window.shard}  # type: ignore[union-attr]
    assert Counter(log.read_text().split()) == dict.fromkeys(shards, 1) and len(shards) >= 9
    assert sum(path.stat().st_size for path in (tmp_path / "fetched").glob("*.shard")) <= dataset.shards.folder.limit  # type: ignore[union-attr]


def test_shards_are_fetched_before_they_are_needed_and_what_is_needed_sooner_is_spared(
    url: str, transforms: dict, tmp_path: Path
) -> None:
    dataset = train(url, tmp_path / "fetched", transforms, window=2, room=4)
    loader = TrainLoader(dataset, 3)
    plans = iter(dataset.look_ahead([loader._plan.at(step) for step in range(len(loader))], held=1))
    for _ in range(len(loader)):
        plan = next(plans)
        needed = {dataset.shards.index.shards[dataset.window.shard[index]].name for index, _, _ in plan}  # type: ignore[union-attr]
        end = time.monotonic() + 10
        while not needed <= (here := {path.name for path in (tmp_path / "fetched").glob("*.shard")}):
            assert time.monotonic() < end, (needed, here)
            time.sleep(0.005)
    assert next(plans, None) is None
    for thread in threading.enumerate():
        if thread.name == "medssml-shards":
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_too_little_room_for_what_is_read_ahead_is_said_once(
    url: str, transforms: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = train(url, tmp_path / "fetched", transforms, window=2, room=4)
    told(TrainLoader(dataset, 3, num_workers=0), 6)
    assert caplog.text == ""
    told(TrainLoader(dataset, 3, num_workers=2), 6)
    assert caplog.text.count("some are fetched more than once; fix: a larger shards.gib") == 1


def test_ranks_share_a_batch_and_the_folder(
    url: str, transforms: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = told(TrainLoader(train(url, tmp_path / "fetched", transforms), 4), 6)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("medssml.data.loader._rank", lambda rank=rank: (rank, 2))
        parts.append(told(TrainLoader(train(url, tmp_path / "fetched", transforms), 4), 6))
    assert [a[0] + b[0] for a, b in zip(*parts, strict=True)] == [batch[0] for batch in whole]


def test_evaluation_goes_shard_by_shard(url: str, transforms: dict, tmp_path: Path) -> None:
    shards = Shards(url, tmp_path / "fetched", ShardSettings(window=1, gib=3 * 3 * 256 / 2**30))
    dataset = ShardDataset(shards.index.manifest(), transforms, shards)
    ids = [study for batch in EvalLoader(dataset, 5, num_workers=1) for study in batch.study_id]
    assert ids == list(dataset.manifest.study_ids)
    assert open_at_most(np.arange(36), dataset.window.shard) == 1  # type: ignore[union-attr]
