"""TableEncoder: the feature tokens of the paper, unknown values apart from average ones, and nothing from NaN."""

import pytest
import torch

from medssml.config import build, describe
from medssml.encoders import TableEncoder


def encoder(**options) -> TableEncoder:
    torch.manual_seed(0)
    return TableEncoder(4, 12, 1, 3, **options).eval()


def inputs() -> dict[str, torch.Tensor]:
    values = torch.tensor([[0.5, -1.0, 2.0, 0.0], [0.0, 0.0, torch.nan, 9.0]])
    return {"values": values, "known": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 1]], dtype=torch.bool)}


def test_tokens_are_those_of_the_paper():
    net, given = encoder(), inputs()
    rows = []
    for value, known in zip(given["values"], given["known"], strict=True):
        tokens = [net.bias[j] + value[j] * net.weight[j] if known[j] else net.unknown[j] for j in range(4)]
        rows.append(torch.stack([net.cls, *tokens]))
    expected = net.transformer(torch.stack(rows))
    found = net(given)
    torch.testing.assert_close(found.tokens, expected)
    torch.testing.assert_close(found.pooled, expected[:, 0])
    assert found.mask.all() and found.tokens.shape == (2, 5, 12)


def test_what_stands_in_an_unknown_place_moves_nothing_but_average_is_not_unknown():
    net, given = encoder(), inputs()
    other = {**given, "values": torch.where(given["known"], given["values"], 1e6)}
    torch.testing.assert_close(net(other).pooled, net(given).pooled, rtol=0, atol=0)
    average = {"values": other["values"].masked_fill(~given["known"], 0.0), "known": torch.ones(2, 4, dtype=torch.bool)}
    assert (net(average).pooled[1] - net(given).pooled[1]).abs().max() > 1e-3


def test_a_value_moves_its_own_study_alone_and_gradients_are_finite():
    net, given = encoder(), inputs()
    changed = {**given, "values": given["values"].clone()}
    changed["values"][0, 2] = -2.0
    before, after = net(given).pooled, net(changed).pooled
    assert torch.equal(before[1], after[1]) and not torch.allclose(before[0], after[0])
    net(given).tokens.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert net.unknown.grad[0].abs().max() == 0 and net.unknown.grad[2].abs().max() > 0


def test_wrong_inputs_and_the_config():
    net = encoder()
    with pytest.raises(ValueError, match=r"received 3 features, expected .* \(n, 4\)"):
        net({"values": torch.zeros(1, 3), "known": torch.ones(1, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="received Tensor"):
        net(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="left out"):
        net(inputs(), keep=torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="features is 0"):
        TableEncoder(0)
    assert describe(build(describe(net), TableEncoder)) == describe(net)
