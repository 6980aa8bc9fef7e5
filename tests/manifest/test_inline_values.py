"""Laboratory values as columns of the manifest: present where one is there, refused by row and column, prepared like a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medssml.checks.cohort_check import check_manifest
from medssml.data.collate import collate
from medssml.data.dataset import StudyDataset
from medssml.data.prepare import fit_training, prepare_all
from medssml.manifest.manifest import Manifest, ManifestError
from medssml.store.cache import Cache
from medssml.transforms import TableTransform

HEAD = "subject_id,study_id,split,table,table_crp,table_ldh\n"


def read(folder: Path, rows: str, head: str = HEAD) -> Manifest:
    (folder / "m.csv").write_text(head + rows)
    return Manifest.read(folder / "m.csv")


def test_inline_and_file_are_one_modality(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("name,value\ncrp,6\nldh,300\n")
    manifest = read(tmp_path, "a,1,train,,2,100\nb,2,train,,<4,\nc,3,train,c.csv,,\nd,4,test,,,\ne,5,test,,NA,200\n")
    assert manifest.modalities == ("table",) and manifest.present[:, 0].tolist() == [True, True, True, False, True]
    assert manifest.coverage()["all"] == {"table": 4, "": 1}
    transform = TableTransform({"crp": "mg/l", "ldh": ""})
    dataset = StudyDataset(manifest, {"table": transform}, Cache(tmp_path / "cache"))
    assert prepare_all(dataset, workers=0) == []
    fit_training(dataset)
    batch = collate([dataset.item(i) for i in range(5)], ("table",))
    inputs = batch.inputs["table"]
    assert batch.present[:, 0].tolist() == [True, True, True, False, True]
    crp, ldh = np.array([2.0, 4, 6]), np.array([100.0, 300])
    np.testing.assert_allclose(inputs["values"][:3, 0], (crp - crp.mean()) / crp.std(), rtol=1e-6)
    np.testing.assert_allclose(inputs["values"][3], [0, (200 - ldh.mean()) / ldh.std()], rtol=1e-6)
    assert inputs["known"].tolist() == [[True, True], [True, False], [True, True], [False, True]]


def test_what_is_no_number_is_refused_by_row_and_column(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, 'a,1,train,,"5,3",\nb,2,train,,,high\nc,3,train,c.csv,1,\n')
    assert [(row, column) for row, column, _ in caught.value.problems] == [
        (2, "table_crp"), (3, "table_ldh"), (4, "table_crp"),
    ]  # fmt: skip
    assert "row 2, column 'table_crp': has '5,3' for 'crp', expected a number; fix: write a number" in str(caught.value)
    assert "also names a file of values" in str(caught.value)


def test_a_slip_in_the_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'tabl_crp'.*did you mean 'table_crp'"):
        read(tmp_path, "a,1,1\n", "subject_id,study_id,tabl_crp\n")


def test_check_reads_table_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,value\ncrp,<5\n")
    (tmp_path / "b.csv").write_text("name,value\ncrp,high\n")
    manifest = read(tmp_path, "a,1,train,a.csv,,\nb,2,train,b.csv,,\n")
    for deep in (False, True):
        found = {(p.row, p.action): p for p in check_manifest(manifest, deep=deep)}
        assert set(found) == {(2, "flagged"), (3, "quarantined")}
        assert "bound" in found[2, "flagged"].problem and "expected a number" in found[3, "quarantined"].problem
