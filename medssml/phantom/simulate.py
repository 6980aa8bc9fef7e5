"""One call from a design to a cohort on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medssml.files import write_csv, write_json
from medssml.phantom.causes import MODALITIES
from medssml.phantom.cohort import Design, draw, manifest, write_files
from medssml.phantom.presets import PresetName
from medssml.phantom.presets import preset as find_preset
from medssml.phantom.records import FORMAT, truth_summary, truth_table

DRAWS = 40_000  # Monte Carlo studies behind the Bayes AUROCs: standard errors below 0.001


def simulate(
    out: Path,
    design: Design,
    *,
    preset: PresetName = "large",
    dicom: bool = False,
    xray_bits: int = 16,
    workers: int | None = None,
    fresh: bool = False,
    draws: int = DRAWS,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write manifest.csv, the files, truth.csv and truth.json; truth.json comes last and says that all is there.

    Args:
        out: folder; made where it does not exist.
        design: of the cohort.
        preset: how large the files are; the truth does not depend on it.
        dicom, xray_bits: format of the files (`cohort.write_files`).
        workers: processes; the result does not depend on them.
        fresh: replace another cohort in the folder.
        draws: Monte Carlo studies behind each AUROC.
        progress: told (studies done, studies in all).

    Returns:
        what truth.json holds. A folder that already holds this very cohort is left as it is.

    Raises:
        ValueError: the folder holds another cohort, or files that no phantom wrote, and `fresh` is False.
    """
    sizes = find_preset(preset)
    if xray_bits not in (8, 16):
        raise ValueError(f"xray_bits is {xray_bits}; fix: 8 or 16")
    asked = {
        "format": FORMAT,
        "design": asdict(design),
        "files": {"preset": preset, "dicom": dicom, "xray_bits": xray_bits},
        "draws": draws,
    }
    known = _read_json(out / "truth.json")
    if known is not None and not fresh and all(known.get(key) == value for key, value in asked.items()):
        return known
    _clear(out, known, asked, fresh)

    write_json(out / "phantom.json", asked)
    table = draw(design)
    write_files(
        table,
        out,
        design.seed,
        preset=sizes,
        dicom=dicom,
        xray_bits=xray_bits,
        workers=workers,
        progress=progress,
    )
    truths = truth_table(table)
    write_csv(out / "manifest.csv", manifest(table, dicom), digits=None)
    write_csv(out / "truth.csv", truths, digits=9)
    summary = truth_summary(design, truths, draws) | asked
    write_json(out / "truth.json", summary)
    return summary


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _clear(out: Path, known: dict[str, Any] | None, asked: dict[str, Any], fresh: bool) -> None:
    """Remove what an earlier call wrote: an interrupted one of the same cohort, or any with `fresh`; nothing else."""
    begun = known or _read_json(out / "phantom.json")
    if begun is None:
        strangers = [name for name in ("manifest.csv", *MODALITIES) if (out / name).exists()]
        if strangers:
            raise ValueError(f"{out} holds {strangers} that no phantom wrote; fix: another --out")
        return
    if not fresh and not all(begun.get(key) == value for key, value in asked.items()):
        raise ValueError(
            f"{out} holds a phantom cohort of another design; fix: another --out, or --fresh to replace it"
        )
    for name in ("truth.json", "truth.csv", "manifest.csv"):
        (out / name).unlink(missing_ok=True)
    for modality in MODALITIES:
        shutil.rmtree(out / modality, ignore_errors=True)
