"""A simulated study that the gallery shows: its files, what the loaders make of them, and a draw of a random step."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import set_track_meta

from gallery.drawing import Array
from medssml.phantom import Design
from medssml.phantom.cohort import draw, file_names, write_study

SEED = 5
#: HU between which a CT is shown.
LUNG = (-1000, 300)
#: uV between two channels.
STEP = 90.0
#: Laboratory values of one simulated patient; the cohort has none. Name -> (unit, value, mean and sd in training).
LABORATORY = {
    "crp": ("mg/L", 112.0, 40.0, 45.0),
    "leukocytes": ("10^9/L", 14.2, 9.0, 3.5),
    "creatinine": ("umol/L", 71.0, 88.0, 30.0),
    "lactate": ("mmol/L", float("nan"), 1.6, 0.9),
    "sodium": ("mmol/L", 131.0, 139.0, 4.0),
}


@cache
def study() -> dict[str, Path]:
    """Files of a simulated study with all four modalities and findings that one sees."""
    set_track_meta(False)
    table = draw(Design(studies=60, seed=SEED, missing=0.0))
    sick = table["evidence_ct_effusion"] + table["evidence_ct_nodule"] + table["evidence_eeg_epileptiform"]
    row = table.iloc[int(sick.to_numpy().argmax())].to_dict()
    folder = Path(tempfile.mkdtemp(prefix="gallery"))
    write_study(row, folder, SEED)
    return {modality: folder / name for modality, name in file_names(row["study_id"]).items()}


@cache
def loaded(modality: str) -> dict[str, Any]:
    """The entries that the modality's loader gives of the study."""
    from medssml.transforms import LoadCTd, LoadEEGd, LoadReportd, LoadTabled, LoadXrayd

    if modality == "table":
        text = ",".join(f'"{name}": {value}' for name, (_, value, _, _) in LABORATORY.items() if value == value)
        return dict(LoadTabled(dict.fromkeys(LABORATORY, ""))({"table": "{" + text + "}"}))
    loader = {
        "ct": LoadCTd("ct", (4, 4, 4), (96, 80, 72)),
        "xray": LoadXrayd("xray", 160),
        "eeg": LoadEEGd("eeg", sfreq=100.0),
        "report": LoadReportd("report"),
    }[modality]
    return dict(loader({modality: study()[modality]}))


def drawn(step: Any, modality: str, seed: int) -> dict[str, Any]:
    """The loaded study after a step whose draws come from `seed`."""
    if hasattr(step, "set_random_state"):
        step.set_random_state(seed=seed)
    return dict(step(dict(loaded(modality))))


def section(volume: Any) -> Array:
    """The middle coronal section of a volume (1, X, Y, Z): the head on top, the patient's right on the left."""
    array = np.asarray(volume)[0]
    return np.flipud(array[::-1, array.shape[1] // 2].T).astype(float)


def plane(pixels: Any) -> Array:
    """A radiograph (1, H, W) as (H, W)."""
    return np.asarray(pixels)[0].astype(float)
