"""The files show the evidence: a simple measurement of each file ranks the studies as their evidence does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from medssml.phantom import ct, eeg, report, xray
from medssml.phantom.cohort import patient_of
from medssml.phantom.presets import PRESETS
from medssml.phantom.shapes import Grid, cover, ellipsoid, mean_of_parts, splat
from medssml.readers.ct import read_ct
from medssml.readers.eeg import read_eeg
from medssml.readers.xray import read_xray
from tests.phantom import measure
from tests.phantom.studies import DESIGN, Rendered


def centre_of(row: dict) -> ct.Point:
    return ct.nodule_centre(patient_of(DESIGN.seed, row["subject"], row["age"], row["female"]))


MEASUREMENTS: dict[tuple[str, str], tuple[float, Callable[[Path, dict, float], float]]] = {
    ("ct", "nodule"): (0.95, lambda path, row, pixel: measure.Volume(path).nodule(centre_of(row))),
    ("ct", "effusion"): (0.95, lambda path, row, pixel: measure.Volume(path).fluid()),
    ("ct", "cardiomegaly"): (0.95, lambda path, row, pixel: measure.Volume(path).heart_width()),
    ("xray", "nodule"): (0.85, lambda path, row, pixel: measure.Film(path, pixel).nodule(centre_of(row))),
    ("xray", "effusion"): (0.85, lambda path, row, pixel: measure.Film(path, pixel).fluid()),
    ("xray", "cardiomegaly"): (0.85, lambda path, row, pixel: measure.Film(path, pixel).heart_width()),
    ("eeg", "epileptiform"): (0.95, lambda path, row, pixel: measure.spike_energy(path)),
}
SUFFIX = {"ct": "nii.gz", "xray": "png", "eeg": "edf"}


@pytest.mark.parametrize("size", ["rendered", "small"])
@pytest.mark.parametrize(("modality", "finding"), MEASUREMENTS)
def test_a_ruler_finds_the_evidence(request: pytest.FixtureRequest, size: str, modality: str, finding: str) -> None:
    cohort: Rendered = request.getfixturevalue(size)
    least, ruler = MEASUREMENTS[modality, finding]
    found = [
        ruler(cohort.folder / f"{modality}/{row['study_id']}.{SUFFIX[modality]}", row, cohort.preset.film_pixel)
        for row in cohort.table.to_dict("records")
    ]
    correlation = spearmanr(found, cohort.table[f"evidence_{modality}_{finding}"])[0]
    assert correlation > least


def test_small_files_are_small(small: Rendered) -> None:
    sizes = {m: (small.folder / f"{m}/s000000.{SUFFIX[m]}").stat().st_size for m in SUFFIX}
    assert max(sizes.values()) < 32_000
    assert read_ct(small.folder / "ct/s000000.nii.gz").array.shape == (32, 24, 32)
    assert read_xray(small.folder / "xray/s000000.png").array.shape == (53, 64)
    recording = read_eeg(small.folder / "eeg/s000000.edf")
    assert recording.signal.shape == (19, 384) and recording.sfreq == 64
    assert len((small.folder / "report/s000000.txt").read_text("utf-8").split()) < 30


def test_the_truth_does_not_depend_on_the_size_of_the_files(rendered: Rendered, small: Rendered) -> None:
    for name in ("truth.csv", "manifest.csv"):
        assert (small.folder / name).read_bytes() == (rendered.folder / name).read_bytes()
    known, same = (json.loads((cohort.folder / "truth.json").read_text("utf-8")) for cohort in (small, rendered))
    assert known.pop("files")["preset"] == "small" and same.pop("files")["preset"] == "large"
    assert known == same


def test_a_brief_report_states_the_grades_alone(small: Rendered) -> None:
    for row in small.table.to_dict("records"):
        text = (small.folder / f"report/{row['study_id']}.txt").read_text("utf-8")
        assert report.read_grades(text) == {f: row[f"grade_report_{f}"] for f in report.LADDER}
        assert text.startswith("FINDINGS: ") and text.count("\n") == 1


def test_a_coarse_voxel_is_the_mean_of_its_parts() -> None:
    volume = np.arange(2 * 4 * 2, dtype=np.float32).reshape(2, 4, 2)
    np.testing.assert_allclose(mean_of_parts(volume, 2).ravel(), [volume[:, :2].mean(), volume[:, 2:].mean()])
    coarse = PRESETS["small"].ct
    fine = coarse.parts(2)
    assert fine.shape == tuple(2 * n for n in coarse.shape)
    centres = fine.axes[0].reshape(-1, 2).mean(1)
    np.testing.assert_allclose(centres, coarse.axes[0].ravel(), atol=1e-4)
    with pytest.raises(ValueError, match="do not fill"):
        Grid((7.0, 4.0, 4.0)).parts(2)


def test_a_slow_recorder_filters_the_mains_away() -> None:
    brain = eeg.Brain(alpha=10.0, alpha_size=0, background=1, slope=1.3, blinks=0)
    power = {}
    for noisy in (False, True):
        slow = eeg.recording(brain, -3.0, np.random.default_rng(0), noisy, eeg.Recorder(64.0, 6.0, 3.0))
        power[noisy] = np.abs(np.fft.rfft(slow)) ** 2
    alias = round((64 - 50) * 6)  # where 50 Hz would appear
    assert power[True][:, alias].mean() == pytest.approx(power[False][:, alias].mean(), rel=0.05)


def test_a_report_states_exactly_its_grades_and_never_the_eeg(rendered: Rendered) -> None:
    for row in rendered.table.to_dict("records"):
        text = (rendered.folder / f"report/{row['study_id']}.txt").read_text("utf-8")
        assert report.read_grades(text) == {f: row[f"grade_report_{f}"] for f in report.LADDER}
        assert "INDICATION:" in text and "IMPRESSION:" in text
        assert not any(word in text.lower() for word in ("eeg", "seiz", "epilep", "spike"))
    for finding in report.LADDER:
        shown, evidence = rendered.table[f"grade_report_{finding}"], rendered.table[f"evidence_report_{finding}"]
        assert spearmanr(shown, evidence)[0] > 0.95


def test_wordings_belong_to_one_grade_each() -> None:
    wordings = [text for ladder in report.LADDER.values() for grade in ladder for text in grade]
    assert len(wordings) == len(set(wordings))
    assert all(len(ladder) == 7 for ladder in report.LADDER.values())
    inside = [(a, b) for a in wordings for b in wordings if a != b and f" {a}" in f" {b}"]
    assert not inside, "read_grades would find a wording within another"


def test_the_impression_repeats_grades_and_adds_none() -> None:
    text = report.report({"effusion": 6, "cardiomegaly": 1, "nodule": 3}, 70, True, np.random.default_rng(0))
    impression = text.partition("IMPRESSION:")[2]
    assert any(wording in impression for wording in report.LADDER["effusion"][6])
    assert not any(wording in impression for wording in report.LADDER["cardiomegaly"][1])


@pytest.mark.parametrize(
    "size",
    [ct.nodule_radius, ct.fluid_level, ct.heart_scale, eeg.burst_size, eeg.burst_length],
)
def test_sizes_grow_with_the_evidence(size: Callable[[float], float]) -> None:
    assert (np.diff([size(e) for e in np.linspace(-4, 4, 200)]) > 0).all()


def test_the_chest_has_the_densities_and_sides_of_a_chest(rendered: Rendered) -> None:
    volume = measure.Volume(rendered.folder / "ct/s000000.nii.gz")
    x, z = volume.x.ravel(), volume.z.ravel()
    lungs = (volume.smooth > -950) & (volume.smooth < -700)
    litres = lungs.sum() * 4**3 / 1e6
    assert 1.5 < litres < 7
    assert measure.components(lungs & (np.abs(volume.x) > 12) & (volume.z < 105), least=5000) == 2, "two lungs"
    assert np.median(volume.hu[volume.hu > 200]) > 250  # bone
    heart = ((volume.smooth > 0) & (volume.smooth < 90) & (volume.y > -20) & (np.abs(volume.x) < 95))[
        :, :, (z > -45) & (z < -15)
    ]
    assert (heart.sum((1, 2)) * x).sum() < 0, "the heart lies to the patient's left (-x in RAS)"
    tops = [volume.smooth[(s * x > 40) & (s * x < 90)][:, :, z < -60].mean((0, 1)) for s in (1, -1)]
    assert tops[0].mean() > tops[1].mean(), "the liver fills the right side, the stomach's gas and fat the left"


def test_a_film_is_viewed_as_radiologists_do(rendered: Rendered) -> None:
    film = measure.Film(rendered.folder / "xray/s000000.png", 1.5).film
    rows, columns = film.shape
    assert film[: rows // 10].mean() < film[-rows // 10 :].mean(), "neck above, abdomen below"
    assert film[: rows // 20, : columns // 8].max() < 0.02, "air beside the neck is black"


def test_line_integrals_are_exact_and_turn_the_volume_to_the_viewer() -> None:
    hu = np.full((6, 5, 4), -1000.0, np.float32)
    hu[5, :, 3] = 0  # water all the way at the patient's right, head side
    hu[0, 1:3, 0] = 0  # two voxels at the patient's left, feet side
    path = xray.line_integrals(hu, depth=4.0)
    assert path.shape == (4, 6)
    assert path[0, 0] == pytest.approx(5 * 4 * xray.MU_WATER, rel=1e-5)
    assert path[3, 5] == pytest.approx(2 * 4 * xray.MU_WATER, rel=1e-5)
    assert np.count_nonzero(path) == 2


def test_film_obeys_beer_lambert() -> None:
    """Twice the water, twice the density on the film, within quantum noise."""
    exposure = xray.Exposure(photons=1e8, blur=0.01, window=(0.0, 4.0))
    films = []
    for depth in (50.0, 100.0):
        water = np.zeros((8, 10, 8), np.float32)
        films.append(xray.radiograph(water, (2.0, depth / 10, 2.0), 2.0, exposure, np.random.default_rng(0)).mean())
    assert films[0] * 4 == pytest.approx(50 * xray.MU_WATER, rel=1e-3)
    assert films[1] == pytest.approx(2 * films[0], rel=1e-3)


def test_spikes_are_generalised_negative_and_three_per_second() -> None:
    time = np.arange(int(eeg.SFREQ * 20)) / eeg.SFREQ
    bursts = eeg.spike_and_wave(np.random.default_rng(0), 2.0, time)
    assert bursts.min() < -120 and bursts.max() < 0.5 * -bursts.min()
    fz, o1 = (bursts[eeg.CHANNELS.index(name)] for name in ("Fz", "O1"))
    assert -fz.min() > -2 * o1.min() > 0
    lags = np.arange(int(0.2 * eeg.SFREQ), int(0.6 * eeg.SFREQ))
    likeness = [float(fz[lag:] @ fz[:-lag]) for lag in lags]
    assert 2.7 < eeg.SFREQ / lags[int(np.argmax(likeness))] < 3.5


def test_background_falls_as_one_over_f_and_alpha_is_posterior() -> None:
    brain = eeg.Brain(alpha=10.0, alpha_size=30, background=10, slope=1.3, blinks=0)
    signal = np.concatenate([eeg.recording(brain, -3.0, np.random.default_rng(i)) for i in range(6)], axis=1)
    power = np.abs(np.fft.rfft(signal.reshape(19, 6, -1))) ** 2
    frequency = np.fft.rfftfreq(signal.shape[1] // 6, 1 / eeg.SFREQ)
    band = {name: power[:, :, (frequency >= low) & (frequency < high)].mean((1, 2)) for name, low, high in
            (("delta", 1, 3), ("theta", 5, 7), ("alpha", 9, 11), ("beta", 16, 24))}  # fmt: skip
    o1, cz = eeg.CHANNELS.index("O1"), eeg.CHANNELS.index("Cz")
    assert band["delta"][cz] > band["theta"][cz] > band["beta"][cz]
    assert band["alpha"][o1] > 5 * band["theta"][o1] and band["alpha"][o1] > 5 * band["alpha"][cz]


def test_soft_solids_keep_their_volume() -> None:
    grid = Grid((4.0, 4.0, 4.0))
    sphere = cover(ellipsoid(grid.axes, (3.0, -5.0, 11.0), (20, 20, 20))).sum() * 4**3
    assert sphere == pytest.approx(4 / 3 * math.pi * 20**3, rel=0.02)
    bits = np.random.default_rng(0).uniform(-100, 100, (500, 3))
    assert splat(grid, bits, np.full(500, 2.0)).sum() * 4**3 == pytest.approx(1000, rel=1e-4)
    assert grid.shape == PRESETS["large"].ct.shape == (96, 72, 80)
