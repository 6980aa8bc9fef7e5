"""Small pictures of files for the eye: the middle slice of a CT, a radiograph, a few seconds of an EEG.

Faulty values are no reason for no picture: a CT that is not in HU is shown from its least to its greatest value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.checks.inspection import Job
from medssml.readers import READERS, ReadError, read_eeg
from medssml.readers.geometry import spacing_of, to_ras
from medssml.readers.nifti import nifti_layout, nifti_voxels

#: Pixels of the longer side: burned-in text is not legible at this size.
SIDE = 144
_WINDOW_HU = (-1000.0, 400.0)
_EEG_SECONDS, _EEG_CHANNELS, _EEG_POINTS = 5.0, 6, 400


class Picture(NamedTuple):
    """What a file shows.

    pixels: (H, W) uint8 as it is looked at, or None. traces: (C, T) uV over `seconds` s, or None.
    """

    pixels: NDArray[np.uint8] | None = None
    traces: NDArray[np.float32] | None = None
    seconds: float = 0.0


def picture(job: Job) -> Picture | None:
    """The picture of a file; None where it cannot be read at all, shows a burned-in name, or is a text."""
    try:
        if job.kind == "ct":
            return _volume(job)
        if job.kind == "xray":
            return _radiograph(job)
        if job.kind == "eeg":
            return _recording(job)
    except ReadError:
        return None
    return None


def _volume(job: Job) -> Picture:
    try:
        volume = job.read(READERS)
        array, spacing, window = volume.array, volume.spacing, _WINDOW_HU
    except ReadError as error:
        if error.code not in ("units", "content") or job.path.is_dir():
            raise
        layout = nifti_layout(job.path, job.given)
        turn = to_ras(layout.affine, layout.shape)
        array, spacing = turn.apply(nifti_voxels(layout)), spacing_of(turn.affine)
        finite = array[np.isfinite(array)]
        window = (float(finite.min(initial=0)), float(finite.max(initial=1)))
    # as a radiologist looks at it: from the feet, the patient's right on the left, the front above
    middle = array[::-1, ::-1, array.shape[2] // 2].T
    return Picture(_small(_grays(middle, window), (float(spacing[1]), float(spacing[0]))))


def _radiograph(job: Job) -> Picture | None:
    radiograph = job.read(READERS)
    if any("burned-in" in note for note in radiograph.notes):
        return None
    return Picture(_small(_grays(radiograph.array, (0.0, 1.0)), (1.0, 1.0)))


def _recording(job: Job) -> Picture:
    recording = read_eeg(job.path, seconds=_EEG_SECONDS)
    step = max(1, recording.signal.shape[1] // _EEG_POINTS)
    traces = recording.signal[:_EEG_CHANNELS, ::step]
    return Picture(traces=traces - traces.mean(axis=1, keepdims=True), seconds=traces.shape[1] * step / recording.sfreq)


def _grays(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    scaled = (np.nan_to_num(values.astype(np.float32), nan=low) - low) / max(high - low, 1e-6)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _small(pixels: NDArray[np.uint8], steps: tuple[float, float]) -> NDArray[np.uint8]:
    """`pixels` at their physical proportions, `SIDE` on the longer side."""
    from PIL import Image

    height, width = pixels.shape[0] * steps[0], pixels.shape[1] * steps[1]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC))
