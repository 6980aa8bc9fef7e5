"""The grid of `medssml study obstacles`: cohort, pretrainings, fine-tunings, answers. What is done is not done again."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from medssml.files import restored, write_csv
from medssml.runs import console
from medssml.statistics.metrics import auroc, point
from medssml.studies.cells import kept_line
from medssml.studies.obstacles_answers import SAME, UNDAMAGED, UNTAUGHT, Asked, Bench
from medssml.studies.obstacles_cells import Case, Design, Recipe, cell_file, facts_of
from medssml.studies.resume import unless_stopped
from medssml.studies.workers import each_in_turn, on_gpu, on_workers
from medssml.tracking import one_store

#: No obstacle: what every cell of a recipe is measured by.
REFERENCE = Case()


class Grid:
    """The cells of a study, measured one after the other. lines: of all cells so far.

    Args:
        design: what the cells share.
    """

    def __init__(self, design: Design) -> None:
        self.design, self.lines = design, list[dict[str, Any]]()
        self._seed, self._bench = 0, None  # type: int, Bench | None

    @property
    def bench(self) -> Bench:
        """The studies that all models are asked about, once a model is pretrained."""
        if self._bench is None:
            raise RuntimeError("the grid has not begun; fix: begin(seed) first")
        return self._bench

    @property
    def pretrained(self) -> Path:
        """The run folder of the pretraining of the seed."""
        return self.design.out / "pretrain" / f"seed{self._seed}"

    def begin(self, seed: int) -> None:
        """The cohort and the pretraining of a seed."""
        from medssml.trainers.precision import device_type
        from medssml.verbs.phantom import phantom
        from medssml.verbs.pretrain import pretrain

        design, self._seed = self.design, seed
        if not design.manifest.exists():
            phantom(out=design.manifest.parent, studies=design.studies, missing=design.missing, preset="small")
        with one_store(design.out):
            done = pretrain(
                config=design.pretraining, manifest=design.manifest, out=self.pretrained, seed=seed,
                overrides=("trainer.precision=32",), device=design.device, cache=design.cache, track=design.track,
            )  # fmt: skip
        unless_stopped(f"seed {seed}: pretraining", done)
        if self._bench is None:
            device = device_type(design.device or "auto")
            self._bench = Bench.prepared(self.pretrained, design.manifest, design.cache, device)

    def left_out(self, cases: Sequence[Case]) -> dict[str, str]:
        """Obstacle -> why it can change nothing of these studies."""
        found = {case.obstacle: self.bench.why_not(case, self.design.tasks[0]) for case in cases}
        return {name: reason for name, reason in found.items() if reason is not None}

    def all_of(self, recipes: Sequence[Recipe], cases: Sequence[Case], workers: int = 0) -> None:
        """All cells of the seed: here, recipe by recipe, or on `workers` of Ray, of which each measures a recipe at a time."""
        if workers == 0:
            for _ in each_in_turn(lambda recipe: self.recipe(recipe, cases), recipes, self._seed):
                pass
            return
        measure = partial(cells_of, design=self.design, seed=self._seed, cases=cases)
        done = on_workers(measure, recipes, workers, gpu=on_gpu(self.design.device))
        lines = {recipe.name: found for recipe, found in done}
        # In the order in which they were asked for, whoever was ready first.
        self.lines += [line for recipe in recipes for line in lines[recipe.name]]

    def recipe(self, recipe: Recipe, cases: Sequence[Case]) -> None:
        """All cells of a recipe with the seed; the one without an obstacle first, as the others are measured by it."""
        known: dict[str, Asked] = {}

        def model_of(case: Case) -> Asked:
            if case.name not in known:
                known[case.name] = self.bench.asked(self._tuned(recipe, case))
            return known[case.name]

        for case in (REFERENCE, *cases):
            file = cell_file(self.design.out, recipe.name, case.name, self._seed, "json")

            def measured(case: Case = case) -> dict[str, Any]:
                reference = model_of(REFERENCE)
                own = model_of(case) if case.taught else reference
                return self._measured(recipe, case, own, reference)

            line = kept_line(file, facts_of(recipe.name, case, self._seed, recipe.digest), measured)
            if case.taught:
                known.pop(case.name, None)
            self.lines.append(line)
            if reason := line.get("failed"):
                console.warn(f"{recipe.name}, {case.name} cannot be measured and is left out: {reason}")

    def _run(self, recipe: Recipe, case: Case) -> Path:
        return cell_file(self.design.out, recipe.name, case.name, self._seed, "json").with_suffix("")

    def _tuned(self, recipe: Recipe, case: Case) -> Path:
        """The run folder of a fine-tuning on studies that suffer the obstacle, without its checkpoints."""
        from medssml.verbs.finetune import finetune

        design, run = self.design, self._run(recipe, case)
        with one_store(design.out):
            done = finetune(
                checkpoint=str(self.pretrained), config=recipe.path, manifest=design.manifest, task=design.tasks, out=run,
                labels=design.labels, overrides=(*design.overrides, *case.override(design.tasks[0])), seed=self._seed,
                device=design.device, cache=design.cache, track=design.track,
            )  # fmt: skip
        unless_stopped(f"seed {self._seed}: {recipe.name}, {case.name}", done)
        # Hundreds of them, and the model has the weights.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return run

    def _measured(self, recipe: Recipe, case: Case, own: Asked, reference: Asked) -> dict[str, Any]:
        """Writes the answers of a cell; what the line says of them."""
        started = time.process_time()
        answers = own.answers(case, self.design.tasks, reference)
        write_csv(cell_file(self.design.out, recipe.name, case.name, self._seed, "csv"), answers)
        found = aurocs(answers)
        run = self._run(recipe, case if case.taught else REFERENCE)
        if self.design.track:
            from medssml.tracking import add_results

            with one_store(self.design.out):
                named = {f"obstacles/{task}/{what}": v for task, by in found.items() for what, v in by.items()}
                add_results(run, named if case.taught or not case.parts else _of_case(named, case))
        return {"steps": self.design.steps, "answering_s": round(time.process_time() - started, 1), "auroc": found}


def cells_of(recipe: Recipe, *, design: Design, seed: int, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The lines of all cells of a recipe with a seed, by a process that knows nothing yet; the pretraining is there."""
    grid = Grid(design)
    grid.begin(seed)
    grid.recipe(recipe, cases)
    return grid.lines


