import torch

from medssml.losses import masked_mse, normalise_patches


def test_only_masked_tokens_count_whatever_the_others_hold():
    predicted = torch.full((2, 3, 4), 0.5, requires_grad=True)
    target = torch.full((2, 3, 4), torch.nan)
    masked = torch.zeros(2, 3, dtype=torch.bool)
    masked[0, 1] = masked[1, 2] = True
    target[0, 1], target[1, 2] = 2.0, torch.tensor([1.0, 1.0, 3.0, 1.0])

    total, count = masked_mse(predicted, target, masked)
    assert total.item() == 1.5**2 + (3 * 0.5**2 + 2.5**2) / 4
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


def test_a_patch_of_small_contrast_is_not_blown_up():
    """Variance 1e-6 beside the 1e-6 that is added to it: a patch of noise stays below one half of its size."""
    patch = torch.tensor([[0.001, -0.001]])
    torch.testing.assert_close(normalise_patches(patch), torch.tensor([[1.0, -1.0]]) / 2**0.5)


def test_half_precision_is_summed_in_single():
    everything, half = torch.ones(1, 1, dtype=torch.bool), torch.full((1, 1, 4), 0.1, dtype=torch.bfloat16)
    total, _ = masked_mse(half, torch.zeros_like(half), everything)
    assert total.dtype == torch.float32 and total == half[0, 0, 0].float().square()
    mixed, _ = masked_mse(torch.zeros_like(half), torch.full((1, 1, 4), 0.1), everything)
    assert mixed == torch.tensor(0.1).square()
