import torch

from medssml.objectives.draws import random_ranks, uniform


def test_uniform_belongs_to_key_purpose_and_seed():
    keys = torch.tensor([5, -7, 2**62])
    drawn = uniform(keys, 100, "a")
    assert drawn.shape == (3, 100)
    assert torch.equal(uniform(keys[1:], 100, "a"), drawn[1:])
    assert torch.equal(uniform(keys, 7, "a"), drawn[:, :7])
    assert not torch.equal(uniform(keys, 100, "b"), drawn)
    assert not torch.equal(uniform(keys, 100, "a", seed=1), drawn)
    assert uniform(keys[:0], 4, "a").shape == (0, 4)


def test_uniform_is_uniform_across_neighbouring_keys():
    drawn = uniform(torch.arange(4000), 3, "a")
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.full((3,), 1 / 12), atol=0.005, rtol=0)
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 0.05


def test_ranks_order_the_real_tokens_and_put_the_rest_behind():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.2]])
    real = torch.tensor([[True, False, True, True]])
    # The numbers 0.9, 0.1, 0.5 belong to the first, second and third real token.
    assert random_ranks(noise, real).tolist() == [[2, 3, 0, 1]]
