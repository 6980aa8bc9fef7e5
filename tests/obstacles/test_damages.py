"""Damage to what was recorded: nothing at severity 0, never less at a larger one, and the physics that is stated."""

from __future__ import annotations

import re

import numpy as np
import pytest

from medssml.obstacles import (
    OBSTACLES,
    CTDose,
    CTMotion,
    CTSlabLost,
    Damage,
    EEGBlinks,
    EEGChannelsLost,
    EEGMains,
    EEGMuscle,
    EEGSegmentLost,
    ReportMisread,
    ReportNegations,
    ReportSentencesLost,
    ReportTruncated,
    ReportTypos,
    TableValuesLost,
    XrayExposure,
    XrayOccluded,
    XrayScatter,
)
from medssml.obstacles.report_errors import denied
from medssml.readers.channels import channel_number
from medssml.readers.sentences import sentences
from medssml.transforms.base import Preparation, Prepared
from medssml.transforms.ct import CTField
from medssml.transforms.eeg import STEP_UV, EEGSignal
from medssml.transforms.report import ReportText, text_of
from medssml.transforms.table import TableValues
from medssml.transforms.xray import XraySquare

TEXT = (
    "FINDINGS: No pleural effusion. Small nodule in the right upper lobe. There is no pneumothorax. Heart size is normal. "
    "Mild cardiomegaly with congestion.\n\nIMPRESSION:\n1. Small nodule.\n2. Lungs without consolidation.\n"
)
NAMES = ("Fp1", "Fp2", "T7", "Cz", "T8", "O1", "O2")
DAMAGES = tuple(kind for kind in OBSTACLES if issubclass(kind, Damage))
PREPARATIONS: dict[str, Preparation] = {
    "ct": CTField((2.0, 2.0, 2.0), (24, 20, 16)),
    "xray": XraySquare(64),
    "eeg": EEGSignal(sfreq=200, bandpass=None, average_reference=False),
    "report": ReportText(),
    "table": TableValues({"lactate": "", "ph": "", "glucose": "", "crp": ""}),
}


def recorded(modality: str) -> Prepared:
    """What a loader would have prepared of one study."""
    rng = np.random.default_rng(3)
    if modality == "ct":
        hu = np.full((24, 20, 16), -800.0)
        hu[6:18, 5:15, 4:12] = 40
        return {"hu": np.rint(hu + rng.normal(0, 2, hu.shape)).astype(np.int16)}
    if modality == "xray":
        rows, columns = np.mgrid[:64, :64] / 64
        return {"gray": np.rint(65535 * (0.2 + 0.5 * (np.hypot(rows - 0.5, columns - 0.5) < 0.3))).astype(np.uint16)}
    if modality == "eeg":
        signal = rng.normal(0, 10 / STEP_UV, (len(NAMES), 4000))
        numbers = np.array([channel_number(name) for name in NAMES])
        return {"signal": np.rint(signal).astype(np.int16), "channels": numbers}
    if modality == "report":
        return {"text": np.frombuffer(TEXT.encode(), np.uint8)}
    return {"values": np.array([1.5, np.nan, 6.0, 80.0])}


def after(damage: Damage, prepared: Prepared | None = None, study: str = "a") -> Prepared:
    prepared = recorded(damage.modality) if prepared is None else prepared
    return damage.damaged(prepared, study, PREPARATIONS[damage.modality])


def change(before: Prepared, left: Prepared, entry: str) -> float:
    """How much of an array is another; of a text the letters, of an EEG also the channels, that are not there."""
    a, b = before[entry], left[entry]
    if entry == "text":
        return _edits(bytes(a).decode(), bytes(b).decode())
    if entry == "signal" and len(a) != len(b):
        return float(len(a) - len(b))
    return float(np.abs(np.nan_to_num(a.astype(float), nan=-1) - np.nan_to_num(b.astype(float), nan=-1)).mean())


