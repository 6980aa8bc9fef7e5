"""A simulated cohort on disk: who is in it, what each study shows, its files, and the truth about it.

All randomness is keyed by (seed, subject) or (seed, study), so the files do not depend on how many workers write them,
and the first studies of a larger cohort are the studies of a smaller one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medssml.phantom import ct, eeg, files, report, xray
from medssml.phantom.causes import EVIDENCE, FINDINGS, MODALITIES, TASKS, Array, evidence_of, grade, labels_of
from medssml.phantom.missingness import Mechanism, check_rate, presence
from medssml.phantom.presets import PRESETS, Preset
from medssml.phantom.shapes import mean_of_parts

LARGE = PRESETS["large"]
SPLIT_BLOCK = ("train",) * 12 + ("val",) * 3 + ("test",) * 5  # of every 20 subjects: 60, 15, 25 %
SUFFIX = {"ct": ".nii.gz", "xray": ".png", "eeg": ".edf", "report": ".txt"}
SUFFIX_DICOM = SUFFIX | {"ct": "", "xray": ".dcm"}


@dataclass(frozen=True)
class Design:
    """What a cohort is, but for its files' format.

    Args:
        studies: how many.
        seed: of everything.
        missing: share of all modalities that is absent, 0 to 0.7.
        mechanism: what absence depends on: nothing (mcar), age, sex and scanner (mar), the findings (mnar).
        labelled: share of the training studies whose labels are in the manifest; validation and test keep theirs.
    """

    studies: int = 300
    seed: int = 0
    missing: float = 0.3
    mechanism: Mechanism = "mcar"
    labelled: float = 1.0

    def __post_init__(self) -> None:
        if self.studies < 1:
            raise ValueError(f"studies is {self.studies}; fix: at least 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; fix: 0 or a positive number")
        if not 0 <= self.labelled <= 1:
            raise ValueError(
                f"labelled is {self.labelled}, expected a share from 0 to 1; fix: for example 0.1 for 10 %"
            )
        check_rate(self.missing, self.mechanism)


def draw(design: Design) -> pd.DataFrame:
    """Everything about every study but its files, one row each: ids, split, people, latents, evidence, labels, presence.

    Columns: subject_id, study_id, subject, study (numbers), split, age, female, scanner_b, nodule_site, latent_*,
    evidence_*, grade_report_*, label_*, labelled, present_*.
    """
    subject_of = _subjects(design)
    people = pd.DataFrame([_person(design.seed, subject) for subject in range(int(subject_of[-1]) + 1)])
    table = people.iloc[subject_of].reset_index(drop=True)
    rngs = [np.random.default_rng([design.seed, 2, study]) for study in range(design.studies)]
    noise = np.stack([rng.standard_normal(len(EVIDENCE)) for rng in rngs])
    uniforms = np.stack([rng.random(7) for rng in rngs])

    latents = {finding: table[f"latent_{finding}"].to_numpy(float) for finding in FINDINGS}
    evidence = pd.DataFrame(evidence_of(latents, noise))
    for finding in report.LADDER:
        evidence[f"grade_report_{finding}"] = grade(finding, evidence[f"evidence_report_{finding}"].to_numpy())
    table = pd.concat([table, evidence], axis=1)
    table.insert(0, "subject_id", [f"p{subject:05d}" for subject in subject_of])
    table.insert(1, "study_id", [f"s{study:06d}" for study in range(design.studies)])
    table.insert(2, "split", _splits(design.seed, int(subject_of[-1]) + 1)[subject_of])
    table["subject"], table["study"] = subject_of, np.arange(design.studies)
    table["scanner_b"] = uniforms[:, 5] < 0.5
    table["labelled"] = _labelled(design, table["split"].to_numpy(), uniforms[:, 6])
    present = presence(table, uniforms[:, :5], design.missing, design.mechanism)
    return table.assign(**{f"present_{modality}": present[:, column] for column, modality in enumerate(MODALITIES)})


def _subjects(design: Design) -> np.ndarray:
    """(studies,) the subject of each study: four in five subjects have one study, the others two or three."""
    owners: list[int] = []
    while len(owners) < design.studies:
        subject = owners[-1] + 1 if owners else 0
        chance = np.random.default_rng([design.seed, 0, subject]).random()
        owners += [subject] * (1 + int(chance < 0.2) + int(chance < 0.05))
    return np.array(owners[: design.studies])


def _person(seed: int, subject: int) -> dict[str, float | bool | str]:
    """Age, sex, findings and labels of a subject: the same in all of his studies."""
    rng = np.random.default_rng([seed, 1, subject])
    age = float(np.clip(np.round(rng.normal(62, 14)), 18, 95))
    female = bool(rng.random() < 0.45)
    latents: dict[str, Array] = {finding: rng.standard_normal(1) for finding in FINDINGS}
    labels = labels_of(latents, rng.standard_normal((1, len(TASKS))))
    site = patient_of(seed, subject, age, female).site
    person: dict[str, float | bool | str] = {"age": age, "female": female, "nodule_site": site}
    person.update({f"latent_{name}": float(value[0]) for name, value in latents.items()})
    person.update({f"label_{name}": int(value[0]) for name, value in labels.items()})
    return person


def patient_of(seed: int, subject: int, age: float, female: bool) -> ct.Patient:
    """The chest that a subject has in all of his studies."""
    return ct.draw_patient(np.random.default_rng([seed, 3, subject]), age, female, (seed, 3, subject))


def _splits(seed: int, subjects: int) -> np.ndarray:
    """(subjects,) split names: each block of 20 subjects holds 12, 3 and 5 of them in keyed order."""
    blocks = [np.random.default_rng([seed, 5, block]).permutation(SPLIT_BLOCK) for block in range(-(-subjects // 20))]
    return np.concatenate(blocks)[:subjects]


def _labelled(design: Design, split: np.ndarray, chance: Array) -> np.ndarray:
    """(n,) which labels are given: the training studies with the lowest draws, so that a smaller share is a part of a larger."""
    training = np.flatnonzero(split == "train")
    known = training[np.argsort(chance[training], kind="stable")[: round(design.labelled * len(training))]]
    labelled = split != "train"
    labelled[known] = True
    return labelled


def write_files(
    table: pd.DataFrame,
    out: Path,
    seed: int,
    *,
    preset: Preset = LARGE,
    dicom: bool = False,
    xray_bits: int = 16,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the files of all studies of `draw`'s table.

    Args:
        table: the studies.
        out: folder.
        seed: of the design.
        preset: how large the files are.
        dicom: CT as DICOM series and radiographs as DICOM, instead of NIfTI and PNG.
        xray_bits: 8 or 16, of a PNG.
        workers: processes; None for one per core, or one alone where the cohort is small.
        progress: told (studies done, studies in all).
    """
    rows = table.to_dict("records")
    count = workers if workers is not None else 1 if len(rows) < 64 else _cores()
    if count <= 1:
        for done, row in enumerate(rows, start=1):
            write_study(row, out, seed, preset=preset, dicom=dicom, xray_bits=xray_bits)
            if progress is not None:
                progress(done, len(rows))
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    parallel = Parallel(n_jobs=count, return_as="generator_unordered", batch_size=4)
    how = {"preset": preset, "dicom": dicom, "xray_bits": xray_bits}
    jobs = parallel(delayed(write_study)(row, out, seed, **how) for row in rows)
    for done, _ in enumerate(jobs, start=1):
        if progress is not None:
            progress(done, len(rows))
    get_reusable_executor().shutdown(wait=True)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_study(
    row: dict, out: Path, seed: int, *, preset: Preset = LARGE, dicom: bool = False, xray_bits: int = 16
) -> None:
    """Write the files of the modalities that one study has."""
    patient = patient_of(seed, row["subject"], row["age"], row["female"])
    paths = {modality: out / name for modality, name in file_names(row["study_id"], dicom).items()}
    rngs = {
        modality: np.random.default_rng([seed, 4, row["study"], number]) for number, modality in enumerate(MODALITIES)
    }
    if row["present_ct"]:
        volume = scan(patient, _shown(row, "ct"), preset, row["scanner_b"], rngs["ct"])
        if dicom:
            files.write_series(paths["ct"], volume, preset.ct, row["subject_id"], row["study_id"])
        else:
            files.write_nifti(paths["ct"], volume, preset.ct)
    if row["present_xray"]:
        film = take_film(patient, _shown(row, "xray"), preset, row["scanner_b"], rngs["xray"])
        if dicom:
            files.write_dicom_film(
                paths["xray"], film, preset.film_pixel, row["subject_id"], row["study_id"], row["scanner_b"]
            )
        else:
            files.write_png(paths["xray"], film, xray_bits)
    if row["present_eeg"]:
        brain = eeg.draw_brain(np.random.default_rng([seed, 6, row["subject"]]), row["age"])
        evidence, recorder = row["evidence_eeg_epileptiform"], preset.recorder
        signal = eeg.recording(brain, evidence, rngs["eeg"], row["scanner_b"], recorder)
        files.write_edf(paths["eeg"], signal, recorder.sfreq, row["subject_id"], row["female"])
    if row["present_report"]:
        grades = {finding: row[f"grade_report_{finding}"] for finding in report.LADDER}
        paths["report"].parent.mkdir(parents=True, exist_ok=True)
        text = report.report(grades, row["age"], row["female"], rngs["report"], preset.brief)
        paths["report"].write_text(text, encoding="utf-8")


