"""Hand-made features of images: intensity and size of the dense parts of a CT, gradients and intensities of a radiograph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssml.batch import Inputs
from medssml.encoders.descriptor import LEAST, Array, Descriptor

#: How many numbers `ct_features` and `xray_features` give.
CT_FEATURES, XRAY_FEATURES = 26, 1584
#: HU up to which a voxel may be of no scan, and the share of a plane that has to be above.
EMPTY, PLANE = -920, 0.01


def ct_features(hu: NDArray[Any], spacing: Sequence[float]) -> Array:
    """Intensity histogram and the size of the largest dense component of a volume.

    Args:
        hu: (X, Y, Z) in HU. spacing: mm.

    Returns:
        (26,) histogram shares, percentiles / 1000, log volume (mm3) and equivalent diameter (mm) of what is denser than
        -300 HU and of its largest connected part, the share of it over 200 HU, and the field of view in mm / 100.
    """
    from scipy import ndimage

    volume = np.asarray(hu, dtype=np.float64)
    voxel = float(np.prod(spacing))
    histogram = np.histogram(volume.clip(-1000, 999), bins=10, range=(-1000, 1000))[0] / volume.size
    percentiles = np.percentile(volume, [1, 10, 50, 90, 99]) / 1000
    dense = volume > -300
    labels, count = ndimage.label(dense)
    sizes = np.bincount(labels.ravel())[1:] if count else np.zeros(1)
    largest = labels == (1 + int(sizes.argmax())) if count else dense
    inside = volume[largest] if count else np.array([-1000.0])
    diameter = (6 * sizes.max() * voxel / np.pi) ** (1 / 3)
    shape = [
        np.log1p(dense.sum() * voxel),
        np.log1p(sizes.max() * voxel),
        diameter,
        np.log1p(count),
        inside.mean() / 1000,
        inside.std() / 1000,
        float((inside > 200).mean()),
    ]
    extent = np.asarray(volume.shape) * np.asarray(spacing, dtype=np.float64) / 100
    return np.concatenate([histogram, percentiles, shape, extent, [np.log(np.prod(extent))]])


def xray_features(image: NDArray[Any]) -> Array:
    """HOG of the radiograph at 128 x 128 (Dalal and Triggs 2005) and its intensity histogram.

    Args:
        image: (H, W) in [0, 1].

    Returns:
        (1584,) gradients of 7 x 7 blocks of 2 x 2 cells in 8 orientations, and 16 histogram shares.
    """
    from skimage.feature import hog
    from skimage.transform import resize

    small = resize(np.asarray(image, dtype=np.float64), (128, 128), anti_aliasing=True)
    gradients = hog(small, orientations=8, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    return np.concatenate([gradients, np.histogram(small, bins=16, range=(0, 1))[0] / small.size])


def covered(hu: NDArray[Any]) -> NDArray[Any]:
    """The part of a volume (X, Y, Z) in HU that the scan covers: without the planes around it that hold next to nothing.

    What a transform fills up around a small scan would count for air. A voxel or two of noise do not make a plane.
    """
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero((hu > EMPTY).mean(axis=others) > PLANE)
        if len(planes):
            hu = hu.take(np.arange(planes[0], planes[-1] + 1), axis=axis)
    return hu


class Moments:
    """Number, mean (R,) and covariance (R, R) of rows that come a few at a time."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: Array) -> None:
        """Takes rows (n, R) in."""
        if len(rows) == 0:
            return
        if self.count == 0:
            # Of numbers far from 0 little would be left of the difference of two large sums.
            self.shift, self.total, self.squares = rows.mean(0), np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2)
        rows = rows - self.shift
        self.count, self.total, self.squares = (
            self.count + len(rows),
            self.total + rows.sum(0),
            self.squares + rows.T @ rows,
        )

    def found(self) -> tuple[Array, Array]:
        """(R,) and (R, R) of all rows, of which there is one at least."""
        mean = self.total / self.count
        return self.shift + mean, self.squares / self.count - np.outer(mean, mean)


