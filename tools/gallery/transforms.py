"""What each transform does to a simulated study: before, and what it makes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gallery.drawing import INK, Array, bare, figure, image, traces, values, words
from gallery.simulated import LABORATORY, LUNG, SEED, STEP, drawn, loaded, plane, section, study
from medssml.phantom import Design
from medssml.phantom.cohort import draw, file_names, write_study
from medssml.readers import CHANNELS, read_report
from medssml.reports.figures import COLOURS, FAINT


def looks(modality: str, step: Any, *, before: str = "before", count: int = 3) -> Figure:
    """An image beside several draws of a step."""
    show, limits = (section, LUNG) if modality == "ct" else (plane, (0, 1))
    made, axes = figure(2.35, columns=count + 1)
    image(axes[0], show(loaded(modality)[modality]), before, low=limits[0], high=limits[1])
    for seed, place in enumerate(axes[1:], start=1):
        image(place, show(drawn(step, modality, seed)[modality]), f"draw {seed}", low=limits[0], high=limits[1])
    return made


def window(entries: dict[str, Any], rows: int = 6) -> tuple[Array, list[str]]:
    """The first channels of a recording in uV, and their names."""
    from medssml.transforms.eeg_steps import microvolts

    signal = np.asarray(microvolts(entries["eeg"]), dtype=float)[:rows]
    return signal, [CHANNELS[int(channel)] for channel in np.asarray(entries["eeg_channels"])[:rows]]


def recordings(step: Any, before_s: float, *, seeds: tuple[int, ...] = (1, 2)) -> Figure:
    """A recording beside draws of a step."""
    made, axes = figure(2.6, columns=1 + len(seeds), width_ratios=[1.3, *[1] * len(seeds)])
    signal, names = window(loaded("eeg"))
    traces(axes[0], signal[:, : int(before_s * 100)], 100.0, names, "before", STEP)
    for place, seed in zip(axes[1:], seeds, strict=True):
        signal, names = window(drawn(step, "eeg", seed))
        traces(place, signal, 100.0, names, f"draw {seed}", STEP)
    return made


def load_ct() -> Figure:
    """Sagittal, coronal and axial sections."""
    volume = np.asarray(loaded("ct")["ct"])[0].astype(float)
    x, y, z = (size // 2 for size in volume.shape)
    sections = {
        "axial": volume[::-1, ::-1, z].T,
        "coronal": np.flipud(volume[::-1, y].T),
        "sagittal": np.flipud(volume[x, ::-1].T),
    }
    made, axes = figure(2.7, columns=3)
    for place, (name, pixels) in zip(axes, sections.items(), strict=True):
        image(place, pixels, f"{name}, {pixels.shape[1]} x {pixels.shape[0]} voxels of 4 mm", low=LUNG[0], high=LUNG[1])
    return made


def load_xray() -> Figure:
    """The image in the square, padded and cropped."""
    from medssml.transforms import LoadXrayd

    made, axes = figure(2.9, columns=3)
    image(axes[0], plane(loaded("xray")["xray"]), 'fit="pad"')
    for place, loader, title in (
        (axes[1], LoadXrayd("xray", 160, fit="crop"), 'fit="crop"'),
        (axes[2], LoadXrayd("xray", 160, percentiles=None), "percentiles=None"),
    ):
        image(place, plane(loader({"xray": study()["xray"]})["xray"]), title)
    return made


def load_eeg() -> Figure:
    """Six seconds of what the file holds, without and with the filters."""
    from medssml.transforms import LoadEEGd

    raw = dict(LoadEEGd("eeg", sfreq=100.0, bandpass=None, average_reference=False)({"eeg": study()["eeg"]}))
    made, axes = figure(2.8, columns=2)
    for place, entries, title in (
        (axes[0], raw, "resampled only"),
        (axes[1], loaded("eeg"), "0.5 to 45 Hz, average reference"),
    ):
        signal, names = window(entries)
        traces(place, signal[:, :600], 100.0, names, title, STEP)
    return made


def load_report() -> Figure:
    """The report, and its findings alone."""
    from medssml.transforms import LoadReportd

    made, axes = figure(3.0, columns=2)
    whole = str(read_report(study()["report"]).text)
    part = str(dict(LoadReportd("report", sections=["findings"])({"report": study()["report"]}))["report"])
    words(axes[0], [(line, INK) for line in whole.splitlines() if line.strip()], "the whole text")
    words(axes[1], [(line, INK) for line in part.splitlines() if line.strip()], 'sections=["findings"]')
    return made


def load_table() -> Figure:
    """Values of one patient, each on its own scale."""
    made, axes = figure(1.9)
    bare(axes[0], "values of one patient; NaN where not measured")
    axes[0].set(xlim=(0, 1), ylim=(len(LABORATORY), -0.3))
    for height, (name, number) in enumerate(zip(LABORATORY, np.asarray(loaded("table")["table"]), strict=True)):
        axes[0].text(0.0, height, name, color=INK, va="center")
        axes[0].text(0.42, height, f"{number:g}", color=INK, va="center", ha="right")
        axes[0].text(0.44, height, LABORATORY[name][0], color=FAINT, va="center")
    return made


def rand_sentences() -> Figure:
    """A report beside two draws, in which what stays keeps its colour."""
    from medssml.readers.sentences import sentences
    from medssml.transforms import RandSentencesd

    step = RandSentencesd("report", drop=0.4, shuffle=1.0)
    colour = dict(zip(sentences(loaded("report")["report"]), COLOURS * 4, strict=False))
    made, axes = figure(3.4, columns=3)
    words(axes[0], list(colour.items()), "before", width=34)
    for place, seed in zip(axes[1:], (1, 4), strict=True):
        left = str(drawn(step, "report", seed)["report"]).splitlines()
        words(place, [(line, colour[line]) for line in left], f"draw {seed}", width=34)
    return made


def tokenized() -> Figure:
    """The tokens of the first words, and their ids."""
    from medssml.transforms import Tokenized

    rows = draw(Design(studies=40, seed=SEED, missing=0.0))
    step = Tokenized("report", vocab_size=256, max_length=24)
    with tempfile.TemporaryDirectory() as folder:
        texts = []
        for row in rows.assign(present_ct=False, present_xray=False, present_eeg=False).to_dict("records"):
            write_study(row, Path(folder), SEED)
            texts.append({"report": (Path(folder) / file_names(row["study_id"])["report"]).read_text("utf-8")})
    step.learn(texts, [row["report"] for row in texts])
    ids = np.asarray(drawn(step, "report", 0)["report"]["input_ids"])
    made, axes = figure(1.6)
    bare(axes[0], "tokens and their ids")
    axes[0].set(xlim=(0, 8), ylim=(3, 0))
    names = [step.vocabulary.tokenizer.id_to_token(int(number)) for number in ids]
    for place, (name, number) in enumerate(zip(names, ids, strict=True)):
        axes[0].text(place % 8, place // 8 + 0.35, name, color=INK, va="center", fontsize=9)
        axes[0].text(place % 8, place // 8 + 0.7, str(number), color=COLOURS[0], va="center", fontsize=8)
    return made


def rand_hide_values() -> Figure:
    """Values in standard deviations, beside two draws with some of them hidden."""
    from medssml.transforms import RandHideValuesd

    made, axes = figure(2.1, columns=3, sharey=True)
    values(axes[0], list(LABORATORY), standard(loaded("table")["table"]), "before")
    for place, seed in zip(axes[1:], (2, 3), strict=True):
        hidden = drawn(RandHideValuesd("table", share=0.3), "table", seed)["table"]
        values(place, list(LABORATORY), standard(hidden), f"draw {seed}")
    for place in axes:
        place.set(xlim=(-3, 3), xlabel="sd from the mean")
    return made


def standardised() -> Figure:
    """What the encoder sees: values in standard deviations, and which are known."""
    from medssml.transforms import Standardised

    fitted = {name: (mean, sd) for name, (_, _, mean, sd) in LABORATORY.items()}
    seen = drawn(Standardised("table", fitted=fitted), "table", 0)["table"]
    numbers = np.where(np.asarray(seen["known"]), np.asarray(seen["values"], dtype=float), np.nan)
    made, axes = figure(2.1)
    values(
        axes[0], list(LABORATORY), numbers, "standard deviations of the training studies", "0, and marked as not known"
    )
    axes[0].set(xlim=(-3, 3), xlabel="sd from the mean")
    return made


def standard(numbers: Any) -> Array:
    """(F,) in standard deviations."""
    mean, sd = (np.array([entry[place] for entry in LABORATORY.values()]) for place in (2, 3))
    return (np.asarray(numbers, dtype=float) - mean) / sd


def antialias_resized() -> Figure:
    """A radiograph made smaller, without and with antialiasing."""
    from medssml.transforms import AntialiasResized, LoadXrayd

    whole = dict(LoadXrayd("xray", 240)({"xray": study()["xray"]}))
    made, axes = figure(2.9, columns=3)
    image(axes[0], plane(whole["xray"]), "240 pixels")
    image(axes[1], plane(whole["xray"])[::6, ::6], "40 pixels, every sixth one")
    image(axes[2], plane(AntialiasResized("xray", 40)(whole)["xray"]), "40 pixels, AntialiasResized")
    return made


def principal_components() -> Figure:
    """A coarse CT, the first directions in which training studies differ, and the CT's place on them."""
    from medssml.phantom.presets import preset
    from medssml.transforms import LoadCTd, PrincipalComponentsd

    table = draw(Design(studies=80, seed=SEED, missing=0.0))
    folder = Path(tempfile.mkdtemp(prefix="gallery"))
    load, rows = LoadCTd("ct", (12, 12, 10), (32, 24, 32)), []
    for row in table.assign(present_xray=False, present_eeg=False, present_report=False).to_dict("records"):
        write_study(row, folder, SEED, preset=preset("small"))
        rows.append({"ct": load({"ct": folder / file_names(row["study_id"])["ct"]})["ct"].float()})
    step = PrincipalComponentsd("ct", 12)
    step.learn(rows, None)
    mean, directions = step.figures or ()
    sick = int(table["evidence_ct_effusion"].to_numpy().argmax())
    made, axes = figure(2.5, columns=4)
    image(axes[0], section(rows[sick]["ct"]), "a CT, HU", low=LUNG[0], high=LUNG[1])
    for place in (0, 1):
        direction = directions[place].reshape(mean.shape)
        most = float(direction.abs().max())
        image(axes[1 + place], section(direction), f"component {place + 1}", low=-most, high=most)
    names = [str(number) for number in range(1, 13)]
    values(axes[3], names, step(rows[sick])["ct"][0].numpy(), "the CT, in SDs")
    return made


