"""EEGTransformer: spectrum in closed form; channels are known by name and not by place; padding moves nothing."""

import math

import pytest
import torch

from medssml.encoders import EEGTransformer
from medssml.encoders.eeg import BANDS, POWER_FLOOR, band_matrix, log_power


def encoder(**arguments) -> EEGTransformer:
    torch.manual_seed(0)
    return EEGTransformer(24, 2, 3, 50, 100.0, **{"channel_names": 12, **arguments})


def recording(n: int = 2, channels: int = 3, samples: int = 200, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "signal": 0.3 * torch.randn(n, channels, samples, generator=generator),
        "channels": torch.arange(1, channels + 1).expand(n, -1).clone(),
        "length": torch.full((n,), samples),
    }


def test_power_of_a_sine_is_the_closed_form():
    net = EEGTransformer(24, 1, 3, 100, 100.0, channel_names=3)
    time = torch.arange(100) / 100.0
    power = net._power(0.5 * torch.sin(2 * math.pi * 10.0 * time))
    expected = 0.25 / 4 * net.window.sum() ** 2 / net.window.square().sum()
    assert power.argmax() == 10
    assert power[10].item() == pytest.approx(expected.item(), rel=1e-4)


def test_power_of_white_noise_is_its_variance():
    net = EEGTransformer(24, 1, 3, 100, 100.0, channel_names=3)
    noise = 0.2 * torch.randn(4000, 100, generator=torch.Generator().manual_seed(0))
    assert net._power(noise)[:, 2:-2].mean().item() == pytest.approx(0.04, rel=0.02)
    assert log_power(torch.tensor(0.01)).item() == pytest.approx(0.5 * math.log((0.01 + POWER_FLOOR) / 0.01), abs=1e-6)


def test_bands_average_their_own_bins():
    matrix = band_matrix(100, 100.0)
    assert matrix.shape == (len(BANDS), 51)
    assert torch.allclose(matrix.sum(1), torch.ones(len(BANDS)))
    assert matrix[2].nonzero().squeeze(1).tolist() == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_channels_are_known_by_name_and_not_by_place(pool):
    net = encoder(pool=pool).eval()
    inputs = recording()
    order = torch.tensor([2, 0, 1])
    shuffled = {**inputs, "signal": inputs["signal"][:, order], "channels": inputs["channels"][:, order]}
    renamed = {**inputs, "channels": inputs["channels"][:, order]}
    assert torch.allclose(net(inputs).pooled, net(shuffled).pooled, atol=1e-5)
    assert not torch.allclose(net(inputs).pooled, net(renamed).pooled, atol=1e-3)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_padding_of_channels_and_time_moves_nothing(pool):
    net = encoder(pool=pool).eval()
    short = recording(n=1)
    padded = {
        "signal": torch.full((1, 5, 350), torch.nan),
        "channels": torch.tensor([[1, 2, 3, 0, 0]]),
        "length": torch.tensor([200]),
    }
    padded["signal"][:, :3, :200] = short["signal"]
    encoded = net(padded)
    assert encoded.mask.sum() == 12
    assert torch.allclose(net(short).pooled, encoded.pooled, atol=1e-5)
    encoded.pooled.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_visible_tokens_only_and_hidden_samples_move_nothing():
    net = encoder().eval()
    inputs = recording()
    keep = torch.tensor([[0, 5, 7], [11, 2, 3]])
    everything = torch.arange(12).expand(2, -1)
    hidden = {**inputs, "signal": inputs["signal"].clone()}
    hidden["signal"][:, 1, 0:50] = 9.0  # token 4
    assert torch.allclose(net(inputs, everything).tokens, net(inputs).tokens, atol=1e-6)
    assert torch.equal(net(inputs, keep).pooled, net(hidden, keep).pooled)
    assert torch.equal(net.patches(inputs, keep)[0], net.patches(inputs)[0, keep[0]])


@pytest.mark.parametrize(("target", "width"), [("raw", 50), ("log_spectrum", 26), ("both", 76)])
def test_targets(target, width):
    net = encoder(target=target)
    patches = net.patches(recording())
    assert patches.shape == (2, 12, width) and net.patch_dim == width and net.standardised
    if target != "log_spectrum":
        raw = patches[..., :50]
        assert raw.mean(-1).abs().max() < 1e-5
        assert raw.square().mean(-1).sub(1).abs().max() < 0.01
    flat = net.patches({**recording(), "signal": torch.zeros(2, 3, 200)})
    assert torch.isfinite(flat).all()


def test_the_mask_follows_names_and_length():
    net = encoder()
    inputs = {**recording(), "channels": torch.tensor([[1, 0, 2], [1, 2, 3]]), "length": torch.tensor([120, 30])}
    mask = net.token_mask(inputs).view(2, 3, 4)
    assert mask[0].tolist() == [[True, True, False, False], [False] * 4, [True, True, False, False]]
    assert mask[1].sum() == 3 and mask[1, :, 0].all()


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_every_parameter_gets_a_gradient(pool):
    net = encoder(pool=pool)
    net(recording()).pooled.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_runs_in_bf16():
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(encoder(pool="attention")(recording()).pooled.float()).all()


def test_knows_the_readers_channels():
    from medssml.config import describe
    from medssml.readers.eeg import CHANNELS

    net = EEGTransformer(24, 1, 3)
    assert net.name.num_embeddings == len(CHANNELS)
    assert describe(net)["init_args"]["channel_names"] == len(CHANNELS)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="between 1 and 1024"):
        encoder()(recording(samples=40))
    with pytest.raises(ValueError, match="max_patches"):
        encoder(max_patches=2)(recording())
    with pytest.raises(ValueError, match="dict of signal"):
        encoder()(torch.rand(1, 3, 100))
    with pytest.raises(ValueError, match="raw, log_spectrum, both"):
        encoder(target="phase")
