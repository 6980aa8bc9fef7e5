"""Absent within a modality: a slab of a CT, a part of a radiograph, channels or a segment of an EEG, sentences, values.

Where a file can be without a part, the part is not there (a channel, a sentence, a value); where it cannot, it holds what an
empty measurement holds: air, black, 0 uV. What is lost at a severity is part of what is lost at a larger one.
"""

from __future__ import annotations

import numpy as np

from medssml.obstacles.base import Damage
from medssml.obstacles.text_arrays import text_array
from medssml.readers.sentences import sentences
from medssml.transforms.base import Preparation, Prepared
from medssml.transforms.ct import OUTSIDE
from medssml.transforms.report import text_of

#: Share of a volume, an image or a recording that is lost at severity 1: something stays.
MOST = 0.9


def stretch(n: int, share: float, where: float) -> slice:
    """`share` of `n` places in a row, about the one at `where` of the way: more of them hold fewer of them."""
    length = round(n * share)
    start = int(where * (n - length))
    return slice(start, start + length)


class CTSlabLost(Damage):
    """Slices in a row, of the axis from feet to head, that hold air: 90 % of the field at severity 1."""

    name, modality, entry = "ct_slab_lost", "ct", "hu"
    says = "a slab of the CT is missing"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        hu = prepared["hu"].copy()
        slices = stretch(hu.shape[2], MOST * self.severity, draws.random())
        hu[:, :, slices] = getattr(preparation, "outside", OUTSIDE)
        return {"hu": hu}


class XrayOccluded(Damage):
    """A rectangle of the radiograph's own proportions that holds black: 90 % of the area at severity 1."""

    name, modality, entry = "xray_occluded", "xray", "gray"
    says = "a part of the radiograph is covered"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        gray, side = prepared["gray"].copy(), np.sqrt(MOST * self.severity)
        rows, columns = (stretch(n, side, draws.random()) for n in gray.shape)
        gray[rows, columns] = 0
        return {"gray": gray}


class EEGChannelsLost(Damage):
    """Channels that were not recorded; one is left at severity 1."""

    name, modality, entry = "eeg_channels_lost", "eeg", "signal"
    says = "channels of the EEG are missing"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        count = len(prepared["signal"])
        order = draws.permutation(count)
        kept = np.sort(order[: count - round(self.severity * (count - 1))])
        return {"signal": prepared["signal"][kept], "channels": prepared["channels"][kept]}


class EEGSegmentLost(Damage):
    """Seconds in a row at 0 uV, as an amplifier gives that is not connected: 90 % of the recording at severity 1."""

    name, modality, entry = "eeg_segment_lost", "eeg", "signal"
    says = "a stretch of the EEG is flat"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        signal = prepared["signal"].copy()
        signal[:, stretch(signal.shape[1], MOST * self.severity, draws.random())] = 0
        return {"signal": signal}


class ReportSentencesLost(Damage):
    """Sentences are left out, each with the probability that is the severity; one, drawn evenly, stays."""

    name, modality, entry = "report_sentences_lost", "report", "text"
    says = "sentences of the report are missing"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        whole = sentences(text_of(prepared))
        lots = draws.random(len(whole))
        lots[draws.integers(len(whole))] = 1.0
        kept = [sentence for sentence, lot in zip(whole, lots, strict=True) if lot >= self.severity]
        return {"text": text_array("\n".join(kept or whole))}


class TableValuesLost(Damage):
    """Laboratory values were not measured, each with the probability that is the severity; one that was stays."""

    name, modality, entry = "table_values_lost", "table", "values"
    says = "laboratory values are missing"

    def changed(self, prepared: Prepared, draws: np.random.Generator, preparation: Preparation) -> Prepared:
        values = prepared["values"].copy()
        lots = np.where(np.isfinite(values), draws.random(values.shape), -1.0)
        lots[int(lots.argmax())] = 1.0
        return {"values": np.where(lots >= self.severity, values, np.nan)}
