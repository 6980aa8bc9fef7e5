"""ResNet: no batch norm, so that a study's neighbours do not matter; any input size."""

import pytest
import torch

from medssml.encoders import ResNet
from medssml.encoders.cnn import _coordinates


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("axes", [2, 3])
def test_rows_are_independent_in_training_too(axes, norm):
    torch.manual_seed(0)
    net = ResNet(axes, 24, widths=(8, 8, 16, 16), norm=norm)
    x = torch.rand(3, 1, *(40, 64, 32)[:axes], requires_grad=True)
    encoded = net(x)
    encoded.pooled[1].square().sum().backward()
    assert encoded.tokens.shape[0] == 3 and encoded.tokens.shape[2] == net.dim == 24
    assert torch.allclose(encoded.pooled, encoded.tokens.mean(1), atol=1e-6)
    assert x.grad[1].abs().sum() > 0
    assert x.grad[0].abs().sum() == 0 and x.grad[2].abs().sum() == 0
    assert all(p.grad is not None for p in net.parameters())


def test_one_study_alone_gives_what_it_gives_in_company():
    torch.manual_seed(0)
    net = ResNet(3, widths=(8, 8, 8, 8))
    x = torch.rand(3, 1, 32, 32, 32)
    assert torch.allclose(net(x).pooled[2:], net(x[2:]).pooled, atol=1e-5)


def test_coordinates_are_inputs():
    grid = _coordinates(torch.zeros(2, 1, 3, 5))
    assert grid[1, 0, :, 4].tolist() == [-1.0, 0.0, 1.0]
    assert grid[0, 1, 2].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    net = ResNet(2, widths=(8, 8, 8, 8), coordinates=True)
    net(torch.rand(1, 1, 64, 64)).pooled.square().sum().backward()
    assert net.body.conv1.weight.grad[:, 1:].abs().sum() > 0


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="10, 18, 34"):
        ResNet(2, layers=50)
    with pytest.raises(ValueError, match="group, instance"):
        ResNet(2, norm="batch")
    with pytest.raises(ValueError, match="without `keep`"):
        ResNet(2, widths=(8, 8, 8, 8))(torch.rand(1, 1, 32, 32), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="too small"):
        ResNet(2, widths=(8, 8, 8, 8), norm="instance")(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="expected"):
        ResNet(2, widths=(8, 8, 8, 8))(torch.rand(1, 32, 32))
