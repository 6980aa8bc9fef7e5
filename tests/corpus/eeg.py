"""EEG: EDF, BDF, GDF, BrainVision, FIF and EEGLAB files, one fault each, and controls."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from edfio import Bdf, BdfSignal, Edf, EdfAnnotation, EdfSignal

from tests.corpus.case import Case, cut, equals, patch, put
from tests.corpus.recordings import LABELS, SFREQ, brainvision, gdf, waves
from tests.readers.test_eeg_formats import GDF_FAULTS, VHDR_FAULTS
from tests.readers.test_read_eeg import eeglab

SIGNAL = waves()
Maker = Callable[[Path], Path]


def edf(
    folder: Path, signal: np.ndarray = SIGNAL, labels: Sequence[str] = LABELS, unit: str = "uV", name: str = "a.edf"
) -> Path:
    signals = [EdfSignal(row, SFREQ, label=labels[i], physical_dimension=unit) for i, row in enumerate(signal)]
    Edf(signals, annotations=[EdfAnnotation(1.0, 0.5, "eyes closed")]).write(folder / name)
    return folder / name


def _patched_gdf(at: int, value: bytes) -> Maker:
    return lambda folder: patch(gdf(folder / "a.gdf", SIGNAL), (at, value))


def _changed_vhdr(changes: dict[str, str]) -> Maker:
    return lambda folder: brainvision(folder / "a.vhdr", SIGNAL, **changes)


def replaced(path: Path, old: str, new: str) -> Path:
    return put(path, path.read_text("utf-8").replace(old, new))


def _vhdr_without_scale(folder: Path) -> Path:
    return replaced(brainvision(folder / "a.vhdr", SIGNAL), "Cz,,0.01", "Cz,,nan")


def field(offset: int, text: str, width: int) -> Maker:
    """A field of the EDF header overwritten."""
    return lambda folder: patch(edf(folder), (offset, text.encode().ljust(width)))


def bdf(folder: Path) -> Path:
    signals = [BdfSignal(row, SFREQ, label=LABELS[i], physical_dimension="uV") for i, row in enumerate(SIGNAL)]
    Bdf(signals).write(folder / "a.bdf")
    return folder / "a.bdf"


def fif(folder: Path, signal: np.ndarray = SIGNAL, labels: Sequence[str] = LABELS, kind: str = "eeg") -> Path:
    import mne

    scale = 1e-6 if kind == "eeg" else 1e-15
    raw = mne.io.RawArray(signal * scale, mne.create_info(list(labels), SFREQ, kind), verbose="ERROR")
    raw.save(folder / "a_raw.fif", verbose="ERROR")
    return folder / "a_raw.fif"


def _circle(folder: Path) -> Path:
    path = fif(folder)
    second = 16 + struct.unpack(">i", path.read_bytes()[8:12])[0]
    return patch(path, (second + 12, struct.pack(">i", 0x10)))


def _split(folder: Path) -> Path:
    path = eeglab(folder / "a.set", "a.fdt")
    return path


def _outside(folder: Path) -> Path:
    (folder / "in").mkdir()
    SIGNAL.astype("<f4").T.tofile(folder / "outside.fdt")
    return eeglab(folder / "in" / "a.set", "../outside.fdt")


def _mixed_rates(folder: Path) -> Path:
    slow = EdfSignal(SIGNAL[0, ::2], SFREQ / 2, label="Fp1", physical_dimension="uV")
    fast = [EdfSignal(SIGNAL[i], SFREQ, label=LABELS[i], physical_dimension="uV") for i in (1, 2)]
    Edf([slow, *fast]).write(folder / "a.edf")
    return folder / "a.edf"


N = 4  # signals of `edf`: three channels and the annotations
EDF: list[tuple[str, Maker, str]] = [
    ("missing", lambda f: f / "none.edf", "no such file"),
    ("empty", lambda f: put(f / "a.edf", b""), "is empty"),
    ("text", lambda f: put(f / "a.edf", "Fp1,Cz\n1,2\n" * 99), "not EDF"),
    ("csv", lambda f: put(f / "a.csv", "Fp1,Cz\n1,2\n"), "is not EDF, BDF"),
    *[(f"cut at {k}", lambda f, k=k: cut(edf(f), k), "truncated") for k in (5, 100, 256, 700, 0.5, -1)],
    ("records", field(236, "99999999", 8), "of 99,999,999 records"),
    ("records no number", field(236, "many", 8), "'many' for the number of records"),
    ("duration 0", field(244, "0", 8), "records of 0 s"),
    ("duration negative", field(244, "-1", 8), "of -1 s"),
    ("duration nan", field(244, "nan", 8), "expected a finite number"),
    ("signals 0", field(252, "0", 4), "declares 0 signals"),
    ("signals 9999", field(252, "9999", 4), "declares 9999 signals"),
    ("header bytes", field(184, "512", 8), "declares 512 header bytes"),
    ("version", field(0, "9", 8), "not EDF"),
    ("samples 0", field(256 + 216 * N, "0       " * N, 8 * N), "declares 0 samples"),
    ("samples negative", field(256 + 216 * N, "-5", 8), "samples per record"),
    ("70 TB", lambda f: patch(edf(f), (236, b"-1      "), (256 + 216 * N, b"99999999" * N)), "holds no record|limit|truncated"),
    ("physical range", field(256 + 104 * N, "327     " * N + "327     " * N, 16 * N), "no scale"),
    ("digital range", field(256 + 120 * N, "5       " * N + "5       " * N, 16 * N), "no scale"),
    ("flat", lambda f: edf(f, SIGNAL * 0), "3 channels are flat"),
    ("ear against ear", lambda f: edf(f, SIGNAL[:2], ["A1-A2", "EEG A2-M1"]), "no scalp electrode"),
    ("no electrode", lambda f: edf(f, SIGNAL[:2], ["ECG", "Resp"]), "no scalp electrode"),
    ("biosemi", lambda f: edf(f, waves(12), [f"A{i}" for i in range(1, 13)]), "BioSemi"),
    ("bdf cut", lambda f: cut(bdf(f), -100), "truncated"),
    *[(f"gdf: {name}", _patched_gdf(at, value), says) for name, (at, value, says) in GDF_FAULTS.items()],
    ("gdf cut", lambda f: cut(gdf(f / "a.gdf", SIGNAL), 0.7), "truncated"),
    *[(f"vhdr: {name}", _changed_vhdr(changes), says) for name, (changes, says) in VHDR_FAULTS.items()],
    ("vhdr companion", lambda f: brainvision(f / "a.vhdr", SIGNAL).with_suffix(".vmrk"), "name a.vhdr"),
    ("vhdr cut data", lambda f: cut(brainvision(f / "a.vhdr", SIGNAL).with_suffix(".eeg"), -3).with_suffix(".vhdr"), "trunc"),
    ("vhdr suffix", lambda f: brainvision(f / "a.vhdr", SIGNAL).rename(f / "a.VHDR"), "rename it to end in .vhdr"),
    ("edf suffix", lambda f: edf(f).rename(f / "recording 7.rec"), "rename it to end in .edf"),
    ("fif text", lambda f: put(f / "a_raw.fif", "nothing of the kind" * 20), "is not FIF|truncated|decoded"),
    ("fif circle", _circle, "points back|truncated"),
    *[(f"fif cut at {k}", lambda f, k=k: cut(fif(f), k), "truncated|decoded") for k in (10, 0.3, 0.8)],
    ("fif without electrodes", lambda f: fif(f, SIGNAL, ("MEG 1", "MEG 2", "MEG 3"), "mag"), "no scalp electrode"),
    ("fif gzip cut", lambda f: cut(put(f / "b_raw.fif.gz", gzip.compress(fif(f).read_bytes())), 0.5), "decoded|truncated|End"),
    ("fif all nan", lambda f: fif(f, SIGNAL * np.nan), "3 hold NaN"),
    ("set text", lambda f: put(f / "a.set", "nothing of the kind" * 20), "not MATLAB"),
    ("set 7.3", lambda f: put(f / "a.set", b"\x89HDF\r\n\x1a\n" + bytes(600)), "MATLAB 7.3"),
    *[(f"set cut at {k}", lambda f, k=k: cut(eeglab(f / "a.set", SIGNAL), k), "truncated|MATLAB") for k in (100, 0.3, -8)],
    ("set without fdt", _split, "a.fdt"),
    ("set outside", _outside, "outside its folder"),
]  # fmt: skip

same = equals(SIGNAL, of="signal", atol=0.02)


def channels(*rows: int, atol: float = 0.02) -> Callable[[Any], None]:
    return equals(SIGNAL[list(rows)], of="signal", atol=atol)


def _flat_second() -> np.ndarray:
    signal = SIGNAL.copy()
    signal[1] = 0
    return signal


NAN_SECOND = np.array([[1], [np.nan], [1]])


def _louder() -> np.ndarray:
    return SIGNAL * np.array([[1], [1000], [1]])


PUT_RIGHT: list[tuple[str, str, Maker, str, Callable[[Any], None] | None]] = [
    ("edf in mV unsaid", "flagged", lambda f: edf(f, SIGNAL / 1000, unit=""), "by 1000", equals(SIGNAL, of="signal", atol=0.05)),
    ("edf of 0.03 uV", "flagged", lambda f: edf(f, SIGNAL / 1000), "less than 0.15 uV", None),
    ("edf no record counted", "flagged", field(236, "0", 8), "states 0 records, 4 are in the file", same),
    ("edf records -7", "flagged", field(236, "-7", 8), "states -7 records, 4 are in the file", same),
    ("edf channel without a scale", "flagged", field(256 + 104 * N, "inf", 8), "expected a finite number: Fp1", channels(1, 2)),
    ("edf two references", "flagged", lambda f: edf(f, SIGNAL, ["FP1-REF", "Cz", "T3-LE"]), "channels have 2 references", same),
    ("gdf no record counted", "flagged", _patched_gdf(236, struct.pack("<q", 0)), "states 0 records, 4 are in", same),
    ("gdf no scale", "flagged", _patched_gdf(256 + 104 * 3 + 8, struct.pack("<d", np.nan)), "no scale: Cz", channels(0, 2)),
    ("vhdr fewer points said", "flagged", _changed_vhdr({"DataPoints": "300"}), "states 300 samples, 400 are in", same),
    ("vhdr without a scale", "flagged", _vhdr_without_scale, "no scale: Cz", channels(0, 2)),
    ("edf in V unsaid", "flagged", lambda f: edf(f, SIGNAL, unit="V"), "multiplied by 1e-06", same),
    ("edf without unit", "flagged", lambda f: edf(f, unit=""), "no voltage unit", same),
    ("edf other channels", "note", lambda f: edf(f, SIGNAL, ["Fp1", "ECG", "T3"]), "no scalp electrode: ECG", channels(0, 2)),
    ("edf twice", "flagged", lambda f: edf(f, SIGNAL, ["Fp1", "FP1", "T3"]), "recorded twice: FP1", channels(0, 2)),
    ("edf mixed", "flagged", lambda f: edf(f, SIGNAL, ["Fp1-F7", "Cz", "F7-T3"]), "referential beside 2 bipolar", channels(0, 2)),
    ("edf flat channel", "flagged", lambda f: edf(f, _flat_second()), "flat: Cz", channels(0, 2)),
    ("edf mixed rates", "flagged", _mixed_rates, "50 to 100 Hz brought to 100", None),
    ("edf records unsaid", "fixed", field(236, "-1", 8), "4 found", same),
    ("edf trailing bytes", "flagged", lambda f: put(edf(f), (f / "a.edf").read_bytes() + b"tail"), "after the last record", same),
    ("edf odd channel", "flagged", lambda f: edf(f, _louder()), "1 of 3 channels spread more than 2000 uV", None),
    ("gdf without unit", "flagged", lambda f: gdf(f / "a.gdf", SIGNAL, version="2.20", unit=0), "no voltage unit", same),
    ("vhdr without markers", "flagged", _changed_vhdr({"MarkerFile": "gone.vmrk"}), "marker file is missing", same),
    ("fif nan channel", "flagged", lambda f: fif(f, SIGNAL * NAN_SECOND), "NaN or infinite values: Cz", channels(0, 2)),
]  # fmt: skip
CONTROLS: list[tuple[str, Maker]] = [
    ("edf", edf),
    ("edf in mV", lambda f: edf(f, SIGNAL / 1000, unit="mV")),
    ("edf labels", lambda f: edf(f, SIGNAL, ["EEG FP1-REF", "Cz..", "EEG T3-REF"])),
    ("edf bipolar", lambda f: edf(f, SIGNAL, ["FP1-F7", "EEG Fpz-Cz", "T8-P8-0"])),
    ("edf in capitals", lambda f: edf(f, name="RECORDING 7.EDF")),
    ("bdf", bdf),
    ("gdf 1", lambda f: gdf(f / "a.gdf", SIGNAL, events=[(5, 769, 1)])),
    ("gdf 1 without events", lambda f: gdf(f / "a.gdf", SIGNAL)),
    ("gdf 2", lambda f: gdf(f / "a.gdf", SIGNAL, version="2.20", events=[(5, 769, 1)])),
    ("brainvision", lambda f: brainvision(f / "a.vhdr", SIGNAL)),
    ("brainvision big-endian", _changed_vhdr({"UseBigEndianOrder": "YES"})),
    ("brainvision by channel", lambda f: brainvision(f / "a.vhdr", SIGNAL, vectorized=True)),
    ("fif", fif),
    ("fif gzip", lambda f: put(f / "b_raw.fif.gz", gzip.compress(fif(f).read_bytes()))),
    ("set", lambda f: eeglab(f / "a.set", SIGNAL)),
]


def cases() -> list[Case]:
    found = [Case("eeg", name, "refused", make, says) for name, make, says in EDF]
    found += [Case("eeg", name, verdict, make, says, oracle) for name, verdict, make, says, oracle in PUT_RIGHT]
    return found + [Case("eeg", name, "accepted", make, "", same) for name, make in CONTROLS]
