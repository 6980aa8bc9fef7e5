"""Where prepared studies lie: in one cache, which all verbs of a training share, and never in a folder that is handed on."""

from __future__ import annotations

import os
from pathlib import Path

#: Names the cache where --cache does not.
VARIABLE = "MEDSSML_CACHE"
#: The file of a study of several runs, which its folder is known by.
STUDY = "medssml_study.json"
#: Files by which a folder of results is known: of a training, of a demo, of a study.
_MARKS = ("manifest.sha256", "demo.json", STUDY)
#: Where runs lie if nothing else is said.
RUNS = Path("runs")


def cache_place(given: str | Path | None, run: str | Path) -> Path:
    """The cache of a run: what `--cache` says, else the environment, else the folder `cache` beside the run folder.

    Args:
        given: what `--cache` says.
        run: run folder of a training. Where it lies in the folder of a demo or a study, the cache lies beside that.
    """
    if given is not None:
        return Path(given)
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return beside(run)


def beside(run: str | Path) -> Path:
    """The folder `cache` beside a run folder, or beside the demo or the study that the run lies in."""
    from medssml.runs import console

    place = Path(os.path.abspath(run))
    outermost = [folder for folder in place.parents if any((folder / mark).is_file() for mark in _MARKS)]
    cache = (outermost[-1] if outermost else place).parent / "cache"
    cache = cache.relative_to(Path.cwd()) if cache.is_relative_to(Path.cwd()) else cache
    if cache.is_dir() and cache.stat().st_mode & 0o077:
        console.warn(f"others on this machine may look into the prepared studies; fix: chmod 700 {cache}")
    return cache


def cache_of_model(given: str | Path | None, checkpoint: str | Path, out: str | Path | None = None) -> Path:
    """The cache of the training that a model comes from; a warning where results are to lie around it.

    Args:
        given: what `--cache` says: somebody who asks for a cache in the results gets it.
        checkpoint: run folder, or its model folder.
        out: folder of the results.

    Raises:
        medssml.checkpoint.CheckpointError: no model.
    """
    from medssml.checkpoint import model_folder
    from medssml.runs import console

    model = model_folder(checkpoint)
    place = cache_place(given, model.parent if model.name == "model" else model)
    if given is None and out is not None and Path(os.path.abspath(out)) in Path(os.path.abspath(place)).parents:
        console.warn(
            f"the prepared studies, which hold what is in the files, lie in the results: {place}; fix: --cache, or "
            f"another --out, before the results are handed on"
        )
    return place
