"""Vision transformer in 2D and 3D that computes the tokens it is asked for and no others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Encoded, Inputs
from medssml.encoders.base import MaskableEncoder, kept_mask
from medssml.encoders.crops import crop_image, share_of
from medssml.layers import Transformer, gather_tokens, grid_positions, masked_mean, sincos_positions


class ViT(MaskableEncoder):
    """Patches -> linear embedding + position -> pre-norm transformer -> mean of the real tokens.

    Dosovitskiy et al. 2021; with `keep` the encoder of a masked autoencoder (He et al. 2022): the patches that are not
    kept are neither copied nor projected.

    Args:
        input_size: voxels or pixels along each axis; two numbers make a 2D encoder, three a 3D one.
        patch_size: of one patch along each axis; one number for a square or cube. Divides `input_size`.
        dim: D. depth: number of blocks. heads: attention heads; divides dim.
        mlp_ratio: hidden width of the MLPs, as a multiple of dim.
        channels: C of the input.
        dropout: in the blocks. drop_path: rate of the last block, rising linearly from 0.
        positions: "sincos", fixed, or "learned".
        pool: "mean" of the real tokens, or "cls", a token of its own.
        skip_empty: a patch that is zero throughout (padding around the field of view) is no real token.
    """

    def __init__(
        self,
        input_size: Sequence[int],
        patch_size: int | Sequence[int],
        dim: int,
        depth: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        channels: int = 1,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        positions: str = "sincos",
        pool: str = "mean",
        skip_empty: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = tuple(input_size)
        axes = len(self.input_size)
        self.patch_size = (patch_size,) * axes if isinstance(patch_size, int) else tuple(patch_size)
        _check_sizes(self.input_size, self.patch_size)
        _check_choice("positions", positions, ("sincos", "learned"))
        _check_choice("pool", pool, ("mean", "cls"))
        self.grid = tuple(size // patch for size, patch in zip(self.input_size, self.patch_size, strict=True))
        self.dim = dim
        self.channels = channels
        self.skip_empty = skip_empty
        self.patch_dim = channels * math.prod(self.patch_size)
        self.embed = nn.Linear(self.patch_dim, dim)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        code = sincos_positions(grid_positions(self.grid), dim)
        self.position: Tensor
        if positions == "learned":
            self.position = nn.Parameter(torch.randn_like(code) * 0.02)
        else:
            self.register_buffer("position", code, persistent=False)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02) if pool == "cls" else None
        self.transformer = Transformer(dim, depth, heads, mlp_ratio, dropout, drop_path)

    def patches(self, inputs: Inputs, keep: Tensor | None = None) -> Tensor:
        """(n, N, P) patches in row-major order of the grid, channels first within a patch; (n, K, P) with `keep`."""
        grid = self._unfold(inputs)
        if keep is None:
            return grid.flatten(len(self.grid) + 1).flatten(1, -2)
        # Indexing the strided view copies the kept patches only.
        rows = torch.arange(keep.shape[0], device=keep.device).unsqueeze(1)
        return grid[(rows, *torch.unravel_index(keep.clamp(min=0), self._grid_of(inputs)))].flatten(2)

    def _grid_of(self, inputs: Inputs) -> tuple[int, ...]:
        """Patches along each axis of inputs (n, C, *size), whatever their size: a crop has fewer.

        Raises:
            ValueError: other channels or axes, or a size that is no multiple of the patch.
        """
        size = tuple(inputs.shape[2:]) if isinstance(inputs, Tensor) else ()
        fits = len(size) == len(self.patch_size) and all(s % p == 0 for s, p in zip(size, self.patch_size, strict=True))
        if not isinstance(inputs, Tensor) or not fits or inputs.shape[1] != self.channels:
            got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            sizes = ", ".join(map(str, (self.channels, *self.input_size)))
            raise ValueError(
                f"ViT received {got}, expected (n, {sizes}), or other multiples of the patch {self.patch_size}; "
                f"fix: make input_size the transform's size"
            )
        return tuple(s // p for s, p in zip(size, self.patch_size, strict=True))

    def _unfold(self, inputs: Inputs) -> Tensor:
        """View (n, *grid, C, *patch) of the inputs (n, C, *size)."""
        grid = self._grid_of(inputs)
        inputs = cast(Tensor, inputs)
        axes = len(grid)
        pairs = [size for pair in zip(grid, self.patch_size, strict=True) for size in pair]
        split = inputs.reshape(inputs.shape[0], self.channels, *pairs)
        order = [0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2)]
        return split.permute(order)

    def token_mask(self, inputs: Inputs) -> Tensor:
        """(n, N) all True, or with `skip_empty` False where a patch is zero throughout."""
        if self.skip_empty:
            return (self.patches(inputs) != 0).any(-1)
        return torch.ones(len(inputs), math.prod(self._grid_of(inputs)), dtype=torch.bool, device=self.position.device)

    def positions(self, inputs: Inputs) -> Tensor:
        """(n, N, D) position codes, the same for each row.

        Of inputs of another size than `input_size`, such as the small crops of DINO (Caron et al. 2021), they are those of
        the same field of view at another number of patches: interpolated where they are learned.
        """
        grid = self._grid_of(inputs)
        return (self.position if grid == self.grid else self._resampled(grid)).expand(len(inputs), -1, -1)

    def _resampled(self, grid: tuple[int, ...]) -> Tensor:
        """(N, D) codes of the centres of another grid over the same field of view."""
        if isinstance(self.position, nn.Parameter):
            mode = "bilinear" if len(grid) == 2 else "trilinear"
            image = self.position.T.reshape(1, self.dim, *self.grid)
            return F.interpolate(image, grid, mode=mode, align_corners=False).flatten(2)[0].T
        scale = torch.tensor(self.grid, dtype=torch.float32) / torch.tensor(grid, dtype=torch.float32)
        return sincos_positions((grid_positions(grid) + 0.5) * scale - 0.5, self.dim).to(self.position)

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs:
        """(n, C, *part) a window of whole patches, anywhere; see `Encoder.crop`."""
        size = [
            share_of(patches * patch, share, patch)
            for patches, patch in zip(self._grid_of(inputs), self.patch_size, strict=True)
        ]
        return crop_image(cast(Tensor, inputs), size, place[:, : len(size)])

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes inputs (n, C, *size), of `input_size` or of another multiple of the patch; see `Encoder.forward`."""
        # Embed the visible patches, each with its place.
        place, mask = self.positions(inputs), self.token_mask(inputs)
        if keep is not None:
            place, mask = gather_tokens(place, keep), kept_mask(mask, keep)
        tokens = self.embed(self.patches(inputs, keep)) + place

        # A class token stands before them; it is always real.
        keys = mask
        if self.cls is not None:
            tokens = torch.cat([self.cls.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
            keys = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        all_real = not self.skip_empty and (keep is None or not bool((keep < 0).any()))
        tokens, outputs = self.transformer.with_layers(tokens, None if all_real else keys, layers)

        # One vector per study.
        if self.cls is not None:
            return Encoded(tokens[:, 1:], mask, tokens[:, 0], tuple(output[:, 1:] for output in outputs))
        return Encoded(tokens, mask, masked_mean(tokens, mask), outputs)


def _check_sizes(input_size: tuple[int, ...], patch_size: tuple[int, ...]) -> None:
    if len(input_size) not in (2, 3) or len(patch_size) != len(input_size):
        raise ValueError(f"input_size {input_size} and patch_size {patch_size} must both have 2 or both have 3 numbers")
    if any(size % patch != 0 for size, patch in zip(input_size, patch_size, strict=True)):
        raise ValueError(f"input_size {input_size} is no multiple of patch_size {patch_size}")


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} {value!r}; accepted: {', '.join(accepted)}")
