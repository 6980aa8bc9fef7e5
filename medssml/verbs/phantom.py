"""`medssml phantom`: a simulated cohort whose true causes are known."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from medssml.runs import console


def phantom(
    *,
    out: Path,
    studies: int = 300,
    seed: int = 0,
    missing: float = 0.3,
    mechanism: Literal["mcar", "mar", "mnar"] = "mcar",
    labelled: float = 1.0,
    preset: Literal["large", "small"] = "large",
    dicom: bool = False,
    xray_bits: Literal[8, 16] = 16,
    workers: int | None = None,
    fresh: bool = False,
) -> Path:
    """Simulates an intensive-care cohort with CT, chest radiograph, EEG and report, and writes what is true of it.

    Files of modalities that are missing are not written. The same seed gives the same files, and a larger cohort begins
    with the studies of a smaller one. A folder that already holds this cohort is left as it is.

    Args:
        out: folder for manifest.csv, the files, truth.csv and truth.json.
        studies: number of studies; one subject in five has two or three.
        seed: of everything that is drawn.
        missing: share of all modalities that is missing, 0 to 0.7; no study lacks all four.
        mechanism: what is missing depends on nothing (mcar), on age, sex and scanner (mar), or on the findings (mnar).
        labelled: share of the training studies whose labels are given.
        preset: how large the files are; small ones take a few hundredths of a second per study, the truth is the same.
        dicom: CT as DICOM series and radiographs as DICOM, instead of NIfTI and PNG.
        xray_bits: bits per pixel of a PNG radiograph.
        workers: processes; one per core by default.
        fresh: replace another simulated cohort in the folder.

    Returns:
        the manifest.
    """
    from medssml.phantom import Design, simulate

    design = Design(studies=studies, seed=seed, missing=missing, mechanism=mechanism, labelled=labelled)
    simulate(
        Path(out),
        design,
        preset=preset,
        dicom=dicom,
        xray_bits=xray_bits,
        workers=workers,
        fresh=fresh,
        progress=_progress,
    )
    console.say(f"{studies:,} studies in {Path(out) / 'manifest.csv'}, the truth about them beside it")
    console.tell(
        {"manifest": str(Path(out) / "manifest.csv"), "truth": str(Path(out) / "truth.json"), "studies": studies}
    )
    return Path(out) / "manifest.csv"


def _progress(done: int, total: int) -> None:
    if done == total or done % 100 == 0:
        console.say(f"{done:,} of {total:,} studies written")
