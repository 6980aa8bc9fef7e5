"""Our studies through MONAI's Dataset and DataLoader: the same tensors as through ours, in evaluation and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edfio
import monai.data
import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from medssml.data.dataset import StudyDataset
from medssml.data.prepare import fit_training
from medssml.manifest.manifest import Manifest
from medssml.randomness import draw_seed
from medssml.store.cache import Cache
from medssml.transforms import CTTransform, EEGTransform, ReportTransform, Road, TableTransform, XrayTransform


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Two studies: all modalities, and two of them."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 300, (20, 20, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    Image.fromarray(rng.integers(0, 255, (80, 60)).astype(np.uint8)).save(tmp_path / "a.png")
    waves = [(name, 20 * rng.standard_normal(4000)) for name in ("Cz", "O1", "Fp1")]
    signals = [edfio.EdfSignal(wave, 200, label=name, physical_dimension="uV") for name, wave in waves]
    edfio.Edf(signals).write(tmp_path / "a.edf")
    rows = [
        "0,0,train,a.nii.gz,2 2 2,a.png,a.edf,No acute findings. The lungs are clear.,3,1",
        "1,1,train,,,a.png,,A nodule is seen. The heart is normal.,5,",
    ]
    header = "subject_id,study_id,split,ct,ct_spacing,xray,eeg,report_text,table_crp,label_sick"
    (tmp_path / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return Manifest.read(tmp_path / "m.csv")


def roads() -> dict[str, Road]:
    return {
        "ct": CTTransform((2, 2, 2), (12, 12, 12), margin=2, flip_axes=(0,), rotate90=True),
        "xray": XrayTransform(32, flip=True),
        "eeg": EEGTransform(window_s=4, eval_window_s=10),
        "report": ReportTransform(vocab_size=64, max_length=16, drop_sentences=0.4, min_subjects=1),
        "table": TableTransform({"crp": "mg/l"}),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[name], other[name]) for name in one)
    return type(other) is torch.Tensor and torch.equal(torch.as_tensor(one), other)


@pytest.mark.parametrize("train", [False, True])
def test_monais_dataset_and_loader_give_the_same_tensors(manifest: Manifest, tmp_path: Path, train: bool) -> None:
    ours = StudyDataset(manifest, roads(), Cache(tmp_path / "cache"), seed=3, train=train)
    fit_training(ours)
    sample = ours.item(0, epoch=2)
    for name, road in ours.transforms.items():
        following = road.training if train else road.evaluation  # type: ignore[attr-defined]
        chain = Compose([road.loader, *following.transforms])  # type: ignore[attr-defined]
        data = monai.data.Dataset(manifest.to_datalist(name), chain)
        if train:
            # The loader is no random step: the steps behind it draw what they draw in ours.
            chain.set_random_state(draw_seed(sample["key"], name))
        assert same(data[0][name], sample[name]), name
        if train:
            chain.set_random_state(draw_seed(sample["key"], name))
        (batch,) = monai.data.DataLoader([data[0]], batch_size=1)
        taken = {k: v[0] for k, v in batch[name].items()} if isinstance(batch[name], dict) else batch[name][0]
        assert same(taken, sample[name]), name


def test_a_list_of_dicts_of_all_modalities_runs_through_one_compose(manifest: Manifest) -> None:
    """As a user of MONAI writes it: one chain over several keys, of which a study may lack any."""
    from monai.transforms import ScaleIntensityRanged

    from medssml.transforms import LoadCTd, LoadReportd, LoadXrayd

    lenient = {"allow_missing_keys": True}
    window = ScaleIntensityRanged("ct", -1000, 400, 0, 1, clip=True, **lenient)
    chain = Compose([LoadCTd("ct", (2, 2, 2), (8, 8, 8), **lenient), LoadXrayd("xray", 40), LoadReportd(), window])
    first, second = monai.data.Dataset(manifest.to_datalist("ct", "xray", "report"), chain)
    assert first["ct"].shape == (1, 8, 8, 8) and 0 <= float(first["ct"].min()) and float(first["ct"].max()) <= 1
    assert "ct" not in second and second["xray"].shape == (1, 40, 40) and second["report"].startswith("A nodule")


def test_the_list_says_what_the_table_says(manifest: Manifest) -> None:
    first, second = manifest.to_datalist()
    assert set(first) == {"study_id", "subject_id", "ct", "ct_given", "xray", "eeg", "report", "table", "label_sick"}
    assert set(second) == {"study_id", "subject_id", "xray", "report", "table"}
    assert (
        first["ct"] == manifest.root / "a.nii.gz"
        and first["report"].startswith("No acute")
        and first["label_sick"] == 1
    )
    assert [entry["study_id"] for entry in (first, second)] == list(manifest.study_codes)
    with pytest.raises(KeyError, match="no modality 'mri'"):
        manifest.to_datalist("mri")
