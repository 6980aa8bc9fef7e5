"""Spacing and rescale from the table, for volumes whose headers are blank: used by all who read, refused where wrong."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssml.checks.cohort_check import check_manifest
from medssml.checks.duplicates import Cell, copies
from medssml.checks.inspection import Inspection
from medssml.checks.limits import Limits
from medssml.data.dataset import StudyDataset, StudyError
from medssml.data.prepare import prepare_all
from medssml.manifest.manifest import Manifest, ManifestError
from medssml.readers import ct_header, read_ct
from medssml.readers.nifti import Given
from medssml.store.cache import Cache
from medssml.transforms import CTTransform
from tests.importers.test_dicom_tree import series

HEADER = "subject_id,study_id,split,ct,ct_spacing,ct_slope,ct_intercept"


def write(root, *rows, header=HEADER):
    path = root / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def root(tmp_path):
    """a.nii.gz: stored as a scanner does, 1024 above HU, without geometry; b.nii.gz: 2 x 2 x 4 mm, in HU."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 400, (70, 70, 20)).astype(np.int16)
    blank = nib.Nifti1Image((hu + 1024).astype(np.int16), None)
    blank.header["sform_code"] = blank.header["qform_code"] = 0
    nib.save(blank, tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(hu, np.diag([-2, -2, 4, 1.0]) + np.eye(4, k=3) * 50), tmp_path / "b.nii.gz")
    return tmp_path


def test_cells_in_every_spelling(root):
    rows = [
        "p0,s0,train,a.nii.gz,0.7 0.7 1.5,1,-1024",
        'p1,s1,train,a.nii.gz,"[0.7, 0.7, 1.5]",,',
        "p2,s2,train,b.nii.gz,NA,,",
    ]
    assert Manifest.read(write(root, *rows, "p3,s3,train,b.nii.gz,2x2x4,,")).given("ct") == [
        Given((0.7, 0.7, 1.5), 1.0, -1024.0),
        Given((0.7, 0.7, 1.5)),
        None,
        Given((2.0, 2.0, 4.0)),
    ]
    assert Manifest.read(write(root, "p0,s0,b.nii.gz", header="subject_id,study_id,ct")).given("ct") == [None]


@pytest.mark.parametrize(
    ("cells", "column", "says"),
    [
        ("0.7 0.7,1,0", "ct_spacing", "2 numbers, expected 3"),
        ("thin,1,0", "ct_spacing", "no number"),
        ("0 1 1,1,0", "ct_spacing", "0.01 to 50 mm"),
        ("1 1 1,one,0", "ct_slope", "no number"),
        ("1 1 1,0,0", "ct_slope", "every voxel the same"),
        ("1 1 1,1,inf", "ct_intercept", "no number"),
    ],
)
def test_a_wrong_cell_is_refused_with_row_and_column(root, cells, column, says):
    with pytest.raises(ManifestError, match=says) as error:
        Manifest.read(write(root, "p0,s0,train,b.nii.gz,,,", f"p1,s1,train,a.nii.gz,{cells}"))
    assert [(row, name) for row, name, _ in error.value.problems] == [(3, column)]
    assert "fix:" in str(error.value)


def test_a_near_miss_of_such_a_column_is_refused(root):
    with pytest.raises(ManifestError, match="did you mean 'ct_spacing'"):
        Manifest.read(write(root, "p0,s0,train,a.nii.gz,1 1 1,,", header=HEADER.replace("ct_spacing", "ct_spacng")))


