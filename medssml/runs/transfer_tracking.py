"""A transfer in MLflow: one run of its own, and every student a run below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medssml.runs.transfer_bench import Bench
from medssml.tracking import MlflowTracker, add_results, one_store


@contextmanager
def tracked(bench: Bench) -> Iterator[None]:
    """Inside, students are trained: the run of the transfer is there, and goes on while they are.

    A bench that is not tracked leaves MLflow alone.
    """
    if not bench.track:
        yield
        return
    with one_store(bench.folder.path):
        # Students name it as their parent, so it is written before the first of them.
        _own(bench).close("")
        try:
            yield
        except BaseException:
            _own(bench).close("FAILED")
            raise


def stopped(bench: Bench) -> None:
    """A student was stopped by a signal: the same command goes on later."""
    if bench.track:
        _own(bench).close("KILLED")


def concluded(bench: Bench, result: Mapping[str, Any], *files: Path) -> None:
    """What the transfer is worth, with the run of the transfer.

    Args:
        result: transfer_gain.json. files: of it, its page among them.
    """
    if not bench.track:
        return
    kept = result["kept"]
    add_results(
        bench.folder.path, numbers(result), tags={"medssml.kept": f"{kept['student']}, seed {kept['seed']}"},
        files={"": files},
    )  # fmt: skip
    _own(bench).close()


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Name -> estimate, of each task and of the gate; what is not defined is left out."""
    found = {"transfer/gate/gain": result["gate"]["gain"]["estimate"], "transfer/kept": float(result["gate"]["kept"])}
    for task, entry in result["tasks"].items():
        for part in ("without", "transfer", "gain"):
            found[f"transfer/{task}/{part}"] = entry.get(part, {}).get("estimate")
    return {name: value for name, value in found.items() if value is not None}


def _own(bench: Bench) -> MlflowTracker:
    counts = {f"studies.{name.replace(' ', '_')}": count for name, count in bench.studies.counts.items()}
    facts: dict[str, str | int] = {"manifest_sha256": bench.studies.alone.sha256, **counts}
    tags = {"medssml.manifest_sha256": bench.studies.alone.sha256, **bench.folder.tags}
    return MlflowTracker(bench.folder.path, config=bench.config.written(), facts=facts, tags=tags).__enter__()
