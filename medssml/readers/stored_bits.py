"""The bits of a stored value that are the image, and what lies in the bits above them: an overlay, or more of the image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError

_NAMED = 3


class Spare(NamedTuple):
    """What the bits above those of an image hold, of one file or, added up, of a series.

    path: the file. depth: bits of the image. pixels: all of them. unsigned: whether the values are. not_sign: pixels whose
    upper bits are no copy of the sign; not_zero: whose upper bits are not all 0. overlay: whether the file declares one.
    deeper: whether the pixels of either kind go on as their neighbours do only if their upper bits are part of them.
    highest: the greatest stored value with all its bits.
    """

    path: Path
    depth: int
    pixels: int
    unsigned: bool
    not_sign: int
    not_zero: int
    overlay: bool
    deeper: bool
    highest: int


def own_bits(values: NDArray[Any], stored: int, high: int) -> NDArray[Any]:
    """The `stored` bits up to bit `high` of `values`, sign extended where signed: overlays hide in the bits above them."""
    allocated = values.dtype.itemsize * 8
    if stored == allocated:
        return values
    if values.dtype.kind == "i":
        return (values << (allocated - 1 - high)) >> (allocated - stored)
    mask = values.dtype.type((1 << stored) - 1)
    return (values >> (high + 1 - stored)) & mask


def outside(values: NDArray[Any], stored: int, high: int, padding: int | None) -> NDArray[np.bool_] | None:
    """Where `values` (F, H, W) are a padding value that the bits of the image cannot hold: outside the field of view.

    None where there are no such values.
    """
    if padding is None:
        return None
    size = 8 * values.dtype.itemsize
    value = np.array(padding & ((1 << size) - 1), f"u{values.dtype.itemsize}").view(values.dtype)
    if int(own_bits(value[None], stored, high)[0]) == int(value):
        return None
    where = values == value
    return where if where.any() else None


def spare_bits(
    values: NDArray[Any],
    stored: int,
    high: int,
    path: Path,
    *,
    overlay: bool,
    padded: NDArray[np.bool_] | None = None,
) -> Spare | None:
    """What lies above bit `high` of `values` (F, H, W), but for what is `padded`; None where nothing does.

    A signed value is written in two ways: its sign copied into the bits above, or 0 in them. Either is sound, if all
    values of the image have it.
    """
    allocated = values.dtype.itemsize * 8
    if high >= allocated - 1:
        return None
    unsigned = values.dtype.kind == "u"
    least, greatest = int(values.min()), int(values.max())
    if 0 <= least and greatest < 1 << (high + unsigned):
        return None  # the usual case
    above = values.view(f"u{values.dtype.itemsize}") >> (high + 1)
    inside = True if padded is None else ~padded
    nonzero = (above != 0) & inside
    not_zero = int(np.count_nonzero(nonzero))
    strange, not_sign = nonzero, not_zero
    if not unsigned:
        sign = values >> high
        strange = (sign != 0) & (sign != -1) & inside
        not_sign = int(np.count_nonzero(strange))
    if not not_zero and not not_sign:
        return None
    odd = strange if not_sign else nonzero
    cut = own_bits(values, stored, high)
    deeper = bool(not_sign) and not overlay and _goes_on(values, cut, odd, odd if padded is None else odd | padded)
    return Spare(path, stored, values.size, unsigned, not_sign, not_zero, overlay, deeper, greatest)


def _goes_on(whole: NDArray[Any], cut: NDArray[Any], odd: NDArray[np.bool_], apart: NDArray[np.bool_]) -> bool:
    """Whether the pixels `odd` (F, H, W) belong to their picture with all their bits: they leave the range of those that
    are not `apart` without them, or are further from their neighbours without than with them."""
    if apart.all():
        return False
    rest = cut[~apart]
    if cut[odd].min() < rest.min() or cut[odd].max() > rest.max():
        return True
    jumps = np.zeros(2)
    for axis in (-1, -2):
        edges = np.diff(odd.astype(np.int8), axis=axis) != 0
        for number, values in enumerate((whole, cut)):
            jumps[number] += np.abs(np.diff(values.astype(np.int64), axis=axis)[edges]).sum()
    return bool(jumps[0] < jumps[1])


def judge_spare(found: Iterable[Spare | None], files: int, path: Path) -> str:
    """A note on the upper bits of a series of `files`, or of one image; "" where they hold nothing.

    Raises:
        ReadError: the values need more bits than the file states.
    """
    spare = [one for one in found if one is not None]
    extended, blank = sum(one.not_sign for one in spare), sum(one.not_zero for one in spare)
    if not spare or not min(extended, blank):
        return ""
    # of two ways to write a sign, the one that fewer values contradict was meant
    odd = [one for one in spare if (one.not_sign if extended <= blank else one.not_zero)]
    count, depth = min(extended, blank), spare[0].depth
    if all(one.overlay for one in odd):
        return "overlay removed from the upper bits"
    share = count / (spare[0].pixels * files)
    names = ""
    if files > 1:
        names = f" of {len(odd)} of {files} files ({named(one.path for one in odd)})"
    if any(one.deeper for one in odd):
        needed = max(one.highest for one in odd).bit_length() + (not spare[0].unsigned)
        reason = f"states {depth} bits a value, and {count:,} values{names} need {needed} (up to {max(o.highest for o in odd):,})"
        raise ReadError(
            path,
            f"{reason}: cut to {depth} bits, they would be others",
            "correct BitsStored and HighBit",
            code="damaged",
        )
    return Flag(
        f"bits above the {depth} of the image are in use in {share:.1%} of the pixels{names}; they are ignored", "cut"
    )


def named(paths: Iterable[Path]) -> str:
    """The names of the first files, and how many more there are."""
    names = [path.name for path in paths]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def is_unsigned(values: NDArray[Any], stored: int) -> bool:
    """Whether signed `values` (H, W) of `stored` bits were written without a sign: neighbours lie at opposite ends of the
    range wherever the sign changes, and side by side if there is none."""
    half = 1 << (stored - 1)
    negative = values < 0
    there = values.astype(np.int64)
    stated, without = [], []
    for axis in (0, 1):
        change = np.diff(negative.astype(np.int8), axis=axis) != 0
        stated.append(np.abs(np.diff(there, axis=axis)[change]))
        without.append(np.abs(np.diff(there + 2 * half * negative, axis=axis)[change]))
    jumps, steps = np.concatenate(stated), np.concatenate(without)
    return bool(jumps.size) and float(np.median(jumps)) > half > 2 * float(np.median(steps))
