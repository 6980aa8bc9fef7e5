"""What of a resolved config may go to MLflow, and the names that MLflow accepts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

#: Sections of a resolved config that are logged; everything else in it stays in the run folder.
SECTIONS = (
    "model", "transforms", "fusion", "objectives", "optim", "trainer", "data", "freeze", "modality_dropout",
    "unimodal_weight", "fused_weight", "label_smoothing", "loss", "modulation", "class_weights", "presence_weights", "labels",
    "tasks", "seed", "lora", "student", "method", "weight", "source", "seeds", "arm",
)  # fmt: skip

_LONGEST = 500


def allowed_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> text, of the sections in `SECTIONS`; a text that could be a path is left out."""
    flat: dict[str, str] = {}
    for section in SECTIONS:
        if section in config:
            _flatten(section, config[section], flat)
    return flat


def _flatten(key: str, value: Any, into: dict[str, str]) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _flatten(key if name == "init_args" else f"{key}.{name}", inner, into)
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (Mapping, list, tuple)) for inner in value):
        for place, inner in enumerate(value):
            _flatten(f"{key}.{place}", inner, into)
    elif not _could_be_path(value):
        into[key] = str(value)[:_LONGEST]


def _could_be_path(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_could_be_path(inner) for inner in value)
    if isinstance(value, PurePath):
        return True
    return isinstance(value, str) and ("/" in value or "\\" in value or value.startswith("~"))


def mlflow_name(name: str) -> str:
    """The nearest name that MLflow accepts: "ct+report" becomes "ct_report", "ct->report" "ct_to_report"."""
    name = name.replace("->", "_to_")
    return "".join(letter if letter.isalnum() or letter in "_-./ :" else "_" for letter in name)[:250]
