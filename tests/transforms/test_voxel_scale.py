"""StandardiseVoxelsd: each voxel against the training studies, by figures that a saved model brings along."""

from __future__ import annotations

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from medssml.config import build, describe
from medssml.transforms import LoadCTd, Road, StandardiseVoxelsd, voxel_scale
from medssml.transforms.road import RoadError


def images(n: int = 40, shape: tuple[int, ...] = (1, 3, 4, 5)) -> np.ndarray:
    """Voxels of very different means and spreads."""
    rng = np.random.default_rng(0)
    return rng.normal(rng.uniform(-3, 3, shape), rng.uniform(0.1, 2, shape), (n, *shape))


def learned(values: np.ndarray, floor: float = 0.3) -> StandardiseVoxelsd:
    step = StandardiseVoxelsd("ct", floor=floor)
    assert step.learn(({"ct": torch.from_numpy(image)} for image in values), None) == []
    return step


@pytest.mark.parametrize("floor", [0.01, 0.3])
def test_it_is_the_mean_and_the_spread_of_each_voxel(floor: float) -> None:
    values = images()
    step = learned(values, floor)
    expected = (values - values.mean(0)) / (values.std(0) + floor * values.std(0).mean())
    found = torch.stack([step({"ct": torch.from_numpy(image)})["ct"] for image in values])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=2e-2, rtol=5e-3)


def test_a_saved_model_brings_the_figures_along() -> None:
    step = learned(images())
    again = build(describe(step))
    image = {"ct": torch.from_numpy(images(1)[0])}
    assert torch.equal(again(image)["ct"], step(image)["ct"])
    again.learn([{"ct": torch.zeros(1, 3, 4, 5)}] * 3, None)
    assert torch.equal(again(image)["ct"], step(image)["ct"]), "what was learned stays"


def test_nothing_is_answered_before_it_has_learned_and_nothing_of_another_size() -> None:
    with pytest.raises(ValueError, match="not known yet"):
        StandardiseVoxelsd("ct")({"ct": torch.zeros(1, 3, 4, 5)})
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 6\), learned from images of \(1, 3, 4, 5\)"):
        learned(images())({"ct": torch.zeros(1, 3, 4, 6)})


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([torch.zeros(1, 2, 2)], "1 training study"),
        ([torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)], "bring them to one size"),
        ([torch.zeros(1, 30, 30)] * 2, "900 voxels, at most 100"),
        ([torch.ones(1, 2, 2)] * 3, "no spread"),
    ],
)
def test_what_it_cannot_learn_from_is_refused(
    rows: list[torch.Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voxel_scale, "MOST", 100)
    with pytest.raises(ValueError, match=reason):
        StandardiseVoxelsd("ct").learn([{"ct": row} for row in rows], None)


def _text(size: str, values: np.ndarray) -> str:
    return f"{size}:{base64.b64encode(zlib.compress(values.astype('<f2').tobytes())).decode()}"


@pytest.mark.parametrize(
    "fitted",
    [
        "",
        "2x2:%%%",
        "2x2:" + base64.b64encode(b"no zlib").decode(),
        _text("2x2", np.ones(7)),
        _text("2x2", np.ones(9)),
        _text("2x2", np.full(8, np.nan)),
        _text("2x2", np.zeros(1 << 22)),
        _text("two", np.ones(8)),
    ],
)
def test_damaged_figures_are_refused(fitted: str) -> None:
    with pytest.raises(ValueError, match="fitted is damaged"):
        StandardiseVoxelsd("ct", fitted=fitted)


def test_a_text_of_zeros_does_not_fill_the_memory() -> None:
    fitted = _text("2x2", np.zeros(1 << 26))
    tracemalloc.start()
    with pytest.raises(ValueError, match="fitted is damaged"):
        StandardiseVoxelsd("ct", fitted=fitted)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 22


@pytest.mark.parametrize("floor", [0, -1, float("nan"), float("inf")])
def test_a_floor_that_divides_by_nothing_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match="floor"):
        StandardiseVoxelsd("ct", floor=floor)


def test_in_a_road_the_refusal_names_the_modality_and_the_step() -> None:
    road = Road("ct", [LoadCTd("ct", (1, 1, 1), (4, 4, 4)), StandardiseVoxelsd("ct")])
    with pytest.raises(RoadError, match=r"transforms\.ct: StandardiseVoxelsd: 1 training study"):
        road.fit_training([{"hu": np.zeros((4, 4, 4), np.int16)}])
