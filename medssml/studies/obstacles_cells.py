"""The parts of `medssml study obstacles`: what it is asked, which recipes and which obstacles at which severities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssml.studies.cells import digest_of

if TYPE_CHECKING:
    from medssml.obstacles import Obstacle
    from medssml.obstacles.together import Named
    from medssml.runs.training_config import FinetuneConfig

#: The recipe that others build on, and which they are compared with if nothing else is said.
BASE = "plain"
#: Of the draws of all obstacles: what befalls a study is the same for all recipes and all seeds of training.
DRAWS = 0
#: The same length for all recipes, and no figure that depends on the processor.
SHARED = ("trainer.max_epochs=null", "trainer.validate_every=0", "trainer.precision=32")


@dataclass(frozen=True)
class Design:
    """What the cells share.

    Args:
        out: folder of the study. cache: prepared studies.
        studies: of the cohort. missing: share of modalities absent before any obstacle.
        steps: of each fine-tuning. labels: share of the labelled training subjects.
        pretraining: config of the pretraining.
        tasks: label columns.
        bootstrap: resamples of subjects.
        device: of training; None = what the configs say.
        track: log to MLflow.
    """

    out: Path
    cache: Path
    studies: int
    missing: float
    steps: int
    labels: float
    pretraining: Path
    tasks: tuple[str, ...]
    bootstrap: int
    device: str | None = None
    track: bool = True

    def settings(self) -> dict[str, Any]:
        """What the answers of the study depend on, but for the recipes and obstacles, which each cell names.

        Raises:
            medssml.config.ConfigError: a wrong config.
        """
        from medssml.config import load_config
        from medssml.runs.training_config import PretrainConfig
        from medssml.schema import plain

        names = ("studies", "missing", "steps", "labels", "tasks", "bootstrap")
        own = {name: getattr(self, name) for name in names}
        return own | {"pretraining": plain(load_config(self.pretraining, PretrainConfig))}

    @property
    def overrides(self) -> tuple[str, ...]:
        """What every fine-tuning has in place of what its recipe says."""
        return (f"trainer.max_steps={self.steps}", *SHARED)

    @property
    def manifest(self) -> Path:
        """The study table of the grid."""
        return self.out / "cohort" / "manifest.csv"


@dataclass(frozen=True)
class Recipe:
    """A fine-tuning config. name: in results. path: of its file. config: with the overrides of the design."""

    name: str
    path: Path
    config: FinetuneConfig

    @property
    def digest(self) -> str:
        """Tells a recipe from another one."""
        from medssml.schema import plain

        return digest_of(plain(self.config))


def chosen_recipes(asked: Sequence[str], design: Design) -> list[Recipe]:
    """The recipes that were asked for, or all shipped ones that build on `plain`, their configs read.

    Raises:
        medssml.config.ConfigError: no such config, or a wrong one. ValueError: two of one name.
    """
    from medssml.config import load_config
    from medssml.runs.training_config import FinetuneConfig
    from medssml.shipped_configs import built_on, config_path

    found: dict[str, Recipe] = {}
    for given in asked or built_on(BASE, "finetune"):
        name = Path(given).stem if Path(given).is_file() else given
        if name in found:
            raise ValueError(f"--recipe names {name} twice; fix: once, or another file name")
        path = config_path(given, "finetune")
        found[name] = Recipe(name, path, load_config(path, FinetuneConfig, design.overrides))
    return list(found.values())


@dataclass(frozen=True)
class Case:
    """Obstacles at a severity, or none. parts: which, one after the other. turned: their pattern is the other way round."""

    parts: tuple[Named, ...] = ()
    severity: float = 0.0
    turned: bool = False

    @property
    def obstacle(self) -> str:
        """What results call it; "" for none."""
        return "+".join(part.label for part in self.parts)

    @property
    def name(self) -> str:
        """Of its cells."""
        return f"{self.obstacle}_{self.severity:g}" if self.parts else "undamaged"

    @property
    def taught(self) -> bool:
        """Whether training studies suffer it: what befalls the table, and a damage of one modality where it was asked."""
        return any(_taught(part) for part in self.parts)

    @property
    def of_training(self) -> bool:
        """Whether it befalls labels or training studies, and so nothing that a model is asked about."""
        return bool(self.parts) and all(part.kind.of_training for part in self.parts)

    @property
    def reverse(self) -> Case | None:
        """The same with its pattern the other way round, where it has one: what depends on the label."""
        from medssml.obstacles import AbsentByLabel

        return replace(self, turned=True) if any(part.kind is AbsentByLabel for part in self.parts) else None

    @property
    def at(self) -> str:
        """Whom it befalls, in words."""
        return "training" if self.of_training else "training and test" if self.taught else "test" if self.parts else ""

    def built(self, task: str) -> list[Obstacle]:
        """The obstacles, not fitted yet; absence by label, and a scarce class, go by `task`."""
        return [part.built(self.severity, DRAWS, task=task, flipped=self.turned) for part in self.parts]

    def override(self, task: str) -> tuple[str, ...]:
        """What a training that suffers it is told."""
        built = zip(self.parts, self.built(task), strict=True)
        nodes = [obstacle.described() for part, obstacle in built if _taught(part)]
        return (f"data.obstacles={json.dumps(nodes)}",) if nodes else ()


def _taught(part: Named) -> bool:
    from medssml.obstacles import TableObstacle

    return part.taught or issubclass(part.kind, TableObstacle)


def chosen_cases(asked: Sequence[str], severities: Sequence[float]) -> list[Case]:
    """The obstacles that were asked for, each with its severities, or all.

    `absent_against_training` is left out if it is not asked for: on studies that suffer alike there is no pattern to turn.

    Args:
        asked: NAME=SEVERITY, or NAME for all `severities`; several at once as NAME+NAME, each with a level of its own.

    Raises:
        KeyError: no such obstacle. ValueError: a severity that is none.
    """
    from medssml.bounds import bounded
    from medssml.obstacles import OBSTACLES, AbsentAgainstTraining
    from medssml.obstacles.together import named

    found: dict[str, Case] = {}
    for text in asked or [kind.name for kind in OBSTACLES if kind is not AbsentAgainstTraining]:
        parts = named(text)
        given = [part.level for part in parts if part.level is not None]
        levels = severities if len(given) < len(parts) else [1.0]
        if len(parts) == len(given) == 1:
            parts, levels = (parts[0]._replace(level=None),), given
        for severity in levels:
            bounded(f"severity of {text}", severity, above=0, most=1)
            case = Case(parts, float(severity))
            found[case.name] = case
    if not found:
        raise ValueError("no severity is asked for; fix: --severities, or --obstacle NAME=SEVERITY")
    return list(found.values())


def cell_file(out: Path, recipe: str, case: str, seed: int, ending: str) -> Path:
    """The line of a cell (json), or its answers (csv)."""
    return out / "cells" / f"{recipe.replace('/', '_')}-{case}-seed{seed}.{ending}"


def facts_of(recipe: str, case: Case, seed: int, digest: str) -> Mapping[str, Any]:
    """What the line of a cell begins with."""
    severity = {"severity": case.severity, "at": case.at} if case.parts else {}
    return {"recipe": recipe, "obstacle": case.obstacle, **severity, "seed": seed, "config": digest}
