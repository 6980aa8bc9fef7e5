"""One look at the result: what is sound is silent, what is unlike its kind is told with figure and limit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from medssml.checks.inspection import inspect_text
from medssml.checks.limits import Limits
from medssml.checks.plausibility import LOOKS, figures, implausible
from medssml.readers.report import parse_report

RNG = np.random.default_rng(0)
SHAPE = (200, 200, 24)
SPACING = np.array([1.5, 1.5, 5.0])


def body() -> np.ndarray:
    """(200, 200, 24) HU: air around, soft tissue in an ellipse, a spine."""
    x, y = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 200), indexing="ij")
    inside, spine = x**2 + y**2 < 0.5, (x - 0.4) ** 2 + y**2 < 0.02
    plane = np.where(spine, 600, np.where(inside, 40, -1000))
    return (plane[:, :, None] + RNG.normal(0, 30, SHAPE)).astype(np.int16)


def volume(values: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(array=values, spacing=SPACING)


def radiograph(values: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(array=values.astype(np.float32))


def chest() -> np.ndarray:
    x = np.linspace(0, 1, 300)[:, None] * np.linspace(1, 0.2, 300)[None]
    return np.clip(x + RNG.normal(0, 0.05, (300, 300)), 0, 1)


def recording(signal: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(signal=signal.astype(np.float32))


def eeg() -> np.ndarray:
    return RNG.normal(0, 20, (4, 6000))


def eight_bits() -> np.ndarray:
    """A window of 8 bits brought back to HU."""
    values = np.clip((body() + 1000) / 1400, 0, 1)
    return np.round(np.round(values * 255) * 1400 / 255 - 1000).astype(np.int16)


def bone() -> np.ndarray:
    values = body()
    values[:150] += 1500
    return values


CASES = [
    ("ct", volume(body()), ""),
    ("ct", volume(body()[:60, :60]), ""),
    ("ct", volume(eight_bits()), "ct_step_hu"),
    ("ct", volume(bone()), "ct_bone_share"),
    ("ct", volume(np.full(SHAPE, -900, np.int16) + RNG.integers(0, 9, SHAPE, np.int16)), "ct_air_share"),
    ("xray", radiograph(chest()), ""),
    ("xray", radiograph(np.where(chest() < 0.6, 0, chest())), "xray_black_share"),
    ("xray", radiograph(np.where(chest() > 0.2, 1, chest())), "xray_white_share"),
    ("xray", radiograph(0.5 + 0.01 * chest()), "xray_entropy_bits"),
    ("xray", radiograph(np.pad(chest(), 8)), ""),
    ("xray", radiograph(np.pad(chest(), 8, constant_values=0.4)), "xray_edge_share"),
    ("xray", radiograph(np.pad(chest(), 8, constant_values=1.0)), "xray_edge_share"),
    ("eeg", recording(eeg()), ""),
    ("eeg", recording(np.clip(np.repeat(eeg(), 4, 1), -10, 10)), "eeg_held_share"),
    ("eeg", recording(np.repeat(eeg(), 40, 1)), "eeg_still_share"),
    ("report", parse_report("Findings: The lungs are clear.\nImpression: No acute disease."), ""),
    ("report", parse_report("ab " * 9 + "a" * 100), "report_word_chars"),
    ("report", parse_report("12 3 4 5 %% -- 77 8 9 of"), "report_letters_share"),
    ("report", parse_report("Clear.")._replace(text="FINDINGS:\nClear."), "report_headings_lost"),
    ("table", SimpleNamespace(values={"crp": 1.0}), ""),
    ("ct", SimpleNamespace(shape=SHAPE, spacing=SPACING), ""),
]


@pytest.mark.parametrize(
    ("kind", "read", "key"), CASES, ids=[f"{kind}-{key or 'sound'}-{i}" for i, (kind, _, key) in enumerate(CASES)]
)
def test_a_figure_outside_its_limit_is_told(kind: str, read: object, key: str) -> None:
    found = implausible(kind, read, Limits())
    assert all(finding.code == "implausible" and "expected" in finding.problem for finding in found)
    named = [finding.fix.rpartition(" ")[2] for finding in found]
    assert (key in named) if key else named == []
    if key:  # a limit that a file changes
        low, high = figures(kind, read)[key], figures(kind, read)[key]
        assert key not in [f.fix.rpartition(" ")[2] for f in implausible(kind, read, Limits(**{key: (low, high)}))]


def test_every_figure_has_a_limit_and_every_kind_of_file_its_figures() -> None:
    seen = {key for kind, read, _ in CASES for key in figures(kind, read)}
    assert seen == set(LOOKS) and all(hasattr(Limits(), key) for key in LOOKS)


def test_a_text_in_the_table_is_looked_at() -> None:
    assert inspect_text("No pleural effusion.", Limits()) == []
    assert [finding.code for finding in inspect_text("a " * 6 + "b" * 99, Limits())] == ["implausible"]
