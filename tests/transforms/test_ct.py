"""CT: millimetres and Hounsfield units survive; nothing is stretched, turned or mixed up."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medssml.config import describe
from medssml.transforms import CTTransform
from medssml.transforms.base import notes_of
from medssml.transforms.ct import OUTSIDE, crop_to_field, resample, thin
from medssml.transforms.road import built_road

AIR, TISSUE = -1000.0, 40.0


def ball(
    shape: tuple[int, ...], spacing: tuple[float, ...], radius: float, centre: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    """HU of a ball about `centre` mm from the middle; edges share their voxels by distance."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm - c for n, mm, c in zip(shape, spacing, centre, strict=True)]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    share = np.clip((radius - distance) / np.mean(spacing) + 0.5, 0, 1)
    return (AIR + (TISSUE - AIR) * share).astype(np.float32)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.rint(array).astype(np.int16), affine), path)
    return path


def volume_mm3(hu: np.ndarray, spacing: tuple[float, ...]) -> float:
    share = (np.clip(hu, AIR, TISSUE).astype(float) - AIR) / (TISSUE - AIR)
    return float(share.sum() * math.prod(spacing))


@pytest.mark.parametrize("target", [(1.0, 1.0, 1.0), (0.8, 0.8, 1.2), (2.0, 2.0, 2.0)])
@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((0.7, 0.7, 2.5), (90, 80, 26)), ((1.0, 1.0, 1.0), (64, 60, 62)), ((0.5, 0.5, 0.5), (128, 120, 124))],
)
def test_a_ball_keeps_its_volume(tmp_path: Path, spacing: tuple, shape: tuple, target: tuple) -> None:
    """A ball of 20 mm is 4,189 mm3, whatever the voxels of the scan and of the transform."""
    path = save(tmp_path / "a.nii.gz", ball(shape, spacing, 10.0), np.diag([*spacing, 1.0]))
    stored = CTTransform(target, (40, 40, 32), margin=2).prepare(path)["hu"]
    assert volume_mm3(stored, target) == pytest.approx(4 / 3 * math.pi * 10**3, rel=0.04)


def test_a_large_and_a_small_ball_stay_large_and_small(tmp_path: Path) -> None:
    sizes = []
    for radius in (4.0, 8.0):
        path = save(
            tmp_path / f"{radius}.nii", ball((60, 60, 24), (0.7, 0.7, 2.5), radius), np.diag([0.7, 0.7, 2.5, 1])
        )
        sizes.append(volume_mm3(CTTransform((1, 1, 1), (40, 40, 40)).prepare(path)["hu"], (1, 1, 1)))
    assert sizes[1] / sizes[0] == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL", "LAS"])
def test_an_asymmetric_body_keeps_its_sides(tmp_path: Path, codes: str) -> None:
    """Marks right, front and head: each must lie at the far end of its axis, however the file stores its axes."""
    body = np.full((30, 34, 26), AIR, dtype=np.float32)
    body[26:30, 17, 13], body[15, 29:34, 13], body[15, 17, 20:26] = 100, 400, 800
    image = nibabel.Nifti1Image(body.astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    ornt = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(ornt), tmp_path / "a.nii.gz")
    hu = CTTransform((2, 2, 2), (30, 34, 26), margin=0).prepare(tmp_path / "a.nii.gz")["hu"]
    np.testing.assert_array_equal(hu, body.astype(np.int16))


def test_the_grid_is_centred_and_linear() -> None:
    """A ramp in mm comes back as the same ramp: reference values without any resampling code."""
    affine = np.diag([0.7, 0.9, 2.5, 1.0])
    affine[:3, 3] = [-20, 13, 5]
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (50, 44, 16)], indexing="ij"), axis=-1)
    world = grid @ affine[:3, :3] + affine[:3, 3]
    ramp = (10 * world[..., 0] - 7 * world[..., 1] + 4 * world[..., 2]).astype(np.float32)
    centre = affine[:3, :3] @ ((np.array([50, 44, 16]) - 1) / 2) + affine[:3, 3]
    hu, inside = resample(ramp, affine, centre, (1, 1, 1), (20, 22, 24))
    axes = [centre[a] + np.arange(n) - (n - 1) / 2 for a, n in enumerate((20, 22, 24))]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    assert inside == 1.0
    np.testing.assert_allclose(hu, 10 * x - 7 * y + 4 * z, atol=0.51)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("turned", [False, True])
