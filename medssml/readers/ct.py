"""CT: a NIfTI file, or a DICOM series in a folder, as a volume in Hounsfield units with RAS+ axes.

Wrong geometry and values that are not HU are refused, with the measured figure: a model cannot see that a nodule was
twice as large as it looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Note, ReadError, reading, require_file
from medssml.readers.geometry import not_hounsfield, obliquity, spacing_of, to_hounsfield, to_ras
from medssml.readers.nifti import Given, nifti_layout, nifti_voxels

_UNITS_FIX = "export the volume in HU; CT values start near -1000"


class Volume(NamedTuple):
    """A CT volume.

    array: (X, Y, Z) HU in RAS+ axes (right, anterior, superior grow with the index), int16 where exact, else float32;
        a view, perhaps with negative strides: crop first, then `np.ascontiguousarray`.
    spacing: (3,) mm. affine: (4, 4) voxel -> RAS mm. notes: what was fixed or is odd.
    """

    array: NDArray[Any]
    spacing: NDArray[np.float64]
    affine: NDArray[np.float64]
    notes: tuple[str, ...]


class CTHeader(NamedTuple):
    """What `read_ct` will return, without the voxels. shape: (X, Y, Z). spacing: (3,) mm. affine: (4, 4)."""

    shape: tuple[int, int, int]
    spacing: NDArray[np.float64]
    affine: NDArray[np.float64]
    notes: tuple[str, ...]


def read_ct(path: str | Path, given: Given | None = None) -> Volume:
    """The volume in `path`: .nii, .nii.gz, a folder with one DICOM series, or one (multi-frame) DICOM file.

    Args:
        path: a file or a folder.
        given: what the header of a NIfTI file leaves blank; where the header states it as well, the two must agree. And
            which series of a DICOM folder is meant.

    Raises:
        ReadError: unreadable, damaged, truncated, without usable geometry, or not in HU.
    """
    path = _existing(path)
    with reading(path, "CT"):
        native, affine, notes = (_dicom_volume if _is_dicom(path) else _nifti_volume)(path, given)
        return volume_of(native, affine, notes, path)


def volume_of(native: NDArray[Any], affine: NDArray[np.float64], notes: tuple[str, ...], path: Path) -> Volume:
    """Voxels (I, J, K) in HU with their affine (voxel -> RAS mm), turned to RAS+ axes.

    Raises:
        ReadError: they cannot be HU.
    """
    turn = to_ras(affine, _triple(native.shape))
    array, spacing = turn.apply(native), spacing_of(turn.affine)
    odd: list[str] = []
    reason = not_hounsfield(native, spacing[np.argsort(turn.axes)], odd)
    if reason:
        raise ReadError(path, reason, _UNITS_FIX, code="units")
    return Volume(array, spacing, turn.affine, (*notes, *_oblique(turn.affine), *odd))


def require_finite(raw: NDArray[Any], path: Path) -> None:
    """Refuses voxels that are NaN or infinite.

    Raises:
        ReadError: with their number.
    """
    broken = raw.size - int(np.count_nonzero(np.isfinite(raw))) if raw.dtype.kind == "f" else 0
    if broken:
        reason = f"{broken:,} of {raw.size:,} voxels are NaN or infinite"
        raise ReadError(path, reason, "write air (-1000) where nothing was measured", code="content")


def ct_header(path: str | Path, given: Given | None = None) -> CTHeader:
    """Shape and geometry of `path`, from headers and file lengths alone; finds truncation, not flipped bits.

    Args:
        path, given: as `read_ct`.

    Raises:
        ReadError: as `read_ct`, as far as headers tell.
    """
    path = _existing(path)
    with reading(path, "CT"):
        if _is_dicom(path):
            from medssml.readers.series import series_stack

            stack = series_stack(path, given.series if given is not None else None)
            shape, affine, notes = stack.shape, stack.affine, stack.notes
        else:
            _no_series(path, given)
            layout = nifti_layout(path, given)
            shape, affine, notes = layout.shape, layout.affine, layout.notes
        turn = to_ras(affine, shape)
        turned = _triple(tuple(shape[axis] for axis in turn.axes))
        return CTHeader(turned, spacing_of(turn.affine), turn.affine, notes + _oblique(turn.affine))


def _existing(path: str | Path) -> Path:
    path = Path(path)
    return path if path.is_dir() else require_file(path)


def _is_dicom(path: Path) -> bool:
    if path.is_dir():
        return True
    from medssml.readers.dicom import is_dicom

    return is_dicom(path)


def _no_series(path: Path, given: Given | None) -> None:
    if given is not None and given.series is not None:
        raise ReadError(path, "is no DICOM, and the table names a series of it", "leave that cell empty", code="format")


def _dicom_volume(path: Path, given: Given | None) -> tuple[NDArray[Any], NDArray[np.float64], tuple[str, ...]]:
    from medssml.readers.series import series_stack, stack_voxels

    stack = series_stack(path, given.series if given is not None else None)
    voxels, notes = stack_voxels(stack)
    return voxels, stack.affine, stack.notes + notes


def _nifti_volume(path: Path, given: Given | None) -> tuple[NDArray[Any], NDArray[np.float64], tuple[str, ...]]:
    _no_series(path, given)
    layout = nifti_layout(path, given)
    raw = nifti_voxels(layout)
    require_finite(raw, path)
    values = to_hounsfield(raw, layout.slope, layout.intercept)
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():
        stored = f"stored values {raw.min():g} to {raw.max():g} with scl_slope {layout.slope:g}"
        reason = f"{stored} and scl_inter {layout.intercept:g} overflow: no HU, the scale or the values are damaged"
        raise ReadError(path, reason, _UNITS_FIX, code="units")
    return values, layout.affine, layout.notes


def _oblique(affine: NDArray[np.float64]) -> tuple[str, ...]:
    angle = obliquity(affine)
    return (Note(f"oblique: axes turned by {angle:.0f} degrees from RAS"),) if angle > 5 else ()


def _triple(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]
