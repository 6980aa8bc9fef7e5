"""ResNet: no batch norm, so that a study's neighbours do not matter; any input size."""

import pytest
import torch

from medssml.config import build, describe
from medssml.encoders import ResNet
from medssml.encoders.cnn import _coordinates, generalised_mean


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


def test_generalised_mean_lies_between_mean_and_maximum():
    x = torch.rand(4, 50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(generalised_mean(x, torch.tensor(1.0)), x.mean(1))
    torch.testing.assert_close(generalised_mean(x, torch.tensor(3.0)), (x**3).mean(1) ** (1 / 3))
    torch.testing.assert_close(generalised_mean(x, torch.tensor(2000.0)), x.amax(1), rtol=1e-2, atol=0)
    assert torch.isfinite(generalised_mean(torch.zeros(1, 9, 2), torch.tensor(3.0))).all()
    torch.testing.assert_close(
        generalised_mean(1e30 * x.float(), torch.tensor(9.0)).isfinite().all(), torch.tensor(True)
    )


def test_gem_sees_a_small_finding_that_a_mean_dilutes():
    """One bright position among many moves a generalised mean far more than a mean, in units of the background's spread."""
    generator = torch.Generator().manual_seed(0)
    background = 0.5 + 0.1 * torch.rand(200, 100, 1, generator=generator)
    found = background.clone()
    found[:, 0] = 2.0

    def shift(power):
        before, after = (generalised_mean(x, torch.tensor(power)) for x in (background, found))
        return (after - before).mean() / before.mean()

    assert shift(3.0) > 4 * shift(1.0)


def test_gem_is_pooled_and_its_power_learns():
    torch.manual_seed(0)
    net = ResNet(2, 12, widths=(8, 8, 8, 8), pool="gem", stem_kernel=3)
    assert net.body.conv1.weight.shape[-1] == 3
    encoded = net(torch.rand(2, 1, 64, 64))
    assert encoded.pooled.shape == (2, 12)
    encoded.pooled.square().sum().backward()
    assert net.power.grad.abs() > 0
    with pytest.raises(ValueError, match="mean, gem"):
        ResNet(2, pool="max")


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


@pytest.mark.parametrize(("max_pool", "positions"), [(True, 8), (False, 64)])
def test_the_stem_pools_only_where_it_is_asked_to(max_pool: bool, positions: int) -> None:
    encoder = ResNet(3, widths=(8, 8, 8, 8), stem_kernel=3, max_pool=max_pool)
    first = encoder(torch.zeros(1, 1, 8, 8, 8), layers=4).layers[0]
    assert first.shape == (1, positions, 8)


@pytest.mark.parametrize("said", [True, False])
def test_a_model_of_earlier_versions_pools_as_it_did_when_it_was_trained(said: bool) -> None:
    """Their `stem_pool` was not heeded."""
    node = {"class_path": "ResNet", "init_args": {"spatial_dims": 2, "widths": [8, 8, 8, 8], "stem_pool": said}}
    torch.manual_seed(0)
    encoder = build(node, ResNet)
    torch.manual_seed(0)
    now = ResNet(2, widths=(8, 8, 8, 8), max_pool=True)
    image = torch.rand(2, 1, 48, 48)
    assert torch.equal(encoder(image).pooled, now(image).pooled)
    assert describe(encoder)["init_args"]["max_pool"] is True and "stem_pool" not in describe(encoder)["init_args"]
