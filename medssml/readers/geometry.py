"""The geometry of a volume: from whatever orientation a file has to RAS+ axes, and what makes an affine unusable."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError

_UNSIGNED = 65_536
#: The least HU of a padding value, with an offset of 1024 taken away once more.
_WRAPPED_HU = -5_200

Affine = NDArray[np.float64]

MAX_SHEAR_DEG = 1.0
"""Angle, in degrees, by which axes may miss a right angle; beyond it the gantry was tilted or the affine is wrong."""

HU_MIN_EXTENT_MM = 100.0
"""In-plane extent, in mm, from which a volume must hold air or fat, so values below 0 HU."""

DENSE_HU = 700
"""HU above which lies dense bone and metal alone: a few percent of any part of a body."""

BELOW_AIR_HU = -1100
"""HU below which lies nothing but padding, and streaks beside metal."""

HIGHEST_HU = 31_743
"""The greatest HU of 16-bit scanners; what lies above is padding, or was never HU."""

SPACING_MM = (0.01, 50.0)
"""Least and greatest voxel spacing, in mm, that a CT can have; micro-CT and coarse scouts lie within."""


class Reorientation(NamedTuple):
    """How to bring voxels to RAS+: `axes` for a transpose, then `flips`; `affine` (4, 4) is that of the result."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    affine: Affine

    def apply(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(X, Y, Z) view of `voxels` in RAS+: no voxel is copied."""
        turned = voxels.transpose(self.axes)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]


def check_affine(affine: Affine, path: Path) -> None:
    """Refuse an affine, in mm, that places no volume in space or distorts it.

    Raises:
        ReadError: not finite, singular, or with axes that are not at right angles.
    """
    if not np.isfinite(affine).all():
        raise ReadError(
            path, "affine holds NaN or infinite values", "export the volume again with its geometry", code="geometry"
        )
    columns = affine[:3, :3]
    determinant = float(np.linalg.det(columns))
    norms = np.linalg.norm(columns, axis=0)
    if norms.min() < 1e-6 or abs(determinant) < 1e-3 * float(np.prod(norms)):
        reason = f"affine is singular (determinant {determinant:.3g}, steps {_mm(norms)} mm)"
        raise ReadError(path, reason, "export the volume again with its geometry", code="geometry")
    directions = columns / norms
    cosines = np.abs([directions[:, i] @ directions[:, j] for i, j in ((0, 1), (0, 2), (1, 2))])
    shear = float(np.degrees(np.arcsin(min(1.0, cosines.max()))))
    if shear > MAX_SHEAR_DEG:
        reason = f"axes are sheared by {shear:.1f} degrees (gantry tilt), limit {MAX_SHEAR_DEG:g}"
        raise ReadError(path, reason, "resample the volume to straight axes (dcm2niix does it)", code="geometry")


def check_spacing(spacing: NDArray[np.float64], path: Path) -> None:
    """Refuse a spacing, in mm, that no scanner has: another unit, or a header that was made up.

    Raises:
        ReadError: outside `SPACING_MM`.
    """
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        reason = f"has voxel spacing {_mm(spacing)} mm, expected {SPACING_MM[0]:g} to {SPACING_MM[1]:g}"
        raise ReadError(path, reason, "state the unit of length in the header, or correct it", code="geometry")


def to_ras(affine: Affine, shape: tuple[int, int, int]) -> Reorientation:
    """The transpose and flips that bring voxels with `affine` (voxel -> RAS mm) closest to RAS+."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    axes = _closest_axes(directions)
    flips = tuple(bool(directions[world, axis] < 0) for world, axis in enumerate(axes))
    turned = np.eye(4)
    for world, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        turned[:3, world] = -affine[:3, axis] if flip else affine[:3, axis]
    origin = affine[:3, 3].copy()
    for axis, flip in zip(axes, flips, strict=True):
        if flip:
            origin += affine[:3, axis] * (shape[axis] - 1)
    turned[:3, 3] = origin
    return Reorientation(axes, (flips[0], flips[1], flips[2]), turned + 0.0)  # no -0.0


def _closest_axes(directions: Affine) -> tuple[int, int, int]:
    """For each world axis, the voxel axis that runs along it; the strongest match is given away first."""
    strength = np.abs(directions)
    axes = [0, 0, 0]
    for _ in range(3):
        world, axis = np.unravel_index(int(np.argmax(strength)), (3, 3))
        axes[int(world)] = int(axis)
        strength[world, :] = -1.0
        strength[:, axis] = -1.0
    return axes[0], axes[1], axes[2]


def spacing_of(affine: Affine) -> NDArray[np.float64]:
    """(3,) voxel spacing in mm along the axes of `affine`."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def obliquity(affine: Affine) -> float:
    """Largest angle, in degrees, between a voxel axis of a RAS+ `affine` and its world axis."""
    cosines = np.abs(np.diag(affine[:3, :3])) / spacing_of(affine)
    return float(np.degrees(np.arccos(min(1.0, float(cosines.min())))))


def to_hounsfield(raw: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """`raw * slope + intercept` in HU: int16 where that is exact, else float32. Shape is kept."""
    if raw.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        return raw
    whole = slope == 1.0 and float(intercept).is_integer()
    if whole and raw.dtype.kind in "iu":
        low, high = int(raw.min()) + int(intercept), int(raw.max()) + int(intercept)
        if low >= -32768 and high <= 32767:
            # int16 arithmetic wraps, and wraps back, because the result is known to fit
            out = raw.astype(np.int16, copy=False)
            if intercept == 0:
                return out
            offset = np.array(int(intercept) & 0xFFFF, np.uint16).view(np.int16)
            return np.add(out, offset, dtype=np.int16)
    out32 = raw.astype(np.float32)
    if slope != 1.0:
        out32 *= np.float32(slope)
    if intercept != 0:
        out32 += np.float32(intercept)
    return out32


def not_hounsfield(values: NDArray[Any], spacing: NDArray[np.float64], notes: list[str]) -> str:
    """Why `values` (X, Y, Z) at `spacing` mm cannot be Hounsfield units, or "" if they can; what is odd is noted.

    In HU, air is -1000 and water 0: a body part without a negative voxel does not exist, bone is never half of it,
    nothing but padding lies below air, a constant is no picture.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        return (
            f"values run from {low:g} to {high:g} once they are scaled: the slope or the values themselves are damaged"
        )
    if high > HIGHEST_HU:
        return _beyond(values, high)
    if high - low < 10:
        return f"values {low:g} to {high:g} are not HU (constant, or rescaled)"
    dense = np.count_nonzero(values > DENSE_HU) / values.size if high > DENSE_HU else 0.0
    if dense > 0.5:
        return f"{dense:.0%} of the voxels lie above {DENSE_HU} (values {low:g} to {high:g}): HU with an offset"
    if low < BELOW_AIR_HU:
        # padding outside the field of view is one value, the least
        below = np.count_nonzero(values < BELOW_AIR_HU) - np.count_nonzero(values == low)
        share = below / values.size
        if share > 0.1:
            return f"{share:.0%} of the voxels lie below {BELOW_AIR_HU} HU (values {low:g} to {high:g}): rescaled twice"
    large = bool(np.sort(np.array(values.shape) * spacing)[1] >= HU_MIN_EXTENT_MM)
    if low < 0:
        if large and low > -300:
            notes.append(Flag(f"no voxel below {low:g} HU, so no air: rescaled, or masked"))
        return ""
    zeros = 1.0 - np.count_nonzero(values) / values.size
    if zeros < 0.01 and not large:
        notes.append(Flag(f"values {low:g} to {high:g}, none below 0: HU with an offset, or soft tissue alone"))
        return ""
    guess = "an 8-bit window" if high <= 255 else "HU with an offset"
    return f"values {low:g} to {high:g}, none below 0: {guess}, not HU"


def _beyond(values: NDArray[Any], high: float) -> str:
    """What values above the greatest HU are: those below 0 where they were stored without a sign."""
    beyond = values[values > HIGHEST_HU]
    share, least = beyond.size / values.size, float(beyond.min())
    if _UNSIGNED + _WRAPPED_HU <= least and high < _UNSIGNED:
        range_ = f"{least:g} to {high:g} are {least - _UNSIGNED:g} to {high - _UNSIGNED:g}"
        return f"HU below 0 wrapped into unsigned 16 bits: in {share:.0%} of the voxels {range_}, 65536 too high"
    return f"{share:.2g} of the voxels lie above {HIGHEST_HU:,} (up to {high:g}): more than HU can be"


def _mm(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
