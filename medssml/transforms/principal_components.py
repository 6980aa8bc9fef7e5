"""Images that lie alike: their principal components, each in standard deviations of the training studies."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from medssml.config import Configured

#: Voxels of an image, at most, and numbers of all that is learned: they are kept in the model's config.
MOST = 1 << 17
MOST_FIGURES = 1 << 20
#: Studies that are decomposed at a time, at least: memory does not grow with the cohort.
CHUNK = 512


class PrincipalComponentsd(Configured, MapTransform):
    """W (x - mean), (1, components): an image on the whitened principal components of the training studies.

    For images that lie alike, such as coarse chests or registered brains. A large organ varies more than a small finding by
    orders of magnitude, and what learns by gradient steps finds the large directions first and the small ones never; whitened,
    every direction is as easy to learn (LeCun et al., Efficient BackProp, 1998, section 4.3). On radiographs and brains they are
    known as eigenimages (Turk and Pentland 1991). The components are scikit-learn's, computed in chunks of studies (Ross et
    al., Incremental learning for robust visual tracking, IJCV 2008).

    Args:
        keys: name of the entry, (C, *size) of one size.
        components: how many, the largest first; of n training studies the first n - 1 say something, the others are 0.
        fitted: what was learned, as a saved model brings it along; None = learned from the training studies.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "ct",
        components: int = 64,
        fitted: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys is {list(self.keys)}; fix: one PrincipalComponentsd for each")
        if components < 1:
            raise ValueError(f"components is {components}, expected 1 or more")
        self.components = components
        self.figures = None if fitted is None else _unpacked(fitted, components)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with (1, components) in the place of the image.

        Raises:
            ValueError: nothing was learned yet, or of images of another size.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            image = torch.as_tensor(entries[key], dtype=torch.float32)
            if self.figures is None:
                raise ValueError("the components are not known yet; fix: fit_training, or fitted")
            mean, directions = self.figures
            if image.shape != mean.shape:
                raise ValueError(f"an image of {tuple(image.shape)}, learned from images of {tuple(mean.shape)}")
            entries[key] = (directions @ (image - mean).flatten())[None]
        return entries

    def learn(self, data: Iterable[Mapping[Hashable, Any]], subjects: Sequence[str] | None) -> list[str]:
        """Learns mean and components, unless they are there already; says so where there are fewer of them.

        Raises:
            ValueError: images of several sizes, too many voxels, fewer than two studies, or images that are all the same.
        """
        if self.figures is not None:
            return []
        images = (torch.as_tensor(entries[self.keys[0]]).numpy() for entries in data)
        mean, directions = _decomposed(images, self.components)
        fitted = _packed(mean, directions)
        self.figures = _unpacked(fitted, self.components)
        # A saved model brings the figures along.
        self._arguments["fitted"] = fitted
        found = int(directions.any(1).sum())
        if found == self.components:
            return []
        return [
            f"{self.keys[0]}: the training studies vary in {found} directions; the other {self.components - found} of "
            f"{self.components} components are 0; fix: fewer components, or more studies"
        ]


def _decomposed(images: Iterable[np.ndarray], components: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C, *size) and whitened directions (components, voxels) of images, a chunk of them in memory at a time; a direction
    in which they do not vary is 0."""
    from sklearn.decomposition import IncrementalPCA

    found: Any = None
    shape, waiting = None, []
    for image in images:
        shape = image.shape if shape is None else shape
        if image.shape != shape:
            raise ValueError(f"images of {shape} and {image.shape}; fix: bring them to one size before")
        if image.size > MOST or image.size * (components + 1) > MOST_FIGURES:
            raise ValueError(
                f"{components} components of images of {image.size:,} voxels; at most {MOST:,} voxels and {MOST_FIGURES:,} "
                "numbers in all; fix: make the images coarser before, or fewer components"
            )
        waiting.append(np.asarray(image, np.float64).ravel())
        # A chunk needs as many studies as there are components, so what is left at the end joins the last one.
        if len(waiting) == 2 * max(CHUNK, components):
            found = found or IncrementalPCA(min(components, waiting[0].size))
            found.partial_fit(np.stack(waiting[: len(waiting) // 2]))
            del waiting[: len(waiting) // 2]
    if shape is None or len(waiting) < 2:
        raise ValueError(f"{len(waiting)} training study; fix: two or more, or leave PrincipalComponentsd out")
    if not np.ptp(np.stack(waiting), axis=0).any():
        raise ValueError("the images are all the same; fix: leave PrincipalComponentsd out")
    found = found or IncrementalPCA(min(components, waiting[0].size, len(waiting) - 1))
    found.partial_fit(np.stack(waiting))
    variance = found.explained_variance_
    vary = variance > 1e-9 * variance[0]
    directions = np.zeros((components, waiting[0].size))
    directions[: len(variance)][vary] = found.components_[vary] / np.sqrt(variance[vary])[:, None]
    return found.mean_.reshape(shape), directions


def _packed(mean: np.ndarray, directions: np.ndarray) -> str:
    """The figures as a text that a config can hold: the size, then of each row its greatest value and float16 shares of it."""
    size = "x".join(str(n) for n in mean.shape)
    rows = np.concatenate([mean.reshape(1, -1), directions])
    scales = np.maximum(np.abs(rows).max(1), np.finfo(np.float32).tiny)
    values = scales.astype("<f4").tobytes() + (rows / scales[:, None]).astype("<f2").tobytes()
    return f"{size}:{base64.b64encode(zlib.compress(values, 9)).decode('ascii')}"


def _unpacked(fitted: str, components: int) -> tuple[torch.Tensor, torch.Tensor]:
    size, _, text = fitted.partition(":")
    rows = components + 1
    try:
        shape = tuple(int(n) for n in size.split("x"))
        # As many bytes as the size says and no more: a damaged text must not fill the memory.
        most = rows * (4 + 2 * int(np.prod(shape)))
        stored = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), most + 1)
        scales = np.frombuffer(stored[: 4 * rows], dtype="<f4").reshape(rows, 1)
        values = np.frombuffer(stored[4 * rows :], dtype="<f2").reshape(rows, -1) * scales
        mean = values[0].reshape(shape)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"fitted is damaged ({error}); fix: leave it out, it is learned") from error
    if not np.isfinite(values).all() or not np.abs(values[1]).max() > 0:
        raise ValueError(
            "fitted is damaged (figures that are not finite, or no direction); fix: leave it out, it is learned"
        )
    return torch.from_numpy(mean.copy()), torch.from_numpy(values[1:].copy())
