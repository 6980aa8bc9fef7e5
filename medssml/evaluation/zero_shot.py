"""Zero-shot classification: which class's sentences a study lies nearest to in the space of the contrast. No label is learned.

Radford et al. 2021; several sentences of a class are an ensemble, of which the mean direction is taken. AUROC needs no
threshold, so the order of the studies is all that is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssml.config import ConfigError
from medssml.evaluation.encoded_studies import EncodedStudies, subset_name, subsets
from medssml.evaluation.probing import Target
from medssml.evaluation.retrieval import Space, shared_space, spaces_of
from medssml.model import MultimodalModel
from medssml.schema import nearest
from medssml.statistics.bootstrap import Array
from medssml.statistics.metrics import score_task

#: Of the softmax over the classes; AUROC of two classes does not depend on it.
TEMPERATURE = 0.07

#: Task -> class -> its sentences.
Prompts = dict[str, dict[str, list[str]]]


def read_prompts(path: Path) -> Prompts:
    """The prompts in a YAML or JSON file: task -> class, as the manifest has it -> a sentence, or several.

    Raises:
        ConfigError: not of this form, with the file and the key.
    """
    import yaml

    try:
        # Every value a text: as YAML has it, the class `no` would be False and 1 a number.
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}; fix: a YAML or JSON file of prompts") from error
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{path}: no prompts; fix: TASK: {{CLASS: sentence or list of sentences}}")
    return {str(task): _classes(path, str(task), classes) for task, classes in found.items()}


def _classes(path: Path, task: str, classes: Any) -> dict[str, list[str]]:
    if not isinstance(classes, dict) or len(classes) < 2:
        raise ConfigError(f"{path}: {task}: expected two classes or more; fix: {task}: {{CLASS: sentence, ...}}")
    sentences = {str(name): [said] if isinstance(said, str) else said for name, said in classes.items()}
    for name, said in sentences.items():
        if not isinstance(said, list) or not said or not all(isinstance(one, str) and one.strip() for one in said):
            raise ConfigError(f"{path}: {task}.{name}: expected a sentence, or a list of them")
    return sentences


def chosen_prompts(prompts: Prompts, targets: Mapping[str, Target], wanted: Sequence[str]) -> Prompts:
    """The prompts of the wanted tasks, their classes in the order of the manifest.

    Args:
        prompts: of any tasks of the manifest.
        targets: task -> what the manifest has.
        wanted: names of the tasks that are evaluated.

    Raises:
        ConfigError: a task that the manifest does not have, a regression, or other classes than the manifest's.
    """
    out: Prompts = {}
    for task, classes in prompts.items():
        if task not in targets:
            raise ConfigError(f"prompts name task {task!r}, which the manifest does not have{nearest(task, targets)}")
        names = targets[task].names
        if targets[task].kind == "regression" or set(classes) != set(names):
            has = ", ".join(names) if names else "numbers"
            raise ConfigError(f"prompts of {task} are for {', '.join(classes)}; fix: the manifest has {has}")
        if task in wanted:
            out[task] = {name: classes[name] for name in names}
    if not out:
        raise ConfigError(f"no prompts for {', '.join(wanted)}; fix: those of another --task, or leave --zero-shot out")
    return out


def why_not(model: MultimodalModel) -> str | None:
    """Why a model has no zero-shot answers, or None."""
    shared = shared_space(model)
    if shared is not None and "report" in shared.modalities:
        return None
    return (
        "no zero-shot classification: this model kept no space in which reports meet another modality; fix: evaluate the "
        "pretrained run, of CrossModalContrast with report"
    )


def zero_shot_tasks(
    studies: EncodedStudies,
    model: MultimodalModel,
    prompts: Prompts,
    targets: Mapping[str, Target],
    directions: Callable[[Mapping[str, Sequence[str]]], Array],
    *,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The entry `zero_shot` of metrics.json.

    Args:
        studies: encoded by `model`.
        model: that kept a space with reports.
        prompts: from `chosen_prompts`.
        targets: task -> what it is.
        directions: class -> sentences to (K, d) unit vectors of the space.
        n: resamples. seed: of them.

    Returns:
        {"temperature": .., "tasks": {task: {"kind", "classes", "prompts": {class: [..]}, "subsets": {"ct": {"n",
        "positives", "auroc": {..}}}}}}; a subset that no labelled study has is left out.
    """
    shared = shared_space(model)
    spaces = {} if shared is None else spaces_of(studies, shared)
    tasks = {}
    for task, classes in prompts.items():
        target, towards = targets[task], directions(classes)
        tasks[task] = {
            "kind": target.kind,
            "classes": list(classes),
            "prompts": classes,
            "subsets": _by_subset(studies, spaces, target, towards, n, seed),
        }
    return {"temperature": TEMPERATURE, "tasks": tasks}


def rows_of(found: Mapping[str, Any]) -> list[tuple[str, str, int, Any, str]]:
    """(task, subset, studies, positives, AUROC with its interval) of each task and subset."""
    return [
        (task, subset, entry["n"], entry.get("positives"), _text(entry["auroc"]))
        for task, answers in found["tasks"].items()
        for subset, entry in answers["subsets"].items()
    ]


def _text(interval: Mapping[str, Any]) -> str:
    if interval["estimate"] is None:
        return "-"
    ends = "" if interval["ci_low"] is None else f" [{interval['ci_low']:.3f}, {interval['ci_high']:.3f}]"
    return f"{interval['estimate']:.3f}{ends}"


def _by_subset(
    studies: EncodedStudies, spaces: Mapping[str, Space], target: Target, towards: Array, n: int, seed: int
) -> dict[str, Any]:
    """Subset of the modalities that the space has -> AUROC on the labelled studies that have all of it."""
    names = tuple(name for name in studies.modalities if name in spaces)
    y = studies.targets.get(target.task, np.full(len(studies), np.nan))
    out: dict[str, Any] = {}
    for subset in filter(None, subsets(names)):
        parts = [name for j, name in enumerate(names) if subset >> j & 1]
        has = studies.has[:, [studies.column(name) for name in parts]].all(axis=1)
        rows = np.flatnonzero(has & np.isfinite(y))
        if len(rows) == 0:
            continue
        place = sum(spaces[name].vectors[np.searchsorted(spaces[name].rows, rows)] for name in parts)
        answers = probabilities(np.asarray(place), towards)
        score = answers[:, 1] if target.kind == "binary" else answers
        found = score_task(target.kind, y[rows], score, studies.subject[rows], n=n, seed=seed, names=("auroc",))
        entry: dict[str, Any] = {"n": len(rows), "subjects": len(np.unique(studies.subject[rows]))}
        if target.kind == "binary":
            entry["positives"] = int(y[rows].sum())
        out[subset_name(subset, names)] = entry | {name: interval.to_dict() for name, interval in found.items()}
    return out


def probabilities(place: Array, towards: Array, temperature: float = TEMPERATURE) -> Array:
    """(n, K) softmax over the classes of the cosines between places (n, d) and directions (K, d)."""
    lengths = np.maximum(np.linalg.norm(place, axis=1, keepdims=True), 1e-12)
    logits = (place / lengths) @ towards.T / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
