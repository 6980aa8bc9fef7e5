"""Arrays in memory give what the file with the same content gives, and what is missing or in another unit is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from medssml.readers.arrays import held_ct, held_eeg, held_xray
from medssml.readers.ct import read_ct
from medssml.readers.eeg import read_eeg
from medssml.readers.errors import ReadError
from medssml.readers.xray import read_xray


def body() -> np.ndarray[Any, np.dtype[np.int16]]:
    """(8, 9, 10) HU: air with water in it, nothing symmetric."""
    hu = np.full((8, 9, 10), -1000, np.int16)
    hu[2:7, 3:8, 1:6] = np.arange(125, dtype=np.int16).reshape(5, 5, 5)
    return hu


#: A volume whose axes run left, front, head, with an origin.
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 3.0, 7], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import nibabel

    path = tmp_path_factory.mktemp("ct") / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(body(), AFFINE), path)
    return path


@pytest.mark.parametrize("form", ["nibabel", "pair", "tensor", "meta", "lps", "with a channel"])
def test_a_volume_is_that_of_its_file(form: str, nifti: Path) -> None:
    import nibabel

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    given: Any = {
        "nibabel": lambda: nibabel.load(nifti),
        "pair": lambda: (body(), AFFINE),
        "tensor": lambda: (torch.from_numpy(body()), torch.from_numpy(AFFINE)),
        "meta": lambda: MetaTensor(torch.from_numpy(body())[None].float(), affine=torch.from_numpy(AFFINE)),
        "lps": lambda: MetaTensor(torch.from_numpy(body()), affine=torch.from_numpy(lps), meta={"space": "LPS"}),
        "with a channel": lambda: (body()[..., None].astype(np.float64), AFFINE.tolist()),
    }[form]()
    expected, found = read_ct(nifti), held_ct("ct", given)
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.affine, expected.affine)
    np.testing.assert_allclose(found.spacing, [2.0, 1.5, 3.0])


def test_a_spacing_alone_is_that_of_axes_to_the_right_the_front_and_the_head() -> None:
    found = held_ct("ct", (body(), (2, 1.5, 3)))
    np.testing.assert_array_equal(found.array, body())
    assert found.spacing.tolist() == [2.0, 1.5, 3.0] and held_ct("ct", found) is found


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (
            body(),
            ValueError,
            r"ct is an array \(8, 9, 10\) without the size of its voxels.*fix: \(array, \(sx, sy, sz\)\)",
        ),
        (torch.from_numpy(body()), ValueError, "without the size of its voxels"),
        ((body()[0], (1, 1, 1)), ValueError, r"\(9, 10\), expected \(X, Y, Z\)"),
        ((body(), (1, 1)), ValueError, r"\(1, 1\) as its geometry; fix"),
        ((body(), (1, 0, 1)), ValueError, "as its geometry; fix"),
        ((body(), "1mm"), ValueError, "'1mm' as its geometry; fix"),
        ((body(), (0.001, 1, 1)), ReadError, "voxel spacing"),
        ((body() / 1000.0, (1, 1, 1)), ReadError, "are not HU"),
        ((np.where(body() > 0, np.nan, body()), (1, 1, 1)), ReadError, "NaN or infinite"),
        (3.5, TypeError, "ct is a float; fix: the path of a file, or"),
    ],
)
def test_a_volume_that_cannot_be_used_says_why(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        held_ct("ct", value)


@pytest.mark.parametrize("form", ["array", "tensor", "picture", "with a channel", "scaled"])
def test_a_radiograph_is_that_of_its_file(form: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    given: Any = {
        "array": pixels,
        "tensor": torch.from_numpy(pixels.astype(np.int64)),
        "picture": Image.open(tmp_path / "x.png"),
        "with a channel": pixels[None],
        "scaled": pixels / 4095.0,
    }[form]
    np.testing.assert_allclose(held_xray("xray", given).array, read_xray(tmp_path / "x.png").array, rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (np.ones((3, 40, 30)), ValueError, r"\(3, 40, 30\), expected \(H, W\)"),
        (np.linspace(0, 4095, 1200).reshape(40, 30), ValueError, "decimals from 0 to 4095; fix: .*whole numbers"),
        (np.arange(1200).reshape(40, 30) - 5, ValueError, "whole numbers from -5"),
        (np.full((40, 30), np.nan), ValueError, "from nan"),
        (np.zeros((40, 30)), ReadError, "no picture"),
        ("a", TypeError, "xray is a str; fix: the path of a file, or an array"),
    ],
)
def test_a_radiograph_that_cannot_be_used_says_why(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        held_xray("xray", value)


NAMES = ("Fp1", "C3", "T3", "ECG")


def signal() -> np.ndarray[Any, np.dtype[np.float64]]:
    """(4, 1000) uV."""
    return np.random.default_rng(1).normal(0, 20, (4, 1000))


def test_a_recording_is_that_of_its_file(tmp_path: Path) -> None:
    import edfio

    channels = [
        edfio.EdfSignal(row, 250, label=label, physical_dimension="uV", physical_range=(-200, 200))
        for row, label in zip(signal(), NAMES, strict=True)
    ]
    edfio.Edf(channels).write(tmp_path / "a.edf")
    expected, found = read_eeg(tmp_path / "a.edf"), held_eeg("eeg", (signal(), 250, NAMES))
    assert found.channels == expected.channels == ("Fp1", "C3", "T7") and found.sfreq == 250.0
    np.testing.assert_allclose(found.signal, expected.signal, atol=0.01)
    assert held_eeg("eeg", found) is found


def test_the_objects_of_mne_are_in_volts() -> None:
    class Raw:
        ch_names = list(NAMES)
        info = {"sfreq": 250.0}

        def get_data(self) -> Any:
            return signal() * 1e-6

    np.testing.assert_allclose(held_eeg("eeg", Raw()).signal, held_eeg("eeg", (signal(), 250, NAMES)).signal, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (signal(), TypeError, "an array without its rate and channels; fix"),
        ((signal(), 250), TypeError, "eeg is a tuple; fix"),
        ((signal(), 250, NAMES[:2]), ValueError, r"\(4, 1000\) with 2 names, expected \(C, T\) with C"),
        ((signal().T, 250, NAMES), ValueError, r"\(1000, 4\) with 4 names"),
        ((signal(), "250 Hz", NAMES), ValueError, "'250 Hz' as its rate"),
        ((signal() * 1e-6, 250, NAMES), ValueError, r"cannot be in uV as it is; fix: multiply by 1e\+06"),
        ((signal(), 250, list("wxyz")), ReadError, "eeg .array."),
        ((np.zeros((4, 1000)), 250, NAMES), ReadError, "no signal"),
        ((signal()[:, :0], 250, NAMES), ReadError, "no sample"),
    ],
)
def test_a_recording_that_cannot_be_used_says_why(value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        held_eeg("eeg", value)
