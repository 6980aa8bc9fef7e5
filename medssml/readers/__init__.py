"""File -> array and geometry, as plain numpy. One reader per kind of modality; every failure is a `ReadError`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medssml.readers.ct import CTHeader, Volume, ct_header, read_ct
from medssml.readers.eeg import CHANNELS, EEGHeader, Recording, eeg_header, read_eeg
from medssml.readers.errors import ReadError
from medssml.readers.report import Report, parse_report, read_report, report_header
from medssml.readers.table import Values, parse_table, read_table
from medssml.readers.xray import Radiograph, XrayHeader, read_xray, xray_header

__all__ = [
    "CHANNELS",
    "HEADERS",
    "READERS",
    "CTHeader",
    "EEGHeader",
    "Radiograph",
    "ReadError",
    "Recording",
    "Report",
    "Values",
    "Volume",
    "XrayHeader",
    "ct_header",
    "eeg_header",
    "modality_kind",
    "parse_report",
    "parse_table",
    "read_ct",
    "read_eeg",
    "read_report",
    "read_table",
    "read_xray",
    "report_header",
    "xray_header",
]

READERS: dict[str, Callable[[Path], Any]] = {
    "ct": read_ct,
    "xray": read_xray,
    "eeg": read_eeg,
    "report": read_report,
    "table": read_table,
}
"""Kind of modality -> the whole file."""

HEADERS: dict[str, Callable[[Path], Any]] = {
    "ct": ct_header,
    "xray": xray_header,
    "eeg": eeg_header,
    "report": report_header,
    "table": read_table,
}
"""Kind of modality -> the header alone, in about a millisecond."""


def modality_kind(modality: str) -> str:
    """The kind of a modality by its name: the name itself, or its first part ("xray_lateral" -> "xray").

    Raises:
        KeyError: no reader for it.
    """
    kind = modality if modality in READERS else modality.split("_")[0]
    if kind not in READERS:
        raise KeyError(f"no reader for modality {modality!r}; name it after its kind: {', '.join(READERS)}")
    return kind
