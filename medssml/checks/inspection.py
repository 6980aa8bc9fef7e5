"""One file, looked at: what is wrong with it, its sizes and rates as numbers, and the fingerprint of what it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.checks.fingerprints import Features, fingerprint
from medssml.checks.limits import Limits
from medssml.checks.plausibility import implausible
from medssml.foreign_text import collecting
from medssml.manifest.levels import fix_of
from medssml.manifest.problems import Finding
from medssml.readers import HEADERS, READERS, ReadError, parse_report
from medssml.readers.errors import Note, declaring_at_most
from medssml.readers.identifiers import suspicious_spans
from medssml.readers.nifti import Given

#: Faults of the content: the header is sound and still worth a word.
_OF_CONTENT = ("units", "content")


class Job(NamedTuple):
    """A file to look at. kind: ct, xray, eeg, report or table. given: what the table says of a volume with a blank header."""

    path: Path
    kind: str
    given: Given | None = None

    def read(self, readers: Mapping[str, Any]) -> Any:
        """What the reader of its kind returns."""
        reader = readers[self.kind]
        return reader(self.path) if self.given is None else reader(self.path, self.given)


class Inspection(NamedTuple):
    """What was found.

    findings: problems, whatever rows name the file. properties: name with its unit -> number. features: (256,) of
    `fingerprint`, None in the fast pass and where there is too little to tell.
    """

    findings: list[Finding]
    properties: dict[str, float]
    features: Features | None = None


def inspect(job: Job, *, deep: bool, limits: Limits) -> Inspection:
    """Looks at one file: its header, or with `deep` all of it."""
    with declaring_at_most(int(limits.file_declared_gib * 2**30)), collecting() as heard:
        try:
            read = job.read(READERS if deep else HEADERS)
        except ReadError as error:
            return _unreadable(job, error, limits, deep)
    properties = properties_of(job.kind, read)
    features = fingerprint(job.kind, read) if deep else None
    findings = _noted(read.notes) + (identifiers(read.text) if job.kind == "report" else [])
    findings += [Finding("library", line, fix_of("library")) for line in heard]
    findings += _out_of_limits(job.kind, read, limits) + implausible(job.kind, read, limits)
    return Inspection(findings, properties, features)


def _unreadable(job: Job, error: ReadError, limits: Limits, deep: bool) -> Inspection:
    """The reason, and where the values alone are at fault, what is odd in the header as well: all problems at once."""
    inside = "" if Path(error.file) == job.path else f"{Path(error.file).name!r}: "
    findings = [Finding(error.code, inside + error.reason, error.fix)]
    if deep and error.code in _OF_CONTENT:
        header = inspect(job, deep=False, limits=limits)
        findings += [finding for finding in header.findings if finding.action == "flagged"]
    return Inspection(findings, {})


def _noted(notes: Iterable[str]) -> list[Finding]:
    codes = [(note.code if isinstance(note, Note) else "fixed", str(note)) for note in notes]
    return [Finding(code, text, fix_of(code)) for code, text in codes]


def inspect_text(text: str, limits: Limits) -> list[Finding]:
    """Looks at a report that stands in the table itself."""
    try:
        read = parse_report(text)
    except ReadError as error:
        return [Finding(error.code, error.reason, error.fix)]
    found = _noted(read.notes) + identifiers(read.text)
    return found + _out_of_limits("report", read, limits) + implausible("report", read, limits)


def identifiers(text: str) -> list[Finding]:
    """How much of a report looks like a name, a date, a phone number or an id; how much, never what."""
    spans = suspicious_spans(text)
    if not spans:
        return []
    counts = ", ".join(f"{kind} x {count}" for kind, count in spans.items())
    fix = "de-identify the text; a model reads it as it is"
    return [Finding("identifiers", f"may identify somebody: {counts}", fix)]


def properties_of(kind: str, read: Any) -> dict[str, float]:
    """Sizes, spacings, rates and lengths of what a reader returned, and with its values, their mean and spread."""
    if kind == "ct":
        return _of_volume(read)
    if kind == "xray":
        return _of_radiograph(read)
    if kind == "eeg":
        return _of_recording(read)
    if kind == "table":
        return {"values": float(len(read.values))}
    return {"length, characters": float(len(read.text)), "length, words": float(len(read.text.split()))}


def _of_volume(read: Any) -> dict[str, float]:
    shape = _shape(read)
    found = {
        "spacing in plane, mm": float(max(read.spacing[:2])),
        "spacing of slices, mm": float(read.spacing[2]),
        "slices": float(shape[2]),
        "field of view, mm": float(max(n * step for n, step in zip(shape[:2], read.spacing[:2], strict=True))),
    }
    if hasattr(read, "array"):
        found |= {"mean, HU": float(read.array.mean()), "spread, HU": float(read.array.std())}
    return found


def _of_radiograph(read: Any) -> dict[str, float]:
    height, width = _shape(read)
    found = {"height, pixels": float(height), "width, pixels": float(width), "depth, bits": float(read.bits)}
    if hasattr(read, "array"):
        found |= {"mean gray": float(read.array.mean()), "spread of gray": float(read.array.std())}
    return found


def _of_recording(read: Any) -> dict[str, float]:
    found = {
        "sampling rate, Hz": float(read.sfreq),
        "length, s": _seconds(read),
        "channels": float(len(read.channels)),
    }
    if hasattr(read, "signal"):
        found["spread, uV"] = float(np.median(read.signal.std(axis=1)))
    return found


def _shape(read: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = read.shape if hasattr(read, "shape") else read.array.shape
    return shape


def _seconds(read: Any) -> float:
    return float(read.seconds if hasattr(read, "seconds") else read.signal.shape[1] / read.sfreq)


def _out_of_limits(kind: str, read: Any, limits: Limits) -> list[Finding]:
    """Sizes, spacings, rates and lengths outside `limits`; an orientation that no scanner writes."""
    if kind == "ct":
        field = [n * step for n, step in zip(_shape(read), read.spacing, strict=True)]
        return (
            _outside("spacing", "voxel spacing", read.spacing, "mm", limits.ct_spacing_mm)
            + _outside("size", "field of view", field, "mm", limits.ct_field_mm)
        )  # fmt: skip
    if kind == "xray":
        return _outside("size", "image size", _shape(read), "pixels", limits.xray_pixels)
    if kind == "eeg":
        return _outside("rate", "sampling rate", [read.sfreq], "Hz", limits.eeg_sfreq_hz) + _outside(
            "length", "length", [_seconds(read)], "s", limits.eeg_seconds
        )
    if kind == "table":
        return []  # what a value may be, its unit decides
    return _outside("length", "text length", [len(read.text)], "characters", limits.report_chars)


def _outside(
    code: str, what: str, values: Iterable[float] | NDArray[Any], unit: str, limits: tuple[float, float]
) -> list[Finding]:
    values = [float(value) for value in values]
    if min(values) >= limits[0] and max(values) <= limits[1]:
        return []
    figure = " x ".join(f"{value:.4g}" for value in values)
    problem = f"{what} {figure} {unit}, expected {limits[0]:g} to {limits[1]:g}"
    return [Finding(code, problem, "look at the file, or widen the limit")]
