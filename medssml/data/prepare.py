"""The pass over all files before training: fills the cache, finds every file that fails, lets the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medssml.data.dataset import StudyDataset
from medssml.manifest.problems import Problem
from medssml.manifest.redaction import redacted
from medssml.store.engines import Outcome, Task, in_processes, in_this_process, on_ray

Engine = Literal["local", "ray"]


def prepare_all(
    dataset: StudyDataset,
    *,
    workers: int = 2,
    timeout_s: float = 600.0,
    engine: Engine = "local",
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Prepares what the cache does not hold yet. Several such passes may fill one cache at the same time.

    Args:
        dataset: its cache is filled.
        workers: processes on this machine; 0 = this one, as where the cache has no folder.
        timeout_s: s that a file may take.
        engine: "local", or "ray" for the machines of a Ray cluster.
        progress: told (files done, files to prepare) after each file.

    Returns:
        one entry per file that fails, in the order of the table: what it says about the file, a study loses as a whole.
        Without names where the manifest hashes ids.

    Raises:
        OSError: the cache cannot be written. MissingExtra: no Ray.
    """
    failed, tasks = ([], []) if dataset.all_prepared else to_prepare(dataset)
    if tasks:
        told = progress or (lambda done, total: None)
        for done, outcome in enumerate(_outcomes(dataset, tasks, engine, workers, timeout_s), 1):
            failed += [outcome] if outcome.reason else []
            told(done, len(tasks))
    return redacted([_quarantined(dataset, outcome) for outcome in sorted(failed)], dataset.manifest.ids)


def to_prepare(dataset: StudyDataset) -> tuple[list[Outcome], list[Task]]:
    """Files that are not there, and files that the cache does not hold yet."""
    missing, tasks = [], []
    for index in range(len(dataset)):
        for modality in dataset.present(index):
            try:
                key = dataset.key(index, modality)
            except OSError as error:
                fix = "correct the path or leave the cell empty"
                missing.append(Outcome(index, modality, str(error.strerror).lower(), fix))
                continue
            if not dataset.cache.has(key):
                source = dataset.source(index, modality)
                source = source.absolute() if isinstance(source, Path) else source
                tasks.append(Task(index, modality, key, source, dataset.given[modality][index]))
    return missing, tasks


def usable(dataset: StudyDataset, problems: Iterable[Problem]) -> tuple[NDArray[np.bool_], int]:
    """(n,) whether a study is to be loaded: it has a modality and no failing file; and how many have no modality."""
    bad = {problem.row for problem in problems}
    fine = np.array([row not in bad for row in dataset.manifest.table.index], dtype=bool)
    some = np.array([bool(dataset.present(index)) for index in range(len(dataset))], dtype=bool)
    return fine & some, int((fine & ~some).sum())


def nothing_to_read(dataset: StudyDataset) -> list[Problem]:
    """A line for each study that has none of the modalities of the transforms: it is left out."""
    known = ", ".join(dataset.modalities)
    return [
        Problem(
            dataset.manifest.row_number(index), str(dataset.manifest.study_ids[index]), "", "", "no_modality",
            f"has none of {known}, which the model reads: left out", f"a file of {known}, or nothing to do",
        )
        for index in range(len(dataset))
        if not dataset.present(index)
    ]  # fmt: skip


def fit_training(dataset: StudyDataset) -> list[str]:
    """Lets each transform learn what it must, from the studies of the training split of `dataset` and no others.

    Returns:
        what they say to whoever trains, each line with its modality.

    Raises:
        StudyError: a file that cannot be used.
    """
    remarks: list[str] = []
    train = [index for index, split in enumerate(dataset.manifest.splits) if split == "train"]
    for modality in dataset.modalities:
        having = [index for index in train if modality in dataset.present(index)]
        if having:
            subjects = [str(dataset.manifest.subject_ids[index]) for index in having]
            said = dataset.transforms[modality].fit_training(dataset.arrays_of(having, modality), subjects)
            remarks += [f"{modality}: {line}" for line in said or ()]
    return remarks


def _outcomes(
    dataset: StudyDataset, tasks: list[Task], engine: Engine, workers: int, timeout_s: float
) -> Iterator[Outcome]:
    recipes, cache = dataset.recipes, dataset.cache
    # Without a folder there is only this process's memory to put them.
    if workers == 0 or cache.folder is None:
        yield from in_this_process(tasks, recipes, cache)
        return
    if engine == "ray":
        seen = set()
        for outcome in on_ray(tasks, recipes, cache):
            seen.add((outcome.position, outcome.modality))
            yield outcome
        # What Ray lost on the way is looked at here, where the file at fault is found.
        tasks = [task for task in tasks if (task.position, task.modality) not in seen]
    yield from in_processes(tasks, recipes, cache, workers=workers, timeout_s=timeout_s)


def _quarantined(dataset: StudyDataset, outcome: Outcome) -> Problem:
    return Problem(
        row=dataset.manifest.row_number(outcome.position),
        study_id=str(dataset.manifest.study_ids[outcome.position]),
        column=outcome.modality,
        file=dataset.cell(outcome.position, outcome.modality),
        code="unreadable",
        problem=outcome.reason,
        fix=outcome.fix,
    )
