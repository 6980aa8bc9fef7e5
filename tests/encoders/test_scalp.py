"""Places of electrodes: against MNE's measured montage, by symmetry, and by what the patterns say."""

import numpy as np
import pytest
import torch

from medssml.encoders.scalp import PATTERNS, scalp_patterns, scalp_positions
from medssml.readers.channels import CHANNELS

NAMES = CHANNELS[1:]


def test_agreement_with_the_montage_of_a_head():
    """An independent source: the 10-05 positions that MNE has, on a head that is no sphere."""
    from mne.channels import make_standard_montage

    measured = make_standard_montage("standard_1005").get_positions()["ch_pos"]
    names = [name for name in NAMES if name in measured]
    assert len(names) > 80
    head = np.stack([measured[name] for name in names])
    # The sphere that fits best: |p|^2 = 2 c p + (r^2 - c^2).
    centre = np.linalg.lstsq(np.c_[2 * head, np.ones(len(head))], (head**2).sum(1), rcond=None)[0][:3]
    direction = (head - centre) / np.linalg.norm(head - centre, axis=1, keepdims=True)
    angle = np.degrees(np.arccos((direction * scalp_positions(names).numpy()).sum(1).clip(-1, 1)))
    assert np.median(angle) < 20 and angle.max() < 30


def test_every_name_has_a_place_and_left_mirrors_right():
    place = scalp_positions(NAMES)
    assert torch.allclose(place.norm(dim=1), torch.ones(len(NAMES), dtype=torch.float64))
    assert scalp_positions(["", "ECG", "X1"]).abs().sum() == 0
    mirrored = {"1": "2", "3": "4", "5": "6", "7": "8", "9": "10"}
    for name in NAMES:
        if name[-1] in mirrored:
            left, right = scalp_positions([name, name[:-1] + mirrored[name[-1]]])
            assert left[0] < 0 and torch.allclose(left * torch.tensor([-1.0, 1, 1]), right), name
    assert scalp_positions(["Cz"])[0].tolist() == pytest.approx([0, 0, 1], abs=1e-12)


def test_neighbours_lie_between():
    """On each arc from the middle to the rim, and from the nose to the inion, angles from one end only grow."""
    for arc in (
        "Fz F1 F3 F5 F7",
        "CPz CP2 CP4 CP6 TP8",
        "Nz Fpz AFz Fz FCz Cz CPz Pz POz Oz Iz",
        "Fpz Fp1 AF7 F7 FT7 T7",
    ):
        place = scalp_positions(arc.split())
        angle = torch.arccos((place @ place[0]).clamp(-1, 1))
        assert (angle.diff() > 0.1).all(), arc


def test_patterns_say_what_they_are_named_for():
    names = ["C3", "C4", "Fz", "Pz", "Cz", "T7"]
    mean, right, front, top = scalp_patterns(names, 4).T
    assert mean.tolist() == [1] * 6
    assert right[0] < -0.5 < 0.5 < right[1] and abs(float(right[4])) < 1e-6
    assert front[3] < -0.5 < 0.5 < front[2]
    assert top.argmax() == 4 and top[5] < 0


def test_patterns_are_nearly_uncorrelated_over_the_electrodes():
    for names in (NAMES, "Fp1 Fp2 F7 F3 Fz F4 F8 T7 C3 Cz C4 T8 P7 P3 Pz P4 P8 O1 O2".split()):
        patterns = scalp_patterns(names)
        assert patterns.shape == (len(names), PATTERNS)
        assert torch.linalg.cond(patterns) < 6
    assert scalp_patterns([""]).tolist() == [[1] + [0] * 8]
    for wrong in (0, 10):
        with pytest.raises(ValueError, match="1 to 9"):
            scalp_patterns(NAMES, wrong)
