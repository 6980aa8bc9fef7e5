"""Result files of verbs as metrics and tags of the run whose model they are about."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml.tracking.join import add_results


def add_evaluation(checkpoint: str | Path, file: Path, labels: Mapping[str, str]) -> bool:
    """Logs a metrics.json with the run of the model; False where it was not tracked.

    Args:
        checkpoint: run folder, or its model folder.
        file: metrics.json.
        labels: name -> text of the account of labels.
    """
    found = json.loads(file.read_text(encoding="utf-8"))
    verb = f"evaluate-{found['protocol']['split']}"
    tags = {f"{verb}.{name}": text for name, text in labels.items()}
    return add_results(
        checkpoint, dict(evaluation_metrics(found, verb)), tags={**_tags(found, verb), **tags}, files={verb: [file]}
    )


def add_impact(checkpoints: Sequence[str | Path], file: Path) -> None:
    """Logs an impact.json with the runs of the models."""
    found = json.loads(file.read_text(encoding="utf-8"))
    verb = f"impact-{found['protocol']['split']}"
    for checkpoint in checkpoints:
        add_results(
            checkpoint, dict(impact_metrics(found, verb)), tags=_tags(found, f"{verb}.{found['task']}"),
            files={f"{verb}/{found['task']}": [file]},
        )  # fmt: skip


def add_predictions(checkpoint: str | Path, *, split: str, studies: int, manifest_sha256: str) -> None:
    """Notes with the run of the model what was predicted with it."""
    told = {"studies": studies, "protocol": {"manifest_sha256": manifest_sha256}}
    add_results(checkpoint, {f"predict-{split}/studies": studies}, tags=_tags(told, f"predict-{split}"))


def evaluation_metrics(found: Mapping[str, Any], verb: str) -> Iterator[tuple[str, float]]:
    """VERB/TASK/METRIC, of every study from what it has, with ci_low and ci_high; VERB/TASK/SUBSET/METRIC; and retrieval."""
    for task, entry in found["tasks"].items():
        yield from _intervals(f"{verb}/{task}", entry.get("as_observed", {}))
        for subset, metrics in entry.get("subsets", {}).items():
            yield from _intervals(f"{verb}/{task}/{subset or 'nothing'}", metrics)
    for task, entry in found.get("zero_shot", {}).get("tasks", {}).items():
        for subset, metrics in entry["subsets"].items():
            yield from _intervals(f"{verb}/zero-shot/{task}/{subset}", metrics)
    for task, entry in found.get("transductive", {}).get("tasks", {}).items():
        seen = entry.get("as_observed", {})
        yield from _intervals(f"{verb}/transductive/{task}", seen.get("transductive", {}))
        yield from _intervals(f"{verb}/transductive/{task}/difference", seen.get("difference", {}))
    for pair, metrics in found.get("retrieval", {}).items():
        yield from _intervals(f"{verb}/retrieval/{pair}", metrics)


def impact_metrics(found: Mapping[str, Any], verb: str) -> Iterator[tuple[str, float]]:
    """VERB/TASK/MODALITY/MEASURE with ci_low and ci_high."""
    for modality, measures in found["modalities"].items():
        yield from _intervals(f"{verb}/{found['task']}/{modality}", measures)


def _intervals(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of a node, and estimates with their ends; what is not known is left out."""
    for name, value in node.items():
        parts = value if isinstance(value, Mapping) and "estimate" in value else {"estimate": value}
        for part in ("estimate", "ci_low", "ci_high"):
            number = parts.get(part)
            if isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number):
                yield f"{prefix}/{name}" + ("" if part == "estimate" else f"/{part}"), float(number)


def _tags(found: Mapping[str, Any], name: str) -> dict[str, str]:
    """What the figures are of."""
    count = found.get("studies", found.get("n_studies", found["protocol"].get("studies")))
    return {f"{name}.studies": str(count), f"{name}.manifest_sha256": str(found["protocol"]["manifest_sha256"])}
