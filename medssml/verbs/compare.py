"""medssml compare: several runs side by side, on the same test studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from medssml.reports.compare_page import ComparedRun


def compare(runs: Sequence[Path], *, out: Path | None = None, bootstrap: int = 1000, seed: int = 0) -> Path:
    """Metrics with paired intervals, training curves, and what differs in the configs.

    The first run is the one that the others are measured by. Compared are the labelled studies that all runs answer for in
    their predictions.csv, each from all that it has; a resample of subjects applies to all runs.

    Args:
        runs: two folders or more that evaluate wrote into; folders below them are looked through too.
        out: the page; compare.html in the current folder by default.
        bootstrap: resamples of the subjects.
        seed: of the resamples.

    Returns:
        the page.

    Raises:
        ValueError: fewer than two runs, one without predictions, no task or no test study in common.
    """
    from medssml.bounds import bounded
    from medssml.evaluation.paired_runs import compare_runs
    from medssml.files import require_ending
    from medssml.reports.compare_page import write_compare_page
    from medssml.runs import console
    from medssml.runs.inference import FEWEST_RESAMPLES

    bounded("--bootstrap", bootstrap, least=FEWEST_RESAMPLES)
    require_ending("--out", out, ".html", ".htm")
    folders = [Path(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)]
    if len(folders) < 2:
        raise ValueError("compare needs two runs or more; fix: medssml compare RUN RUN")
    named = dict(zip(names_of(folders), folders, strict=True))
    found = {name: _predictions(folder) for name, folder in named.items()}
    tasks = compare_runs(
        {name: table for name, (table, _) in found.items()}, _kinds([kinds for _, kinds in found.values()]),
        n=bootstrap, seed=seed,
    )  # fmt: skip
    _say(tasks)
    protocol = {"resamples": bootstrap, "seed": seed, "unit": "subjects"}
    page = write_compare_page(
        Path("compare.html") if out is None else Path(out), [_run(n, f) for n, f in named.items()], tasks, protocol
    )
    console.tell({"page": str(page), "tasks": tasks})
    console.say(f"{len(tasks)} task{'s' * (len(tasks) != 1)} of {len(named)} runs compared")
    return page


def names_of(folders: Sequence[Path]) -> list[str]:
    """What runs are called: the last part of their path, with as many parts before it as tell them apart.

    Raises:
        ValueError: one folder twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a run is named twice; fix: name each once")


def _predictions(folder: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """predictions.csv of a run, and the kind of each of its tasks from the metrics.json beside it."""
    import json

    import pandas as pd

    from medssml.reports.results import result_folders

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; fix: give run folders that medssml evaluate wrote into")
    place = next((place for place in result_folders(folder) if (place / "predictions.csv").is_file()), None)
    if place is None:
        evaluating = f"medssml evaluate --checkpoint {folder} --manifest MANIFEST --out {folder}"
        raise ValueError(f"{folder} holds no predictions.csv; fix: {evaluating}")
    texts = {"study_id": str, "subject": str, "subset": str, "class": str}
    table = pd.read_csv(place / "predictions.csv", dtype=texts)
    missing = [name for name in ("study_id", "subject", "task", "subset", "probability", "y") if name not in table]
    if missing:
        raise ValueError(
            f"{place / 'predictions.csv'} lacks the columns {missing}; fix: write it with medssml evaluate"
        )
    try:
        metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{place / 'metrics.json'} cannot be read; fix: medssml evaluate writes it") from error
    return table, {task: str(entry.get("kind", "binary")) for task, entry in metrics["tasks"].items()}


def _kinds(found: Sequence[dict[str, str]]) -> dict[str, str]:
    """Task -> kind.

    Raises:
        ValueError: a task of two kinds.
    """
    kinds: dict[str, str] = {}
    for each in found:
        for task, kind in each.items():
            if kinds.setdefault(task, kind) != kind:
                raise ValueError(
                    f"task {task!r} is {kinds[task]} in one run and {kind} in another; fix: compare like with like"
                )
    return kinds


def _run(name: str, folder: Path) -> ComparedRun:
    from medssml.provenance import FILE
    from medssml.reports.compare_page import ComparedRun
    from medssml.reports.results import read_results

    results = read_results(folder, ["history.csv", "config.yaml", FILE], may_lack=True)
    history, config, origin = (results.of(file).get("") for file in ("history.csv", "config.yaml", FILE))
    return ComparedRun(name, history or [], config, origin)


def _say(tasks: dict[str, dict[str, Any]]) -> None:
    """A line per task and run."""
    from medssml.reports import words
    from medssml.reports.results import estimate
    from medssml.runs import console

    rows = []
    for task, entry in tasks.items():
        if not entry["runs"]:
            console.warn(f"{task}: not compared: {entry['reason']}")
        for run, value in entry["runs"].items():
            gain = entry["gains"].get(run)
            said = words.interval(estimate(gain)) if gain else "-"
            rows.append((task, run, words.metric(entry["metric"]), words.interval(estimate(value)), said, entry["n"]))
    console.table(rows, ("task", "run", "metric", "estimate (95 %)", "minus the first", "n"))
