"""How fast studies come from prepared shards beside the cache, how often a shard is fetched, and how full the disk gets.

    python pipelines/benchmark_shards.py --studies 192 --epochs 3

Every epoch reads all studies from each source once, one after the other, so that all of them meet the same state of the
machine. What counts are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# One thread for every candidate, as in a loader process; to be set before NumPy and torch load.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from medssml.data.dataset import StudyDataset  # noqa: E402
from medssml.data.epoch_order import Window, gathered, shuffled  # noqa: E402
from medssml.data.loader import TrainLoader  # noqa: E402
from medssml.data.shard_dataset import ShardDataset, Shards, ShardSettings  # noqa: E402
from medssml.data.shard_writer import write_shards  # noqa: E402
from medssml.manifest.manifest import Manifest  # noqa: E402
from medssml.store.cache import Cache  # noqa: E402
from medssml.store.shards import Storage  # noqa: E402
from medssml.transforms import Transform  # noqa: E402

BATCH = 8


class NoiseTransform(Transform):
    """A CT whose prepared volume of 136 x 136 x 136 is noise and is looked at once: no reader or augmentation is measured."""

    def prepare(self, source: Path | str, given: Any = None) -> dict[str, np.ndarray]:  # type: ignore[override]
        rng = np.random.default_rng(int(Path(source).read_text()))
        return {"hu": rng.integers(-1000, 400, (136, 136, 136), dtype=np.int16)}

    def settings(self) -> dict[str, Any]:
        return {}

    def __call__(self, prepared: dict[str, np.ndarray], seed: int | None = None) -> torch.Tensor:
        return torch.from_numpy(prepared["hu"].max(axis=(1, 2)))


class Counted(Storage):
    """Notes every shard that is asked for, from its first byte, in a file: loader processes fetch what is not there yet."""

    def __init__(self, url: str, log: Path) -> None:
        super().__init__(url)
        self.log = log

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        if start == 0:
            with self.log.open("a") as log:
                log.write(f"{name}\n")
        return super().read(name, start, end)


def main(studies: int, epochs: int, shard_mb: float, window: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        local = cohort(place, studies)
        started = time.monotonic()
        written = write_shards(local, Storage(place / "shards"), shard_mb=shard_mb)
        speed = written.nbytes / 2**20 / (time.monotonic() - started)
        print(f"{studies} studies, {written.nbytes / 2**20:.0f} MiB in {written.shards} shards, at {speed:.0f} MiB/s")
        largest = max(path.stat().st_size for path in (place / "shards").glob("*.shard"))
        # Two windows, since one epoch ends where the next begins, and four for the batches that loader processes hold.
        bound, url = (2 * window + 4) * largest, f"file://{place}/shards"
        few = streamed(place, url, window, bound / 2**30, "few")
        few.shards.folder.storage = Counted(url, place / "log")  # type: ignore[union-attr]
        sources = {
            "cache": local,
            "shards in a folder": streamed(place, str(place / "shards"), window),
            "shards fetched, all of them kept": streamed(place, url, window, folder="all"),
            "shards fetched, few of them kept": few,
        }
        with watched(place / "few") as sizes:
            compare(sources, epochs, workers)
            for thread in threading.enumerate():
                if thread.name == "medssml-shards":
                    thread.join()  # it ends with the shard that it is at
        print(f"bound {bound / 2**20:.1f} MiB, highest {max(sizes) / 2**20:.1f} MiB")
        print(f"fetches per shard in {epochs} epochs: {Counter(Counter((place / 'log').read_text().split()).values())}")
    mixing()


def cohort(place: Path, studies: int) -> StudyDataset:
    """Studies with a prepared volume each, in the cache."""
    rows = ["subject_id,study_id,split,ct"]
    for number in range(studies):
        (place / f"{number}.nii").write_text(str(number))
        rows.append(f"p{number},s{number},train,{number}.nii")
    (place / "manifest.csv").write_text("\n".join(rows) + "\n")
    table = Manifest.read(place / "manifest.csv")
    dataset = StudyDataset(table, {"ct": NoiseTransform()}, Cache(place / "cache"), train=True)
    for index in range(len(dataset)):
        dataset.prepared(index, "ct")
    return dataset


def streamed(place: Path, url: str, window: int, gib: float = 1024.0, folder: str = "unused") -> ShardDataset:
    """The same studies from shards."""
    shards = Shards(url, place / folder, ShardSettings(window=window, gib=gib))
    return ShardDataset(shards.index.manifest(), {"ct": NoiseTransform()}, shards, train=True)


def compare(sources: dict[str, StudyDataset], epochs: int, workers: int) -> None:
    """Prints studies per s of every source over the epochs after the first, which fetches and verifies."""
    loaders = {name: TrainLoader(dataset, BATCH, num_workers=workers) for name, dataset in sources.items()}
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(epochs):
        for name, loader in loaders.items():
            started = time.monotonic()
            for _ in range(len(loader)):
                loader.take()
            loader.close()
            speeds[name].append(len(loader) * BATCH / (time.monotonic() - started))
    first = statistics.median(speeds["cache"][1:])
    for name, found in speeds.items():
        later = statistics.median(found[1:])
        print(f"  {name:34} {later:6.0f} studies/s  {later / first:5.2f} of the cache; first epoch {found[0]:6.0f}")


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """Inside, the bytes of disk that a folder takes, looked at again and again."""
    sizes, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.002):
            sizes.append(size(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def size(folder: Path) -> int:
    """Bytes of disk; a file that is renamed meanwhile counts once."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            stat = path.stat()
            found[stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())


def mixing(studies: int = 40_000, per_shard: int = 100, batch: int = 64) -> None:
    """Prints how near the order comes to a plain shuffle, by window."""
    shard = np.arange(studies) // per_shard
    print(f"{studies:,} studies in {studies // per_shard} shards, batches of {batch}")
    for width in (1, 4, 16, 64, studies // per_shard):
        orders = [gathered(shuffled(studies, 0, e), Window(shard, width), 0, e).rows for e in (0, 1)]
        batches = [rows[: studies // batch * batch].reshape(-1, batch) for rows in orders]
        held = np.mean([len(set(shard[rows])) for rows in batches[0]])
        pairs = [
            {pair for rows in epoch for pair in itertools.combinations(np.sort(rows).tolist(), 2)} for epoch in batches
        ]
        again, chance = len(pairs[0] & pairs[1]) / len(pairs[0]), (batch - 1) / (studies - 1)
        print(
            f"  window {width:4}: {held:5.1f} shards in a batch; neighbours that meet again: {again / chance:6.1f} x chance"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])  # type: ignore[union-attr]
    parser.add_argument("--studies", type=int, default=192)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shard-mb", type=float, default=64.0)
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    main(asked.studies, asked.epochs, asked.shard_mb, asked.window, asked.workers)
