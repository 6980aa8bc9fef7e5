"""Which of MONAI's classes a config may name: all of those it lists work, keyed; what reads, writes or calls is refused."""

from __future__ import annotations

import inspect
from typing import Any

import monai.transforms
import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandomizableTransform

from medssml.config import ConfigError, build, resolve
from medssml.monai_names import NETWORKS, TRANSFORMS
from medssml.transforms.keyed import Keyed
from medssml.transforms.road import tracked

FIELD: dict[str, Any] = {"spatial_size": (12, 12, 12), "rand_size": (3, 3, 3)}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Rand2DElasticd": {"spacing": (4, 4), "magnitude_range": (1, 2)},
    "Rand3DElasticd": {"sigma_range": (1, 2), "magnitude_range": (1, 3)},
    "RandAffined": {"rotate_range": [0.2] * 3, "translate_range": [1] * 3},
    "RandCoarseDropoutd": {"holes": 2, "spatial_size": 4},
    "RandCoarseShuffled": {"holes": 2, "spatial_size": 4},
    "RandRotated": {"range_x": 0.3, "range_y": 0.2},
    "RandScaleCropd": {"roi_scale": 0.7},
    "RandScaleIntensityFixedMeand": {"factors": 0.3},
    "RandScaleIntensityd": {"factors": 0.3},
    "RandShiftIntensityd": {"offsets": 0.3},
    "RandSmoothDeformd": FIELD,
    "RandSmoothFieldAdjustContrastd": FIELD,
    "RandSmoothFieldAdjustIntensityd": FIELD,
    "RandSpatialCropd": {"roi_size": (10, 10, 10)},
    "RandStdShiftIntensityd": {"factors": 0.3},
}
RANDOM = sorted(name for name in TRANSFORMS if name.startswith("Rand") and name != "RandomOrder")


@pytest.mark.parametrize("name", RANDOM)
def test_every_random_transform_hangs_on_its_number_alone(name: str) -> None:
    """And draws what it draws after MONAI's own `set_random_state`."""
    cls, arguments = getattr(monai.transforms, name), dict(ARGUMENTS.get(name, {}))
    if "prob" in inspect.signature(cls).parameters:
        arguments["prob"] = 1.0
    image = torch.rand(1, 12, 12) if name.startswith("Rand2D") else torch.rand(1, 12, 12, 12)
    ours, theirs = Compose([cls("ct", **arguments)]), Compose([cls("ct", **arguments)])
    seed = Keyed(ours)
    drawn = []
    with tracked(False):
        for number in (7, 8, 9, 10, 11, 7):
            np.random.seed(len(drawn))  # noqa: NPY002, the global generator must not matter
            torch.manual_seed(len(drawn))
            seed(number)
            drawn.append(torch.as_tensor(ours({"ct": image.clone()})["ct"]))
            theirs.set_random_state(seed=number)
            assert torch.equal(drawn[-1], torch.as_tensor(theirs({"ct": image.clone()})["ct"]))
    assert torch.equal(drawn[0], drawn[-1])
    assert name == "RandFlipd" or any(not torch.equal(drawn[0], other) for other in drawn[1:-1])


def test_the_names_are_monais() -> None:
    assert all(inspect.isclass(getattr(monai.transforms, name)) for name in TRANSFORMS)
    assert all(issubclass(resolve(f"monai.networks.nets.{name}"), torch.nn.Module) for name in NETWORKS)
    assert issubclass(resolve("monai.transforms.RandFlipd"), RandomizableTransform)


@pytest.mark.parametrize(
    "name",
    [
        "monai.transforms.Lambdad",
        "monai.transforms.RandLambdad",
        "monai.transforms.LoadImaged",
        "monai.transforms.SaveImaged",
        "monai.transforms.WriteFileMappingd",
        "monai.transforms.TorchVisiond",
        "monai.transforms.DataStatsd",
        "monai.transforms.ImageFilterd",
        "monai.bundle.ConfigParser",
        "monai.networks.nets.TorchVisionFCModel",
        "monai.networks.nets.Transchex",
        "monai.networks.nets.torchvision_fc.torch",
        "monai.utils.load_submodules",
    ],
)
def test_what_reads_writes_or_calls_is_refused(name: str) -> None:
    with pytest.raises(KeyError, match="may stand in a config"):
        resolve(name)
    package = name.rpartition(".")[0]
    if name.startswith("monai.transforms"):
        assert resolve(name, (package,)), "with --plugin it is the user's own word"


def test_a_wrong_name_or_value_is_told() -> None:
    with pytest.raises(KeyError, match="did you mean 'RandFlipd'"):
        resolve("monai.transforms.RandFlpd")
    with pytest.raises(TypeError, match="RandFlipd has no argument 'probs'; did you mean 'prob'"):
        build({"class_path": "monai.transforms.RandFlipd", "init_args": {"keys": "ct", "probs": 1}})
    with pytest.raises(ConfigError, match="key 'x', RandFlipd: .*fix: change one of these values"):
        build({"class_path": "monai.transforms.RandFlipd", "init_args": {"keys": "ct", "prob": "often"}}, at="x")


def test_weights_are_not_fetched() -> None:
    efficient = {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1}
    with pytest.raises(ConfigError, match="would fetch weights from the network; fix: pretrained: false"):
        build({"class_path": "monai.networks.nets.EfficientNetBN", "init_args": efficient})
