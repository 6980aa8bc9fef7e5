"""medssml: pretrain, fine-tune and explain models of studies in which any modality may be absent.

    import medssml
    model = medssml.load("runs/demo")
    model.predict({"ct": "a.nii.gz", "report": "No acute findings."}, task="malignant")

Every verb of the command line is a function of the same name and arguments, `medssml.pretrain(...)`, that returns what it
found (`medssml.api`). Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.api import (
        Stopped,
        cache,
        check,
        compare,
        demo,
        doctor,
        embed,
        evaluate,
        finetune,
        ids,
        impact,
        import_,
        phantom,
        plan,
        predict,
        prepare,
        pretrain,
        propagate,
        report,
        select,
        stress,
        study_cohort,
        study_methods,
        study_obstacles,
        study_phantom,
        suspects,
        transfer,
        ui,
    )
    from medssml.batch import Batch, Encoded, Fused
    from medssml.manifest.manifest import Manifest
    from medssml.model import MultimodalModel, Task
    from medssml.predictor import Predictor, load

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Encoded",
    "Fused",
    "Manifest",
    "MultimodalModel",
    "Predictor",
    "Stopped",
    "Task",
    "__version__",
    "cache",
    "check",
    "compare",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "finetune",
    "ids",
    "impact",
    "import_",
    "load",
    "phantom",
    "plan",
    "predict",
    "prepare",
    "pretrain",
    "propagate",
    "report",
    "select",
    "stress",
    "study_cohort",
    "study_methods",
    "study_obstacles",
    "study_phantom",
    "suspects",
    "transfer",
    "ui",
]

#: Public name -> the module that defines it; the verbs are in `medssml.api`.
_MODULES = {
    "Batch": "medssml.batch",
    "Encoded": "medssml.batch",
    "Fused": "medssml.batch",
    "Manifest": "medssml.manifest.manifest",
    "MultimodalModel": "medssml.model",
    "Predictor": "medssml.predictor",
    "Task": "medssml.model",
    "load": "medssml.predictor",
}


class _Package(ModuleType):
    """This module, in which `phantom` and `transfer` are verbs, although there are packages of these names: importing anything of
    such a package would put it in the verb's place."""

    @property
    def phantom(self) -> Any:
        return importlib.import_module("medssml.api").phantom

    @phantom.setter
    def phantom(self, package: ModuleType) -> None:
        """Python's import says where the package is; `from medssml.phantom import Design` finds it without."""

    @property
    def transfer(self) -> Any:
        return importlib.import_module("medssml.api").transfer

    @transfer.setter
    def transfer(self, package: ModuleType) -> None:
        """As of `phantom`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'medssml' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "medssml.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
