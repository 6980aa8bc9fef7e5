"""One function over many inputs, in processes, each input within a budget of time and memory.

An input that takes too long, or takes its process down, costs its own result and nobody else's: the process is replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
_CHUNK = 32


class Overrun(NamedTuple):
    """What became of an input that left its budget, in words: "took more than 60 s"."""

    reason: str


class Budget(NamedTuple):
    """What one input may take. seconds: s. memory: bytes above what an idle process has (Linux)."""

    seconds: float
    memory: int


class _Failed(NamedTuple):
    error: BaseException


class _Worker(Generic[Job]):
    """A process and what it was asked to do; `jobs[0]` is what it is at."""

    def __init__(self, work: Callable[[Job], Any], memory: int) -> None:
        # Forked where that is possible: what the parent has imported is not imported again.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.jobs: deque[int] = deque()
        self.deadline = 0.0

    def ask(self, numbers: Sequence[int], jobs: Sequence[Job], seconds: float) -> None:
        self.jobs.extend(numbers)
        self.deadline = time.monotonic() + seconds
        # A process that has died says so when it is listened to.
        with contextlib.suppress(OSError):
            self.pipe.send(list(jobs))

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_each(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int, budget: Budget
) -> Iterator[tuple[int, Result | Overrun]]:
    """(position in `jobs`, what `work` returned or the `Overrun`), in the order in which they are done.

    Args:
        work: a function of a module; it and its results are sent between processes.
        jobs: its inputs.
        workers: processes; 0 = this process, without a budget.
        budget: of each input.

    Raises:
        Whatever `work` raises: it is meant to turn the faults of an input into results.
    """
    if workers <= 0:
        yield from ((number, work(job)) for number, job in enumerate(jobs))
        return
    size = max(1, min(_CHUNK, len(jobs) // (4 * workers)))
    waiting = deque(range(start, min(start + size, len(jobs))) for start in range(0, len(jobs), size))
    pool: list[_Worker[Job]] = []
    try:
        while waiting or any(worker.jobs for worker in pool):
            while len(pool) < workers and waiting:
                pool.append(_Worker(work, budget.memory))
            for worker in pool:
                if not worker.jobs and waiting:
                    chunk = waiting.popleft()
                    worker.ask(chunk, [jobs[number] for number in chunk], budget.seconds)
            yield from _listen(pool, waiting, budget)
    finally:
        for worker in pool:
            worker.stop()


def _listen(pool: list[_Worker[Any]], waiting: deque[Any], budget: Budget) -> Iterator[tuple[int, Any]]:
    """The results that are there; processes that are late or dead are taken out of `pool`, their other jobs put back."""
    busy = {worker.pipe: worker for worker in pool if worker.jobs}
    patience = max(0.0, min(worker.deadline for worker in busy.values()) - time.monotonic())
    ready = wait(list(busy), timeout=patience)
    for pipe, worker in busy.items():
        if pipe in ready:
            answer = _answer(pipe)
        elif time.monotonic() >= worker.deadline:
            answer = Overrun(f"took more than {budget.seconds:g} s to read")
            _replace(pool, worker, waiting)
            yield worker.jobs.popleft(), answer
            continue
        else:
            continue
        if answer is None:
            _replace(pool, worker, waiting)
            yield worker.jobs.popleft(), Overrun("reading it ended the process: out of memory, or a fault in a decoder")
        elif isinstance(answer, _Failed):
            raise answer.error
        else:
            worker.deadline = time.monotonic() + budget.seconds
            yield worker.jobs.popleft(), answer[0]


def _answer(pipe: Connection) -> Any:
    """What the process sent, None where it is dead."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _replace(pool: list[_Worker[Any]], worker: _Worker[Any], waiting: deque[Any]) -> None:
    """Stops a process; what it had not begun waits again."""
    worker.stop()
    pool.remove(worker)
    rest = list(worker.jobs)[1:]
    if rest:
        waiting.appendleft(rest)


def _serve(pipe: Connection, work: Callable[[Any], Any], memory: int) -> None:
    """The process: jobs in, results out, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _fall_silent()
    _limit_memory(memory)
    try:
        while True:
            for job in pipe.recv():
                try:
                    pipe.send((work(job),))
                except MemoryError:
                    os._exit(1)
                except Exception as error:
                    pipe.send(_Failed(error))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _fall_silent() -> None:
    """What decoders in C print would stand between our lines without the name of a file: this process has no console."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _limit_memory(memory: int) -> None:
    """Lets this process grow by `memory` bytes: what asks for more gets a MemoryError."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        allowed = now + memory if hard == resource.RLIM_INFINITY else min(now + memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    except (ImportError, OSError, ValueError):
        return  # not Linux: time alone is limited