def _edits(a: str, b: str) -> float:
    """Words that are not the same, place by place, as far as both go, and those that only one has."""
    first, second = a.split(), b.split()
    both = sum(x != y for x, y in zip(first, second, strict=False))
    return float(both + abs(len(first) - len(second)))


@pytest.mark.parametrize("kind", DAMAGES)
def test_severity_0_gives_back_the_same_object(kind: type[Damage]) -> None:
    prepared = recorded(kind.modality)
    assert after(kind(0.0), prepared) is prepared


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_came_in_stays_as_it_was(kind: type[Damage]) -> None:
    prepared, before = recorded(kind.modality), recorded(kind.modality)
    left = after(kind(1.0), prepared)
    assert all(np.array_equal(prepared[name], before[name], equal_nan=name == "values") for name in before)
    assert change(before, left, kind.entry) > 0
    assert all(left[name].dtype == before[name].dtype for name in before)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_larger_severity_changes_more(kind: type[Damage]) -> None:
    before = recorded(kind.modality)
    if kind in (ReportNegations, ReportSentencesLost):
        kept = [
            set(sentences(text_of(after(kind(s))))) & set(sentences(text_of(before))) for s in (0.01, 0.3, 0.6, 1.0)
        ]
        assert all(more <= less for less, more in zip(kept[:-1], kept[1:], strict=True)) and kept[-1] < kept[0]
        return
    amounts = [change(before, after(kind(severity)), kind.entry) for severity in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert amounts == sorted(amounts) and amounts[-1] > amounts[0]


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_hangs_on_the_study_and_the_seed_alone(kind: type[Damage]) -> None:
    first, again = after(kind(0.6)), after(kind(0.6))
    assert all(np.array_equal(first[name], again[name], equal_nan=name == "values") for name in first)
    others = [after(kind(0.6, seed), study=study) for seed, study in ((1, "a"), (2, "a"), (3, "a"), (0, "b"), (0, "c"))]
    same = [np.array_equal(first[kind.entry], other[kind.entry], equal_nan=kind is TableValuesLost) for other in others]
    # Scatter draws nothing, and a report is always cut at the end.
    assert all(same) if kind in (XrayScatter, ReportTruncated) else not all(same)


def test_noise_of_a_tenth_of_the_dose_has_three_times_the_spread() -> None:
    flat = {"hu": np.zeros((40, 40, 40), np.int16)}
    noise = after(CTDose(0.5), flat)["hu"]
    # The variance is as 1 / dose: 9 of 10 parts of it are added.
    assert noise.std() == pytest.approx(12 * np.sqrt(1 / 0.1 - 1), rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=1)
    empty = {"hu": np.full((4, 4, 4), -1024, np.int16)}
    assert (after(CTDose(1.0), empty)["hu"] == -1024).all()


def test_motion_blurs_along_the_body_and_keeps_the_mean() -> None:
    hu = np.full((20, 20, 40), -1000, np.int16)
    hu[:, :, 20:] = 0
    moved = after(CTMotion(1.0), {"hu": hu})["hu"]
    profile = moved[10, 10]
    # 15 mm are 7.5 voxels of 2 mm to either side of the edge.
    assert ((profile > -990) & (profile < -10)).sum() == pytest.approx(14, abs=3)
    assert profile.mean() == pytest.approx(hu[10, 10].mean(), abs=60)


def test_a_slab_is_of_axial_slices_and_holds_air() -> None:
    before, left = recorded("ct")["hu"], after(CTSlabLost(0.5))["hu"]
    lost = (left != before).any((0, 1))
    where = np.flatnonzero(lost)
    assert len(where) == round(0.45 * 16) and (np.diff(where) == 1).all()
    assert (left[:, :, lost] == -1024).all()


def test_photons_make_the_noise() -> None:
    gray = {"gray": np.full((200, 200), round(0.4 * 65535), np.uint16)}
    noise = after(XrayExposure(1.0), gray)["gray"] / 65535
    photons = 100 * np.exp(-5 * 0.4)
    assert noise.std() == pytest.approx(1 / (5 * np.sqrt(photons)), rel=0.05)


def test_scatter_lowers_contrast_and_leaves_an_even_picture_alone() -> None:
    even = {"gray": np.full((64, 64), 30000, np.uint16)}
    assert np.abs(after(XrayScatter(1.0), even)["gray"].astype(int)[20:44, 20:44] - 30000).max() < 150
    before, left = recorded("xray")["gray"].astype(float), after(XrayScatter(1.0))["gray"].astype(float)
    assert np.ptp(left) < 0.75 * np.ptp(before)


def test_the_area_that_is_covered_is_what_was_asked_for() -> None:
    left = after(XrayOccluded(0.5), {"gray": np.full((200, 100), 9, np.uint16)})["gray"]
    assert (left == 0).mean() == pytest.approx(0.45, abs=0.01)


def test_channels_are_gone_and_not_silent() -> None:
    left = after(EEGChannelsLost(0.5))
    assert left["signal"].shape[0] == len(left["channels"]) == 7 - round(0.5 * 6)
    assert (np.diff(left["channels"]) > 0).all()
    assert after(EEGChannelsLost(1.0))["signal"].shape[0] == 1


def test_a_segment_is_flat_in_all_channels() -> None:
    flat = (after(EEGSegmentLost(0.5))["signal"] == 0).all(0)
    assert flat.mean() == pytest.approx(0.45, abs=0.01)


def spectrum(signal: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Hz, and the amplitude in uV of the sine at each."""
    return np.fft.rfftfreq(signal.shape[1], 1 / rate), 2 * np.abs(np.fft.rfft(signal * STEP_UV, axis=1)) / signal.shape[
        1
    ]


@pytest.mark.parametrize("hertz", [50.0, 60.0])
def test_the_mains_are_a_line_at_their_frequency(hertz: float) -> None:
    silent = {"signal": np.zeros((len(NAMES), 4000), np.int16), "channels": recorded("eeg")["channels"]}
    frequencies, amplitude = spectrum(after(EEGMains(0.5, hertz=hertz), silent)["signal"], 200)
    assert (frequencies[amplitude.argmax(1)] == hertz).all()
    # Each electrode takes up half to all of 100 uV, at half the severity; the road's slope ends above 60 Hz.
    assert ((amplitude.max(1) > 24) & (amplitude.max(1) < 51)).all()


def test_mains_that_the_road_filters_away_are_said_and_not_there() -> None:
    road = EEGSignal(sfreq=100, bandpass=(0.5, 45.0))
    assert "takes the 50 Hz of the mains away" in str(EEGMains(1.0).why_not(road))
    silent = {"signal": np.zeros((len(NAMES), 1000), np.int16), "channels": recorded("eeg")["channels"]}
    assert (EEGMains(1.0).damaged(silent, "a", road)["signal"] == 0).all()
    assert EEGMains(1.0).why_not(EEGSignal(sfreq=200, bandpass=(0.5, 80.0))) is None
    assert EEGMains(1.0).why_not(EEGSignal(sfreq=200, bandpass=(0.5, 80.0), notch=50.0)) is not None


def test_blinks_are_slow_and_frontal_and_muscles_fast_and_temporal() -> None:
    silent = {"signal": np.zeros((len(NAMES), 4000), np.int16), "channels": recorded("eeg")["channels"]}
    blinks, muscle = after(EEGBlinks(1.0), silent)["signal"], after(EEGMuscle(1.0), silent)["signal"]
    size = dict(zip(NAMES, (blinks * STEP_UV).max(1), strict=True))
    assert 200 < size["Fp1"] <= 300 and size["O1"] < 0.05 * size["Fp1"]
    power = dict(zip(NAMES, muscle.astype(float).var(1), strict=True))
    assert min(power["T7"], power["T8"]) > 5 * max(power["Cz"], power["Fp1"], power["O1"])
    frequencies, amplitude = spectrum(blinks[:1], 200)
    assert (amplitude[0, frequencies < 8] ** 2).sum() > 0.95 * (amplitude[0] ** 2).sum()
    frequencies, amplitude = spectrum(muscle[2:3], 200)
    assert (amplitude[0, frequencies > 18] ** 2).sum() > 0.95 * (amplitude[0] ** 2).sum()


def test_a_derivation_holds_the_difference_of_its_electrodes() -> None:
    numbers = np.array([channel_number(name) for name in ("Fp1", "O1", "Fp1-O1")])
    left = after(EEGBlinks(1.0), {"signal": np.zeros((3, 4000), np.int16), "channels": numbers})["signal"].astype(int)
    assert np.abs(left[2] - (left[0] - left[1])).max() <= 2


def labelled(text: str) -> dict[str, bool]:
    """A rule labeller, as CheXpert's and NegEx are: a finding is there where its sentence does not deny it."""
    found = {}
    for sentence in sentences(text):
        for finding in ("effusion", "nodule", "pneumothorax", "cardiomegaly", "consolidation"):
            if finding in sentence.lower():
                found[finding] = not re.search(r"\b(no|without|not)\b", sentence.lower())
    return found


def test_a_turned_negation_turns_what_a_rule_labeller_reads() -> None:
    before, turned = labelled(TEXT), labelled(text_of(after(ReportNegations(1.0))))
    assert before == {
        "effusion": False,
        "nodule": True,
        "pneumothorax": False,
        "cardiomegaly": True,
        "consolidation": False,
    }
    assert turned == {finding: not there for finding, there in before.items()}


def test_a_turned_negation_is_no_longer_what_the_phantoms_reader_finds() -> None:
    from medssml.phantom.report import findings_of

    assert findings_of("FINDINGS: No pleural effusion. Small nodule, probably benign.") == {
        "effusion": False,
        "nodule": False,
    }
    assert "effusion" not in findings_of(denied("No pleural effusion."))


@pytest.mark.parametrize(
    ("said", "opposite"),
    [
        ("No pleural effusion.", "Pleural effusion."),
        ("FINDINGS: No focal lung lesion.", "FINDINGS: Focal lung lesion."),
        ("1. Small nodule.", "1. No small nodule."),
        ("Lungs without nodule or mass.", "Lungs with nodule or mass."),
        ("Malignancy cannot be excluded.", "Malignancy can be excluded."),
        ("Kein Erguss.", "Erguss."),
        ("CT shows a mass.", "No CT shows a mass."),
    ],
)
def test_the_opposite_of_a_sentence(said: str, opposite: str) -> None:
    assert denied(said) == opposite


def test_words_are_mistyped_at_the_rate_and_keep_their_letters() -> None:
    text = " ".join(["alphabet", "sentence", "nodules"] * 400)
    left = text_of(after(ReportTypos(0.6), {"text": np.frombuffer(text.encode(), np.uint8)})).split()
    changed = [a != b for a, b in zip(text.split(), left, strict=True)]
    assert np.mean(changed) == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / 1200))
    assert all(sorted(a) == sorted(b) for a, b in zip(text.split(), left, strict=True))


def test_a_report_is_cut_at_the_end_and_never_empty() -> None:
    left = text_of(after(ReportTruncated(0.5)))
    assert TEXT.startswith(left)
    assert len(left.split()) == len(TEXT.split()) - round(0.45 * len(TEXT.split()))
    assert text_of(after(ReportTruncated(1.0), {"text": np.frombuffer(b"Clear.", np.uint8)})) == "Clear."


def test_sentences_and_values_are_left_out_and_one_stays() -> None:
    assert len(sentences(text_of(after(ReportSentencesLost(1.0))))) == 1
    values = after(TableValuesLost(1.0))["values"]
    assert np.isfinite(values).sum() == 1


def test_misread_letters_look_alike() -> None:
    left = text_of(after(ReportMisread(1.0), {"text": np.frombuffer(b"normal " * 200, np.uint8)})).split()
    assert set(left) == {"normal", "norrnal", "norma1"}


def test_a_road_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="ct_dose changes 'hu' of ct, and its road prepares"):
        after(CTDose(0.5), {"volume": np.zeros(3)})