def test_it_is_what_monai_resamples(order: tuple[int, int, int], turned: bool) -> None:
    """Against MONAI's general resampling, for an oblique volume too, however the volume lies in memory."""
    from monai.data import MetaTensor
    from monai.transforms import ResampleToMatch

    rng = np.random.default_rng(0)
    array = rng.integers(-1000, 1500, (30, 26, 14)).astype(np.int16)
    laid = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    turn = np.eye(3)
    if turned:
        turn[:2, :2] = [[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn @ np.diag([0.8, 1.3, 2.5]), [-20, 13, 5]
    centre = affine[:3, :3] @ np.array([13.0, 11.5, 7.2]) + affine[:3, 3]
    spacing, shape = (1.1, 0.9, 1.5), (24, 40, 18)
    hu, inside = resample(laid, affine, centre, spacing, shape)

    grid = np.eye(4)
    grid[:3, :3] = turn * np.array(spacing)
    grid[:3, 3] = centre - grid[:3, :3] @ ((np.array(shape) - 1) / 2)
    volume = MetaTensor(torch.from_numpy(array.astype(np.float32))[None], affine=torch.from_numpy(affine))
    like = MetaTensor(torch.empty(1, *shape), affine=torch.from_numpy(grid))
    expected = ResampleToMatch("bilinear", "border", dtype=torch.float64)(volume, like)[0].numpy()
    kept = hu != OUTSIDE
    assert 0.5 < inside == kept.mean() < 1
    np.testing.assert_allclose(hu[kept], expected[kept], atol=0.51)


def test_a_volume_of_one_voxel_or_beside_the_grid() -> None:
    one = np.full((1, 1, 1), 40, np.int16)
    hu, inside = resample(one, np.eye(4), np.zeros(3), (0.5, 0.5, 0.5), (3, 3, 3))
    assert (hu == 40).all() and inside == 1.0
    hu, inside = resample(one, np.eye(4), np.array([50.0, 0, 0]), (1, 1, 1), (3, 3, 3))
    assert (hu == OUTSIDE).all() and inside == 0.0


def test_only_the_field_is_resampled_and_it_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(-900, 200, (120, 110, 60)).astype(np.float32)
    affine = np.diag([0.9, 0.9, 1.3, 1.0])
    part, moved, centre = crop_to_field(array, affine, (1, 1, 1), (24, 24, 24))
    assert part.size < array.size / 8
    whole = resample(array, affine, centre, (1, 1, 1), (24, 24, 24))[0]
    np.testing.assert_allclose(resample(part, moved, centre, (1, 1, 1), (24, 24, 24))[0], whole, atol=1)


def test_thinning_keeps_the_mean_and_the_place() -> None:
    array = ball((80, 80, 80), (0.5, 0.5, 0.5), 9.0, (3, -2, 1))
    thinned, affine = thin(array, np.diag([0.5, 0.5, 0.5, 1.0]), (2, 2, 2))
    assert thinned.shape == (20, 20, 20) and thinned.mean() == pytest.approx(array.mean(), abs=0.01)

    def middle(values: np.ndarray, mm: np.ndarray) -> np.ndarray:
        weight = (values - AIR).astype(np.float64)
        index = np.stack(np.meshgrid(*[np.arange(n) for n in values.shape], indexing="ij"), axis=-1)
        return ((index @ mm[:3, :3] + mm[:3, 3]) * weight[..., None]).sum((0, 1, 2)) / weight.sum()

    np.testing.assert_allclose(middle(thinned, affine), middle(array, np.diag([0.5, 0.5, 0.5, 1.0])), atol=0.02)


def test_outside_the_scan_is_air_and_said(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.full((20, 20, 10), 30.0) + np.linspace(-1030, 0, 20)[:, None, None], np.eye(4))
    transform = CTTransform((1, 1, 1), (40, 40, 40), window=(-1000, 400), margin=2)
    prepared = transform.prepare(path)
    assert prepared["hu"].dtype == np.int16 and prepared["hu"].shape == (44, 44, 44)
    assert (prepared["hu"] == -2048).mean() > 0.9
    assert any("5% of the field" in note for note in notes_of(prepared))
    for seed in (None, 0):
        out = transform(prepared, seed)
        assert out[0, 0, 0, 0] == 0 and 0 <= out.min() and out.max() <= 1


def test_the_window(tmp_path: Path) -> None:
    transform = CTTransform((1, 1, 1), (4, 4, 4), window=(-100, 300), margin=0)
    hu = np.full((4, 4, 4), 100, np.int16)
    hu[0], hu[1] = -500, 900
    out = transform({"hu": hu})
    assert type(out) is torch.Tensor and out.shape == (1, 4, 4, 4) and out.dtype == torch.float32
    assert out[0, :, 0, 0].tolist() == [0.0, 1.0, 0.5, 0.5]


def test_augmentation_is_keyed_and_small() -> None:
    transform = CTTransform((1, 1, 1), (20, 20, 20), margin=3)
    prepared = {"hu": np.random.default_rng(0).integers(-900, 300, (26, 26, 26)).astype(np.int16)}
    one, same, other = (transform(prepared, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    still = CTTransform((1, 1, 1), (20, 20, 20), margin=0, noise=20, jitter=20)
    inner = {"hu": prepared["hu"][3:-3, 3:-3, 3:-3]}
    assert float((still(inner, 3) - still(inner)).abs().mean()) < 60 / 1400


def test_a_chest_is_not_mirrored_but_a_nodule_may_be() -> None:
    hu = np.full((9, 9, 9), 0, np.int16)
    hu[0] = 300
    quiet = {"margin": 0, "noise": 1e-6, "jitter": 0.0}
    chest = CTTransform((1, 1, 1), (9, 9, 9), **quiet)
    nodule = CTTransform((1, 1, 1), (9, 9, 9), flip_axes=(0, 1, 2), rotate90=True, **quiet)
    assert all(torch.allclose(chest({"hu": hu}, i), chest({"hu": hu})) for i in range(8))
    seen = {
        tuple(nodule({"hu": hu}, i)[0, [0, -1, 4, 4], [4, 4, 0, -1], 4].round(decimals=3).tolist()) for i in range(40)
    }
    assert len(seen) == 4


def test_what_the_cache_depends_on() -> None:
    base = CTTransform((1, 1, 1), (8, 8, 8)).spec()
    assert base == CTTransform((1, 1, 1), (8, 8, 8), window=(-160, 240), noise=0, flip_axes=(0,)).spec()
    assert base != CTTransform((1, 1, 1.5), (8, 8, 8)).spec()
    assert base != CTTransform((1, 1, 1), (8, 8, 9)).spec()
    assert base != CTTransform((1, 1, 1), (8, 8, 8), margin=5).spec()
    assert set(base["versions"]) >= {"nibabel", "numpy"}


def test_it_is_its_config() -> None:
    transform = CTTransform((1, 1, 1), (48, 48, 40), flip_axes=(0, 1, 2))
    again = built_road("ct", describe(transform))
    assert again.spec() == transform.spec() and describe(again) == describe(transform)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (8, 8)},
        {"spacing": (0, 1, 1)},
        {"window": (400, -1000)},
        {"window": (-2000, 0)},
        {"flip_axes": (3,)},
        {"margin": -1},
    ],
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValueError):
        CTTransform(**wrong)