def resized() -> Figure:
    """A CT on a coarser grid."""
    from monai.transforms import Resized

    whole = {"ct": loaded("ct")["ct"].float()}
    made, axes = figure(2.7, columns=2)
    image(axes[0], section(whole["ct"]), "96 x 80 x 72 voxels", low=LUNG[0], high=LUNG[1])
    coarse = Resized("ct", (32, 26, 24), mode="area")(dict(whole))["ct"]
    image(axes[1], section(coarse), "Resized to 32 x 26 x 24, mode area", low=LUNG[0], high=LUNG[1])
    return made


def eeg_inputs() -> Figure:
    """What an encoder sees of a recording."""
    from medssml.transforms import CentralWindowd, EEGInputsd

    entries = EEGInputsd("eeg", max_channels=4, clip_uv=100.0)(CentralWindowd("eeg", 6.0)(dict(loaded("eeg"))))
    seen = entries["eeg"]
    made, axes = figure(2.3)
    names = [CHANNELS[int(channel)] for channel in np.asarray(seen["channels"])]
    title = f"signal {tuple(seen['signal'].shape)} in units of 100 uV, cut at 1; channels; length {int(seen['length'])}"
    traces(axes[0], np.asarray(seen["signal"], dtype=float), 100.0, names, title, step=1.2)
    return made


