"""Arrays that a caller holds in memory, as what a reader makes of a file, and held to the same rules.

An array says neither how large its voxels are nor how fast it was sampled: that has to come with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.amplitude import spreads_uv, unit_factors
from medssml.readers.ct import Volume, require_finite, volume_of
from medssml.readers.eeg import Recording, recording_of
from medssml.readers.errors import ReadError
from medssml.readers.geometry import check_affine, check_spacing, spacing_of
from medssml.readers.source import Channel, Source, Timeline
from medssml.readers.voltage import unit_of
from medssml.readers.xray import Radiograph, radiograph_of

CT_FORMS = (
    "(array, (sx, sy, sz)): HU with axes to the right, front and head, and mm; (array, affine): voxel to RAS mm; a "
    "nibabel image, or a MONAI MetaTensor"
)
XRAY_FORMS = "(H, W), row 0 at the head, dense tissue white; whole numbers as stored, or 0 to 1"
EEG_FORMS = "(array, Hz, names): (C, T) in uV with C names such as 'Fp1' or 'Fp1-F7'; or an MNE Raw"
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def as_array(value: Any) -> NDArray[Any] | None:
    """The array of NumPy, or None where `value` is none: of an array, a tensor on any device, a picture of Pillow."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.as_tensor() if hasattr(value, "as_tensor") else value
        return np.asarray(value.float() if str(value.dtype) == "torch.bfloat16" else value)
    if isinstance(value, np.ndarray) or hasattr(value, "__array_interface__"):
        return np.asarray(value)
    return None


def held_ct(name: str, value: Any) -> Volume:
    """A volume in memory: `CT_FORMS`, or the `Volume` of a reader.

    Args:
        name: of the modality, for messages.
        value: an array of (X, Y, Z), or (1, X, Y, Z), with its geometry.

    Raises:
        TypeError: none of these. ValueError: without its geometry, or of another shape. ReadError: not in HU, not finite,
            or of a geometry that no scanner has.
    """
    if isinstance(value, Volume):
        return value
    array, geometry = _with_geometry(value)
    voxels = as_array(array)
    if voxels is None:
        raise TypeError(f"{name} is a {type(value).__name__}; fix: the path of a file, or {CT_FORMS}")
    if geometry is None:
        raise ValueError(
            f"{name} is an array {voxels.shape} without the size of its voxels, which a model needs; fix: {CT_FORMS}"
        )
    if voxels.ndim == 4 and 1 in (voxels.shape[0], voxels.shape[-1]):
        voxels = voxels.squeeze(0 if voxels.shape[0] == 1 else -1)
    if voxels.ndim != 3 or 0 in voxels.shape:
        raise ValueError(f"{name} is an array {voxels.shape}, expected (X, Y, Z); fix: one volume a study, {CT_FORMS}")
    where, affine = Path(f"{name} (array)"), _affine(name, geometry)
    require_finite(voxels, where)
    check_affine(affine, where)
    check_spacing(spacing_of(affine), where)
    return volume_of(_exact(voxels), affine, (), where)


def _with_geometry(value: Any) -> tuple[Any, Any]:
    """The array of a value, and what it says of its geometry, or None."""
    if isinstance(value, tuple) and len(value) == 2:
        return value
    if hasattr(value, "dataobj"):  # a nibabel image
        return np.asanyarray(value.dataobj), value.affine
    if hasattr(value, "detach") and hasattr(value, "meta"):  # a MetaTensor
        affine = np.asarray(value.affine.detach().cpu(), dtype=np.float64)
        return value, _LPS @ affine if str(value.meta.get("space", "RAS")).upper() == "LPS" else affine
    return value, None


