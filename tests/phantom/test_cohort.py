"""The cohort on disk: keyed, complete, missing as asked, readable, and silent about its labels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from medssml.phantom import MODALITIES, TASKS, Design, draw, population, simulate, truth
from medssml.phantom.cohort import manifest, write_study
from medssml.phantom.missingness import presence
from medssml.readers.ct import read_ct
from medssml.readers.eeg import read_eeg
from medssml.readers.xray import read_xray
from tests.phantom.studies import DESIGN, Rendered


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_files_do_not_depend_on_workers(tmp_path: Path) -> None:
    design = Design(studies=5, seed=9, missing=0.4)
    simulate(tmp_path / "one", design, draws=200, workers=1)
    simulate(tmp_path / "two", design, draws=200, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("*/*"))) == draw(design).filter(like="present_").to_numpy().sum()


def test_a_larger_cohort_begins_with_the_smaller_one() -> None:
    small, large = draw(Design(studies=30, seed=4)), draw(Design(studies=90, seed=4))
    columns = small.columns.drop("labelled")
    pd.testing.assert_frame_equal(small[columns], large.head(30)[columns])
    assert not draw(Design(studies=30, seed=5))["latent_nodule"].equals(small["latent_nodule"])


def test_subjects_keep_findings_labels_and_split_over_their_studies() -> None:
    table = draw(Design(studies=400))
    subjects = table.groupby("subject_id")
    assert (subjects.size() > 1).any()
    kept = ["split", "age", "female", "nodule_site", *table.filter(regex="^(latent|label)_")]
    assert (subjects[kept].nunique() == 1).all().all()
    again = table[table.duplicated("subject_id")]
    assert not np.isin(again["evidence_ct_nodule"], table.drop_duplicates("subject_id")["evidence_ct_nodule"]).any()
    shares = table.drop_duplicates("subject_id")["split"].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.60, abs=0.03) and shares["test"] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("mechanism", ["mcar", "mar", "mnar"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.7])
def test_missing_at_the_rate_asked_and_never_everything(mechanism: str, missing: float) -> None:
    people = population(30_000, seed=5)
    there = presence(people, np.random.default_rng(0).random((len(people), 5)), missing, mechanism)  # type: ignore[arg-type]
    assert 1 - there.mean() == pytest.approx(missing, abs=0.006)
    assert there.any(1).all()


def test_missing_depends_on_what_the_mechanism_says() -> None:
    people = population(30_000, seed=5)
    uniforms = np.random.default_rng(1).random((len(people), 5))
    there = {name: presence(people, uniforms, 0.4, name) for name in ("mcar", "mar", "mnar")}  # type: ignore[arg-type]

    def link(name: str, modality: str, column: str) -> float:
        return float(spearmanr(there[name][:, MODALITIES.index(modality)], people[column])[0])

    assert abs(link("mcar", "ct", "age")) < 0.03 and abs(link("mcar", "eeg", "latent_epileptiform")) < 0.03
    assert link("mar", "ct", "age") < -0.25 and abs(link("mar", "ct", "latent_nodule")) < 0.03
    assert link("mnar", "eeg", "latent_epileptiform") > 0.3 and abs(link("mnar", "eeg", "age")) < 0.03
    assert link("mnar", "ct", "label_malignant") > 0.2


def test_manifest_follows_the_contract(rendered: Rendered, tmp_path: Path) -> None:
    table = pd.read_csv(rendered.folder / "manifest.csv", dtype=str, keep_default_na=False)
    labels = [f"label_{task}" for task in TASKS]
    assert list(table) == ["subject_id", "study_id", "split", *MODALITIES, *labels, "group_sex", "group_scanner"]
    assert set(table["split"]) == {"train", "val", "test"} and table["study_id"].is_unique
    for modality in MODALITIES:
        assert all((rendered.folder / name).is_file() for name in table[modality])
    assert set(table["group_sex"]) == {"F", "M"} and set(table["group_scanner"]) == {"A", "B"}
    assert set(np.unique(table[labels])) == {"0", "1"}
    sparse = manifest(draw(replace(DESIGN, missing=0.5)))
    assert (sparse[list(MODALITIES)] == "").any().all() and (sparse[list(MODALITIES)] != "").any(axis=1).all()


def test_file_names_are_numbers_only(rendered: Rendered) -> None:
    table = pd.read_csv(rendered.folder / "manifest.csv", dtype=str)
    for modality in MODALITIES:
        assert [Path(name).name.partition(".")[0] for name in table[modality]] == list(table["study_id"])


def test_labelled_share_is_of_training_studies_and_nested() -> None:
    shares = {share: draw(Design(studies=200, labelled=share)) for share in (0.0, 0.1, 0.5)}
    training = shares[0.1]["split"] == "train"
    assert not shares[0.0].loc[training, "labelled"].any()
    assert shares[0.1].loc[training, "labelled"].sum() == round(0.1 * training.sum())
    assert not (shares[0.1]["labelled"] & ~shares[0.5]["labelled"]).any()
    assert shares[0.1].loc[~training, "labelled"].all()
    given = manifest(shares[0.1])
    assert (given["label_malignant"] != "").equals(shares[0.1]["labelled"])


def test_truth_files_agree_with_each_other(rendered: Rendered) -> None:
    summary = json.loads((rendered.folder / "truth.json").read_text("utf-8"))
    known = pd.read_csv(rendered.folder / "truth.csv", dtype={"study_id": str})
    assert list(known["study_id"]) == list(rendered.table["study_id"])
    for task in TASKS:
        entry = summary["tasks"][task]
        assert set(entry["bayes_auroc"]) == set(entry["bayes_auroc_se"]) == set(truth.subsets())
        gained = entry["bayes_auroc"]["+".join(MODALITIES)] - entry["bayes_auroc"][""]
        assert sum(entry["shapley_auroc"].values()) == pytest.approx(gained, abs=5e-5)
        for subset in truth.subsets():
            computed = truth.posterior(known, task, subset)
            np.testing.assert_allclose(known[f"bayes_{task}__{subset}"], computed, atol=1e-6)
        test = entry["shapley_probability"]["test_complete"]
        assert test["n"] == (known["split"] == "test").sum()  # nothing is missing here
        rows = known[known["split"] == "test"]
        total = (rows[f"bayes_{task}__{'+'.join(MODALITIES)}"] - rows[f"bayes_{task}__"]).mean()
        assert sum(test["mean"].values()) == pytest.approx(total, abs=1e-5)


def test_the_readers_take_every_format_and_dicom_is_the_same_picture(rendered: Rendered, tmp_path: Path) -> None:
    row = rendered.table.to_dict("records")[1]
    write_study(row, tmp_path, DESIGN.seed, dicom=True)
    write_study(row | {"present_ct": False}, tmp_path / "eight", DESIGN.seed, xray_bits=8)
    study = row["study_id"]
    nifti, series = read_ct(rendered.folder / f"ct/{study}.nii.gz"), read_ct(tmp_path / f"ct/{study}")
    np.testing.assert_allclose(series.array, nifti.array, atol=0.51)
    np.testing.assert_allclose(series.affine, nifti.affine, atol=1e-4)
    png = read_xray(rendered.folder / f"xray/{study}.png")
    dicom = read_xray(tmp_path / f"xray/{study}.dcm")
    np.testing.assert_allclose(dicom.array, png.array, atol=2 / 4095)
    np.testing.assert_allclose(read_xray(tmp_path / f"eight/xray/{study}.png").array, png.array, atol=1 / 255)
    recording = read_eeg(rendered.folder / f"eeg/{study}.edf")
    assert len(recording.channels) == 19
    assert not (tmp_path / "eight/ct").exists()


def test_a_cohort_is_kept_and_another_is_refused(tmp_path: Path) -> None:
    design = Design(studies=2, seed=1)
    simulate(tmp_path, design, draws=200)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    simulate(tmp_path, design, draws=200)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(ValueError, match="--fresh"):
        simulate(tmp_path, replace(design, seed=2), draws=200)
    simulate(tmp_path, replace(design, seed=2), draws=200, fresh=True)
    assert json.loads((tmp_path / "truth.json").read_text("utf-8"))["seed"] == 2
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/manifest.csv").write_text("study_id\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no phantom wrote"):
        simulate(tmp_path / "theirs", design, draws=200, fresh=True)


def test_a_cohort_of_the_other_size_is_refused_and_an_unknown_size_named(tmp_path: Path) -> None:
    design = Design(studies=2, seed=1)
    simulate(tmp_path, design, preset="small", draws=200)
    with pytest.raises(ValueError, match="another design"):
        simulate(tmp_path, design, draws=200)
    with pytest.raises(ValueError, match="preset is 'tiny'; fix: one of"):
        simulate(tmp_path / "other", design, preset="tiny", draws=200)  # type: ignore[arg-type]


def test_an_interrupted_cohort_is_written_again(tmp_path: Path) -> None:
    design = Design(studies=2, seed=1)
    simulate(tmp_path, design, draws=200)
    whole = digests(tmp_path)
    (tmp_path / "truth.json").unlink()
    next((tmp_path / "ct").iterdir()).write_bytes(b"half")
    simulate(tmp_path, design, draws=200)
    assert digests(tmp_path) == whole


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"missing": 0.8}, "0 to 0.7"),
        ({"studies": 0}, "at least 1"),
        ({"mechanism": "mnra"}, "mcar"),
        ({"labelled": 10}, "share from 0 to 1"),
        ({"seed": -1}, "0 or a positive"),
    ],
)
def test_impossible_designs_are_refused_with_the_way_out(fault: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Design(**fault)


def test_the_verbs_cohort_passes_every_check(cohort: Path) -> None:
    from medssml.checks.cohort_check import check_manifest
    from medssml.manifest.manifest import Manifest

    studies = Manifest.read(cohort)
    assert studies.modalities == MODALITIES and set(studies.tasks) == set(TASKS)
    found = check_manifest(studies, deep=True, workers=1)
    assert [p for p in found if p.action not in ("fixed", "note")] == []