def _of_case(named: dict[str, float], case: Case) -> dict[str, float]:
    """The results of a damage, which the run without it has too, under its name in the letters of MLflow."""
    plain = re.sub(r"[^\w.-]", "_", case.name)
    return {name.replace("obstacles/", f"obstacles/{plain}/", 1): value for name, value in named.items()}


def aurocs(answers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Task -> AUROC on validation studies, and on test studies undamaged, under the obstacle, and by the untaught model."""
    found: dict[str, dict[str, float]] = {}
    for task, part in answers.groupby("task", sort=False):
        for split, columns in (("val", (SAME,)), ("test", (UNDAMAGED, SAME, UNTAUGHT))):
            rows = part.loc[part["split"] == split]
            for column in columns if rows["y"].nunique() == 2 else ():
                name = "validation" if split == "val" else column
                value = point(auroc, rows["y"].to_numpy(float), rows[column].to_numpy(float))
                found.setdefault(str(task), {})[name] = round(value, 4)
    return found


def read_answers(out: Path, line: dict[str, Any]) -> pd.DataFrame:
    """The answers of a cell."""
    case = f"{line['obstacle']}_{line['severity']:g}" if line["obstacle"] else REFERENCE.name
    path = cell_file(out, line["recipe"], case, line["seed"], "csv")
    return restored(pd.read_csv(path, dtype={"study_id": str, "left": str})).assign(seed=line["seed"])
