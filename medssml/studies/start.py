"""What every study looks at before it reads or writes anything."""

from __future__ import annotations

from pathlib import Path

import torch

from medssml.bounds import bounded
from medssml.runs.inference import FEWEST_RESAMPLES, chosen_device


def ready(out: Path, *, seeds: int, bootstrap: int, device: str | None, threads: int, workers: int = 0) -> Path:
    """The folder of a study, its common flags checked and the threads of torch set.

    Raises:
        ValueError: a flag out of bounds, or a device that is not there.
    """
    bounded("--seeds", seeds, least=1)
    bounded("--threads", threads, least=0)
    bounded("--workers", workers, least=0)
    bounded("--bootstrap", bootstrap, least=FEWEST_RESAMPLES)
    chosen_device(device or "auto")
    torch.set_num_threads(threads or torch.get_num_threads())
    return Path(out).resolve()
