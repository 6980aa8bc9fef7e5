"""Who measures the cells of a study: this process, one after the other, or workers of Ray, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from medssml.store.engines import MissingExtra

T = TypeVar("T")
R = TypeVar("R")


def on_workers(run: Callable[[T], R], tasks: Sequence[T], workers: int, *, gpu: bool = False) -> Iterator[tuple[T, R]]:
    """Each task with what `run` says of it, as they end; `workers` of them at a time, on a Ray cluster (RAY_ADDRESS) or a Ray of
    this machine.

    Folders must lie under the same paths on all machines. A worker has as many threads of torch as this process, so that it
    comes to the same numbers. A worker that dies is not replaced: the same command continues with what is not there.

    Args:
        run: picklable. tasks: picklable. gpu: each worker has a GPU of its own.

    Raises:
        MissingExtra: Ray is not installed. Whatever `run` raises.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtra("--workers: package 'ray' is not installed; fix: pip install 'medssml[ray]'") from error
    import torch

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=True)
    remote = ray.remote(_with_threads).options(max_retries=0, num_gpus=int(gpu), scheduling_strategy="SPREAD")
    left, running = list(tasks), dict[Any, T]()
    while left or running:
        while left and len(running) < workers:
            task = left.pop(0)
            running[remote.remote(run, task, torch.get_num_threads())] = task
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        task = running.pop(ended)
        try:
            found = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            # What a cell says of itself, and not where in Ray it was said.
            raise error.cause from None
        yield task, found


def each_in_turn(run: Callable[[T], R], tasks: Sequence[T], seed: int) -> Iterator[tuple[T, R]]:
    """The same in this process, one after the other; tasks have a `name`."""
    from medssml.runs import console

    for place, task in enumerate(tasks):
        with console.step(f"seed {seed}: {getattr(task, 'name', task)}, {place + 1} of {len(tasks)}"):
            found = run(task)
        yield task, found


def on_gpu(device: str | None) -> bool:
    """Whether what runs on a device, the best there is by default, needs a GPU."""
    from medssml.trainers.precision import device_type

    return device_type(device or "auto") == "cuda"


def _with_threads(run: Callable[[T], R], task: T, threads: int) -> R:
    import torch

    torch.set_num_threads(threads)
    return run(task)
