"""ViT: against a second implementation written out in full; visible tokens only; nothing unused."""

import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from medssml.encoders import ViT


def reference(vit: ViT, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """(n, K, D) tokens by loops and explicit softmax, from the weights of `vit` alone."""
    names = "xyz"[: len(vit.grid)]
    pattern = "n c " + " ".join(f"({a} p{a})" for a in names)
    target = f"n ({' '.join(names)}) (c {' '.join('p' + a for a in names)})"
    patches = rearrange(x, f"{pattern} -> {target}", **{f"p{a}": p for a, p in zip(names, vit.patch_size, strict=True)})
    rows = []
    for row in range(len(x)):
        h = patches[row][keep[row]] @ vit.embed.weight.T + vit.embed.bias + vit.position[keep[row]]
        for block in vit.transformer.blocks:
            a = F.layer_norm(h, h.shape[-1:], block.norm1.weight, block.norm1.bias)
            q, k, v = (a @ block.attention.qkv.weight.T + block.attention.qkv.bias).chunk(3, dim=-1)
            width = h.shape[-1] // block.attention.heads
            heads = []
            for i in range(block.attention.heads):
                part = slice(i * width, (i + 1) * width)
                weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(width), dim=-1)
                heads.append(weights @ v[:, part])
            h = h + torch.cat(heads, dim=-1) @ block.attention.out.weight.T + block.attention.out.bias
            m = F.layer_norm(h, h.shape[-1:], block.norm2.weight, block.norm2.bias)
            m = F.gelu(m @ block.mlp[0].weight.T + block.mlp[0].bias)
            h = h + m @ block.mlp[3].weight.T + block.mlp[3].bias
        rows.append(F.layer_norm(h, h.shape[-1:], vit.transformer.norm.weight, vit.transformer.norm.bias))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("size", "patch", "channels"), [((16, 24), 8, 1), ((16, 16), (8, 4), 2), ((8, 12, 16), (4, 4, 8), 1)]
)
def test_matches_the_reference_on_any_visible_tokens(size, patch, channels):
    torch.manual_seed(0)
    vit = ViT(size, patch, 24, 2, 3, channels=channels, positions="learned")
    x = torch.rand(3, channels, *size)
    count = math.prod(vit.grid)
    everything = torch.arange(count).expand(3, -1)
    some = torch.stack([torch.randperm(count)[: count // 2] for _ in range(3)])

    assert torch.allclose(vit(x).tokens, reference(vit, x, everything), atol=1e-5)
    assert torch.allclose(vit(x, some).tokens, reference(vit, x, some), atol=1e-5)
    assert torch.allclose(vit(x, some).pooled, reference(vit, x, some).mean(1), atol=1e-5)
    assert torch.equal(vit(x, everything).tokens, vit(x).tokens)


def test_a_hidden_patch_moves_nothing():
    torch.manual_seed(0)
    vit = ViT((16, 16, 16), 8, 24, 2, 3)
    x = torch.rand(2, 1, 16, 16, 16)
    keep = torch.tensor([[0, 3], [5, 1]])
    blind = x.clone()
    blind[0, :, 8:, 8:, 8:] = torch.nan  # patch 7, kept in neither row
    assert torch.equal(vit(x, keep).pooled, vit(blind, keep).pooled)


def test_patches_with_keep_are_those_of_all():
    vit = ViT((8, 8, 8), (4, 2, 4), 12, 1, 2)
    x = torch.rand(2, 1, 8, 8, 8)
    keep = torch.tensor([[1, 15, 0], [2, 2, 9]])
    patches = vit.patches(x)
    assert patches.shape == (2, 16, vit.patch_dim)
    assert torch.equal(patches[0, 1], x[0, 0, 0:4, 0:2, 4:8].flatten())
    assert torch.equal(vit.patches(x, keep)[1], patches[1, keep[1]])


def test_empty_patches_can_be_left_out():
    torch.manual_seed(0)
    vit = ViT((16, 16), 8, 24, 2, 3, skip_empty=True)
    x = torch.rand(2, 1, 16, 16) + 0.1
    x[0, :, :, 8:] = 0.0
    encoded = vit(x)
    assert encoded.mask.tolist() == [[True, False, True, False], [True] * 4]
    alone = vit(x[:1], torch.tensor([[0, 2]]))
    assert torch.allclose(encoded.pooled[:1], alone.pooled, atol=1e-6)
    assert torch.isfinite(vit(torch.zeros(1, 1, 16, 16)).pooled).all()


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_every_parameter_gets_a_gradient_and_rows_are_independent(pool):
    torch.manual_seed(0)
    vit = ViT((16, 16), 8, 24, 2, 3, pool=pool, positions="learned")
    x = torch.rand(3, 1, 16, 16)
    x.requires_grad_()
    encoded = vit(x)
    encoded.pooled[1].square().sum().backward()
    assert encoded.tokens.shape == (3, 4, 24)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vit.parameters())
    assert x.grad[1].abs().sum() > 0
    assert x.grad[0].abs().sum() == 0 and x.grad[2].abs().sum() == 0


def test_drop_path_and_dropout_are_off_in_evaluation():
    torch.manual_seed(0)
    vit = ViT((16, 16), 8, 24, 3, 3, dropout=0.5, drop_path=0.5).eval()
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(vit(x).pooled, vit(x).pooled)
    vit.train()
    assert not torch.equal(vit(x).pooled, vit(x).pooled)


def test_runs_in_bf16():
    vit = ViT((16, 16), 8, 24, 2, 3, pool="cls", skip_empty=True)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = vit(torch.rand(2, 1, 16, 16), torch.tensor([[0, 1], [2, 3]]))
    assert torch.isfinite(encoded.pooled.float()).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"input_size": (30, 32), "patch_size": 8}, "no multiple"),
        ({"input_size": (32,), "patch_size": 8}, "2 or both have 3"),
        ({"input_size": (32, 32), "patch_size": 8, "heads": 5}, "no multiple of heads"),
        ({"input_size": (32, 32), "patch_size": 8, "pool": "max"}, "mean, cls"),
        ({"input_size": (32, 32), "patch_size": 8, "positions": "rope"}, "sincos, learned"),
    ],
)
def test_refuses_what_does_not_fit(arguments, says):
    with pytest.raises(ValueError, match=says):
        ViT(**{"dim": 24, "depth": 1, "heads": 3, **arguments})


