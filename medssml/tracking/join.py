"""What comes after the training of a run, added to the same run in MLflow: results of verbs, and the page."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from medssml.tracking.store import URI_VARIABLE, copy_artifact, run_folder, run_of
from medssml.tracking.tracker import Writer


def add_results(
    checkpoint: str | Path,
    metrics: Mapping[str, float],
    *,
    tags: Mapping[str, str] | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
) -> bool:
    """Logs results with the run that trained a model; False where that run was not tracked, or its store cannot be written.

    The latter costs a warning, and with a server that does not answer at most `PATIENCE_S`. The status of the run stays.

    Args:
        checkpoint: the run folder, or its model folder.
        metrics: name -> value; what the same name had before stays in its history.
        tags: name -> text; replaces what was there.
        files: folder of the artifacts -> files, without anything of a single study.
    """
    folder = run_folder(checkpoint)
    if run_of(folder) is None:
        return False
    now = int(time.time() * 1000)
    writer = Writer(folder, lambda store: store.join())
    writer.start()
    writer.order("metrics", [(name, float(value), now, 0) for name, value in metrics.items()])
    writer.order("tags", dict(tags or {}))
    for place, paths in (files or {}).items():
        for path in paths:
            writer.order("artifact", (path, place))
    return writer.close("")


def add_artifact(folder: Path, path: Path) -> bool:
    """Logs a file, such as the report, with the run of a run folder; False where that run was not tracked.

    In a run folder's own store this is a copy into `mlartifacts/`, and nothing of MLflow is imported.
    """
    folder = Path(folder)
    run_id = run_of(folder)
    if run_id is None:
        return False
    if not os.environ.get(URI_VARIABLE) and (folder / "mlflow.db").exists():
        copy_artifact(folder, run_id, path)
        return True
    writer = Writer(folder, lambda store: store.join())
    writer.start()
    writer.order("artifact", (path, ""))
    return writer.close("")


def parent_tags(checkpoint: str | Path) -> dict[str, str]:
    """The tags by which a run names the one that it began from: its id in MLflow, if it was tracked, and its name."""
    folder = run_folder(checkpoint).resolve()
    run_id = run_of(folder)
    return {"medssml.parent": folder.name} | ({} if run_id is None else {"medssml.parent_run": run_id})
