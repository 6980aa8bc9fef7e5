"""A stated unit is believed; one that is not stated is corrected only where hardly anything is plausible as it stands."""

import numpy as np
import pytest

from medssml.readers.amplitude import note_spreads, spreads_uv, unit_factors

NAMES = [f"C{i}" for i in range(16)]


def test_spread_is_that_within_a_second():
    t = np.arange(3000) / 100
    drifting = (30 * np.sin(2 * np.pi * 5 * t) + 1000 * t)[None].astype(np.float32)
    spreads = spreads_uv(drifting, 100)
    assert spreads.shape == (1, 30)
    np.testing.assert_allclose(spreads, np.hypot(30 / np.sqrt(2), 1000 / np.sqrt(12)), rtol=0.1)


def mixed(good: float, bad: float, share: float) -> np.ndarray:
    spreads = np.full((16, 10), good)
    spreads[: round(16 * share)] = bad
    return spreads


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("bad", [0.08, 5000.0])
def test_inputs_that_are_not_connected_do_not_decide_the_unit(stated, bad):
    for spreads in (mixed(22, bad, 0.625), mixed(22, bad, 0.9), mixed(22, bad, 0.9).reshape(10, 16).T):
        factors, notes = unit_factors(spreads, [stated] * 16)
        assert (factors == 1).all() and notes == []
    (note,) = note_spreads(mixed(22, bad, 0.625), NAMES)
    assert (
        f"10 of 16 channels spread {'less' if bad < 1 else 'more'} than" in note and "C0" in note and "C12" not in note
    )


@pytest.mark.parametrize("spread", [0.08, 0.0, 5000.0, 30_000.0])
def test_a_stated_unit_is_believed(spread):
    factors, notes = unit_factors(np.full((4, 5), spread), [True] * 4)
    assert (factors == 1).all() and notes == []
    assert len(note_spreads(np.full((4, 5), spread), NAMES[:4])) == 1


@pytest.mark.parametrize(
    ("spread", "factor"), [(2e-5, 1e6), (0.02, 1e3), (2e4, 1e-3), (2e7, 1e-6), (0.0, 1), (1e12, 1)]
)
def test_a_unit_that_is_not_stated(spread, factor):
    factors, notes = unit_factors(np.full((4, 5), spread), [False] * 4)
    assert (factors == factor).all() and len(notes) == (factor != 1)
    if notes:
        assert f"{spread:.3g} uV" in notes[0] and f"{spread * factor:.3g} uV" in notes[0]


def test_volts_that_no_amplifier_takes_in_and_channels_that_state_nothing_beside_others():
    factors, notes = unit_factors(np.full((4, 5), 3e7), [True] * 4)
    assert (factors == 1e-6).all() and "stated" in notes[0]
    factors, notes = unit_factors(np.array([[20.0] * 4, [0.02] * 4]), [True, False])
    assert factors.tolist() == [1, 1000] and len(notes) == 1


def test_some_seconds_of_all_channels():
    spreads = np.full((4, 10), 20.0)
    spreads[:, :3] = 0.01
    (note,) = note_spreads(spreads, NAMES[:4])
    assert "for 30% of the time" in note
    assert note_spreads(np.full((4, 10), 20.0), NAMES[:4]) == []
