"""The text of a DICOM structured report: its content tree alone; every tag about a patient stays unread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medssml.readers.dicom_file import read_dataset
from medssml.readers.errors import ReadError

_TAGS = ["SpecificCharacterSet", "SOPClassUID", "Modality", "ContentSequence"]
_MAX_ITEMS = 20_000
_MAX_DEPTH = 32
_ABOUT = ("HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS ACQ CONTEXT")
_NO_TEXT = ("PNAME", "UIDREF", "IMAGE", "COMPOSITE", "WAVEFORM", "SCOORD", "TCOORD")


def sr_text(path: Path) -> str:
    """The report in an SR file: containers are headings, text and coded values their lines.

    Raises:
        ReadError: another kind of DICOM file, or a report without text.
    """
    dataset, _ = read_dataset(path, _TAGS, pixels=True)
    modality = str(dataset.get("Modality") or "")
    if modality != "SR" or "ContentSequence" not in dataset:
        found = f"modality {modality or 'unknown'}, no content tree" if modality != "SR" else "no content tree"
        raise ReadError(path, f"is DICOM without a report ({found})", "name the SR file or a text", code="content")
    lines = list(_lines(dataset.ContentSequence, path, 0, [0]))
    if not lines:
        raise ReadError(path, "is a structured report without text", "export the report as text", code="content")
    return "\n".join(lines)


def _lines(items: Any, path: Path, depth: int, seen: list[int]) -> Iterator[str]:
    """`seen` counts the items of the whole tree, so that a hostile one ends."""
    if depth > _MAX_DEPTH:
        raise ReadError(path, f"nests its content over {_MAX_DEPTH} deep", "export the report again", code="damaged")
    for item in items:
        seen[0] += 1
        if seen[0] > _MAX_ITEMS:
            raise ReadError(
                path, f"holds over {_MAX_ITEMS:,} content items", "export the report again", code="too_large"
            )
        kind, name = str(item.get("ValueType") or ""), _meaning(item, "ConceptNameCodeSequence")
        if str(item.get("RelationshipType") or "") in _ABOUT or kind in _NO_TEXT:
            continue  # observer, procedure, patient: about the report, not in it
        value = _value(item, kind)
        if kind == "CONTAINER":
            inner = list(_lines(item.get("ContentSequence") or [], path, depth + 1, seen))
            if inner:
                yield f"{name.upper()}:" if name else ""
                yield from inner
            continue
        if value:
            yield f"{name}: {value}" if name else value
        yield from _lines(item.get("ContentSequence") or [], path, depth + 1, seen)


def _value(item: Any, kind: str) -> str:
    if kind == "TEXT":
        return str(item.get("TextValue") or "").strip()
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        measured = item.get("MeasuredValueSequence")
        if measured:
            unit = measured[0].get("MeasurementUnitsCodeSequence")
            return f"{measured[0].get('NumericValue', '')} {unit[0].get('CodeValue', '') if unit else ''}".strip()
    return ""


def _meaning(item: Any, tag: str) -> str:
    codes = item.get(tag)
    return str(codes[0].get("CodeMeaning") or "").strip() if codes else ""
