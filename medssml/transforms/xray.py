"""Chest radiograph: a square gray image, its contrast stretched to [0, 1], head up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from medssml.readers.arrays import held_xray
from medssml.readers.held import Held
from medssml.readers.xray import read_xray
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, at_least, notes_array


class XraySquare(Preparation):
    """A radiograph resized with antialiasing, its aspect kept, to a square of `size` pixels.

    Never turned upside down and never coloured.

    Args:
        size: pixels along each side.
        fit: "pad" keeps the whole image, "crop" its central square.
        percentiles: of the pixels, that become 0 and 1; None keeps the range that the file declares.
    """

    libraries = ("numpy", "pydicom", "pillow", "torch")

    def __init__(self, size: int = 280, fit: str = "pad", percentiles: Sequence[float] | None = (1.0, 99.0)) -> None:
        at_least("size", size, 8)
        if fit not in ("pad", "crop"):
            raise ValueError(f"fit is {fit!r}, expected 'pad' or 'crop'")
        self.size, self.fit = int(size), fit
        self.percentiles = None if percentiles is None else tuple(float(p) for p in percentiles)

    def settings(self) -> dict[str, Any]:
        return {"size": self.size, "fit": self.fit, "percentiles": self.percentiles}

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        """{"gray": (S, S) uint16, 65535 = 1, "notes"}.

        Raises:
            ReadError: the image cannot be used.
        """
        radiograph = source.value if isinstance(source, Held) else read_xray(source)
        gray = np.ascontiguousarray(radiograph.array, dtype=np.float32)
        if self.fit == "crop":
            gray = _central_square(gray)
        gray = self._square(self._stretch(gray))
        return {"gray": np.rint(gray * 65535).astype(np.uint16), NOTES: notes_array(radiograph.notes)}

    def held(self, name: str, value: Any) -> Source:
        return Held(held_xray(name, value))

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
        scale = self.size / max(height, width)
        to = (max(1, round(height * scale)), max(1, round(width * scale)))
        image = F.interpolate(torch.from_numpy(gray)[None, None], to, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
        square = np.zeros((self.size, self.size), dtype=np.float32)
        top, left = (self.size - to[0]) // 2, (self.size - to[1]) // 2
        square[top : top + to[0], left : left + to[1]] = image.numpy()
        return square


def _central_square(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    side = min(gray.shape)
    top, left = (gray.shape[0] - side) // 2, (gray.shape[1] - side) // 2
    return gray[top : top + side, left : left + side]
