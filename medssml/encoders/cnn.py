"""Residual convolutional encoder in 2D and 3D, from MONAI's ResNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Inputs
from medssml.config import Node
from medssml.encoders.base import Encoder, refuse_keep
from medssml.encoders.crops import crop_image, share_of
from medssml.encoders.surgery import NORMS, replace_batch_norms, subsample_before_pointwise

#: Where the power of a generalised mean begins.
GEM_POWER = 3.0
#: Smallest feature in it: the root of 0 has no gradient.
GEM_LEAST = 1e-4

DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ResNet(Encoder):
    """Four residual stages (He et al. 2016; MONAI's implementation); a token is a position of the last feature map.

    No batch norm: the rows of a modality differ from batch to batch, and there may be one only, so a study's output
    must not depend on its neighbours.

    Args:
        spatial_dims: 2 or 3.
        dim: D of the tokens; None for the width of the last stage.
        layers: 10, 18 or 34, or the number of blocks of each of the four stages.
        widths: channels of the four stages.
        channels: C of the input.
        norm: "group", of groups of 8 channels, or "instance".
        coordinates: adds an input channel per axis that runs from -1 to 1 (Liu et al. 2018): where in the image.
        stem_kernel: size of the first convolution; None for 7 in 2D and 5 in 3D.
        stem_stride: its stride.
        max_pool: max-pooling by 2 after it.
        pool: over the positions of the last feature map: "mean", or "gem", the generalised mean (mean x^p)^(1/p) with a
            learned p that begins at 3 (Radenovic et al. 2019). A small finding is a few positions among many: a mean
            dilutes it.
    """

    def __init__(
        self,
        spatial_dims: int,
        dim: int | None = None,
        layers: int | Sequence[int] = 10,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        channels: int = 1,
        norm: str = "group",
        coordinates: bool = False,
        stem_kernel: int | None = None,
        stem_stride: int = 2,
        max_pool: bool = True,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        if isinstance(layers, int) and layers not in DEPTHS:
            raise ValueError(f"layers {layers}; accepted: {', '.join(map(str, DEPTHS))}, or four numbers of blocks")
        if norm not in NORMS:
            raise ValueError(f"norm {norm!r}; accepted: {', '.join(NORMS)}")
        if pool not in ("mean", "gem"):
            raise ValueError(f"pool {pool!r}; accepted: mean, gem")
        from monai.networks.nets.resnet import ResNet as MonaiResNet
        from monai.networks.nets.resnet import ResNetBlock

        self.spatial_dims = spatial_dims
        self.coordinates = coordinates
        self.instance_norm = norm == "instance"
        self.channels = channels
        self.body = MonaiResNet(
            ResNetBlock,
            list(DEPTHS[layers]) if isinstance(layers, int) else list(layers),
            list(widths),
            spatial_dims=spatial_dims,
            n_input_channels=channels + (spatial_dims if coordinates else 0),
            conv1_t_size=stem_kernel or (7 if spatial_dims == 2 else 5),
            conv1_t_stride=stem_stride,
            no_max_pool=not max_pool,
            feed_forward=False,
        )
        # MONAI's ResNet takes an argument `norm`, but its stages do not receive it
        replace_batch_norms(self.body, norm)
        subsample_before_pointwise(self.body)
        self.dim = int(widths[-1]) if dim is None else dim
        self.out = nn.Identity() if dim is None else nn.Linear(int(widths[-1]), dim)
        self.power = nn.Parameter(torch.tensor(GEM_POWER).log()) if pool == "gem" else None

    @classmethod
    def completed(cls, arguments: Node) -> Node:
        """Model folders of earlier versions have `stem_pool`, which was not heeded: pooling was always done."""
        if "stem_pool" not in arguments:
            return arguments
        return {**{name: value for name, value in arguments.items() if name != "stem_pool"}, "max_pool": True}

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes inputs (n, C, *size); N is the number of positions of the last feature map; `keep` must be None."""
        refuse_keep(self, keep)
        x = cast(Tensor, inputs)
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"ResNet received {tuple(x.shape)}, expected (n, {self.channels}) and {self.spatial_dims} axes"
            )
        if self.coordinates:
            x = torch.cat([x, _coordinates(x)], dim=1)
        # Channels last: 1.7 times as fast in 3D on a CPU; the values are the same.
        x = x.contiguous(memory_format=torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d)
        x = self.body.act(self.body.bn1(self.body.conv1(x)))
        # MONAI's network has the layer in either case
        x = x if self.body.no_max_pool else self.body.maxpool(x)
        maps = []
        for stage in (self.body.layer1, self.body.layer2, self.body.layer3, self.body.layer4):
            x = stage(x)
            self._check_positions(x)
            maps.append(x.flatten(2).transpose(1, 2))
        features = maps[-1]
        tokens = self.out(features)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        pooled = tokens.mean(1) if self.power is None else self.out(generalised_mean(features, self.power.exp()))
        return Encoded(tokens, mask, pooled, self._last(maps, layers))

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs:
        """(n, C, *part) a window; see `Encoder.crop`."""
        images = cast(Tensor, inputs)
        size = [share_of(length, share) for length in images.shape[2:]]
        return crop_image(images, size, place[:, : len(size)])

    def _last(self, maps: list[Tensor], layers: int) -> tuple[Tensor, ...]:
        """The feature maps of the last stages, each (n, positions, channels of the stage)."""
        if not 0 <= layers <= len(maps):
            raise ValueError(f"{layers} layers are asked for; a ResNet has {len(maps)} stages")
        return tuple(maps[len(maps) - layers :])

    def _check_positions(self, x: Tensor) -> None:
        """An instance norm over one position is zero whatever the input."""
        if self.instance_norm and x[0, 0].numel() == 1:
            raise ValueError(
                "ResNet: the input is too small for norm 'instance', one position is left; use norm 'group'"
            )


def generalised_mean(x: Tensor, power: Tensor) -> Tensor:
    """(n, D) (mean over N of x^power)^(1 / power) of features x (n, N, D) >= 0; 1 is the mean, infinity the maximum.

    Relative to the largest feature, so that no power of it leaves the range of its type.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=GEM_LEAST)
    largest = x.detach().amax(1, keepdim=True)
    return largest.squeeze(1) * (x / largest).pow(power).mean(1).pow(1.0 / power)


def _coordinates(x: Tensor) -> Tensor:
    """(n, S, *size) position along each axis, from -1 to 1."""
    axes = [torch.linspace(-1.0, 1.0, size, device=x.device, dtype=x.dtype) for size in x.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.expand(len(x), *grid.shape)
