"""An image made smaller without aliasing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.transforms import MapTransform

from medssml.config import Configured
from medssml.transforms.base import at_least


class AntialiasResized(Configured, MapTransform):
    """(C, H, W) -> (C, size, size), bilinear with antialiasing; an image of that size stays as it is.

    In the place of MONAI's `Resized(anti_aliasing=True)`, which smooths the whole image by a Gaussian first.

    Args:
        keys: names of the entries.
        size: pixels along each side.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(self, keys: str | Sequence[str] = "xray", size: int = 224, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        at_least("size", size, 8)
        self.size = int(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the smaller image."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            image = torch.as_tensor(entries[key])
            if image.shape[1:] != (self.size, self.size):
                to = [self.size, self.size]
                entries[key] = F.interpolate(image[None], to, mode="bilinear", antialias=True)[0].clamp(0, 1)
        return entries
