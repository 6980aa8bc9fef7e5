"""The sentences of a command line, for the tasks of a study table."""

from __future__ import annotations

from collections.abc import Sequence

from medssml.evaluation.probing import Target
from medssml.evaluation.zero_shot import Prompts, chosen_prompts, read_prompts
from medssml.manifest.manifest import Manifest
from medssml.shipped_configs import prompts_path


def prompts_of(given: str | None, table: Manifest, tasks: Sequence[str]) -> Prompts:
    """The prompts of `tasks`, their classes in the order of the table; none where no file is `given`.

    Raises:
        medssml.config.ConfigError: no such file, or other tasks or classes than the table's.
    """
    return {} if given is None else chosen_prompts(read_prompts(prompts_path(given)), targets_of(table), tasks)


def targets_of(table: Manifest) -> dict[str, Target]:
    """Task -> what the table has of it."""
    return {
        name: Target(name, label.kind, label.n_classes, label.classes, label.unit)
        for name, label in table.tasks.items()
    }
