"""One look at what a reader made of a file: a few figures that a picture, a signal or a text of its kind always has.

A reader trusts what a header states; where the header is wrong the values are those of nothing. Each figure has one limit, a
key of `medssml.checks.limits`, and says both. Large arrays are looked at in every n-th value, so that a look costs little
beside the reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.checks.limits import Limits
from medssml.manifest.problems import Finding

#: Values of a volume or a picture, samples of a channel, and letters of a text that are looked at.
_SAMPLED, _SAMPLES, _LETTERS = 1 << 14, 1 << 12, 1 << 16
_AIR_HU, _BONE_HU = -300, 300
#: Where most values of a body lie, so that each value between occurs: what a step is measured in.
_LEAST_HU, _MOST_HU = -150, 150
#: Least field of view, mm in both directions of a slice, from which a volume holds all that a body is made of.
_BODY_MM = 150.0
#: Grays of 256 that count as black at the edge of a radiograph.
_BLACK_GRAYS = 13
#: Samples of a channel that stand at one value for so many in a row are held there by the converter.
_HELD = 3
#: A heading of a report that stands at the start of a line; what a reader made of it is counted without its knowledge.
_HEADING = re.compile(r"(?im)^[ \t*#]*(findings|impression|indication|technique|comparison)[ \t*]*(?::|$)")


class Look(NamedTuple):
    """What a figure is called, and how it is told. share: as a percentage."""

    what: str
    unit: str = ""
    share: bool = False


#: Key of the limits -> the figure. The one table of what is looked at.
LOOKS = {
    "ct_air_share": Look(f"voxels below {_AIR_HU} HU", share=True),
    "ct_tissue_share": Look(f"voxels from {_AIR_HU} to {_BONE_HU} HU", share=True),
    "ct_bone_share": Look(f"voxels above {_BONE_HU} HU", share=True),
    "ct_step_hu": Look("step from one value to the next", "HU"),
    "xray_black_share": Look("pixels at the least gray", share=True),
    "xray_white_share": Look("pixels at the greatest gray", share=True),
    "xray_edge_share": Look("pixels of the outermost rows and columns at one gray that is not black", share=True),
    "xray_entropy_bits": Look("entropy of the histogram of 256 grays", "bits"),
    "eeg_held_share": Look("samples held at the greatest or least value of their channel", share=True),
    "eeg_still_share": Look("samples that do not differ from the one before", share=True),
    "report_letters_share": Look("letters among the characters", share=True),
    "report_word_chars": Look("longest word", "characters"),
    "report_headings_lost": Look("headings of which no section came", "headings"),
}


def figures(kind: str, read: Any) -> dict[str, float]:
    """The figures of what a reader of `kind` returned, by the keys of `LOOKS`; none of a header alone.

    Args:
        kind: ct, xray, eeg, report or table.
        read: a Volume, Radiograph, Recording, Report or Values.
    """
    if kind == "ct" and hasattr(read, "array"):
        return _of_volume(read)
    if kind == "xray" and hasattr(read, "array"):
        return {**_of_radiograph(_sample(read.array)), "xray_edge_share": _one_gray_at_the_edge(read.array)}
    if kind == "eeg" and hasattr(read, "signal"):
        return _of_recording(read.signal)
    return _of_text(read.text, read.sections) if kind == "report" else {}


def implausible(kind: str, read: Any, limits: Limits) -> list[Finding]:
    """A finding for every figure outside its limit, with both."""
    found = []
    for key, value in figures(kind, read).items():
        low, high = getattr(limits, key)
        if not low <= value <= high:
            look = LOOKS[key]
            text = f"{look.what}: {_told(look, value)}, expected {_number(look, low)} to {_told(look, high)}"
            found.append(Finding("implausible", text, f"look at the file, or widen the limit {key}"))
    return found


def _told(look: Look, value: float) -> str:
    return f"{_number(look, value)} {'%' if look.share else look.unit}".strip()


def _number(look: Look, value: float) -> str:
    shown = 100 * value if look.share else value
    return f"{shown:,.0f}" if abs(shown) >= 1000 else f"{shown:.3g}"


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    """(n,) about `_SAMPLED` of the values, evenly from the whole; steps that are odd meet every row and column."""
    step = max(1, array.size // _SAMPLED)
    if step == 1:
        return array.ravel()
    axis = max(1, round(step ** (1 / array.ndim)))
    return array[tuple(slice(None, None, axis) for _ in range(array.ndim))].ravel()


def _of_volume(read: Any) -> dict[str, float]:
    """Shares of what a body is made of, and how fine its grays are; of a crop, which may be all lung, that of bone alone."""
    values = _sample(read.array)
    bone = {"ct_bone_share": float(np.count_nonzero(values > _BONE_HU)) / values.size}
    if min(n * mm for n, mm in zip(read.array.shape[:2], read.spacing[:2], strict=True)) < _BODY_MM:
        return bone
    air = float(np.count_nonzero(values < _AIR_HU)) / values.size
    found = np.unique(values[(values > _LEAST_HU) & (values < _MOST_HU)])
    step = {"ct_step_hu": float(np.median(np.diff(found)))} if found.size > 1 else {}
    return {"ct_air_share": air, "ct_tissue_share": max(0.0, 1.0 - air - bone["ct_bone_share"]), **bone, **step}


def _of_radiograph(values: NDArray[Any]) -> dict[str, float]:
    low, high = float(values.min()), float(values.max())
    counts = np.bincount((values * 255).astype(np.uint8), minlength=256)
    shares = counts[counts > 0] / values.size
    return {
        "xray_black_share": float(np.count_nonzero(values == low)) / values.size,
        "xray_white_share": float(np.count_nonzero(values == high)) / values.size,
        "xray_entropy_bits": float(-(shares * np.log2(shares)).sum()),
    }


def _one_gray_at_the_edge(array: NDArray[Any]) -> float:
    """Share of the edge at its most frequent gray that is not black.

    Padding that no tag declares lies around the picture at one value, and so does the air around a body of an inverted picture.
    """
    edge = np.concatenate([array[0], array[-1], array[1:-1, 0], array[1:-1, -1]])
    grays = np.bincount((edge * 255).astype(np.uint8), minlength=256)
    return float(grays[_BLACK_GRAYS:].max()) / edge.size


def _of_recording(signal: NDArray[np.float32]) -> dict[str, float]:
    """Of the worst channel; a held value is one that stands at the extreme for `_HELD` samples."""
    start = max(0, (signal.shape[1] - _SAMPLES) // 2)
    part = signal[:, start : start + _SAMPLES]
    still = part[:, 1:] == part[:, :-1]
    extreme = (part == part.max(axis=1, keepdims=True)) | (part == part.min(axis=1, keepdims=True))
    held = extreme[:, 2:] & still[:, 1:] & still[:, :-1]
    return {
        "eeg_held_share": float(held.mean(axis=1).max(initial=0.0)),
        "eeg_still_share": float(still.mean(axis=1).max(initial=0.0)),
    }


def _of_text(text: str, sections: Mapping[str, str]) -> dict[str, float]:
    words = text[:_LETTERS].split()
    together = "".join(words)
    named = {heading.lower() for heading in _HEADING.findall(text[:_LETTERS])}
    return {
        "report_letters_share": sum(map(str.isalpha, together)) / max(1, len(together)),
        "report_word_chars": float(max(map(len, words), default=0)),
        "report_headings_lost": float(len(named - set(sections))),
    }
