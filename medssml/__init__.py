"""medssml: pretrain, fine-tune and explain models of studies in which any modality may be absent.

    import medssml
    model = medssml.load("runs/demo")
    model.predict({"ct": "a.nii.gz", "report": "No acute findings."}, task="malignant")

Nothing heavy is imported before it is asked for. Every verb of the command line is one function in
``medssml.verbs.<verb>``; those whose name is no package of medssml are also at hand here, as ``medssml.pretrain(...)``.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_PUBLIC = {
    "Batch": "medssml.batch",
    "Encoded": "medssml.batch",
    "Fused": "medssml.batch",
    "Manifest": "medssml.manifest.manifest",
    "MultimodalModel": "medssml.model",
    "Predictor": "medssml.predictor",
    "Task": "medssml.model",
    "load": "medssml.predictor",
}
_VERBS = (
    "check",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "finetune",
    "impact",
    "predict",
    "prepare",
    "pretrain",
    "report",
)
_PUBLIC.update({verb: f"medssml.verbs.{verb}" for verb in _VERBS})

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'medssml' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
