"""What is changed in networks of others: their values stay, but for the norms."""

import subprocess
import sys

import pytest
import torch
from monai.networks.nets.resnet import ResNet as MonaiResNet
from monai.networks.nets.resnet import ResNetBlock
from torch import nn

from medssml.encoders.surgery import replace_batch_norms, subsample_before_pointwise


def network() -> nn.Module:
    torch.manual_seed(0)
    net = MonaiResNet(ResNetBlock, [1, 1, 1, 1], [8, 16, 16, 16], spatial_dims=2, n_input_channels=1, num_classes=3)
    return net.double()


def strided_pointwise(net: nn.Module) -> list[str]:
    """Names of the convolutions of one pixel that have a stride."""
    return [
        name
        for name, part in net.named_modules()
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.stride != (1, 1)
    ]


def test_subsampling_before_a_convolution_of_one_pixel_changes_no_value_no_gradient_and_no_name() -> None:
    plain, changed = network(), network()
    assert len(strided_pointwise(plain)) == 3
    subsample_before_pointwise(changed)
    assert strided_pointwise(changed) == [] and list(changed.state_dict()) == list(plain.state_dict())
    x = torch.randn(3, 1, 37, 40, dtype=torch.float64)
    found, expected = changed(x), plain(x)
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    for (name, one), other in zip(changed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_strides_along_one_axis_and_layers_that_are_none_of_it() -> None:
    layers = [
        nn.Conv2d(2, 3, 1, (1, 3)),
        nn.Conv2d(3, 3, 3, 2),
        nn.Conv2d(3, 4, 1, 2, padding=1),
        nn.Conv1d(4, 4, 1, 2),
    ]
    x = torch.randn(2, 2, 9, 31)
    expected = layers[2](layers[1](layers[0](x)))
    subsample_before_pointwise(nn.Sequential(*layers))
    torch.testing.assert_close(layers[2](layers[1](layers[0](x))), expected)
    assert [layer.stride for layer in layers] == [(1, 1), (2, 2), (2, 2), (2,)]


@pytest.mark.parametrize("threads", [1, 2])
def test_narrow_networks_train_in_float32_with_channels_last(threads: int) -> None:
    """In a process of its own: where it is wrong, the process is ended by a memory fault."""
    code = f"""
import torch
from monai.networks.nets.resnet import ResNet as MonaiResNet
from monai.networks.nets.resnet import ResNetBlock
from medssml.encoders import NetworkEncoder, ResNet
torch.set_num_threads({threads})
body = MonaiResNet(ResNetBlock, [1] * 4, [8] * 4, spatial_dims=2, n_input_channels=1, num_classes=4, no_max_pool=True)
for encoder in (ResNet(2, widths=(8, 8, 16, 16), max_pool=False), NetworkEncoder(body, (128, 128))):
    encoder = encoder.to(memory_format=torch.channels_last)
    for n in (5, 40, 41):
        x = torch.rand(n, 1, 128, 128).to(memory_format=torch.channels_last)
        encoder(x).pooled.square().mean().backward()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr[-2000:]


def test_norms_of_groups_and_of_single_channels() -> None:
    for norm, groups in (("group", [2, 1, 7]), ("instance", [16, 12, 56])):
        net = nn.Sequential(nn.BatchNorm2d(16), nn.Sequential(nn.BatchNorm1d(12), nn.BatchNorm3d(56)), nn.ReLU())
        replace_batch_norms(net, norm)
        assert [part.num_groups for part in net.modules() if isinstance(part, nn.GroupNorm)] == groups
        assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in net.modules())
