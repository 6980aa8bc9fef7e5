"""From what a cohort's files are like to a pretraining config: sizes, lengths, what is learned, and why.

After the fingerprint of nnU-Net (Isensee et al. 2021): fixed rules from a few numbers of the data, each said with its reason.
What is learned, and through which fusion, is what `configs/pretrain/default.yaml` says, as far as the cohort has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.config import load_config
from medssml.manifest.manifest import Manifest
from medssml.runs.training_config import PretrainConfig
from medssml.shipped_configs import config_path

#: What a machine can afford: voxels of a CT, pixels of a side, tokens of a report, Hz, seconds and channels of an EEG, studies
#: of a batch, layers and widths of the convolutional encoders.
AFFORDS: dict[str, dict[str, Any]] = {
    "cpu": {
        "voxels": 48**3, "pixels": 128, "tokens": 192, "hertz": 100, "seconds": 12, "channels": 24, "batch": 32,
        "layers": 10, "widths": [16, 32, 64, 128],
    },
    "cuda": {
        "voxels": 96**3, "pixels": 224, "tokens": 384, "hertz": 200, "seconds": 30, "channels": 64, "batch": 64,
        "layers": 18, "widths": [32, 64, 128, 256],
    },
}  # fmt: skip
KINDS = ("ct", "xray", "eeg", "report", "table")
#: Training studies that have both, below which a pair of modalities is not contrasted, nor words learned from an image.
FEWEST = 20
#: Word pieces of a word of a report, about.
_PIECES = 1.4
_RATES = (64, 100, 128, 200)
_STEPS = 1000
BATCH = "batch, studies"
#: Of the shipped configs, the one whose recipe a plan brings to a cohort.
RECIPE = "default"

Numbers = NDArray[np.float64]


class Choice(NamedTuple):
    """One decision: what was decided, what was found in the data, and the reason."""

    what: str
    chosen: str
    found: str
    why: str


class Plan(NamedTuple):
    """A pretraining config that can be written and run, and how it came about."""

    config: dict[str, Any]
    choices: list[Choice]


class _Part(NamedTuple):
    """The nodes of one modality."""

    encoder: dict[str, Any]
    transform: dict[str, Any]
    choices: list[Choice]


def node(cls: str, **arguments: Any) -> dict[str, Any]:
    """A part of a config."""
    return {"class_path": cls, **({"init_args": arguments} if arguments else {})}


def plan(
    manifest: Manifest, measured: Mapping[str, Mapping[str, Numbers]], features: Sequence[str], device: str
) -> Plan:
    """The config for the training studies of `manifest`.

    Args:
        manifest: the study table.
        measured: modality -> property (`medssml.checks.inspection.properties_of`) -> (n,) values.
        features: names of the laboratory values.
        device: "cpu" or "cuda".

    Raises:
        ValueError: no training study has a modality that can be planned for.
    """
    train, afford = manifest.split("train"), AFFORDS[device]
    counts = dict(zip(train.modalities, train.present.sum(axis=0).tolist(), strict=True))
    makers = {"ct": _ct, "xray": _xray, "eeg": _eeg, "report": _report}
    parts: dict[str, _Part] = {}
    for name in KINDS:
        if not counts.get(name):
            continue
        if name == "table":
            parts[name] = _table(features)
        elif measured.get(name):
            parts[name] = makers[name](measured[name], afford)
    if not parts:
        raise ValueError(f"no training study has a readable file of {', '.join(KINDS)}; fix: medssml check says why")
    left_out = [name for name in counts if name not in parts]
    choices = [choice for part in parts.values() for choice in part.choices]
    if left_out:
        said = "no rule for it" if set(left_out) - set(KINDS) else "no training study has a file that can be read"
        choices.append(Choice("left out", ", ".join(left_out), "", f"{said}; add it to the config yourself"))
    recipe = load_config(config_path(RECIPE, "pretrain"), PretrainConfig)
    objectives, learned = _objectives(recipe, train, list(parts), counts)
    data, trainer, course = _course(len(train), counts, list(parts), afford)
    config = {
        "model": node(
            "MultimodalModel",
            encoders={name: part.encoder for name, part in parts.items()},
            fusion=recipe.model["init_args"]["fusion"],
        ),
        "transforms": {name: part.transform for name, part in parts.items()},
        "objectives": objectives,
        "optim": {name: getattr(recipe.optim, name) for name in ("lr", "weight_decay", "warmup")},
        "trainer": trainer,
        "data": data,
    }
    return Plan(config, [*choices, *learned, *course])


def _ct(found: Mapping[str, Numbers], afford: Mapping[str, Any]) -> _Part:
    """The median spacing and the whole field of view, made coarser along the finest axes until it can be afforded."""
    plane, slices = found["spacing in plane, mm"], found["spacing of slices, mm"]
    field = [float(np.median(found["field of view, mm"]))] * 2 + [float(np.median(found["slices"] * slices))]
    own = [float(np.median(plane))] * 2 + [float(np.median(slices))]
    spacing = list(own)
    while math.prod(f / s for f, s in zip(field, spacing, strict=True)) > afford["voxels"]:
        finest = min(spacing) * 1.02
        spacing = [s * 1.02 if s <= finest else s for s in spacing]
    spacing = [float(f"{s:.2g}") for s in spacing]
    size = [max(16, 4 * math.ceil(f / s / 4)) for f, s in zip(field, spacing, strict=True)]
    coarser = max(s / o for s, o in zip(spacing, own, strict=True))
    why = "the median" if coarser < 1.1 else f"{coarser:.1f} times the median, so that the whole field of view fits"
    choices = [
        Choice("ct spacing, mm", _by(spacing), f"{spread(plane)} in plane, {spread(slices)} of slices", why),
        Choice("ct crop, voxels", _by(size), f"field of view {spread(found['field of view, mm'])} mm", _all_of(field)),
    ]
    encoder = node("ResNet", spatial_dims=3, layers=afford["layers"], widths=afford["widths"], max_pool=min(size) >= 64)
    return _Part(encoder, node("CTTransform", spacing=spacing, size=size, margin=2), choices)


def _all_of(field: Sequence[float]) -> str:
    return f"the median field of view, {_by([round(f) for f in field])} mm"


def _xray(found: Mapping[str, Numbers], afford: Mapping[str, Any]) -> _Part:
    sides = np.minimum(found["height, pixels"], found["width, pixels"])
    size = int(min(afford["pixels"], max(32, 32 * (np.median(sides) // 32))))
    why = "the median side" if size < afford["pixels"] else "as many as a step can afford"
    choice = Choice("xray size, pixels", f"{size} x {size}", f"shorter side {spread(sides)}", why)
    encoder = node("ResNet", spatial_dims=2, layers=afford["layers"], widths=afford["widths"], pool="gem")
    return _Part(encoder, node("XrayTransform", size=size), [choice])


def _eeg(found: Mapping[str, Numbers], afford: Mapping[str, Any]) -> _Part:
    rates, length, channels = found["sampling rate, Hz"], found["length, s"], found["channels"]
    least = float(np.percentile(rates, 5))
    sfreq = max([rate for rate in _RATES if rate <= min(least, afford["hertz"])], default=_RATES[0])
    window = float(max(1, math.floor(min(np.median(length), afford["seconds"]))))
    seen = float(max(window, math.floor(min(np.percentile(length, 95), 60))))
    most = int(min(max(1, np.percentile(channels, 95)), afford["channels"]))
    patch = sfreq if window * most <= 256 else 2 * sfreq
    choices = [
        Choice("eeg rate, Hz", f"{sfreq}", spread(rates), "what nearly all recordings have, within what is affordable"),
        Choice("eeg window, s", f"{window:g}", spread(length), f"evaluation sees {seen:g} s"),
        Choice("eeg channels", f"at most {most}", spread(channels), "others are drawn anew in each epoch"),
    ]
    encoder = node(
        "EEGTransformer", dim=96, depth=2, heads=4, patch_samples=min(patch, int(window * sfreq)), sfreq=sfreq
    )
    transform = node(
        "EEGTransform", sfreq=sfreq, window_s=window, eval_window_s=seen, bandpass=[0.5, min(45.0, 0.45 * sfreq)],
        max_channels=most,
    )  # fmt: skip
    return _Part(encoder, transform, choices)


def _report(found: Mapping[str, Numbers], afford: Mapping[str, Any]) -> _Part:
    words = found["length, words"]
    wanted = 16 * math.ceil((np.percentile(words, 95) * _PIECES + 2) / 16)
    length = int(min(max(32, wanted), afford["tokens"]))
    vocabulary = 2048 if len(words) >= 100 else 512
    why = "95 % of the reports whole" if length >= wanted else "as many as a step can afford; longer ones are cut"
    choice = Choice("report, tokens", f"{length} of {vocabulary}", f"{spread(words)} words", why)
    encoder = node("TextEncoder", vocab_size=vocabulary, dim=128, depth=2, heads=4, max_length=length, dropout=0.1)
    return _Part(encoder, node("ReportTransform", vocab_size=vocabulary, max_length=length), [choice])


def _table(features: Sequence[str]) -> _Part:
    named = ", ".join(features[:4]) + (" ..." if len(features) > 4 else "")
    choice = Choice("table values", f"{len(features)}", named, "units are not checked: write them into the config")
    encoder = node("TableEncoder", features=len(features), dim=64, depth=2, heads=4, dropout=0.1)
    return _Part(encoder, node("TableTransform", features=dict.fromkeys(features, "")), [choice])


def _objectives(
    recipe: PretrainConfig, train: Manifest, modalities: Sequence[str], counts: Mapping[str, int]
) -> tuple[list[dict[str, Any]], list[Choice]]:
    """What the pattern of presence lets be learned of the recipe: words from images, pairs from each other, each from itself."""
    has = {name: train.present[:, train.modalities.index(name)] for name in modalities}
    both = {
        (a, b): int((has[a] & has[b]).sum()) for i, a in enumerate(modalities) for b in modalities[i + 1 :]
    }  # fmt: skip
    pairs = {pair: count for pair, count in both.items() if count >= FEWEST}
    described = [name for name in ("ct", "xray") if (name, "report") in pairs]
    counted = ", ".join(f"{count} {'+'.join(pair)}" for pair, count in pairs.items())
    rules: dict[str, tuple[bool, dict[str, Any], str, str]] = {
        "BagOfWords": (
            bool(described),
            {"modalities": described},
            ", ".join(f"{pairs[name, 'report']} {name}+report" for name in described),
            "words predicted from images",
        ),
        "CrossModalContrast": (
            bool(pairs),
            {"pairs": ["+".join(pair) for pair in pairs]},
            counted,
            "modalities of one study",
        ),
        "VICReg": (
            True,
            {"modalities": list(modalities)},
            ", ".join(f"{counts[name]} {name}" for name in modalities),
            "two looks at each agree, whatever else a study has",
        ),
    }
    objectives, choices = [], []
    for part in recipe.objectives:
        name = str(part["class_path"])
        wanted, arguments, found, why = rules[name]
        if wanted:
            objectives.append(node(name, **{**part.get("init_args", {}), **arguments}))
            choices.append(Choice("learn by", name, found, why))
    return objectives, choices


def _course(
    train: int, counts: Mapping[str, int], modalities: Sequence[str], afford: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], list[Choice]]:
    """Batch size, order and length."""
    batch = int(max(2, min(afford["batch"], 2 ** int(math.log2(max(2, train / 4))))))
    per_epoch = max(1, train // batch)
    epochs = int(np.clip(math.ceil(_STEPS / per_epoch), 10, 200))
    numbers = [counts[name] for name in modalities]
    uneven = max(numbers) > 2 * min(numbers)
    data: dict[str, Any] = {"batch_size": batch} | ({"balance": "modality"} if uneven else {})
    trainer = {"max_epochs": epochs, "validate_every": max(1, epochs // 4)}
    choices = [
        Choice(BATCH, f"{batch}", f"{train} to train on", "at least four batches an epoch"),
        Choice("epochs", f"{epochs}", f"{per_epoch} steps each", f"about {_STEPS:,} steps, 10 to 200 epochs"),
    ]
    if uneven:
        found = ", ".join(f"{counts[name]} {name}" for name in modalities)
        choices.append(Choice("balance", "modality", found, "rare modalities are drawn more often"))
    return data, trainer, choices


def spread(values: Numbers) -> str:
    """The middle of some numbers and where 90 % of them lie."""
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:.3g}" if low == high else f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
