"""Files that are in the cohort twice: byte for byte, or to the eye. One picture that is learnt and tested is a leak."""

from __future__ import annotations

import hashlib
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.checks.fingerprints import ENOUGH, nearest_copies, sign_codes
from medssml.checks.inspection import Inspection
from medssml.checks.limits import Limits
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import Finding
from medssml.readers import modality_kind

_FIX = "keep one of the studies, or give both one subject and one split"


class Cell(NamedTuple):
    """A file that the table names. position: of its row. modality: its column. name: what stands there."""

    position: int
    modality: str
    path: Path
    name: str


class Copy(NamedTuple):
    """A file that shows what an earlier one shows. like: "byte for byte", or how near. finding: what is said of it."""

    cell: Cell
    earlier: Cell
    like: str
    finding: Finding | None = None


def copies(
    manifest: Manifest, cells: Sequence[Cell], inspected: Mapping[Cell, Inspection], limits: Limits
) -> list[Copy]:
    """Files that are those of another subject or split, each once, by its nearest earlier copy.

    Args:
        manifest: the studies.
        cells: files that can be read.
        inspected: what was found in each; without fingerprints (fast pass), only equal bytes are found.
        limits: how near a copy is.
    """
    same = _identical(manifest, cells)
    known = {(copy.cell.position, copy.cell.modality) for copy in same}
    found = same + [
        copy
        for copy in _alike(manifest, cells, inspected, limits)
        if (copy.cell.position, copy.cell.modality) not in known
    ]
    return [copy._replace(finding=_finding(manifest, copy, inspected, limits)) for copy in found]


def _finding(manifest: Manifest, copy: Copy, inspected: Mapping[Cell, Inspection], limits: Limits) -> Finding:
    here, there = manifest.splits[copy.cell.position], manifest.splits[copy.earlier.position]
    row = manifest.row_number(copy.earlier.position)
    where = f"{there} here {here}" if here != there else "of another subject"
    words = inspected[copy.cell].properties.get("length, words", np.inf)
    if words < limits.report_copy_words:
        text = f"{copy.like} the report of row {row} ({where}): a template, or a leak"
        return Finding("template", text, "nothing to do where radiologists use templates")
    code = "leak" if here != there else "duplicate"
    return Finding(code, f"{copy.like} the file of row {row} ({where})", _FIX)


def _identical(manifest: Manifest, cells: Sequence[Cell]) -> list[Copy]:
    """Files whose bytes are those of an earlier one. Only files of equal size are read."""
    by_size: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        found = cell.path.stat()
        if stat.S_ISREG(found.st_mode):
            by_size[cell.modality, found.st_size].append(cell)
    by_content: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for group in by_size.values():
        several = len({cell.path for cell in group}) > 1
        for cell in group:
            by_content[cell.modality, _digest(cell.path) if several else str(cell.path)].append(cell)
    return [copy for group in by_content.values() if len(group) > 1 for copy in _repeats(manifest, group)]


def _repeats(manifest: Manifest, group: Sequence[Cell]) -> list[Copy]:
    """For each file of a group of equal ones, the first earlier one that it must not be equal to."""
    report = modality_kind(group[0].modality) == "report"
    first: dict[tuple[str, str], Cell] = {}
    found = []
    for cell in group:
        # two normal reports are often the same sentence; two images of two people never are
        subject = "" if report else str(manifest.subject_ids[cell.position])
        place = str(manifest.splits[cell.position]), subject
        earlier = next((other for key, other in first.items() if key != place), None)
        if earlier is not None:
            found.append(Copy(cell, earlier, "byte for byte"))
        first.setdefault(place, cell)
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _alike(
    manifest: Manifest, cells: Sequence[Cell], inspected: Mapping[Cell, Inspection], limits: Limits
) -> list[Copy]:
    """Files whose fingerprints are those of an earlier file of another subject."""
    found = []
    for modality in manifest.modalities:
        group = [cell for cell in cells if cell.modality == modality and inspected[cell].features is not None]
        if len(group) < ENOUGH:
            continue
        kind = modality_kind(modality)
        limit = int(getattr(limits, f"{kind}_near_bits"))
        features = [one for cell in group if (one := inspected[cell].features) is not None]
        codes = sign_codes(np.stack(features))
        positions = [cell.position for cell in group]
        subjects = _numbers(manifest.subject_ids[positions])
        splits = _numbers(manifest.splits[positions])
        for later, earlier, bits in nearest_copies(codes, limit, subjects, splits):
            if kind == "report" and splits[later] == splits[earlier]:
                continue
            like = f"all but the same ({bits} of 256 signs differ) as"
            found.append(Copy(group[later], group[earlier], like))
    return found


def _numbers(names: NDArray[np.object_]) -> NDArray[np.int64]:
    return np.unique(names.astype(str), return_inverse=True)[1].astype(np.int64)
