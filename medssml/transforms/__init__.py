"""One transform per modality: `prepare` (file -> arrays worth storing) and call (arrays -> tensors, augmented)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.transforms.base import Transform as Transform
    from medssml.transforms.ct import CTTransform as CTTransform
    from medssml.transforms.eeg import EEGTransform as EEGTransform
    from medssml.transforms.report import ReportTransform as ReportTransform
    from medssml.transforms.table import TableTransform as TableTransform
    from medssml.transforms.xray import XrayTransform as XrayTransform

_WHERE = {
    "Transform": "base",
    "CTTransform": "ct",
    "EEGTransform": "eeg",
    "ReportTransform": "report",
    "TableTransform": "table",
    "XrayTransform": "xray",
}

__all__ = ["CTTransform", "EEGTransform", "ReportTransform", "TableTransform", "Transform", "XrayTransform"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'medssml.transforms' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medssml.transforms.{_WHERE[name]}"), name)
