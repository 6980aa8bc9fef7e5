"""Where the slices of a CT lie: phases that share positions, gaps, varying steps, and positions that were only rounded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom_numbers import numbers
from medssml.readers.errors import Flag, ReadError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_STEP_TOLERANCE = 0.05
_STEP_FLOOR_MM = 0.02
_SAME_MM = 1e-3
#: Positions may be rounded to at most this share of a step: a slice that is missing shows through any finer rounding.
_ROUNDED_SHARE = 0.4
_MAX_DECIMALS = 4
_EXACT_MM = 1e-6


class Repeats(NamedTuple):
    """How often positions along the normal occur. positions: different ones. least, most: times that one occurs.
    repeated: positions that occur more than once. first: depth in mm of the first of them, None where there is none."""

    positions: int
    least: int
    most: int
    repeated: int
    first: float | None

    @property
    def phases(self) -> bool:
        """Whether there are several positions, and each occurs equally often and more than once."""
        return self.positions > 1 and self.most > 1 and self.least == self.most

    def reason(self) -> str:
        """What is wrong, "" where every position occurs once."""
        if self.first is None:
            return ""
        times = "twice" if self.most == 2 else f"{self.most} times"
        if self.phases:
            return f"every one of {self.positions} positions occurs {times}: several phases in one series"
        more = f", and {self.repeated - 1} more of {self.positions} positions repeatedly" if self.repeated > 1 else ""
        return f"position {self.first:.1f} mm appears {times}{more}"


def position_of(dataset: FileDataset, path: Path) -> float | None:
    """Depth in mm of a single-frame slice along its normal; None where its header does not tell.

    Raises:
        ReadError: words instead of numbers.
    """
    position = numbers(dataset, "ImagePositionPatient", 3, path)
    orientation = numbers(dataset, "ImageOrientationPatient", 6, path)
    if position is None or orientation is None:
        return None
    return float(position @ np.cross(orientation[:3], orientation[3:]))


def repeats(depths: Sequence[float] | NDArray[np.float64]) -> Repeats:
    """How often each of `depths` (N,) in mm occurs, to the micrometre."""
    order = np.sort(np.asarray(depths, np.float64))
    starts = np.flatnonzero(np.diff(order, prepend=-np.inf) > _SAME_MM)
    counts = np.diff([*starts, order.size])
    many = np.flatnonzero(counts > 1)
    first = float(order[starts[many[0]]]) if many.size else None
    return Repeats(starts.size, int(counts.min()), int(counts.max()), many.size, first)


def check_repeats(depths: NDArray[np.float64], names: Sequence[str], path: Path) -> None:
    """Refuses a series in which a position occurs more than once. depths (N,) mm, in order; names: of their files.

    Raises:
        ReadError: how often, and which files.
    """
    found = repeats(depths)
    if found.first is None:
        return
    same = [name for depth, name in zip(depths, names, strict=True) if abs(depth - found.first) <= _SAME_MM]
    fix = "export one phase, in a folder of its own" if found.phases else "remove the copies, or separate the series"
    reason = f"{found.reason()} ({', '.join(dict.fromkeys(same[:3]))})"
    raise ReadError(path, reason, fix, code="geometry")


def check_steps(
    depths: NDArray[np.float64],
    positions: NDArray[np.float64],
    normal: NDArray[np.float64],
    stated: float,
    path: Path,
    notes: list[str],
) -> float | None:
    """Refuses steps that are not the same all the way.

    Args:
        depths: (N,) mm along `normal`, growing. positions: (N, 3) mm as stated. normal: (3,).
        stated: thickness of a slice, or spacing between slices, in mm; 0 where there is none.
        notes: a flag is added where the steps differ by the rounding of the positions alone.

    Returns:
        the step in mm that rounded positions came from, the stated one where it fits; None where they are not rounded.

    Raises:
        ReadError: a gap, or steps that vary.
    """
    steps = np.diff(depths)
    usual = float(np.median(steps))
    off = np.abs(steps - usual)
    if off.max() <= max(_STEP_TOLERANCE * usual, _STEP_FLOOR_MM):
        return None
    worst = int(off.argmax())
    if steps[worst] > 1.5 * usual:
        more = int((steps > 1.5 * usual).sum()) - 1
        others = f", and {more} more" if more else ""
        reason = f"gap {steps[worst]:.1f} mm after slice {worst + 1}, step {usual:.1f} mm{others}"
        raise ReadError(path, reason, "add the missing slices, or resample from the complete series", code="geometry")
    unit = float(_rounding(positions) @ np.abs(normal))
    step = stated if _stray(depths, stated) <= unit / 2 + _EXACT_MM else _even_step(depths)
    stray = _stray(depths, step)
    if unit <= _ROUNDED_SHARE * step and stray <= unit / 2 + _EXACT_MM:
        reason = f"positions are rounded to {unit:.2g} mm: no slice lies further than {stray:.2g} mm from even steps"
        notes.append(Flag(f"{reason} of {step:.4g} mm", "assumed"))
        return step
    reason = f"spacing between slices varies from {steps.min():.2f} to {steps.max():.2f} mm"
    raise ReadError(path, reason, "resample the series to one spacing", code="geometry")


def _stray(depths: NDArray[np.float64], step: float) -> float:
    """mm by which `depths` (N,) miss even steps of `step` mm at most, from the best start."""
    return float(np.ptp(depths - step * np.arange(depths.size))) / 2


def _even_step(depths: NDArray[np.float64]) -> float:
    """The step in mm that `depths` (N,) miss least: `_stray` is convex in it."""
    steps = np.diff(depths)
    low, high = float(steps.min()), float(steps.max())
    while high - low > _EXACT_MM / depths.size:
        third = (high - low) / 3
        if _stray(depths, low + third) < _stray(depths, high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2


def _rounding(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) mm of the last decimal that the coordinates (N, 3) use, 0 where a coordinate does not change."""
    units: list[Any] = []
    for column in positions.T:
        decimals = range(_MAX_DECIMALS + 1)
        used = next((n for n in decimals if np.allclose(column, column.round(n), rtol=0, atol=1e-7)), None)
        units.append(0.0 if used is None or np.ptp(column) < _SAME_MM else 10.0**-used)
    return np.array(units)
