"""Any network of MONAI as an encoder, by its name in a config."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medssml.config import ConfigError, build, describe
from medssml.encoders import NetworkEncoder


def network(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"monai.networks.nets.{name}", "init_args": arguments}


def encoder(node: dict[str, Any], **arguments: Any) -> NetworkEncoder:
    built: NetworkEncoder = build({"class_path": "NetworkEncoder", "init_args": {"network": node, **arguments}})
    return built


FLAT = {"spatial_dims": 2, "in_channels": 1}
BLOCKS = {"img_size": [16, 16], "patch_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("node", "size", "tokens"),
    [
        (network("DenseNet", **FLAT, out_channels=5, block_config=[2, 2], growth_rate=8), (32, 32), (1, 5)),
        (network("UNet", **FLAT, out_channels=4, channels=[4, 8], strides=[2]), (16, 16), (64, 4)),
        (network("ViT", **FLAT, **BLOCKS), (16, 16), (4, 24)),
        (network("ResNetFeatures", **FLAT, model_name="resnet10", pretrained=False), (64, 64), (4, 512)),
    ],
)
def test_vectors_maps_tokens_and_lists_of_maps(
    node: dict[str, Any], size: tuple[int, ...], tokens: tuple[int, int]
) -> None:
    made = encoder(node, input_size=list(size))
    inputs = torch.randn(3, 1, *size)
    out = made(inputs)
    assert out.tokens.shape == (3, *tokens) and out.pooled.shape == (3, made.dim) == (3, tokens[1])
    again = build(describe(made))
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(again.eval()(inputs).pooled, made.eval()(inputs).pooled)


def test_no_row_sees_another_although_the_network_has_batch_norms() -> None:
    torch.manual_seed(0)
    node = network("UNet", spatial_dims=2, in_channels=1, out_channels=4, channels=[4, 8], strides=[2], norm="batch")
    inputs = torch.randn(4, 1, 16, 16)
    made = encoder(node, input_size=[16, 16]).train()
    torch.testing.assert_close(made(inputs).pooled[:1], made(inputs[:1]).pooled)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in encoder(node, input_size=[16, 16], norm="own").modules())


def test_a_network_that_does_not_fit_is_refused_when_it_is_built() -> None:
    node = network("UNet", spatial_dims=3, in_channels=2, out_channels=4, channels=[4, 8], strides=[2])
    with pytest.raises(ConfigError, match=r"UNet does not take an image \(1, 16, 16, 16\): .*; fix: change input_size"):
        encoder(node, input_size=[16, 16, 16])
    with pytest.raises(ValueError, match="norm 'batch'; accepted: group, own"):
        NetworkEncoder(nn.Flatten(), (4, 4), norm="batch")


@pytest.mark.parametrize(("size", "cut"), [((12,), None), ((12, 8), (12, 8)), ((12, 8, 4), (12, 8, 4))])
def test_images_have_parts_and_numbers_in_a_row_have_none(size: tuple[int, ...], cut: tuple[int, ...] | None) -> None:
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(8))
    encoder = NetworkEncoder(flat, size)
    part = encoder.crop(torch.rand(3, 1, *size), 0.5, torch.rand(3, 3))
    assert (None if part is None else part.shape[2:]) == cut
