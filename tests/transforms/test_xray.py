"""Radiograph: aspect, sides and contrast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medssml.config import describe
from medssml.transforms import XrayTransform
from medssml.transforms.road import built_road


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def picture(height: int, width: int) -> np.ndarray:
    """Dark below, bright at the upper left: no two corners alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.clip(200 - 150 * rows / height - 30 * columns / width, 0, 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_row_0_is_the_head_and_column_0_stays_left(tmp_path: Path, dtype: type) -> None:
    array = picture(90, 90)
    array[5:15, 5:15] = 255
    scaled = array * (1 if dtype is np.uint8 else 200)
    out = XrayTransform(45)(XrayTransform(45).prepare(save(tmp_path / "a.png", scaled.astype(dtype))))
    assert type(out) is torch.Tensor and out.shape == (1, 45, 45) and out.dtype == torch.float32
    assert out[0, 5, 5] > 0.97 and out[0, 5, 5] > out[0, 5, 40] > out[0, 40, 40]
    assert out[0, :8].mean() > out[0, -8:].mean() + 0.4


def test_a_circle_stays_a_circle(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:200, 0:120]
    circle = np.where((rows - 100) ** 2 + (columns - 60) ** 2 < 40**2, 255, 10).astype(np.uint8)
    circle[0] = 5
    path = save(tmp_path / "a.png", circle)
    out = XrayTransform(100)(XrayTransform(100).prepare(path))[0]
    height, width = (out > 0.5).any(1).sum(), (out > 0.5).any(0).sum()
    assert abs(int(height) - int(width)) <= 1 and abs(int(height) - 40) <= 1
    assert (out[:, :18] == 0).all() and (out[:, -18:] == 0).all()
    cropped = XrayTransform(100, fit="crop")
    assert int((cropped(cropped.prepare(path))[0] > 0.5).any(1).sum()) == pytest.approx(67, abs=2)


def test_fine_stripes_do_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 200
    stripes[0, 1] = 90  # two values alone would be a drawing
    transform = XrayTransform(64, percentiles=None)
    out = transform(transform.prepare(save(tmp_path / "a.png", stripes)))[0, 8:-8, 8:-8]
    assert float(out.std()) < 0.01 and float(out.mean()) == pytest.approx(100 / 255, abs=0.01)


def test_contrast_does_not_depend_on_outliers_or_depth(tmp_path: Path) -> None:
    array = picture(200, 200)
    spots = array.copy()
    spots[:2, :20] = 255
    transform = XrayTransform(64)
    plain = transform(transform.prepare(save(tmp_path / "a.png", array.astype(np.uint8))))
    spotted = transform(transform.prepare(save(tmp_path / "b.png", spots.astype(np.uint8))))
    deep = transform(transform.prepare(save(tmp_path / "c.png", (array * 256).astype(np.uint16))))
    assert float((plain - spotted)[:, 4:].abs().max()) < 0.03
    assert float((plain - deep).abs().max()) < 0.02
    assert plain.min() == 0 and plain.max() == 1


def test_augmentation_is_keyed_never_upside_down_and_mirrored_only_on_request() -> None:
    transform = XrayTransform(48)
    prepared = {"gray": (picture(60, 60) * 200).astype(np.uint16)}
    draws = [transform(prepared, seed) for seed in range(30)]
    assert torch.equal(draws[1], transform(prepared, 1)) and not torch.equal(draws[1], draws[2])
    core = [draw[0, 8:-8, 8:-8] for draw in draws]
    assert all(c[:8].mean() > c[-8:].mean() for c in core)
    side = np.tile(np.linspace(60000, 1000, 60), (60, 1)).astype(np.uint16)
    flips = XrayTransform(48, flip=True)
    for maker, kinds in ((transform, {True}), (flips, {True, False})):
        out = [maker({"gray": side}, seed)[0, 8:-8] for seed in range(30)]
        assert {bool(o[:, 8:16].mean() > o[:, -16:-8].mean()) for o in out} == kinds
    assert all(0 <= draw.min() and draw.max() <= 1 for draw in draws)


def test_settings() -> None:
    assert XrayTransform(64).spec() == XrayTransform(64, rotate=0, flip=True).spec() != XrayTransform(65).spec()
    again = built_road("xray", describe(XrayTransform(64, percentiles=None)))
    assert again.spec()["settings"] == {"size": 80, "fit": "pad", "percentiles": None}
    for wrong in ({"crop_scale": 0.3}, {"fit": "stretch"}, {"size": 2}):
        with pytest.raises(ValueError):
            XrayTransform(**wrong)
