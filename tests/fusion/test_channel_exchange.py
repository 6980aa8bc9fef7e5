"""Channel exchange against a loop over layers, modalities and channels; its penalty as a loss."""

import numpy as np
import pytest
import torch

from medssml.fusion import ChannelExchange, MaskedAttention
from medssml.objectives import FusionPenalty
from tests.examples import step_of, ten_studies, tiny_model
from tests.fusion.studies import EVERY, NAMES, encodings, numbers, stirred, vectors_of


def given_up(fusion: ChannelExchange) -> ChannelExchange:
    """Some channels of each modality below the threshold."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for scale in fusion.scale:
            scale[torch.rand(scale.shape, generator=generator) < 0.4] = 0.01
    return fusion


def test_it_is_its_formula_channel_by_channel():
    fusion, encoded = given_up(stirred(ChannelExchange(NAMES, 16, depth=2))), encodings()
    fused = fusion(encoded, EVERY)
    for study in range(len(EVERY)):
        x = vectors_of(encoded, EVERY, study)
        for shared, scale, shift in zip(fusion.shared, fusion.scale, fusion.shift, strict=True):
            y = {}
            for m in x:
                z = numbers(shared.weight) @ x[m]
                y[m] = (z - z.mean()) / np.sqrt(z.var() + 1e-5) * numbers(scale)[m] + numbers(shift)[m]
            new = {}
            for m in x:
                channels = y[m].copy()
                for c in range(16):
                    others = [y[n][c] for n in x if n != m]
                    if abs(numbers(scale)[m, c]) < 0.02 and others:
                        channels[c] = np.mean(others)  # what the others' norm gave, as it was before any exchange
                new[m] = x[m] + np.maximum(channels, 0)
            x = new
        share = np.exp(numbers(fusion.share))
        total = sum(share[m] for m in x)
        expected = sum((share[m] / total * x[m] for m in x), np.zeros(16)) if x else numbers(fusion.nothing)
        np.testing.assert_allclose(fused.pooled[study].detach().numpy(), expected, rtol=1e-3, atol=1e-4)


def test_nothing_is_exchanged_at_first():
    fusion, encoded = ChannelExchange(NAMES, 16), encodings()
    plain = ChannelExchange(NAMES, 16, threshold=0.0)
    plain.load_state_dict(fusion.state_dict())
    assert torch.equal(fusion(encoded, EVERY).pooled, plain(encoded, EVERY).pooled)
    fusion = given_up(fusion)
    plain.load_state_dict(fusion.state_dict())
    assert not torch.equal(fusion(encoded, EVERY).pooled, plain(encoded, EVERY).pooled)


def test_the_penalty_is_the_l1_norm_of_parts_that_complement_each_other():
    fusion = stirred(ChannelExchange(NAMES, 16, depth=2))
    parts = [(0, range(0, 6)), (1, range(6, 11)), (2, range(11, 16))]  # floor(3 c / 16)
    expected = sum(abs(numbers(scale)[m, c]) for scale in fusion.scale for m, part in parts for c in part)
    assert float(fusion.penalty().detach()) == pytest.approx(expected, rel=1e-5)
    assert int(fusion.own_part.sum()) == 16  # every channel is given up by one modality, and by one only
    two = ChannelExchange(("ct", "report"), 16).own_part
    assert two[0].tolist() == [True] * 8 + [False] * 8 and two[1].tolist() == [False] * 8 + [True] * 8


def test_the_objective_makes_the_gammas_small_until_channels_are_exchanged():
    model = tiny_model(fusion=lambda names, dim: ChannelExchange(names, dim, 1))
    objective = FusionPenalty(model, weight=2e-4)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        objective(step_of(model, objective, ten_studies()))["loss"].backward()
        optimiser.step()
    small = (model.fusion.scale[0].detach().abs() < 0.02).cpu()
    assert torch.equal(small, model.fusion.own_part)
    assert bool((model.fusion.scale[0].detach()[~small] == 1).all())
    answer = objective(step_of(model, objective, ten_studies()))
    assert float(answer["loss"].detach()) == pytest.approx(float(model.fusion.penalty().detach()))


def test_a_fusion_without_a_penalty_is_refused():
    model = tiny_model(fusion=lambda names, dim: MaskedAttention(names, dim, 1, 2))
    with pytest.raises(ValueError, match="MaskedAttention keeps no penalty; fix: ChannelExchange"):
        FusionPenalty(model)
