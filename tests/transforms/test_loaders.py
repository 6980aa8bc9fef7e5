"""Loaders against MONAI's generic chain, and a second reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import ImageReader, MetaTensor, set_track_meta
from monai.transforms import CenterSpatialCropd, Compose, LoadImaged, Orientationd, Resized, ScaleIntensityd, Spacingd
from PIL import Image

from medssml.readers.errors import ReadError
from medssml.transforms import LoadCTd, LoadEEGd, LoadReportd, LoadTabled, LoadXrayd


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), affine), path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL"])
@pytest.mark.parametrize("spacing", [(1.5, 0.9, 1.2), (0.7, 0.7, 1.9)])
def test_a_ct_is_what_the_generic_chain_makes_of_it(tmp_path: Path, axes: str, spacing: tuple[float, ...]) -> None:
    """LoadImaged, Orientationd, Spacingd, crop: voxels and affine. The sizes are such that both grids fall on one another."""
    target, field = (1.0, 1.0, 1.0), (16, 18, 14)
    shape = (31, 33, 29)
    hu = np.random.default_rng(0).integers(-1000, 1200, shape)
    # A whole number of target voxels between the outer ones, so that MONAI's grid is centred as well.
    spacing = tuple(round(mm * (n - 1)) // 2 * 2 / (n - 1) + 1e-9 for mm, n in zip(spacing, shape, strict=True))
    ras = nibabel.Nifti1Image(hu.astype(np.int16), np.diag([*spacing, 1.0]))
    turned = ras.as_reoriented(nibabel.orientations.axcodes2ornt(tuple(axes)))
    nibabel.save(turned, tmp_path / "a.nii.gz")
    chain = [
        LoadImaged("ct", reader="NibabelReader", ensure_channel_first=True),
        Orientationd("ct", "RAS", labels=None),
        Spacingd("ct", target, mode="bilinear", dtype=torch.float64),
        CenterSpatialCropd("ct", tuple(n + 1 for n in field)),
    ]
    generic = Compose(chain)({"ct": tmp_path / "a.nii.gz"})["ct"]
    ours = LoadCTd("ct", target, tuple(n + 1 for n in field))({"ct": tmp_path / "a.nii.gz"})["ct"]
    assert isinstance(ours, MetaTensor) and ours.shape == generic.shape and ours.dtype == torch.int16
    np.testing.assert_allclose(ours.numpy(), generic.numpy(), atol=0.51)
    np.testing.assert_allclose(ours.affine, generic.affine, atol=1e-4)


def test_a_radiograph_is_what_the_generic_chain_makes_of_it(tmp_path: Path) -> None:
    """Up to MONAI's turned axes, and the smoothing that its antialiasing does by a Gaussian."""
    rows, columns = np.mgrid[0:256, 0:256]
    array = (120 + 80 * np.sin(rows / 30) + 40 * np.cos(columns / 25)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    chain = [
        LoadImaged("x", reader="PILReader", ensure_channel_first=True),
        ScaleIntensityd("x"),
        Resized("x", (64, 64), mode="bilinear", anti_aliasing=True),
    ]
    generic = Compose(chain)({"x": tmp_path / "a.png"})["x"].numpy().swapaxes(1, 2)
    ours = LoadXrayd("x", 64, percentiles=(0, 100))({"x": tmp_path / "a.png"})["x"].numpy()
    np.testing.assert_allclose(ours[:, 2:-2, 2:-2], generic[:, 2:-2, 2:-2], atol=0.02)


def test_without_meta_data_the_values_are_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.random.default_rng(0).integers(-900, 300, (12, 12, 12)), np.eye(4))
    tracked = LoadCTd("ct", (1, 1, 1), (8, 8, 8))({"ct": path})["ct"]
    try:
        set_track_meta(False)
        plain = LoadCTd("ct", (1, 1, 1), (8, 8, 8))({"ct": path})["ct"]
    finally:
        set_track_meta(True)
    assert type(plain) is torch.Tensor and torch.equal(plain, tracked.as_tensor())