def _shown(row: dict, modality: str) -> ct.Shown:
    return ct.Shown(*(row[f"evidence_{modality}_{f}"] for f in ("nodule", "effusion", "cardiomegaly")))


def scan(patient: ct.Patient, shown: ct.Shown, preset: Preset, scanner_b: bool, rng: np.random.Generator) -> ct.Field:
    """A CT scan, (X, Y, Z) HU: the supine chest with the scanner's noise; scanner B is sharper and noisier."""
    volume = mean_of_parts(ct.chest(patient, shown, preset.ct.parts(preset.ct_parts), "supine"), preset.ct_parts)
    noise = rng.standard_normal(volume.shape, dtype=np.float32)
    body = volume > ct.AIR + 1
    return volume + np.where(body, np.float32(24 if scanner_b else 14) * noise + (6 if scanner_b else 0), 0)


def take_film(
    patient: ct.Patient, shown: ct.Shown, preset: Preset, scanner_b: bool, rng: np.random.Generator
) -> ct.Field:
    """A radiograph, (H, W) in [0, 1]: projection of the upright chest; scanner B has a softer curve and more blur."""
    volume = ct.chest(patient, shown, preset.film, "upright")
    low = 0.8 + float(rng.uniform(-0.05, 0.05))
    exposure = xray.Exposure(window=(low, low + 4.1), gamma=0.9 if scanner_b else 1.0, blur=1.2 if scanner_b else 0.8)
    return xray.radiograph(volume, preset.film.spacing, preset.film_pixel, exposure, rng)


def file_names(study_id: str, dicom: bool = False) -> dict[str, str]:
    """Modality -> path of a study's file (of the series' folder for a DICOM CT), relative to the manifest."""
    suffix = SUFFIX_DICOM if dicom else SUFFIX
    return {modality: f"{modality}/{study_id}{suffix[modality]}" for modality in MODALITIES}


def manifest(table: pd.DataFrame, dicom: bool = False) -> pd.DataFrame:
    """The manifest of `draw`'s table, all of it text: an absent modality and a label that is not given are empty."""
    columns: dict[str, object] = {name: table[name] for name in ("subject_id", "study_id", "split")}
    names = pd.DataFrame([file_names(study, dicom) for study in table["study_id"]])
    for modality in MODALITIES:
        columns[modality] = names[modality].where(table[f"present_{modality}"].to_numpy(), "")
    for task in TASKS:
        columns[f"label_{task}"] = table[f"label_{task}"].astype(str).where(table["labelled"], "")
    columns["group_sex"] = np.where(table["female"], "F", "M")
    columns["group_scanner"] = np.where(table["scanner_b"], "B", "A")
    return pd.DataFrame(columns)