def _affine(name: str, geometry: Any) -> NDArray[np.float64]:
    """(4, 4) voxel -> RAS mm, from itself or from the spacing of axes that lie as RAS."""
    found = as_array(geometry)
    try:
        found = np.asarray(geometry if found is None else found, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape == (4, 4):
        return found
    if found.shape != (3,) or not (found > 0).all():
        raise ValueError(f"{name} comes with {geometry!r} as its geometry; fix: {CT_FORMS}")
    return np.diag([*found, 1.0])


def _exact(voxels: NDArray[Any]) -> NDArray[Any]:
    """int16 where that is exact, as readers give it, else float32."""
    if voxels.dtype.kind in "iu" and np.iinfo(np.int16).min <= voxels.min() and voxels.max() <= np.iinfo(np.int16).max:
        return voxels.astype(np.int16)
    return voxels.astype(np.float32)


def held_xray(name: str, value: Any) -> Radiograph:
    """A radiograph in memory: `XRAY_FORMS`, a picture of Pillow, or the `Radiograph` of a reader.

    Args:
        name: of the modality, for messages.
        value: (H, W) or (1, H, W).

    Raises:
        TypeError: none of these. ValueError: of another shape or range. ReadError: no picture.
    """
    if isinstance(value, Radiograph):
        return value
    gray = as_array(value.convert("L") if getattr(value, "mode", "") in ("RGB", "RGBA", "P", "LA") else value)
    if gray is None:
        raise TypeError(f"{name} is a {type(value).__name__}; fix: the path of a file, or an array {XRAY_FORMS}")
    if gray.ndim == 3 and gray.shape[0] == 1:
        gray = gray[0]
    if gray.ndim != 2 or 0 in gray.shape:
        raise ValueError(f"{name} is an array {gray.shape}, expected (H, W); fix: one gray image, {XRAY_FORMS}")
    low, high = float(np.min(gray)), float(np.max(gray))
    whole = gray.dtype.kind in "iu"
    if not np.isfinite([low, high]).all() or low < 0 or high > (65535 if whole else 1):
        kind = "whole numbers" if whole else "decimals"
        raise ValueError(f"{name} holds {kind} from {low:g} to {high:g}; fix: {XRAY_FORMS}")
    return radiograph_of(gray, Path(f"{name} (array)"))


def held_eeg(name: str, value: Any) -> Recording:
    """A recording in memory: `EEG_FORMS`, or the `Recording` of a reader.

    Args:
        name: of the modality, for messages.
        value: the signal with its rate and the names of its channels.

    Raises:
        TypeError: none of these. ValueError: of another shape, or not in uV. ReadError: no scalp channel, no signal.
    """
    if isinstance(value, Recording):
        return value
    if hasattr(value, "get_data") and hasattr(value, "ch_names"):  # MNE's objects are in V
        return _recording(name, value.get_data() * 1e6, float(value.info["sfreq"]), value.ch_names)
    if not (isinstance(value, tuple) and len(value) == 3):
        kind = "an array without its rate and channels" if as_array(value) is not None else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {kind}; fix: the path of a file, or {EEG_FORMS}")
    signal, sfreq, names = as_array(value[0]), value[1], [str(label) for label in value[2]]
    if signal is None or signal.ndim != 2 or len(signal) != len(names) or isinstance(value[2], str):
        shape = None if signal is None else signal.shape
        raise ValueError(
            f"{name} is an array {shape} with {len(names)} names, expected (C, T) with C; fix: {EEG_FORMS}"
        )
    if not (isinstance(sfreq, (int, float, np.number)) and 0 < float(sfreq) < 1e5):
        raise ValueError(f"{name} comes with {sfreq!r} as its rate in Hz; fix: {EEG_FORMS}")
    return _recording(name, signal, float(sfreq), names)


def _recording(name: str, signal: NDArray[Any], sfreq: float, names: Sequence[str]) -> Recording:
    signal = np.asarray(signal, dtype=np.float32)
    where = Path(f"{name} (array)")
    if signal.shape[1] == 0:
        raise ReadError(where, "holds no sample", "leave the recording out")
    channels = tuple(Channel(label, sfreq, unit_of("uV")) for label in names)
    source = Source(
        channels, signal.shape[1] / sfreq, lambda rows, first, last: signal[list(rows), first:last], Timeline
    )
    found = recording_of(source, where)
    # Nobody stated a unit: what a file without one would be corrected by, a caller can put right.
    factors, _ = unit_factors(spreads_uv(found.signal, sfreq), [False] * len(found.signal))
    if (factors != 1).any():
        raise ValueError(f"{name} cannot be in uV as it is; fix: multiply by {float(factors.max()):g}")
    return found