def test_keys(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.random.default_rng(0).integers(-900, 300, (12, 12, 12)), np.eye(4))
    both = LoadCTd(["ct", "ct_prior"], (1, 1, 1), (4, 4, 4))
    out = both({"ct": str(path), "ct_prior": path, "other": 3})
    assert torch.equal(out["ct"], out["ct_prior"]) and out["other"] == 3
    with pytest.raises(KeyError, match="ct_prior"):
        both({"ct": path})
    lenient = LoadCTd(["ct", "ct_prior"], (1, 1, 1), (4, 4, 4), allow_missing_keys=True)
    assert set(lenient({"ct": path})) == {"ct"}


def test_a_string_is_a_text_for_reports_and_tables_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A report.")
    assert LoadReportd()({"report": "Clear lungs."})["report"] == "Clear lungs."
    assert LoadReportd()({"report": tmp_path / "a.txt"})["report"] == "A report."
    loaded = LoadTabled({"crp": "mg/l", "ldh": ""})({"table": '{"crp": 3}'})
    assert loaded["table_features"] == ("crp", "ldh") and loaded["table"].isnan().tolist() == [False, True]
    with pytest.raises(ReadError, match="no such file"):
        LoadEEGd()({"eeg": "nowhere.edf"})


class Raw(ImageReader):
    """A format of the test's own: the array of an .npy at 2 mm, its X from right to left."""

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **kwargs: Any) -> Any:
        return np.load(data)

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return img, {"affine": np.diag([-2.0, 2, 2, 1])}


def test_any_reader_of_monai_reads_a_ct(tmp_path: Path) -> None:
    """Turned, resampled and checked as by our own reader."""
    hu = np.random.default_rng(0).integers(-1000, 300, (12, 10, 8)).astype(np.int16)
    np.save(tmp_path / "a.npy", hu)
    path = save(tmp_path / "a.nii", hu, np.diag([-2.0, 2, 2, 1]))
    size = {"spacing": (2, 2, 2), "size": (6, 6, 6)}
    expected = LoadCTd(**size)({"ct": path})["ct"]
    for loader, file in ((LoadCTd(**size, reader=Raw()), "a.npy"), (LoadCTd(**size, reader="NibabelReader"), "a.nii")):
        out = loader({"ct": tmp_path / file})["ct"]
        assert torch.equal(out.as_tensor(), expected.as_tensor())
        np.testing.assert_allclose(out.affine - out.affine[0, 3], expected.affine - expected.affine[0, 3], atol=1e-6)
        assert loader.preparation.spec() != LoadCTd(**size).preparation.spec()
    np.save(tmp_path / "b.npy", np.full((4, 4, 4), np.nan))
    with pytest.raises(ReadError, match="64 of 64 voxels are NaN"):
        LoadCTd(**size, reader=Raw())({"ct": tmp_path / "b.npy"})
    with pytest.raises(ReadError, match="has 2 axes, expected 3"):
        np.save(tmp_path / "c.npy", np.zeros((4, 4)))
        LoadCTd(**size, reader=Raw())({"ct": tmp_path / "c.npy"})
    with pytest.raises(ValueError, match="reader is 'os'; fix: one of ITKReader"):
        LoadCTd(reader="os")


def test_processes_that_prepare_files_and_verbs_that_read_them_do_not_import_monai() -> None:
    """`import monai` costs seconds."""
    script = (
        "import sys, medssml.transforms, medssml.transforms.ct, medssml.transforms.eeg, medssml.transforms.xray;"
        "import medssml.transforms.report, medssml.transforms.table, medssml.data.prepare, medssml.checks.cohort_check;"
        "import medssml.verbs.check, medssml.verbs.import_, medssml.runs.training_config;"
        "sys.exit('monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
