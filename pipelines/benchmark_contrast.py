"""What the contrast of two modalities costs, beside the formula that holds all pairs: time, memory, loss and gradients.

    python pipelines/benchmark_contrast.py --studies 4096 --repetitions 7
    python pipelines/benchmark_contrast.py --studies 16384 --repetitions 1 --ours-only

The peer is what open_clip's ClipLoss computes on one rank, written out. Every repetition runs each candidate once, one after the
other; each candidate's memory is that of a process of its own. What counts are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

# One thread for every candidate; to be set before torch loads.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from medssml.losses import info_nce  # noqa: E402

#: a (N, D), b (N, D), scale () -> loss ()
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(studies: int, dim: int, repetitions: int, *, ours_only: bool) -> None:
    torch.set_num_threads(1)
    inputs = embeddings(studies, dim)
    candidates: dict[str, Loss] = {"medssml": ours} if ours_only else {"all pairs": all_pairs, "medssml": ours}
    print(f"{studies} pairs of {dim}, float32, one thread; {repetitions} interleaved repetitions")
    memory = {name: peak_memory(partial(learn, loss, inputs)) for name, loss in candidates.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    answers = {name: learn(loss, inputs) for name, loss in candidates.items()}
    for _ in range(repetitions):
        for name, loss in candidates.items():
            wall, cpu = time.perf_counter(), time.process_time()
            learn(loss, inputs)
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    report(times, memory, answers)


def embeddings(studies: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two sides that have something in common, and 1 / temperature."""
    generator = torch.Generator().manual_seed(0)
    shared, a, b = torch.randn(3, studies, dim, generator=generator)
    return (a + shared).requires_grad_(), (b + shared).requires_grad_(), torch.tensor(1 / 0.07, requires_grad=True)


def all_pairs(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """As open_clip's ClipLoss: logits of each side over the other, and the mean of both cross-entropies."""
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    labels = torch.arange(len(a))
    return (F.cross_entropy(scale * a @ b.T, labels) + F.cross_entropy(scale * b @ a.T, labels)) / 2


def ours(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """The same in tiles."""
    found = info_nce(a, b, scale=scale)
    return found.total / found.terms


def learn(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    """The loss and the gradients of a, b and scale."""
    value = loss(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes that a process which only runs `run` takes at most beyond what it began with. Linux only."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def measure() -> None:
        before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak so far is forgotten
        run()
        sender.send(_status("VmHWM") - before)

    process = context.Process(target=measure)
    process.start()
    process.join()
    return int(receiver.recv())


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def report(
    times: dict[str, list[tuple[float, float]]], memory: dict[str, int], answers: dict[str, list[Tensor]]
) -> None:
    """Medians, peaks, and how far the last candidate is from the first."""
    medians = {name: [statistics.median(kind) for kind in zip(*rows, strict=True)] for name, rows in times.items()}
    first = next(iter(medians))
    for name, (wall, cpu) in medians.items():
        print(
            f"  {name:10} {wall:7.2f} s ({wall / medians[first][0]:.2f} x)   processor {cpu:6.2f} s "
            f"({cpu / medians[first][1]:.2f} x)   memory {memory[name] / 2**20:7.0f} MiB ({memory[name] / memory[first]:.2f} x)"
        )
    for label, a, b in zip(("loss", "a", "b", "scale"), answers[first], answers["medssml"], strict=True):
        print(f"  {label:6} differs by {float((a - b).abs().max() / a.abs().max()):.1e} of the greatest")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--ours-only", action="store_true")
    given = parser.parse_args()
    main(given.studies, given.dim, given.repetitions, ours_only=given.ours_only)
