"""Where the electrodes of the 10-10 system sit, and smooth patterns over the scalp.

On a sphere Cz is the pole, and 10 % of the way from nasion to inion is 18 degrees (Oostenveld and Praamstra 2001).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

#: Letters of a row, degrees of its middle electrode from Cz, towards the nose.
_ROWS = {
    "N": 90.0, "Fp": 72.0, "AF": 54.0, "F": 36.0, "FT": 18.0, "FC": 18.0, "T": 0.0, "C": 0.0, "A": 0.0,
    "TP": -18.0, "CP": -18.0, "P": -36.0, "PO": -54.0, "O": -72.0, "I": -90.0,
}  # fmt: skip
#: Degrees between Cz and the ring through Fpz, T7, Oz and T8; and the outer ring, and the lobes of the ears.
_RING, _OUTER, _EAR = 72.0, 90.0, 108.0
#: Most patterns: spherical harmonics up to order 2.
PATTERNS = 9
#: Electrodes cover the top of the sphere only, where harmonics look alike. With angles from Cz this much larger they
#: reach down to 135 degrees, and the patterns are nearly uncorrelated over them.
_STRETCH = 1.5


def scalp_positions(names: Sequence[str]) -> Tensor:
    """(C, 3) points on the unit sphere: x to the right, y to the nose, z up; zero for a name that is no electrode."""
    return torch.tensor([_position(name) for name in names], dtype=torch.float64).reshape(-1, 3)


def scalp_patterns(names: Sequence[str], count: int = PATTERNS) -> Tensor:
    """(C, count) real spherical harmonics at the electrodes, the cap stretched over the sphere; mean square about 1.

    In order: the mean; right - left, front - back, top - rim; the five of order 2. EEG power is smooth over the scalp, so
    that these few hold most of its map. A name that is no electrode takes part in the mean only.

    Raises:
        ValueError: a count that is not 1 to 9.
    """
    if not 1 <= count <= PATTERNS:
        raise ValueError(f"{count} patterns over the scalp; accepted: 1 to {PATTERNS}")
    place = _stretched(scalp_positions(names))
    x, y, z = place.unbind(1)
    real = place.square().sum(1)
    first = [torch.ones_like(x), *(math.sqrt(3) * axis for axis in (x, y, z))]
    mixed = [math.sqrt(15) * product for product in (x * y, y * z, x * z)]
    second = [*mixed, math.sqrt(15) / 2 * (x * x - y * y), math.sqrt(5) / 2 * (3 * z * z - real)]
    return torch.stack([*first, *second], dim=1)[:, :count].float()


def _stretched(place: Tensor) -> Tensor:
    """(C, 3) the same directions from Cz, `_STRETCH` times as far down; zero stays zero."""
    across = place[:, :2].norm(dim=1, keepdim=True)
    down = _STRETCH * torch.atan2(across, place[:, 2:])
    real = place.square().sum(1, keepdim=True) > 0
    direction = place[:, :2] / across.clamp(min=1e-12)
    return torch.where(real, torch.cat([direction * down.sin(), down.cos()], dim=1), 0.0)


def _position(name: str) -> tuple[float, float, float]:
    match = re.fullmatch(r"([A-Za-z]+?)(z|[0-9]+)", name)
    if match is None or match[1] not in _ROWS:
        return (0.0, 0.0, 0.0)
    row, column = match[1], match[2]
    front = _ROWS[row]
    if column == "z":
        return _point(abs(front), 0.0 if front > 0 else 180.0, 0.0)
    number = int(column)
    side = -1.0 if number % 2 else 1.0
    # The ring runs from Fpz (0 degrees) over the ear (90) to Oz (180), 18 degrees for each row.
    azimuth = 90.0 - front if abs(front) < _RING else 90.0 - math.copysign(_RING, front)
    if row in ("A", "I") or number > 8:
        return _point(_EAR if row == "A" else _OUTER, azimuth, side)
    rim = _point(_RING, azimuth, side)
    if abs(front) >= _RING:
        return rim
    # From the middle to the ring in four equal parts: 1 3 5 7 on the left, 2 4 6 8 on the right.
    return _between(_point(abs(front), 0.0 if front > 0 else 180.0, 0.0), rim, (number + 1) // 2 / 4)


def _point(polar: float, azimuth: float, side: float) -> tuple[float, float, float]:
    """Degrees from Cz, degrees from the nose, -1 for left and 1 for right."""
    down, round_ = math.radians(polar), math.radians(azimuth)
    return (side * math.sin(down) * math.sin(round_), math.sin(down) * math.cos(round_), math.cos(down))


def _between(
    start: tuple[float, float, float], end: tuple[float, float, float], share: float
) -> tuple[float, float, float]:
    """The point at `share` of the great circle's arc from start to end."""
    angle = math.acos(max(-1.0, min(1.0, sum(a * b for a, b in zip(start, end, strict=True)))))
    near, far = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    x, y, z = (near * a + far * b for a, b in zip(start, end, strict=True))
    return (x, y, z)
