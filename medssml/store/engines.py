"""Who prepares the files: this process, several on this machine (joblib), or those of a Ray cluster.

Every engine takes tasks and yields one outcome per task, in any order. A file that kills its process, or stalls it,
costs that file and no other.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import TimeoutError as Stalled
from pathlib import Path
from typing import Any, NamedTuple

from medssml.files import private_folder
from medssml.foreign_text import collecting, one_line
from medssml.store.cache import Arrays, Cache
from medssml.store.cache_folder import NOTES_PREFIX

#: s after which idle processes end, and give their memory back to the training that follows.
_IDLE_S = 10
#: Files per block of a Ray dataset: the unit that Ray schedules, and loses.
_BLOCK = 16


class Task(NamedTuple):
    """One file to prepare. position: of the study in the table. key: name of its cache entry.

    given: what the table says of the file beside its name, or None.
    """

    position: int
    modality: str
    key: str
    source: Path | str
    given: Any = None


class Recipe(NamedTuple):
    """How the files of one modality are prepared. spec: what the transform's result depends on."""

    modality: str
    transform: Any
    spec: Mapping[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """What an entry says of itself."""
        return {**self.spec, "modality": self.modality}

    def make(self, source: Path | str, given: Any = None) -> Arrays:
        """The prepared arrays of one file."""
        made = self.transform.prepare(source) if given is None else self.transform.prepare(source, given)
        return made  # type: ignore[no-any-return]


class Outcome(NamedTuple):
    """What became of a task. reason: why the file cannot be used, "" where it was prepared."""

    position: int
    modality: str
    reason: str = ""
    fix: str = ""


class MissingExtra(ValueError):
    """A package that only an extra brings."""

    exit_code = 2


class _Unusable(Exception):
    """The file's fault, and not the cache's."""


class _Lost(Exception):
    """Processes died or stalled. jobs: what they were at."""

    def __init__(self, jobs: list[tuple[int, str]], reason: str) -> None:
        super().__init__(reason)
        self.jobs, self.reason = jobs, reason


def attempt(task: Task, recipe: Recipe, cache: Cache, desk: str | None = None) -> Outcome:
    """Prepares one file into the cache, unless it is there.

    Args:
        desk: folder in which this process notes what it is at, should it die of it.

    Raises:
        OSError: the cache cannot be written.
    """
    if desk is not None:
        Path(desk, str(os.getpid())).write_text(json.dumps([task.position, task.modality]))
    try:
        cache.get(task.key, lambda: _made(task, recipe), recipe.about)
    except _Unusable as error:
        cause = error.__cause__
        reason = str(getattr(cause, "reason", None) or one_line(f"{type(cause).__name__}: {cause}"))
        return Outcome(
            task.position,
            task.modality,
            reason,
            str(getattr(cause, "fix", "replace the file or leave the cell empty")),
        )
    return Outcome(task.position, task.modality)


def _made(task: Task, recipe: Recipe) -> Arrays:
    try:
        with collecting():
            return recipe.make(task.source, task.given)
    except (ValueError, KeyError, OSError, MemoryError) as error:
        raise _Unusable from error


def in_this_process(tasks: Iterable[Task], recipes: Mapping[str, Recipe], cache: Cache) -> Iterator[Outcome]:
    """One file after the other."""
    for task in tasks:
        yield attempt(task, recipes[task.modality], cache)


def in_processes(
    tasks: Iterable[Task], recipes: Mapping[str, Recipe], cache: Cache, *, workers: int, timeout_s: float
) -> Iterator[Outcome]:
    """Several files at a time, in processes that joblib starts.

    After a death or a stall, what the processes were at is tried again file by file, each in a process of its own; the
    rest goes on as before.

    Args:
        workers: processes.
        timeout_s: s that a file, or a handful of small ones, may take; of the first, the start of its process included.
    """
    left = {(task.position, task.modality): task for task in tasks}
    while left:
        try:
            for outcome in _round(list(left.values()), recipes, cache, workers, timeout_s):
                del left[outcome.position, outcome.modality]
                yield outcome
        except _Lost as lost:
            for job in [job for job in lost.jobs if job in left] or [next(iter(left))]:
                yield _alone(left.pop(job), recipes, cache, timeout_s)


def _alone(task: Task, recipes: Mapping[str, Recipe], cache: Cache, timeout_s: float) -> Outcome:
    try:
        return list(_round([task], recipes, cache, 1, timeout_s))[0]
    except _Lost as lost:
        return Outcome(task.position, task.modality, lost.reason, "check the size of the file and the free memory")


def _round(
    tasks: list[Task], recipes: Mapping[str, Recipe], cache: Cache, workers: int, timeout_s: float
) -> Iterator[Outcome]:
    """Outcomes until all is done or a process is lost.

    Raises:
        _Lost: with what the processes were at.
    """
    from joblib import Parallel, delayed, parallel_config

    if cache.folder is None:
        raise ValueError("processes share prepared files through a folder; build the cache as Cache(folder)")
    # Not the parent's: that one may hold studies in memory.
    folder = private_folder(cache.folder.absolute())
    shared = Cache(folder)
    with tempfile.TemporaryDirectory(prefix=NOTES_PREFIX, dir=folder) as desk:
        # loky starts fresh interpreters: no lock or thread of this process can be inherited half way. One job would
        # make joblib work in this process, so there are two, of which `pre_dispatch` keeps as many busy as are asked for.
        with parallel_config("loky", inner_max_num_threads=1, idle_worker_timeout=_IDLE_S):
            pool = Parallel(
                max(2, workers),
                timeout=timeout_s,
                pre_dispatch=workers,
                return_as="generator",
                max_nbytes=None,
                temp_folder=desk,  # by default in /dev/shm: nothing is to be touched outside the folders that were named
            )
        try:
            yield from pool(delayed(attempt)(task, recipes[task.modality], shared, desk) for task in tasks)
        except BrokenProcessPool as error:
            raise _Lost(_at(desk), "reading it killed the process: out of memory, or a fault in a decoder") from error
        except Stalled as error:
            raise _Lost(_at(desk), f"reading it took more than {timeout_s:g} s") from error


def _at(desk: str) -> list[tuple[int, str]]:
    """What the processes noted."""
    jobs = []
    for note in sorted(path for path in Path(desk).iterdir() if path.is_file()):
        text = note.read_text()
        if text:  # empty where the process died while it wrote
            position, modality = json.loads(text)
            jobs.append((int(position), str(modality)))
    return jobs


def on_ray(tasks: Iterable[Task], recipes: Mapping[str, Recipe], cache: Cache) -> Iterator[Outcome]:
    """Blocks of files on the machines of a Ray cluster (RAY_ADDRESS), or on a Ray of this machine.

    Files and cache must lie under the same paths on all of them. A task whose process died has no outcome.

    Raises:
        MissingExtra: Ray is not installed. ValueError: the cache has no folder.
    """
    try:
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtra("engine ray: package 'ray' is not installed; fix: pip install 'medssml[ray]'") from error
    if cache.folder is None:
        raise ValueError("machines share prepared files through a folder; build the cache as Cache(folder)")
    tasks = list(tasks)
    if not tasks:
        return
    context = ray.data.DataContext.get_current()
    # A block that is lost is not the end of all: its tasks are left without an outcome.
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    dataset = ray.data.range(len(tasks), override_num_blocks=max(1, len(tasks) // _BLOCK))
    # Without a limit Ray would start a process again for ever that one file kills.
    prepared = dataset.map(_OnRay(tasks, dict(recipes), str(cache.folder.absolute())), max_retries=0)
    for row in prepared.iter_rows():
        yield Outcome(int(row["position"]), row["modality"], row["reason"], row["fix"])


class _OnRay:
    """`attempt` as a function of rows, each the number of a task."""

    def __init__(self, tasks: list[Task], recipes: dict[str, Recipe], folder: str) -> None:
        self.tasks, self.recipes, self.folder = tasks, recipes, folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import torch

        torch.set_num_threads(1)
        task = self.tasks[int(row["id"])]
        return attempt(task, self.recipes[task.modality], Cache(self.folder))._asdict()
