"""A road of MONAI's transforms: what is prepared once, what is drawn by a number, and what never leaves it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    OneOf,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandShiftIntensityd,
    RandSpatialCropd,
    ScaleIntensityRanged,
    Spacingd,
    ThresholdIntensityd,
)

from medssml.config import ConfigError, describe
from medssml.transforms import LoadCTd, LoadReportd, LoadXrayd, Road, Tokenized
from medssml.transforms.keyed import Keyed
from medssml.transforms.road import RoadError, built_road

WINDOW: dict[str, Any] = {"a_min": -1000, "a_max": 400, "b_min": 0, "b_max": 1, "clip": True}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    hu = np.random.default_rng(0).integers(-1000, 300, (20, 20, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def ct_road(*steps: Any, size: int = 12) -> Road:
    return Road("ct", [LoadCTd("ct", (1, 1, 1), (size, size, size)), *steps])


def test_the_loader_alone_is_stored_as_it_always_was(volume: Path) -> None:
    """int16 HU, by a part that knows nothing of MONAI: what processes that prepare files have to import."""
    road = ct_road(RandFlipd("ct", prob=0.5), ScaleIntensityRanged("ct", **WINDOW))
    assert set(road.prepare(volume)) == {"hu", "notes"} and road.prepare(volume)["hu"].dtype == np.int16
    assert type(road.preparation).__module__ == "medssml.transforms.ct"
    assert b"monai" not in pickle.dumps(road.preparation)
    assert len(road.training.transforms) == 2 and len(road.evaluation.transforms) == 1


def test_deterministic_steps_before_the_first_random_one_are_stored(volume: Path) -> None:
    window, crop = ScaleIntensityRanged("ct", **WINDOW), CenterSpatialCropd("ct", (8, 8, 8))
    road = ct_road(window, RandFlipd("ct", prob=1.0, spatial_axis=0), crop)
    prepared = road.prepare(volume)
    assert prepared["ct"].shape == (1, 12, 12, 12) and 0 <= prepared["ct"].min() and prepared["ct"].max() <= 1
    assert [type(step) for step in road.evaluation.transforms] == [CenterSpatialCropd]
    whole = Compose([LoadCTd("ct", (1, 1, 1), (12, 12, 12)), window, crop])({"ct": volume})["ct"]
    assert torch.equal(road(prepared), whole.as_tensor()) and torch.equal(road(prepared, 1), whole.as_tensor().flip(1))


def test_steps_that_are_stored_may_use_the_geometry_of_the_file(volume: Path) -> None:
    spaced = ct_road(Spacingd("ct", (2, 2, 2)), RandFlipd("ct", prob=0.0))
    assert spaced.prepare(volume)["ct"].shape == (1, 6, 6, 6)
    with pytest.raises(ValueError, match="Spacingd needs the geometry of the file; fix: put it before"):
        ct_road(RandFlipd("ct"), Spacingd("ct", (2, 2, 2)))


def node(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": {"keys": "ct", **arguments}}


def test_what_is_stored_depends_on_the_stored_steps_and_on_no_others() -> None:
    def spec(*nodes: dict[str, Any], **load: Any) -> dict[str, Any]:
        return built_road("ct", [node("LoadCTd", size=[8, 8, 8], **load), *nodes]).spec()

    window, flip = node("monai.transforms.ScaleIntensityRanged", **WINDOW), node("monai.transforms.RandFlipd", prob=0.5)
    wider = node("monai.transforms.ScaleIntensityRanged", **{**WINDOW, "a_max": 600})
    assert spec(flip, window) == spec(flip, wider) == spec(node("monai.transforms.RandFlipd", prob=0.1))
    specs = [
        spec(flip),
        spec(window, flip),
        spec(wider, flip),
        spec(flip, outside=-2000),
        spec(flip, spacing=[1, 1, 1]),
    ]
    assert all(one != other for i, one in enumerate(specs) for other in specs[:i])
    assert "monai" in spec(window, flip)["versions"] and "monai" not in spec(flip)["versions"]


def test_plain_tensors_leave_the_road_whatever_monai_keeps(volume: Path) -> None:
    loaded = LoadCTd("ct", (1, 1, 1), (8, 8, 8))({"ct": volume})["ct"]
    assert isinstance(loaded, MetaTensor) and get_track_meta()
    for road in (ct_road(RandFlipd("ct")), ct_road(ScaleIntensityRanged("ct", **WINDOW))):
        for seed in (None, 3):
            out = road(road.prepare(volume), seed)
            assert type(out) is torch.Tensor and out.dtype == torch.float32
    assert get_track_meta()


def test_meta_data_is_in_monais_words_and_names_no_path(volume: Path) -> None:
    loaded = LoadCTd("ct", (2, 2, 2), (4, 4, 4))({"ct": volume})["ct"]
    centre = loaded.affine.numpy() @ [1.5, 1.5, 1.5, 1]
    np.testing.assert_allclose(centre[:3], 9.5)
    assert loaded.meta["spacing"].tolist() == [2, 2, 2] and loaded.pixdim.tolist() == [2, 2, 2]
    assert str(volume.parent) not in repr(loaded.meta) and "a.nii" not in repr(loaded.meta)


def test_a_step_that_writes_in_place_does_not_change_what_was_prepared() -> None:
    class InPlace(ThresholdIntensityd):
        def __call__(self, data: Any) -> Any:
            torch.as_tensor(data["ct"]).mul_(0)
            return data

    stored = np.full((4, 4, 4), 7, np.int16)
    stored.setflags(write=False)
    road = Road("ct", [LoadCTd("ct", (1, 1, 1), (4, 4, 4)), RandFlipd("ct"), InPlace("ct", 0.0)])
    assert float(road({"hu": stored}, 1).abs().max()) == 0 and (stored == 7).all()


def nested() -> Compose:
    """Random parts beside, inside and inside of inside."""
    inner = OneOf([RandGaussianNoised("ct", prob=1.0), Compose([RandShiftIntensityd("ct", 3.0, prob=1.0)])])
    return Compose([RandSpatialCropd("ct", (4, 4, 4), random_size=False), inner, RandFlipd("ct", prob=0.5)])


def test_monais_generator_is_shared_until_it_is_set() -> None:
    """The trap that `Keyed` closes: made, not set, two transforms draw from one generator of the class."""
    one, other = RandFlipd("ct"), RandShiftIntensityd("ct", 1.0)
    assert one.R is other.R is Randomizable.R
    Keyed(Compose([one, other]))
    assert one.R is not other.R and one.R is not Randomizable.R


def test_one_number_sets_all_that_is_drawn_as_monai_sets_it() -> None:
    data = {"ct": torch.rand(1, 8, 8, 8)}
    ours, theirs = nested(), nested()
    seed = Keyed(ours)
    drawn = []
    for number in (5, 2**62 + 11, 5):
        np.random.seed(len(drawn))  # noqa: NPY002, the global generator must not matter
        seed(number)
        drawn.append(ours(data)["ct"])
        ours(data), ours(data)  # whatever was drawn since
        theirs.set_random_state(seed=number)
        assert torch.equal(drawn[-1], theirs(data)["ct"])
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_a_nested_road_is_drawn_by_its_number_alone() -> None:
    prepared = {"hu": np.random.default_rng(0).integers(-900, 300, (8, 8, 8)).astype(np.int16)}
    one, other = (Road("ct", [LoadCTd("ct", (1, 1, 1), (8, 8, 8)), *nested().transforms]) for _ in range(2))
    for seed in range(5):
        other(prepared, seed + 100)
        assert torch.equal(one(prepared, seed), other(prepared, seed))
    copied = copy.deepcopy(one)
    assert torch.equal(copied(prepared, 3), one(prepared, 3))


def test_inside_a_plain_compose_only_what_is_random_is_left_out_in_evaluation() -> None:
    inner = Compose([RandShiftIntensityd("ct", 50.0, prob=1.0), CenterSpatialCropd("ct", (4, 4, 4))], map_items=False)
    road = ct_road(inner, size=8)
    prepared = {"hu": np.zeros((8, 8, 8), np.int16)}
    assert road(prepared).shape == (1, 4, 4, 4) and float(road(prepared).abs().max()) == 0
    assert float(road(prepared, 1).abs().max()) > 0


def test_a_road_is_its_config() -> None:
    same = node("monai.transforms.Identityd")
    nodes = [
        node("LoadCTd", size=[8, 8, 8]),
        node("monai.transforms.RandFlipd", prob=0.5, spatial_axis=0),
        {
            "class_path": "monai.transforms.OneOf",
            "init_args": {"transforms": [node("monai.transforms.RandGaussianNoised", prob=1.0), same]},
        },
    ]
    road = built_road("ct", nodes)
    assert describe(road) == nodes
    prepared = {"hu": np.random.default_rng(0).integers(-900, 300, (8, 8, 8)).astype(np.int16)}
    assert torch.equal(built_road("ct", describe(road))(prepared, 4), road(prepared, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a RandFlipd cannot be written to a config; fix: .*medssml\.config\.build"):
        describe(ct_road(RandFlipd("ct")))


def test_what_is_no_road_is_told() -> None:
    with pytest.raises(ValueError, match="road of ct begins with a loader of key 'ct'"):
        Road("ct", [RandFlipd("ct")])
    with pytest.raises(ValueError, match="begins with a loader of key 'xray'"):
        Road("xray", [LoadXrayd("image")])
    with pytest.raises(ValueError, match="int is no transform of MONAI"):
        Road("ct", [LoadCTd("ct"), 3])
    with pytest.raises(ConfigError, match=r"key 'transforms\.ct': the road of ct begins"):
        built_road("ct", [node("monai.transforms.RandFlipd")], at="transforms.ct")
    text = {"text": np.frombuffer(b"No findings.", np.uint8)}
    with pytest.raises(RoadError, match="ends in a str, expected a tensor; fix: its last step, such as Tokenized"):
        Road("report", [LoadReportd()])(text)
    with pytest.raises(RoadError, match=r"transforms\.report: Tokenized: the report vocabulary is not learned yet"):
        Road("report", [LoadReportd(), Tokenized()])(text)


def test_a_step_that_fails_is_named_in_one_line() -> None:
    road = ct_road(RandSpatialCropd("ct", (4, 4, 4, 4), random_size=False))
    with pytest.raises(RoadError, match=r"^transforms\.ct: RandSpatialCropd: ") as caught:
        road({"hu": np.zeros((8, 8, 8), np.int16)}, 1)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
