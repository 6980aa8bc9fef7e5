"""MONAI dictionary transforms: loaders, and what MONAI lacks for EEG, text and tables. A road is a chain of them.

Imported when first asked for: `import monai` costs seconds, which who only reads files does not pay.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.transforms.antialias import AntialiasResized as AntialiasResized
    from medssml.transforms.base import Transform as Transform
    from medssml.transforms.eeg_steps import CentralWindowd as CentralWindowd
    from medssml.transforms.eeg_steps import EEGInputsd as EEGInputsd
    from medssml.transforms.eeg_steps import RandDropChannelsd as RandDropChannelsd
    from medssml.transforms.eeg_steps import RandWindowd as RandWindowd
    from medssml.transforms.loaders import LoadCTd as LoadCTd
    from medssml.transforms.loaders import LoadEEGd as LoadEEGd
    from medssml.transforms.loaders import LoadReportd as LoadReportd
    from medssml.transforms.loaders import LoadTabled as LoadTabled
    from medssml.transforms.loaders import LoadXrayd as LoadXrayd
    from medssml.transforms.principal_components import PrincipalComponentsd as PrincipalComponentsd
    from medssml.transforms.report_steps import RandSentencesd as RandSentencesd
    from medssml.transforms.report_steps import Tokenized as Tokenized
    from medssml.transforms.road import Road as Road
    from medssml.transforms.short_forms import CTTransform as CTTransform
    from medssml.transforms.short_forms import EEGTransform as EEGTransform
    from medssml.transforms.short_forms import ReportTransform as ReportTransform
    from medssml.transforms.short_forms import TableTransform as TableTransform
    from medssml.transforms.short_forms import XrayTransform as XrayTransform
    from medssml.transforms.table_steps import RandHideValuesd as RandHideValuesd
    from medssml.transforms.table_steps import Standardised as Standardised

_FILES = {
    "antialias": ("AntialiasResized",),
    "base": ("Transform",),
    "eeg_steps": ("CentralWindowd", "EEGInputsd", "RandDropChannelsd", "RandWindowd"),
    "loaders": ("LoadCTd", "LoadEEGd", "LoadReportd", "LoadTabled", "LoadXrayd"),
    "principal_components": ("PrincipalComponentsd",),
    "report_steps": ("RandSentencesd", "Tokenized"),
    "road": ("Road",),
    "short_forms": ("CTTransform", "EEGTransform", "ReportTransform", "TableTransform", "XrayTransform"),
    "table_steps": ("RandHideValuesd", "Standardised"),
}
_WHERE = {name: file for file, names in _FILES.items() for name in names}

__all__ = [
    "AntialiasResized",
    "CTTransform",
    "CentralWindowd",
    "EEGInputsd",
    "EEGTransform",
    "LoadCTd",
    "LoadEEGd",
    "LoadReportd",
    "LoadTabled",
    "LoadXrayd",
    "PrincipalComponentsd",
    "RandDropChannelsd",
    "RandHideValuesd",
    "RandSentencesd",
    "RandWindowd",
    "ReportTransform",
    "Road",
    "Standardised",
    "TableTransform",
    "Tokenized",
    "Transform",
    "XrayTransform",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'medssml.transforms' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medssml.transforms.{_WHERE[name]}"), name)
