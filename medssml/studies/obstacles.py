"""`medssml study obstacles`: what obstacles cost, and which recipe of fine-tuning stands up to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def study_obstacles(
    *,
    out: Path,
    recipe: Sequence[str] = (),
    obstacle: Sequence[str] = (),
    severities: Sequence[float] = (0.33, 0.67),
    seeds: int = 3,
    studies: int = 1500,
    steps: int = 200,
    labels: float = 1.0,
    config: Path = Path("small"),
    task: Sequence[str] = (),
    missing: float = 0.0,
    bootstrap: int = 1000,
    device: str | None = None,
    threads: int = 0,
    cache: Path | None = None,
    track: bool = True,
    workers: int = 0,
) -> Path:
    """Recipes of fine-tuning x obstacles x severities x seeds, on one simulated cohort whose truth is known.

    For each seed one model is pretrained on the undamaged training studies, without labels. From it every recipe is
    fine-tuned on undamaged studies and, for every obstacle and severity, on studies that suffer it; a damage of one
    modality befalls the test alone. All answer the same test studies, undamaged and under the obstacle. Recipes are
    ordered by their mean rank on validation studies, which suffer as those of training do. Run again, it continues.

    Args:
        out: folder of the cohort, cells/, results.json, protocol.json and results.html.
        recipe: fine-tuning configs: shipped names or files, the first to be compared with; by default those on `plain`.
        obstacle: NAME=SEVERITY, or NAME for all severities; several at once as NAME=SEVERITY+NAME=SEVERITY, at a share of
            the sites as NAME=SEVERITY@SHARE; see docs/obstacles.md; all but absent_against_training by default.
        severities: above 0, at most 1, of obstacles that are given without one.
        seeds: pretrainings, and fine-tunings of each cell, from seed 0 on.
        studies: of the cohort.
        steps: of each fine-tuning, whatever its recipe says.
        labels: share of the labelled training subjects.
        config: of the pretraining: a file, or the name of a shipped one.
        task: a label column without `label_`; several times for several; all by default.
        missing: share of modalities that is absent before any obstacle.
        bootstrap: resamples of the subjects.
        device: auto, cpu or cuda; what the configs say by default.
        threads: of torch; 0 = all cores.
        cache: folder of prepared studies; by default what MEDSSML_CACHE says, or a folder `cache` beside OUT.
        track: log to MLflow, OUT/mlflow.db or where MLFLOW_TRACKING_URI says.
        workers: of Ray that measure the cells of one recipe each, on this machine or on the cluster of RAY_ADDRESS (extra
            [ray]); 0 = this process.

    Returns:
        results.html.

    Raises:
        medssml.config.ConfigError: no such recipe, or a wrong one. KeyError: no such task or obstacle. StudyStopped: a run
            was stopped. medssml.runs.run_folder.RunFolderError: the folder holds another study.
    """
    from medssml.bounds import bounded
    from medssml.runs import console
    from medssml.runs.cache_place import cache_place
    from medssml.shipped_configs import config_path
    from medssml.studies.methods_cells import asked_of
    from medssml.studies.obstacles_cells import Design, chosen_cases, chosen_recipes
    from medssml.studies.obstacles_grid import Grid
    from medssml.studies.obstacles_results import write_results
    from medssml.studies.resume import same_study
    from medssml.studies.start import ready

    bounded("--studies", studies, least=1)
    bounded("--steps", steps, least=1)
    bounded("--labels", labels, above=0, most=1)
    tasks = tuple(asked_of(task))
    cases = chosen_cases(obstacle, severities)
    out = ready(out, seeds=seeds, bootstrap=bootstrap, device=device, threads=threads, workers=workers)
    place, pretraining = cache_place(cache, out), config_path(config, "pretrain")
    design = Design(out, place, studies, missing, steps, labels, pretraining, tasks, bootstrap, device, track)
    recipes = chosen_recipes(recipe, design)
    same_study(out, design.settings())
    grid = Grid(design)
    for seed in range(seeds):
        with console.step(f"seed {seed}: pretraining"):
            grid.begin(seed)
        left_out = grid.left_out(cases)
        for name, reason in left_out.items():
            console.warn(f"{name} can change nothing of these studies and is left out: {reason}")
        asked = [case for case in cases if case.obstacle not in left_out]
        grid.all_of(recipes, asked, workers)
        write_results(grid)
        console.say(f"{out / 'results.html'}: {seed + 1} of {seeds} seeds")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    console.tell({"page": str(out / "results.html"), "results": results}, anew=True)
    return out / "results.html"
