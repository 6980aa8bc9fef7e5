"""What the studies of retrieval examples show: pictures and reports, of simulated studies and of no others.

No pixel and no word of a patient's study is ever put into a result or onto a page: whoever calls this must know that the
studies are simulated, which `is_phantom` tells from what `medssml phantom` wrote beside the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml.checks.inspection import Job
from medssml.checks.pictures import picture
from medssml.manifest.manifest import Manifest
from medssml.readers import modality_kind
from medssml.reports import check_figures

#: Pairs and queries of a pair that are shown.
PAIRS, QUERIES = 4, 3
#: Characters of a report.
MOST = 200


def is_phantom(manifest: str | Path) -> bool:
    """Whether a table is one of `medssml phantom`, by the design and the truth that it wrote beside it."""
    folder = Path(manifest).parent
    try:
        design = json.loads((folder / "phantom.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / "truth.csv").is_file() and isinstance(design, dict) and "design" in design


def shown_pairs(pairs: Mapping[str, Sequence[Any]]) -> list[str]:
    """The pairs whose examples are shown: reports by what they describe first."""
    return sorted(pairs, key=lambda name: not name.endswith("->report"))[:PAIRS]


def examples_seen(manifest: Manifest, pairs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """Modality -> study -> the address of its picture, or the text of its report, of the examples that a page shows.

    Args:
        manifest: of simulated studies.
        pairs: of retrieval.json.
    """
    seen: dict[str, dict[str, str]] = {}
    row_of = {str(code): row for row, code in enumerate(manifest.study_codes)}
    for name in shown_pairs(pairs):
        query, target = name.split("->")
        for case in pairs[name][:QUERIES]:
            wanted = [(query, str(case["query"])), *((target, str(hit["study_id"])) for hit in case["top"])]
            for modality, study in wanted:
                if study in row_of and study not in seen.setdefault(modality, {}):
                    found = _seen(manifest, modality, row_of[study])
                    seen[modality] |= {} if found is None else {study: found}
    return seen


def _seen(manifest: Manifest, modality: str, row: int) -> str | None:
    """What one study shows in one modality; None where there is no picture of it."""
    path = manifest.paths(modality)[row] if modality in manifest.table else None
    if path is None:
        return None
    kind = modality_kind(modality)
    if kind == "report":
        text = " ".join(path.read_text(encoding="utf-8").split())
        return text if len(text) <= MOST else text[:MOST].rsplit(" ", 1)[0] + " …"
    found = picture(Job(path, kind))
    return None if found is None else check_figures.address(found)
