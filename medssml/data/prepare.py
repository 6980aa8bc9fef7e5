"""The pass over all files before training: fills the cache, finds every file that fails, lets the others go on."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from medssml.data.checks import Problem
from medssml.data.dataset import StudyDataset, StudyError
from medssml.data.redaction import redacted

_CHUNK = 16
_log = logging.getLogger(__name__)


class _Job(NamedTuple):
    position: int
    modality: str


class _Failure(NamedTuple):
    job: _Job
    reason: str
    fix: str


def prepare_all(dataset: StudyDataset, *, workers: int = 2, timeout_s: float = 600.0) -> list[Problem]:
    """Prepares what the cache does not hold yet.

    Args:
        dataset: its cache is filled.
        workers: processes; 0 = this one, as where the cache has no folder.
        timeout_s: s that 16 files, or after a stall one file, may take.

    Returns:
        one entry per file that fails, in the order of the table: what it says about the file, a study loses as a whole.
        Without names where the manifest hashes ids.

    Raises:
        OSError: the cache cannot be written.
    """
    failures, jobs = _missing(dataset)
    if jobs:
        for modality in {job.modality for job in jobs}:
            warm_up = getattr(dataset.transforms[modality], "warm_up", None)
            if warm_up is not None:
                warm_up()
        # Without a folder there is only this process's memory to put them.
        apart = workers > 0 and dataset.cache.folder is not None
        failures += _run(dataset, jobs, workers, timeout_s) if apart else _attempt(dataset, jobs)
    failures.sort(key=lambda failure: failure.job)
    return redacted([_quarantined(dataset, failure) for failure in failures], dataset.manifest.ids)


def fit_training(dataset: StudyDataset) -> None:
    """Lets each transform learn what it must, from the studies of the training split of `dataset` and no others.

    Raises:
        StudyError: a file that cannot be used.
    """
    train = [index for index, split in enumerate(dataset.manifest.splits) if split == "train"]
    for modality in dataset.modalities:
        having = [index for index in train if modality in dataset.present(index)]
        if having:
            subjects = [str(dataset.manifest.subject_ids[index]) for index in having]
            arrays = (dataset.prepared(index, modality).arrays for index in having)
            dataset.transforms[modality].fit_training(arrays, subjects)


def _missing(dataset: StudyDataset) -> tuple[list[_Failure], list[_Job]]:
    """Files that are not there, and files that are not in the cache yet."""
    failures, jobs = [], []
    for index in range(len(dataset)):
        for modality in dataset.present(index):
            job = _Job(index, modality)
            try:
                if not dataset.cache.has(dataset.key(index, modality)):
                    jobs.append(job)
            except OSError as error:
                failures.append(_Failure(job, str(error.strerror).lower(), "correct the path or leave the cell empty"))
    return failures, jobs


def _attempt(dataset: StudyDataset, jobs: Sequence[_Job]) -> list[_Failure]:
    """Prepares files one after the other; returns those that fail."""
    failures = []
    for job in jobs:
        try:
            dataset.prepared(*job)
        except StudyError as error:
            cause = error.__cause__
            reason = str(getattr(cause, "reason", None) or f"{type(cause).__name__}: {cause}")
            fix = str(getattr(cause, "fix", "replace the file or leave the cell empty"))
            failures.append(_Failure(job, reason, fix))
    return failures


_dataset: StudyDataset | None = None


def _start(dataset: StudyDataset) -> None:
    global _dataset
    import torch

    torch.set_num_threads(1)
    _dataset = dataset


def _work(jobs: Sequence[_Job]) -> list[_Failure]:
    if _dataset is None:
        raise RuntimeError("a preparation process was started without its dataset")
    return _attempt(_dataset, jobs)


def _run(dataset: StudyDataset, jobs: list[_Job], workers: int, timeout_s: float) -> list[_Failure]:
    """All jobs in processes; what a process takes with it when it dies or stalls is tried again, file by file."""
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    failures, lost = _pool(dataset, chunks, min(workers, len(chunks)), timeout_s)
    for job in (job for chunk in lost for job in chunk):
        found, again = _pool(dataset, [[job]], 1, timeout_s)
        failures += found
        if again:
            reason = f"reading it killed the process, or took more than {timeout_s:g} s"
            failures.append(_Failure(job, reason, "check the size of the file and the free memory"))
    return failures


def _pool(
    dataset: StudyDataset, chunks: list[list[_Job]], workers: int, timeout_s: float
) -> tuple[list[_Failure], list[list[_Job]]]:
    """Failures, and the chunks that were not finished because a process died or stalled."""
    failures: list[_Failure] = []
    lost: list[list[_Job]] = []
    # Forked: what the parent has imported, MONAI above all, is not imported again.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(dataset,))
    try:
        for chunk, future in _submitted(pool, chunks):
            try:
                failures += future.result(timeout=timeout_s)
            except (BrokenProcessPool, TimeoutError):
                lost.append(chunk)
                _stop(pool)
    finally:
        _stop(pool) if lost else pool.shutdown()
    return failures, lost


def _submitted(
    pool: ProcessPoolExecutor, chunks: list[list[_Job]]
) -> Iterator[tuple[list[_Job], Future[list[_Failure]]]]:
    futures = [pool.submit(_work, chunk) for chunk in chunks]
    yield from zip(chunks, futures, strict=True)


def _stop(pool: ProcessPoolExecutor) -> None:
    processes: dict[int, Any] = dict(getattr(pool, "_processes", None) or {})
    for process in processes.values():
        process.kill()
    pool.shutdown(wait=False)


def _quarantined(dataset: StudyDataset, failure: _Failure) -> Problem:
    index, modality = failure.job
    return Problem(
        row=dataset.manifest.row_number(index),
        study_id=str(dataset.manifest.study_ids[index]),
        column=modality,
        file=dataset.cell(index, modality),
        code="unreadable",
        problem=failure.reason,
        action="quarantined",
        fix=failure.fix,
    )
