"""From files of every format to a batch, and round the broken ones among them."""

from __future__ import annotations

from pathlib import Path

import edfio
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from medssml.data.collate import collate
from medssml.data.dataset import StudyDataset
from medssml.data.prepare import fit_training, prepare_all
from medssml.manifest.manifest import Manifest
from medssml.store.cache import Cache
from medssml.transforms import CTTransform, EEGTransform, ReportTransform, XrayTransform


@pytest.fixture
def cohort(tmp_path: Path) -> Manifest:
    """Study 0 has all, 1 to 3 have one each, 4 and 5 have a file that was cut short."""
    rng = np.random.default_rng(0)
    nibabel.save(
        nibabel.Nifti1Image(rng.integers(-1000, 300, (30, 30, 20)).astype(np.int16), np.eye(4)), tmp_path / "a.nii.gz"
    )
    Image.fromarray(rng.integers(0, 255, (80, 60)).astype(np.uint8)).save(tmp_path / "a.png")
    signals = [
        edfio.EdfSignal(20 * rng.standard_normal(2000), 200, label=name, physical_dimension="uV")
        for name in ("Cz", "O1")
    ]
    edfio.Edf(signals).write(tmp_path / "a.edf")
    (tmp_path / "a.txt").write_text("No acute findings. No acute findings.")
    for name in ("a.nii.gz", "a.edf"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[: len(content) // 2])
    rows = [
        "0,0,train,a.nii.gz,a.png,a.edf,a.txt",
        "1,1,train,,a.png,,",
        "2,2,train,,,a.edf,",
        "3,3,train,,,,a.txt",
        "4,4,train,cut_a.nii.gz,a.png,,",
        "5,5,train,,,cut_a.edf,a.txt",
    ]
    (tmp_path / "m.csv").write_text("subject_id,study_id,split,ct,xray,eeg,report\n" + "\n".join(rows) + "\n")
    return Manifest.read(tmp_path / "m.csv")


def test_every_format_becomes_plain_tensors(cohort: Manifest, tmp_path: Path) -> None:
    transforms = {
        "report": ReportTransform(),
        "eeg": EEGTransform(window_s=4),
        "ct": CTTransform((1, 1, 1), (16, 16, 16)),
        "xray": XrayTransform(32),
    }
    dataset = StudyDataset(cohort, transforms, Cache(tmp_path / "cache"), train=True)
    problems = prepare_all(dataset, workers=0)
    assert [(p.row, p.column) for p in problems] == [(6, "ct"), (7, "eeg")]
    assert all(str(tmp_path) not in p.problem and p.fix for p in problems)
    fit_training(StudyDataset(cohort.filter(range(4)), transforms, dataset.cache))
    batch = collate([dataset.item(index) for index in range(4)], dataset.modalities)
    assert batch.modalities == ("ct", "xray", "eeg", "report")
    assert batch.present.long().tolist() == [[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    tensors = [t for value in batch.inputs.values() for t in (value.values() if isinstance(value, dict) else [value])]
    assert all(type(tensor) is torch.Tensor for tensor in tensors)
    assert {t.dtype for t in tensors} == {torch.float32, torch.int64}
    assert batch.inputs["ct"].shape == (1, 1, 16, 16, 16) and batch.inputs["xray"].shape == (2, 1, 32, 32)  # type: ignore[union-attr]
    assert batch.content["xray"][0] == batch.content["xray"][1], "the same picture is known as a duplicate"