def monai(modality: str, name: str, **arguments: Any) -> Callable[[], Figure]:
    """Draws of one of MONAI's transforms."""

    def made() -> Figure:
        import monai.transforms

        return looks(modality, getattr(monai.transforms, name)(modality, **arguments))

    return made


def axial_turns() -> Figure:
    """Quarter turns about the long axis of the body."""
    from monai.transforms import RandRotate90d

    step = RandRotate90d("ct", prob=1.0, max_k=3, spatial_axes=(0, 1))
    made, axes = figure(2.35, columns=4)
    for seed, place in enumerate(axes):
        volume = drawn(step, "ct", seed)["ct"] if seed else loaded("ct")["ct"]
        pixels = np.asarray(volume)[0, ::-1, ::-1, volume.shape[3] // 2].T.astype(float)
        image(place, pixels, f"draw {seed}" if seed else "before", low=LUNG[0], high=LUNG[1])
    return made


def monai_eeg(name: str, **arguments: Any) -> Callable[[], Figure]:
    """Draws of one of MONAI's transforms of intensity, on a window in uV."""

    def made() -> Figure:
        import monai.transforms

        from medssml.transforms import CentralWindowd

        middle = CentralWindowd("eeg", 4.0)(dict(loaded("eeg")))
        step = getattr(monai.transforms, name)("eeg", **arguments)
        drawing, axes = figure(2.6, columns=3)
        for seed, place in enumerate(axes):
            step.set_random_state(seed=seed)
            signal, names = window(step(dict(middle)) if seed else middle)
            traces(place, signal, 100.0, names, f"draw {seed}" if seed else "before", STEP)
        return drawing

    return made


def road(modality: str) -> Callable[[], Figure]:
    """What an encoder sees: the usual transforms of a modality, in evaluation and in three draws of training."""

    def made() -> Figure:
        from medssml.transforms import CTTransform, EEGTransform, XrayTransform

        whole = {
            "ct": lambda: CTTransform(spacing=(4, 4, 4), size=(80, 64, 64), margin=8, noise=60),
            "xray": lambda: XrayTransform(size=128),
            "eeg": lambda: EEGTransform(window_s=4.0, eval_window_s=4.0),
        }[modality]()
        prepared = whole.prepare(study()[modality])
        drawing, axes = figure(2.6 if modality == "eeg" else 2.35, columns=3 if modality == "eeg" else 4)
        for seed, place in enumerate(axes):
            inputs, title = whole(prepared, seed=seed or None), f"training, draw {seed}" if seed else "evaluation"
            if modality == "eeg":
                names = [CHANNELS[int(channel)] for channel in np.asarray(inputs["channels"])[:6]]
                traces(place, 100 * np.asarray(inputs["signal"], dtype=float)[:6], 100.0, names, title, STEP)
            else:
                image(place, (section if modality == "ct" else plane)(inputs), title)
        return drawing

    return made


def monai_window() -> Figure:
    """HU brought to 0 to 1, and its middle cut out."""
    from monai.transforms import CenterSpatialCropd, ScaleIntensityRanged

    made, axes = figure(2.7, columns=3)
    raw = {"ct": loaded("ct")["ct"].float()}
    windowed = ScaleIntensityRanged("ct", -1000, 400, 0, 1, clip=True)(dict(raw))
    image(axes[0], section(raw["ct"]), "HU, -1000 to 3000", low=-1000, high=3000)
    image(axes[1], section(windowed["ct"]), "ScaleIntensityRanged")
    image(axes[2], section(CenterSpatialCropd("ct", (64, 56, 48))(windowed)["ct"]), "and CenterSpatialCropd")
    return made


def rand_window() -> Figure:
    from medssml.transforms import RandWindowd

    return recordings(RandWindowd("eeg", 4.0), 10.0)


def central_window() -> Figure:
    from medssml.transforms import CentralWindowd

    return recordings(CentralWindowd("eeg", 4.0), 10.0, seeds=(1,))


def rand_drop_channels() -> Figure:
    from medssml.transforms import CentralWindowd, RandDropChannelsd

    made, axes = figure(3.6, columns=3)
    middle = CentralWindowd("eeg", 4.0)(dict(loaded("eeg")))
    step = RandDropChannelsd("eeg", share=0.5)
    for place, seed in zip(axes, (0, 1, 2), strict=True):
        step.set_random_state(seed=seed)
        signal, names = window(step(dict(middle)) if seed else middle, rows=19)
        traces(place, signal, 100.0, names, f"draw {seed}" if seed else "before", STEP)
    return made


FIGURES: dict[str, Callable[[], Figure]] = {
    "LoadCTd": load_ct,
    "LoadXrayd": load_xray,
    "LoadEEGd": load_eeg,
    "LoadReportd": load_report,
    "LoadTabled": load_table,
    "RandWindowd": rand_window,
    "CentralWindowd": central_window,
    "RandDropChannelsd": rand_drop_channels,
    "EEGInputsd": eeg_inputs,
    "RandSentencesd": rand_sentences,
    "Tokenized": tokenized,
    "RandHideValuesd": rand_hide_values,
    "Standardised": standardised,
    "PrincipalComponentsd": principal_components,
    "AntialiasResized": antialias_resized,
    "Resized": resized,
    "ScaleIntensityRanged": monai_window,
    "RandSpatialCropd": monai("ct", "RandSpatialCropd", roi_size=(64, 56, 48), random_size=False),
    "RandRotate90d": axial_turns,
    "RandShiftIntensityd": monai("ct", "RandShiftIntensityd", prob=1.0, offsets=200),
    "RandScaleIntensityd": monai_eeg("RandScaleIntensityd", prob=1.0, factors=0.5),
    "RandCoarseDropoutd": monai_eeg(
        "RandCoarseDropoutd", holes=2, spatial_size=(60,), dropout_holes=True, fill_value=0, prob=1.0
    ),
    "CTTransform": road("ct"),
    "XrayTransform": road("xray"),
    "EEGTransform": road("eeg"),
    "RandFlipd": monai("ct", "RandFlipd", prob=0.5, spatial_axis=0),
    "RandGaussianNoised": monai("ct", "RandGaussianNoised", prob=1.0, std=80.0),
    "RandAffined": monai("xray", "RandAffined", prob=1.0, rotate_range=0.2, translate_range=12, padding_mode="zeros"),
    "RandZoomd": monai("xray", "RandZoomd", prob=1.0, min_zoom=0.8, max_zoom=1.25),
    "RandAdjustContrastd": monai("xray", "RandAdjustContrastd", prob=1.0, gamma=(0.5, 2.0)),
}
