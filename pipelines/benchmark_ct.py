"""How fast a CT volume becomes a training sample: from the .nii.gz beside MONAI, and from the cache beside its bytes.

    python pipelines/benchmark_ct.py --repetitions 15

Every repetition runs each candidate once, one after the other, so that all of them meet the same state of the machine.
What counts are the ratios of the medians; times of one machine say little about another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# One thread for every candidate, as in a loader process; to be set before NumPy and torch load.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402

#: Voxels, and mm between them, of the volume; with these the grids of MONAI and of medssml fall on the same points.
SHAPE, SPACING = (256, 256, 128), (205 / 255, 205 / 255, 203 / 127)
#: mm and voxels of the sample, and the HU that become 0 and 1.
TARGET, CROP, WINDOW = (1.0, 1.0, 1.0), (96, 96, 96), (-1000.0, 400.0)


class Timing(NamedTuple):
    """Medians over the repetitions, in s: by the clock, and of processor time."""

    wall: float
    cpu: float


def main(repetitions: int) -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        path = write_chest(Path(scratch) / "chest.nii.gz")
        print(
            f"volume {SHAPE} int16, {path.stat().st_size / 2**20:.1f} MiB as .nii.gz, stored as LPS, in the page cache"
        )
        print(f"sample {CROP} at {TARGET} mm, window {WINDOW} HU; one thread; {repetitions} interleaved repetitions")
        cold = readers(path)
        reference = np.asarray(cold["MONAI eager"]())
        for name, sample in cold.items():
            off = float(np.abs(np.asarray(sample()) - reference).max())
            print(f"  {name:24} differs from MONAI eager by {off:.1e} at most")
        print("cold: file -> sample")
        report(measure(cold, repetitions), "medssml")
        print("warm: every value of a prepared volume is looked at once")
        report(measure(stores(path, Path(scratch)), repetitions), "its bytes, read whole")


def write_chest(path: Path) -> Path:
    """A body with two lungs and the noise of a scanner; outside the field of view one value, as scanners write it."""
    import nibabel
    from scipy.ndimage import gaussian_filter

    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE], indexing="ij", sparse=True)
    body = (x / 0.85) ** 2 + (y / 0.65) ** 2 < 1
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.45) ** 2 + (z / 0.9) ** 2 < 1
    hu = gaussian_filter(np.where(body, 40, -1000) + np.where(lungs, -840, 0).astype(np.float32), 1)
    hu += 30 * gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32), 0.6)
    hu = np.where(x**2 + y**2 < 1, hu, -1024)
    stored = np.rint(hu).clip(-1024, 3071).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(stored, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])), path)
    return path


def readers(path: Path) -> dict[str, Callable[[], Any]]:
    """What makes the sample from the file, three ways."""
    from medssml.transforms import CTTransform

    transform = CTTransform(TARGET, CROP, WINDOW, margin=0)
    eager, lazy = monai_chain(lazy=False), monai_chain(lazy=True)
    return {
        "MONAI eager": lambda: eager({"ct": path})["ct"],
        "MONAI lazy": lambda: lazy({"ct": path})["ct"],
        "medssml": lambda: transform(transform.prepare(path)),
    }


def monai_chain(*, lazy: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """MONAI's usual chain; its lazy form crops before it scales, which is what makes the crop lazy."""
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        LoadImaged,
        Orientationd,
        ScaleIntensityRanged,
        Spacingd,
    )

    load = LoadImaged("ct", reader="NibabelReader", ensure_channel_first=True)
    turn, space = Orientationd("ct", "RAS", labels=None), Spacingd("ct", TARGET, mode="bilinear")
    scale, crop = ScaleIntensityRanged("ct", *WINDOW, 0, 1, clip=True), CenterSpatialCropd("ct", CROP)
    chain = [load, turn, space, crop, scale] if lazy else [load, turn, space, scale, crop]
    return Compose(chain, lazy=lazy)  # type: ignore[no-any-return]


def stores(path: Path, scratch: Path) -> dict[str, Callable[[], Any]]:
    """Ways to the prepared volume of the default size, that of a chest."""
    from medssml.store.cache import Cache
    from medssml.transforms import CTTransform

    transform = CTTransform()
    cache = Cache(scratch / "cache")
    key = cache.key(transform.spec(), path)
    cache.get(key, lambda: transform.prepare(path))
    entry = cache.path(key)
    return {
        "its bytes, read whole": lambda: np.fromfile(entry, np.int16).max(),
        "cache, first read": lambda: Cache(scratch / "cache").get(key, dict).arrays["hu"].max(),
        "cache, later reads": lambda: cache.get(key, dict).arrays["hu"].max(),
    }


def measure(candidates: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, Timing]:
    """Each candidate once per repetition, after one that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for repetition in range(repetitions + 1):
        for name, run in candidates.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if repetition > 0:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Timing(*map(statistics.median, zip(*times, strict=True))) for name, times in taken.items()}


def report(timings: dict[str, Timing], unit: str) -> None:
    """Medians, and how many times the one of `unit` each of them is."""
    one = timings[unit]
    for name, timing in timings.items():
        print(
            f"  {name:24} {timing.wall * 1e3:9.2f} ms, {timing.wall / one.wall:6.2f} x {unit}"
            f"   (processor {timing.cpu * 1e3:9.2f} ms, {timing.cpu / one.cpu:6.2f} x)"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=15)
    main(parser.parse_args().repetitions)
