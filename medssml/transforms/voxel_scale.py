"""Images that lie alike: each voxel against what the training studies have there."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from medssml.config import Configured

#: Voxels of an image, at most: their figures are kept in the model's config.
MOST = 1 << 17


class StandardiseVoxelsd(Configured, MapTransform):
    """(x - mean) / (sd + floor * mean of all sd) per voxel, with the figures of the training studies.

    For images that lie alike, such as coarse chests or registered brains: what all of them show goes, and a small finding at a
    known place counts as much as a large organ. As in voxel-based morphometry (Ashburner and Friston 2000), where each
    voxel is compared with itself over subjects.

    Args:
        keys: name of the entry, (C, *size) of one size.
        floor: share of the mean standard deviation that is added to each: a voxel that hardly varies is not blown up.
        fitted: the figures, as a saved model brings them along; None = learned from the training studies.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "ct",
        floor: float = 0.3,
        fitted: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys is {list(self.keys)}; fix: one StandardiseVoxelsd for each")
        if not 0 < floor < float("inf"):
            raise ValueError(f"floor is {floor}, expected more than 0")
        self.floor = float(floor)
        self.figures = None if fitted is None else _unpacked(fitted)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the standardised image.

        Raises:
            ValueError: nothing was learned yet, or of images of another size.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            image = torch.as_tensor(entries[key], dtype=torch.float32)
            if self.figures is None:
                raise ValueError("the figures of the training studies are not known yet; fix: fit_training, or fitted")
            mean, sd = self.figures
            if image.shape != mean.shape:
                raise ValueError(f"an image of {tuple(image.shape)}, learned from images of {tuple(mean.shape)}")
            entries[key] = (image - mean) / (sd + self.floor * sd.mean())
        return entries

    def learn(self, data: Iterable[Mapping[Hashable, Any]], subjects: Sequence[str] | None) -> list[str]:
        """Learns mean and standard deviation of every voxel, unless they are there already.

        Raises:
            ValueError: images of several sizes, too many voxels, or fewer than two studies.
        """
        if self.figures is None:
            fitted = _packed(*_moments(torch.as_tensor(entries[self.keys[0]]) for entries in data))
            self.figures = _unpacked(fitted)
            # A saved model brings the figures along.
            self._arguments["fitted"] = fitted
        return []


def _moments(images: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every voxel (Welford 1962): one image in memory at a time."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for image in images:
        image = image.to(torch.float64)
        if image.numel() > MOST:
            raise ValueError(f"images of {image.numel():,} voxels, at most {MOST:,}; fix: make them coarser before")
        if count and image.shape != mean.shape:
            raise ValueError(
                f"images of {tuple(mean.shape)} and {tuple(image.shape)}; fix: bring them to one size before"
            )
        count += 1
        step = image - mean
        mean = mean + step / count
        squares = squares + step * (image - mean)
    if count < 2:
        raise ValueError(f"{count} training study; fix: two or more, or leave StandardiseVoxelsd out")
    return mean, (squares / count).sqrt()


def _packed(mean: torch.Tensor, sd: torch.Tensor) -> str:
    """The figures as a text that a config can hold: the size, then float16 values, compressed."""
    size = "x".join(str(n) for n in mean.shape)
    values = torch.stack([mean, sd]).numpy().astype("<f2")
    return f"{size}:{base64.b64encode(zlib.compress(values.tobytes(), 9)).decode('ascii')}"


def _unpacked(fitted: str) -> tuple[torch.Tensor, torch.Tensor]:
    size, _, text = fitted.partition(":")
    try:
        shape = tuple(int(n) for n in size.split("x"))
        # As many bytes as the size says and no more: a damaged text must not fill the memory.
        stored = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 4 * int(np.prod(shape)) + 1)
        values = np.frombuffer(stored, dtype="<f2").astype(np.float32).reshape(2, *shape)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"fitted is damaged ({error}); fix: leave it out, it is learned") from error
    if not np.isfinite(values).all() or not values[1].max() > 0:
        raise ValueError(
            "fitted is damaged (figures that are not finite, or no spread); fix: leave it out, it is learned"
        )
    mean, sd = torch.from_numpy(values.copy())
    return mean, sd
