"""Codes back to ids: right, complete, refused where the key or the table is another, readable by their owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pandas as pd
import pytest

from medssml.privacy import pseudonyms
from medssml.verbs.ids import ids


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "m.csv"
    path.write_text("subject_id,study_id,ct\n007,a 1,x.nii\n 007 ,NA,y.nii\n8,0001,\n")
    return path


def test_every_study_and_subject_has_its_code(manifest: Path, tmp_path: Path) -> None:
    out = ids(manifest, out=tmp_path / "out" / "codes.csv")
    table = pd.read_csv(out, dtype=str, keep_default_na=False)
    codes = pseudonyms()
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        (study, subject, codes.study(study), codes.subject(subject))
        for study, subject in (("a 1", "007"), ("NA", "007"), ("0001", "8"))
    ]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_results_get_their_ids_back(manifest: Path, tmp_path: Path, ending: str) -> None:
    codes = pseudonyms()
    studies = ["0001", "a 1", "a 1"]
    coded = pd.DataFrame(
        {
            "study_id": [codes.study(study) for study in studies],
            "subject_id": [codes.subject(subject) for subject in ("8", "007", "007")],
            "probability": [0.25, 0.5, 0.75],
        }
    )
    path = tmp_path / f"results.{ending}"
    coded.to_parquet(path) if ending == "parquet" else coded.to_csv(path, index=False)
    named = pd.read_csv(
        ids(manifest, results=path, out=tmp_path / "named.csv"), dtype={"study_id": str, "subject_id": str}
    )
    assert list(named["study_id"]) == studies and list(named["subject_id"]) == ["8", "007", "007"]
    assert list(named["probability"]) == [0.25, 0.5, 0.75]


def test_foreign_results_are_refused(manifest: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"study_id,probability\n{pseudonyms().study('another')},0.5\n")
    with pytest.raises(ValueError, match="1 codes, such as s.*of no study in m.csv; fix: .*MEDSSML_PRIVACY_KEY"):
        ids(manifest, results=path, out=tmp_path / "named.csv")
    path.write_text("probability\n0.5\n")
    with pytest.raises(ValueError, match="no column study_id"):
        ids(manifest, results=path, out=tmp_path / "named.csv")
    assert not (tmp_path / "named.csv").exists()
