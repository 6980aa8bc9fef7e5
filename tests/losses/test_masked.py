import torch

from medssml.losses import masked_mse, normalise_patches


def test_only_masked_tokens_count_whatever_the_others_hold():
    predicted = torch.zeros(2, 3, 4, requires_grad=True)
    target = torch.full((2, 3, 4), torch.nan)
    masked = torch.zeros(2, 3, dtype=torch.bool)
    masked[0, 1] = masked[1, 2] = True
    target[0, 1], target[1, 2] = 2.0, torch.tensor([1.0, 1.0, 3.0, 1.0])

    total, count = masked_mse(predicted, target, masked)
    assert total.item() == 4.0 + 3.0
    assert count.item() == 2
    total.backward()
    assert torch.equal(predicted.grad.abs().sum(-1) > 0, masked)


def test_no_masked_token_is_zero_of_zero():
    total, count = masked_mse(torch.ones(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))
    assert (total.item(), count.item()) == (0, 0)


def test_patches_are_normalised_one_by_one():
    patches = torch.randn(3, 5, 64) * 7 + 100
    out = normalise_patches(patches)
    torch.testing.assert_close(out.mean(-1), torch.zeros(3, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.square().mean(-1), torch.ones(3, 5), atol=1e-4, rtol=0)


def test_a_flat_patch_is_zero_and_not_nan():
    assert normalise_patches(torch.full((1, 1, 8), 0.3)).abs().max() < 1e-3
