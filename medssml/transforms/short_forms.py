"""The usual road of each modality in one line: `CTTransform(spacing, size)` and so on.

Each is a `Road` whose steps are those that `docs/transforms.md` lists; what is saved with a model are the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml.config import build
from medssml.transforms.base import at_least
from medssml.transforms.ct import OUTSIDE
from medssml.transforms.report import Vocabulary
from medssml.transforms.report_steps import Tokenized
from medssml.transforms.road import Road

#: HU of what a scan does not cover: low enough that no noise lifts it into a window.
_EMPTY_HU = -2048
#: Pixels that are prepared per pixel of the output, so that a crop of 0.8 of the side still has a pixel for every pixel.
_RESERVE = 1.25


def _step(name: str, **arguments: Any) -> Any:
    """A step that knows what it was built with."""
    return build({"class_path": name, "init_args": arguments})


def _monai(name: str, **arguments: Any) -> Any:
    return _step(f"monai.transforms.{name}", **arguments)


class CTTransform(Road):
    """A centred crop of fixed physical size in RAS+ axes, windowed to [0, 1].

    Args:
        spacing: mm between voxels along X, Y, Z.
        size: voxels along X, Y, Z: the crop measures `spacing * size` mm.
        window: HU that become 0 and 1.
        margin: voxels prepared on every side for random shifts.
        flip_axes: axes that training may mirror: 0 left-right, 1 front-back, 2 head-feet. None for a chest, whose heart
            is on the left; all for a nodule, which knows no sides.
        rotate90: training may turn by quarter turns about Z. As `flip_axes`: for nodules.
        noise: most HU of the Gaussian noise that training adds to half of the crops.
        jitter: most HU that training shifts all values by, and the same share of the window in contrast.
    """

    def __init__(
        self,
        spacing: Sequence[float] = (2.0, 2.0, 2.0),
        size: Sequence[int] = (128, 128, 128),
        window: Sequence[float] = (-1000.0, 400.0),
        margin: int = 4,
        flip_axes: Sequence[int] = (),
        rotate90: bool = False,
        noise: float = 20.0,
        jitter: float = 20.0,
    ) -> None:
        low, high = (float(hu) for hu in window)
        _check_ct(size, low, high, margin, flip_axes, rotate90)
        size, stored = [int(n) for n in size], [int(n) + 2 * int(margin) for n in size]
        steps = [_step("LoadCTd", keys="ct", spacing=list(spacing), size=stored, outside=_EMPTY_HU)]
        if margin:
            steps.append(_monai("RandSpatialCropd", keys="ct", roi_size=size, random_size=False))
            steps.append(_monai("CenterSpatialCropd", keys="ct", roi_size=size))
        if rotate90:
            steps.append(_monai("RandRotate90d", keys="ct", prob=0.75, max_k=3, spatial_axes=[0, 1]))
        steps += [_monai("RandFlipd", keys="ct", prob=0.5, spatial_axis=int(axis)) for axis in flip_axes]
        if jitter:
            steps.append(_monai("RandScaleIntensityd", keys="ct", factors=jitter / (high - low), prob=1.0))
            steps.append(_monai("RandShiftIntensityd", keys="ct", offsets=float(jitter), prob=1.0))
        if noise:
            steps.append(_monai("RandGaussianNoised", keys="ct", prob=0.5, std=float(noise)))
        scale = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}
        super().__init__("ct", [*steps, _monai("ScaleIntensityRanged", keys="ct", **scale)])


def _check_ct(
    size: Sequence[int], low: float, high: float, margin: int, flip_axes: Sequence[int], rotate90: bool
) -> None:
    at_least("margin", margin, 0)
    if not OUTSIDE <= low < high:
        raise ValueError(f"window is ({low}, {high}) HU, expected {OUTSIDE} <= low < high")
    if any(axis not in (0, 1, 2) for axis in flip_axes):
        raise ValueError(f"flip_axes is {flip_axes}, expected some of 0 (left-right), 1 (front-back), 2 (head-feet)")
    if rotate90 and size[0] != size[1]:
        raise ValueError(f"rotate90 needs a crop as wide as deep, size is {size}")


class XrayTransform(Road):
    """A radiograph resized with antialiasing, its aspect kept, to a square of `size` pixels.

    Never turned upside down and never coloured; mirrored only where `flip` says so: the heart is on the left.

    Args:
        size: pixels along each side.
        fit: "pad" keeps the whole image, "crop" its central square.
        percentiles: of the pixels, that become 0 and 1; None keeps the range that the file declares.
        crop_scale: smallest share of the side that a random crop of training keeps, 0.6 to 1.
        rotate: most degrees that training turns by.
        contrast: most that training changes contrast by: a gamma of 1 - contrast to 1 + contrast.
        flip: training may mirror left and right.
    """

    def __init__(
        self,
        size: int = 224,
        fit: str = "pad",
        percentiles: Sequence[float] | None = (1.0, 99.0),
        crop_scale: float = 0.8,
        rotate: float = 7.0,
        contrast: float = 0.15,
        flip: bool = False,
    ) -> None:
        at_least("size", size, 8)
        if not 0.6 <= crop_scale <= 1:
            raise ValueError(f"crop_scale is {crop_scale}, expected 0.6 to 1: a smaller crop loses half of a lung")
        stored = math.ceil(size * _RESERVE)
        kept = {"percentiles": None if percentiles is None else list(percentiles)}
        steps = [_step("LoadXrayd", keys="xray", size=stored, fit=fit, **kept)]
        # Zoomed by itself: RandAffined would scale each axis by its own factor, and the width of a heart is a finding.
        zoom = {"min_zoom": size / stored, "max_zoom": size / stored / crop_scale, "keep_size": False}
        steps.append(_monai("RandZoomd", keys="xray", prob=1.0, mode="bilinear", **zoom))
        pose = {"rotate_range": math.radians(rotate), "translate_range": [size * (1 - crop_scale) / 4] * 2}
        grid = {"spatial_size": [size, size], "padding_mode": "zeros", "cache_grid": True}
        steps.append(_monai("RandAffined", keys="xray", prob=1.0, **pose, **grid))
        steps.append(_step("AntialiasResized", keys="xray", size=size))
        if flip:
            steps.append(_monai("RandFlipd", keys="xray", prob=0.5, spatial_axis=1))
        if contrast:
            steps.append(_monai("RandAdjustContrastd", keys="xray", prob=1.0, gamma=[1 - contrast, 1 + contrast]))
        super().__init__("xray", steps)


class EEGTransform(Road):
    """Windows of a recording, any subset of the named 10-10 channels or of their bipolar derivations, in 100 uV.

    Args:
        sfreq: Hz.
        window_s: s of the random window that training sees.
        eval_window_s: s of the central window that evaluation sees, `window_s` or more; None = the whole that is stored.
        bandpass: Hz, edges of the pass band; None = no filter below the new Nyquist frequency.
        notch: Hz of the mains and its harmonics; None = none.
        average_reference: subtract the mean over scalp electrodes.
        max_s: s that are prepared, the middle of the recording.
        max_channels: most channels of one study; training draws, evaluation takes the first.
        clip_uv: uV beyond which values are cut.
        channel_dropout: share of channels that training leaves out.
        amplitude: most that training scales the signal by, up or down, as a share.
        noise_uv: most uV of the white noise that training adds to half of the windows.
    """

    def __init__(
        self,
        sfreq: float = 100.0,
        window_s: float = 10.0,
        eval_window_s: float | None = 60.0,
        bandpass: Sequence[float] | None = (0.5, 45.0),
        notch: float | None = None,
        average_reference: bool = True,
        max_s: float = 600.0,
        max_channels: int | None = None,
        clip_uv: float = 500.0,
        channel_dropout: float = 0.1,
        amplitude: float = 0.2,
        noise_uv: float = 2.0,
    ) -> None:
        at_least("window_s * sfreq", window_s * sfreq, 1)
        read = {"bandpass": None if bandpass is None else list(bandpass), "notch": notch, "max_s": max_s}
        steps = [_step("LoadEEGd", keys="eeg", sfreq=sfreq, average_reference=average_reference, **read)]
        steps.append(_step("RandWindowd", keys="eeg", seconds=window_s))
        if eval_window_s is not None:
            steps.append(_step("CentralWindowd", keys="eeg", seconds=eval_window_s))
        if channel_dropout or max_channels is not None:
            steps.append(_step("RandDropChannelsd", keys="eeg", share=channel_dropout, most=max_channels))
        if amplitude:
            steps.append(_monai("RandScaleIntensityd", keys="eeg", factors=amplitude, prob=1.0))
        if noise_uv:
            steps.append(_monai("RandGaussianNoised", keys="eeg", prob=0.5, std=noise_uv))
        super().__init__("eeg", [*steps, _step("EEGInputsd", keys="eeg", max_channels=max_channels, clip_uv=clip_uv)])


class ReportTransform(Road):
    """Token ids of a report, between [CLS] and [SEP], cut at `max_length`.

    Args:
        tokenizer: a local Hugging Face folder; None = a lower-case vocabulary that is learned from the training studies.
        vocab_size: most tokens that are learned.
        max_length: most tokens of a report, [CLS] and [SEP] included.
        sections: keep only these sections, in this order, where the report has any of them; None = the whole text.
        drop_sentences: share of the sentences that training leaves out.
        shuffle_sentences: share of the reports whose sentences training puts in another order.
        min_subjects: a word in the reports of fewer subjects is never learned as a whole: it may be a name.
    """

    def __init__(
        self,
        tokenizer: str | Path | None = None,
        vocab_size: int = 4096,
        max_length: int = 192,
        sections: Sequence[str] | None = None,
        drop_sentences: float = 0.1,
        shuffle_sentences: float = 0.1,
        min_subjects: int = 5,
    ) -> None:
        steps = [_step("LoadReportd", keys="report", sections=None if sections is None else list(sections))]
        if drop_sentences or shuffle_sentences:
            steps.append(_step("RandSentencesd", keys="report", drop=drop_sentences, shuffle=shuffle_sentences))
        limits = {"vocab_size": vocab_size, "max_length": max_length, "min_subjects": min_subjects}
        self._tokens: Tokenized = _step("Tokenized", keys="report", tokenizer=tokenizer, **limits)
        super().__init__("report", [*steps, self._tokens])

    @property
    def vocabulary(self) -> Vocabulary:
        """Text <-> token ids."""
        return self._tokens.vocabulary


class TableTransform(Road):
    """Laboratory values, (x - mean) / std with the figures of the training studies, cut at `clip`.

    Args:
        features: name -> unit, in the order of the encoder's features; "" where no unit is checked.
        clip: standard deviations beyond which a value says no more.
        hide: probability that training hides a known value; never all of them.
        fitted: name -> [mean, std], as a saved model brings them along; None = learned from the training studies.
    """

    def __init__(
        self,
        features: Mapping[str, str],
        clip: float = 5.0,
        hide: float = 0.1,
        fitted: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        steps = [_step("LoadTabled", keys="table", features=dict(features))]
        if hide:
            steps.append(_step("RandHideValuesd", keys="table", share=hide))
        super().__init__("table", [*steps, _step("Standardised", keys="table", clip=clip, fitted=fitted)])