def test_says_what_it_expected():
    for size in ((1, 1, 18, 16), (1, 2, 32, 32), (1, 1, 32)):
        with pytest.raises(ValueError, match=rf"received \({', '.join(map(str, size))}\), expected \(n, 1, 32, 32\)"):
            ViT((32, 32), 8, 24, 1, 3)(torch.rand(size))


@pytest.mark.parametrize("positions", ["sincos", "learned"])
@pytest.mark.parametrize("size", [(16, 16), (8, 16, 8)])
def test_a_crop_of_another_size_has_the_positions_of_its_own_grid(positions, size):
    """As many patches along an axis: the same codes; half as many: between those of the pairs that each replaces."""
    encoder = ViT(tuple(2 * s for s in size), 4, 24, 1, 2, positions=positions)
    whole = torch.rand(2, 1, *(2 * s for s in size))
    small = torch.rand(2, 1, *size)
    assert torch.equal(encoder.positions(whole)[0], encoder.position)
    code = encoder.positions(small)[0]
    assert code.shape == (int(torch.tensor(size).prod()) // 4 ** len(size), 24)
    found = encoder(small)
    assert found.tokens.shape[1] == len(code) and bool(torch.isfinite(found.pooled).all())
    if positions == "learned":
        # Halved: the mean over the block of patches that one patch of the small grid covers.
        grid = encoder.position.T.reshape(1, 24, *encoder.grid)
        pool = torch.nn.functional.avg_pool2d if len(size) == 2 else torch.nn.functional.avg_pool3d
        torch.testing.assert_close(code, pool(grid, 2).flatten(2)[0].T)
    else:
        from medssml.layers import grid_positions, sincos_positions

        centres = 2 * grid_positions([s // 2 for s in encoder.grid]) + 0.5
        torch.testing.assert_close(code, sincos_positions(centres, 24))


def test_tokens_can_be_left_out_of_a_crop_of_another_size():
    encoder = ViT((16, 16), 4, 24, 1, 2)
    small = torch.rand(2, 1, 8, 12)
    keep = torch.tensor([[0, 5], [2, 3]])
    torch.testing.assert_close(encoder.patches(small, keep)[0, 1], encoder.patches(small)[0, 5])
    assert encoder(small, keep).tokens.shape == (2, 2, 24)