def test_the_check_reads_with_what_the_table_gives_and_quarantines_contradictions(root):
    rows = [
        "p0,s0,train,a.nii.gz,2 2 4,1,-1024",  # completes the header
        "p1,s1,train,a.nii.gz,,,",  # 1 mm and no air: not HU
        "p2,s2,train,b.nii.gz,2 2 5,,",  # contradicts the header
    ]
    problems = check_manifest(Manifest.read(write(root, *rows)), deep=True)
    grave = {(p.row, p.code): p.problem for p in problems if p.action == "quarantined"}
    assert set(grave) == {(3, "units"), (4, "geometry")}
    assert "the affine says 2 x 2 x 4 mm, the table 2 x 2 x 5 mm" in grave[4, "geometry"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_over_all_files_prepares_with_it(root, workers):
    transform = CTTransform(spacing=(4, 4, 4), size=(16, 16, 16), margin=0)
    table = Manifest.read(write(root, "p0,s0,train,a.nii.gz,2 2 4,1,-1024", "p1,s1,train,b.nii.gz,2 2 5,,"))
    data = StudyDataset(table, {"ct": transform}, Cache(root / f"cache{workers}"))
    (problem,) = prepare_all(data, workers=workers)
    assert problem.row == 3 and "2 x 2 x 5" in problem.problem  # contradicts its header
    alone = StudyDataset(table, {"ct": transform}, Cache(None)).prepared(0, "ct").arrays["hu"]
    assert data.cache.has(data.key(0, "ct"))
    np.testing.assert_array_equal(data.prepared(0, "ct").arrays["hu"], alone)


def test_training_reads_with_it_and_another_spacing_is_another_entry_of_the_cache(root):
    rows = ["p0,s0,train,a.nii.gz,2 2 4,1,-1024", "p1,s1,train,a.nii.gz,4 4 8,1,-1024", "p2,s2,train,b.nii.gz,,,"]
    transform = CTTransform(spacing=(4, 4, 4), size=(16, 16, 16), margin=0)
    data = StudyDataset(Manifest.read(write(root, *rows)), {"ct": transform}, Cache(root / "cache"))
    keys = {data.key(index, "ct") for index in range(3)}
    assert len(keys) == 3
    first, second, third = (data.prepared(index, "ct").arrays["hu"] for index in range(3))
    assert not np.array_equal(first, second)
    # a blank header counts x to the left; b says the same of x, and the opposite of y
    np.testing.assert_allclose(first, third[:, ::-1], atol=1)  # halves are rounded
    again = StudyDataset(Manifest.read(write(root, *rows)), {"ct": transform}, Cache(root / "cache"))
    assert {again.key(index, "ct") for index in range(3)} == keys
    wrong = StudyDataset(Manifest.read(write(root, "p2,s2,train,b.nii.gz,2 2 5,,")), {"ct": transform}, Cache(None))
    with pytest.raises(StudyError, match=r"row 2, column 'ct', file 'b\.nii\.gz': contradictory spacing"):
        wrong.item(0)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """One folder with two series of two people, of 12 and 15 slices of other values, and a localizer that says nothing."""
    series(tmp_path / "flat", 1, slices=12, start="a")
    series(tmp_path / "flat", 2, slices=15, start="b", PatientID="MRN8", RescaleIntercept=-924)
    series(tmp_path / "flat", 3, slices=1, start="c", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    return tmp_path


SERIES = "subject_id,study_id,split,ct,ct_series"


def test_a_series_of_a_folder_is_read_prepared_and_kept_apart_by_its_name(flat):
    rows = ["p0,s0,train,flat,1.2.40.1", "p1,s1,test,flat,1.2.40.2"]
    table = Manifest.read(write(flat, *rows, header=SERIES))
    assert table.given("ct") == [Given(series="1.2.40.1"), Given(series="1.2.40.2")]
    assert not [p for p in check_manifest(table, deep=True) if p.code not in ("size", "odd", "fixed")]
    volumes = [read_ct(flat / "flat", given) for given in table.given("ct")]
    assert [volume.array.shape for volume in volumes] == [(10, 8, 12), (10, 8, 15)]
    assert [volume.array.min() for volume in volumes] == [-1024, -924]
    assert [ct_header(flat / "flat", given).shape for given in table.given("ct")] == [(10, 8, 12), (10, 8, 15)]

    data = StudyDataset(
        table, {"ct": CTTransform(spacing=(2.5,) * 3, size=(4, 4, 16), margin=0)}, Cache(flat / "cache")
    )
    first, second = (data.prepared(index, "ct").arrays["hu"] for index in range(2))
    assert data.key(0, "ct") != data.key(1, "ct") and not np.array_equal(first, second)
    np.testing.assert_array_equal(first.max() + 100, second.max())


def test_without_a_name_a_folder_of_two_series_is_refused_and_the_fix_is_said(flat):
    (problem,) = [p for p in check_manifest(Manifest.read(write(flat, "p0,s0,train,flat,", header=SERIES))) if p.row]
    assert problem.action == "quarantined" and problem.code == "mixed" and "2 patients" in problem.problem
    series(flat / "one", 4, slices=12, start="a")
    series(flat / "one", 5, slices=12, start="b")
    (problem,) = [p for p in check_manifest(Manifest.read(write(flat, "p0,s0,train,one,", header=SERIES))) if p.row]
    assert "2 CT series (12 + 12 files)" in problem.problem and "ct_series" in problem.fix


def test_a_series_that_is_not_there_or_cannot_be(flat, root):
    rows = ["p0,s0,train,flat,1.2.40.7", "p1,s1,train,b.nii.gz,1.2.40.1"]
    problems = [p for p in check_manifest(Manifest.read(write(flat, *rows, header=SERIES))) if p.row]
    assert [(p.row, p.code) for p in problems] == [(2, "mixed"), (3, "format")]
    assert "no slice of the series that the table names (3 other CT series)" in problems[0].problem
    with pytest.raises(ManifestError, match="is no SeriesInstanceUID") as error:
        Manifest.read(write(flat, "p0,s0,train,flat,1.2E+40", header=SERIES))
    assert [(row, name) for row, name, _ in error.value.problems] == [(2, "ct_series")]


def test_the_name_of_an_entry_without_a_series_is_as_it_was(root):
    """Prepared volumes outlast the column: what their name is made of has no word of it."""
    assert Given((1.0, 2.0, 3.0), 1.0, None).identity() == {"spacing": (1.0, 2.0, 3.0), "slope": 1.0, "intercept": None}
    assert Given(series="1.2").identity()["series"] == "1.2"


def test_two_series_of_one_folder_are_no_copies_of_each_other(flat, monkeypatch):
    """What a file shows goes by row, not by path: else the last series of the folder would stand for all of them."""
    rows = ["p0,s0,train,flat,1.2.40.1", "p1,s1,test,flat,1.2.40.2"]
    table = Manifest.read(write(flat, *rows, header=SERIES))
    cells = [Cell(position, "ct", flat / "flat", "flat") for position in range(2)]
    monkeypatch.setattr("medssml.checks.duplicates.ENOUGH", 2)
    features = np.random.default_rng(0).normal(size=(2, 256))
    for second, expected in ((features[1], 0), (features[0], 1)):
        shown = {cell: Inspection([], {}, one) for cell, one in zip(cells, (features[0], second), strict=True)}
        assert len(copies(table, cells, shown, Limits())) == expected
