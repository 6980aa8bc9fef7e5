"""Chest radiograph: a square gray image, its contrast stretched to [0, 1], head up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medssml.readers.xray import read_xray
from medssml.transforms.base import NOTES, Prepared, Source, Transform, at_least, notes_array

#: Stored pixels per pixel of the output, so that a crop of 0.8 of the side still has a pixel for every pixel.
_RESERVE = 1.25


class XrayTransform(Transform):
    """A radiograph resized with antialiasing, its aspect kept, to a square of `size` pixels.

    Never turned upside down and never coloured; mirrored only where `flip` says so: the heart is on the left.

    Args:
        size: pixels along each side.
        fit: "pad" keeps the whole image, "crop" its central square.
        percentiles: of the pixels, that become 0 and 1; None keeps the range that the file declares.
        crop_scale: smallest share of the side that a random crop of training keeps, 0.6 to 1.
        rotate: most degrees that training turns by.
        contrast: most that training changes contrast and brightness by, as a share.
        flip: training may mirror left and right.
    """

    libraries = ("numpy", "pydicom", "pillow", "torch")

    def __init__(
        self,
        size: int = 224,
        fit: str = "pad",
        percentiles: Sequence[float] | None = (1.0, 99.0),
        crop_scale: float = 0.8,
        rotate: float = 7.0,
        contrast: float = 0.15,
        flip: bool = False,
    ) -> None:
        at_least("size", size, 8)
        if fit not in ("pad", "crop"):
            raise ValueError(f"fit is {fit!r}, expected 'pad' or 'crop'")
        if not 0.6 <= crop_scale <= 1:
            raise ValueError(f"crop_scale is {crop_scale}, expected 0.6 to 1: a smaller crop loses half of a lung")
        self.size, self.fit, self.flip = int(size), fit, flip
        self.percentiles = None if percentiles is None else tuple(float(p) for p in percentiles)
        self.crop_scale, self.rotate, self.contrast = float(crop_scale), float(rotate), float(contrast)
        self.stored = math.ceil(self.size * _RESERVE)

    def settings(self) -> dict[str, Any]:
        return {"stored": self.stored, "fit": self.fit, "percentiles": self.percentiles}

    def prepare(self, source: Source) -> Prepared:
        """{"gray": (S, S) uint16, 65535 = 1; S = 1.25 * size; "notes"}.

        Raises:
            ReadError: the image cannot be used.
        """
        radiograph = read_xray(source)
        gray = np.ascontiguousarray(radiograph.array, dtype=np.float32)
        if self.fit == "crop":
            gray = _central_square(gray)
        gray = self._square(self._stretch(gray))
        return {"gray": np.rint(gray * 65535).astype(np.uint16), NOTES: notes_array(radiograph.notes)}

    def _stretch(self, gray: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.percentiles is None:
            return np.clip(gray, 0, 1)
        low, high = np.percentile(
            gray[:: max(1, gray.shape[0] // 512), :: max(1, gray.shape[1] // 512)], self.percentiles
        )
        if not high > low:
            low, high = float(gray.min()), float(gray.max())
        return np.clip((gray - low) / (high - low), 0, 1).astype(np.float32)

    def _square(self, gray: NDArray[np.float32]) -> NDArray[np.float32]:
        """(S, S): resized so that the longer side fits, with 0 beside the shorter one."""
        height, width = gray.shape
        scale = self.stored / max(height, width)
        to = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = F.interpolate(torch.from_numpy(gray)[None, None], to, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
        square = np.zeros((self.stored, self.stored), dtype=np.float32)
        top, left = (self.stored - to[0]) // 2, (self.stored - to[1]) // 2
        square[top : top + to[0], left : left + to[1]] = image.numpy()
        return square

    def __call__(self, prepared: Prepared, rng: np.random.Generator | None = None) -> Tensor:
        """(1, size, size) float32 in [0, 1]; row 0 at the head."""
        image = torch.from_numpy(prepared["gray"].astype(np.float32) / np.float32(65535))[None, None]
        to = [self.size, self.size]
        if rng is None:
            return F.interpolate(image, to, mode="bilinear", antialias=True)[0].clamp(0, 1)
        grid = F.affine_grid(self._pose(rng)[None], [1, 1, *to], align_corners=False)
        image = F.grid_sample(image, grid, mode="bilinear", align_corners=False)[0]
        gain, shift = 1 + rng.uniform(-1, 1) * self.contrast, rng.uniform(-1, 1) * self.contrast / 2
        # About the middle gray; the black frame stays black.
        return torch.where(image > 0, (image - 0.5) * gain + 0.5 + shift, image).clamp(0, 1)

    def _pose(self, rng: np.random.Generator) -> Tensor:
        """(2, 3) from output to input coordinates in [-1, 1]: crop, then turn, then perhaps mirror."""
        scale = rng.uniform(self.crop_scale, 1)
        x, y = rng.uniform(-1, 1, 2) * (1 - scale)
        angle = math.radians(rng.uniform(-1, 1) * self.rotate)
        mirror = -1.0 if self.flip and rng.random() < 0.5 else 1.0
        cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
        return torch.tensor([[mirror * cosine, -sine, x], [mirror * sine, cosine, y]], dtype=torch.float32)


def _central_square(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    side = min(gray.shape)
    top, left = (gray.shape[0] - side) // 2, (gray.shape[1] - side) // 2
    return gray[top : top + side, left : left + side]