class ImageDescriptor(Descriptor):
    """Measures of images, each standardised among the training studies; or their whitened principal components.

    Args:
        measures: R. components: K; None = the R measures themselves.
        measured: (R,) numbers of one image.
    """

    def __init__(self, measures: int, components: int | None) -> None:
        super().__init__(measures, measures if components is None else components)
        self.whole = components is None
        self._moments = Moments()

    def measured(self, image: Array) -> Array:
        """(R,) of one image (*size)."""
        raise NotImplementedError

    def measure(self, inputs: Inputs) -> Tensor:
        """(n, R) of images (n, 1, *size)."""
        if not isinstance(inputs, Tensor):
            raise ValueError(f"{type(self).__name__} received {type(inputs).__name__}, expected images (n, 1, *size)")
        images = inputs.detach()[:, 0].float().cpu().numpy()
        rows = [self.measured(image) for image in images]
        return torch.from_numpy(np.asarray(rows, np.float32).reshape(len(images), self.directions.shape[1]))

    def see(self, inputs: Inputs, subjects: Tensor) -> None:
        """See `Descriptor.see`; images that are not finite are left out."""
        rows = self.measure(inputs).double().numpy()
        self._moments.add(rows[np.isfinite(rows).all(1)])

    def learn(self) -> None:
        """See `Descriptor.learn`."""
        seen, self._moments = self._moments, Moments()
        if seen.count < 2:
            return
        mean, covariance = seen.found()
        sd = np.sqrt(np.diag(covariance).clip(0))
        scale = np.where(sd > LEAST, 1 / np.maximum(sd, LEAST), 0.0)
        directions = np.diag(scale) if self.whole else self._whitened(covariance, scale)
        self._fit(directions, directions @ mean)

    def _whitened(self, covariance: Array, scale: Array) -> Array:
        """(K, R) principal components of the standardised measures, the largest first, to variance 1."""
        variance, vectors = np.linalg.eigh(scale[:, None] * covariance * scale)
        variance, vectors = variance[::-1][: self.dim], vectors[:, ::-1][:, : self.dim].T
        # A direction and its opposite are the same component; one of them is chosen.
        vectors = vectors * np.sign(vectors[np.arange(len(vectors)), np.abs(vectors).argmax(1)])[:, None]
        size = np.where(variance > LEAST * variance[0], 1 / np.sqrt(np.maximum(variance, 1e-300)), 0.0)
        return cast(Array, size[:, None] * vectors * scale)


class CTDescriptor(ImageDescriptor):
    """`ct_features` of what a scan covers: its intensities, volume and diameter of its largest dense part, its field of view.

    Args:
        window: HU that are 0 and 1 in the inputs, as the transform has it. spacing: mm between voxels, likewise.
        components: how many principal components of the 26 measures; None = the measures themselves.
    """

    def __init__(
        self,
        window: Sequence[float] = (-1000, 400),
        spacing: Sequence[float] = (1, 1, 1),
        components: int | None = None,
    ) -> None:
        super().__init__(CT_FEATURES, components)
        self.low, self.high = (float(hu) for hu in window)
        self.spacing = tuple(float(mm) for mm in spacing)
        if not self.high > self.low or min(self.spacing) <= 0:
            raise ValueError(f"window {list(window)} HU, spacing {list(spacing)} mm; fix: low before high, mm above 0")

    def measured(self, image: Array) -> Array:
        return ct_features(covered(self.low + image * (self.high - self.low)), self.spacing)


class XrayDescriptor(ImageDescriptor):
    """`xray_features` of a radiograph: where which edges are, and how bright it is.

    Args:
        components: how many principal components of the 1,584 measures.
    """

    def __init__(self, components: int = 16) -> None:
        super().__init__(XRAY_FEATURES, components)

    def measured(self, image: Array) -> Array:
        return xray_features(image)
