"""EEGTransformer: spectrum in closed form; channels are known by name and not by place; padding moves nothing."""

import math

import pytest
import torch

from medssml.encoders import EEGTransformer
from medssml.encoders.eeg import BANDS, POWER_FLOOR, band_matrix, log_power
from medssml.encoders.scalp import scalp_patterns
from medssml.readers.channels import CHANNELS, channel_number


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
    assert matrix[BANDS.index((10.0, 13.0))].nonzero().squeeze(1).tolist() == [10, 11, 12]


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


def montage(alpha: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise of 10 uV at 19 electrodes, in addition a rhythm of 10 to 13 Hz whose amplitude is alpha (n, 19)."""
    names = "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split()
    generator = torch.Generator().manual_seed(seed)
    phase = 6.28 * torch.rand(*alpha.shape, 1, generator=generator)
    wave = torch.sin(2 * math.pi * 11.0 * torch.arange(1000) / 100.0 + phase)
    return {
        "signal": alpha.unsqueeze(-1) * wave + 0.1 * torch.randn(*alpha.shape, 1000, generator=generator),
        "channels": torch.tensor([CHANNELS.index(name) for name in names]).expand(len(alpha), -1).clone(),
        "length": torch.full((len(alpha),), 1000),
    }


def read_out(pooled: torch.Tensor, target: torch.Tensor) -> float:
    """Correlation of a ridge regression with the target in the second half, fitted on the first."""
    half = len(pooled) // 2
    x = torch.cat([(pooled - pooled[:half].mean(0)) / pooled[:half].std(0), torch.ones(len(pooled), 1)], dim=1).double()
    y = target.double()
    weights = torch.linalg.solve(x[:half].T @ x[:half] + torch.eye(x.shape[1]), x[:half].T @ y[:half])
    return float(torch.corrcoef(torch.stack([x[half:] @ weights, y[half:]]))[0, 1])


@pytest.mark.parametrize("electrode", ["O1", "F4", "T7"])
def test_where_power_is_can_be_read_from_a_new_encoder(electrode):
    """Each study's rhythm has a smooth map of its own: the amplitude at one electrode is linear in the pooled output."""
    torch.manual_seed(0)
    net = EEGTransformer(128, 1, 4, 200, 100.0).eval()
    patterns = scalp_patterns(CHANNELS, 9)[montage(torch.zeros(1, 19))["channels"][0]]
    weights = torch.randn(400, 9, generator=torch.Generator().manual_seed(2))
    level = 0.3 * weights @ patterns.T - 1.0
    inputs = montage(level.exp())
    with torch.no_grad():
        pooled = net(inputs).pooled
    place = (inputs["channels"][0] == CHANNELS.index(electrode)).nonzero().item()
    assert read_out(pooled, level[:, place]) > 0.9
    assert read_out(pooled, level.mean(1)) > 0.9


def test_a_map_without_the_overall_power():
    """The amplifier's gain moves the mean of log power and leaves the rest of the map as it is."""
    net = EEGTransformer(128, 1, 4, 200, 100.0).eval()
    quiet = montage(torch.full((2, 19), 0.3))
    loud = {**quiet, "signal": 2 * quiet["signal"]}
    size = len(BANDS)
    with torch.no_grad():
        a, b = net(quiet).pooled, net(loud).pooled
    # The floor of the logarithm bends it a little.
    assert torch.allclose(b[:, :size] - a[:, :size], torch.tensor(math.log(2.0)), atol=0.02)
    assert torch.allclose(a[:, size : 9 * size], b[:, size : 9 * size], atol=0.02)


def test_the_map_is_the_mean_of_filter_times_log_power():
    net = encoder(filters=2).eval()
    inputs = recording(n=1, channels=2, samples=50)
    bands = net._bands(net._power(inputs["signal"]))[0]
    weight = net.filters.weight[1:3, 1]
    expected = (weight.unsqueeze(1) * (bands - bands.mean(0))).mean(0)
    pooled = net(inputs).pooled[0]
    assert torch.allclose(pooled[: len(net.bands)], bands.mean(0), atol=1e-6)
    assert torch.allclose(pooled[len(net.bands) : 2 * len(net.bands)], expected, atol=1e-6)


def test_filters_begin_at_the_electrodes_and_fit_the_width():
    assert torch.equal(EEGTransformer(128, 1, 4).filters.weight, scalp_patterns(CHANNELS, 9))
    assert [EEGTransformer(dim, 1, 4).filters.embedding_dim for dim in (24, 64, 96)] == [2, 6, 9]
    assert EEGTransformer(24, 1, 3, channel_names=len(CHANNELS) + 3).filters.weight[-1].tolist() == [1, 0]
    for wrong in ({"filters": 3}, {"filters": 0}, {"filters": 10}):
        with pytest.raises(ValueError, match="filters of 1 to 9"):
            encoder(**wrong)


def test_a_derivation_is_named_by_the_difference_of_its_electrodes():
    net = encoder(channel_names=None)
    numbers = torch.tensor([[channel_number(name) for name in ("Fp1-F7", "F7-Fp1", "Fp1", "")]])
    place = net.positions({**recording(n=1, channels=4, samples=50), "channels": numbers})[0] - net.time[0]
    first, second = (net.name.weight[CHANNELS.index(name)] for name in ("Fp1", "F7"))
    assert torch.allclose(place[0], first - second, atol=1e-6) and torch.allclose(place[1], -place[0], atol=1e-5)
    assert torch.allclose(place[2], first, atol=1e-6)
    mask = net.token_mask({**recording(n=1, channels=4, samples=50), "channels": numbers})
    assert mask.tolist() == [[True, True, True, False]]


def test_only_the_electrodes_of_a_derivation_learn_from_it():
    net = encoder(channel_names=None)
    pair = torch.tensor([[channel_number("Fp1-F7"), channel_number("Cz-Pz")]])
    net({**recording(n=1, channels=2), "channels": pair}).pooled.square().sum().backward()
    touched = {CHANNELS.index(name) for name in ("Fp1", "F7", "Cz", "Pz")}
    for weight in (net.name.weight, net.filters.weight):
        assert set(weight.grad.abs().sum(1).nonzero().squeeze(1).tolist()) == touched


def test_the_filter_of_a_derivation_is_nearly_that_of_the_electrode_halfway():
    net = EEGTransformer(128, 1, 4)
    halfway = {
        "Fp1-F7": "AF7",
        "F7-T7": "FT7",
        "T7-P7": "TP7",
        "F4-C4": "FC4",
        "C3-P3": "CP3",
        "Fz-Cz": "FCz",
        "Cz-Pz": "CPz",
    }

    def filters(names) -> torch.Tensor:
        numbers = torch.tensor([[channel_number(name) for name in names]])
        return net._token_filters({"signal": torch.zeros(1, len(halfway), 100), "channels": numbers}, None)[0].detach()

    pair, between, first = filters(halfway), filters(halfway.values()), filters(name.split("-")[0] for name in halfway)
    assert torch.equal(pair[5], scalp_patterns(["Fz", "Cz"], 9).sum(0) / 2)
    assert torch.cosine_similarity(pair, between).min() > 0.9
    assert ((pair - between).norm(dim=1) < 0.6 * (first - between).norm(dim=1)).all()


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
