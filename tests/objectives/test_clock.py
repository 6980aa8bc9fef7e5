"""Numbers that change as a run goes on."""

import pytest

from medssml.config import build, describe
from medssml.objectives import Clock, Ramp
from medssml.objectives.clock import value_at
from medssml.schema import Fitter
from medssml.yaml_lines import Lines


def test_a_ramp_goes_from_start_to_end_and_stays():
    ramp = Ramp(0.2, 1.0, until=0.5)
    assert [ramp.at(Clock(step, 100)) for step in (0, 25, 50, 75, 100)] == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0])
    cosine = Ramp(0.996, 1.0, shape="cosine")
    # BYOL: 1 - (1 - 0.996) (cos(pi k / K) + 1) / 2.
    assert cosine.at(Clock(25, 100)) == pytest.approx(1 - 0.004 * (2**-0.5 + 1) / 2)
    assert value_at(0.3, Clock(7, 10)) == 0.3


def test_a_ramp_stands_in_a_config_where_a_number_may():
    node = {"class_path": "Ramp", "init_args": {"start": 0.0, "end": 1.0}}
    from medssml.config import resolve

    fitter = Fitter(Lines("test"), resolve)
    assert fitter.fit(0.5, float | Ramp, ()) == 0.5
    fitted = fitter.fit(node, float | Ramp, ())
    assert value_at(build(fitted), Clock(5, 10)) == 0.5 and describe(build(fitted))["init_args"]["end"] == 1.0


@pytest.mark.parametrize("wrong", [{"until": 0.0}, {"until": 1.5}, {"shape": "square"}])
def test_a_wrong_ramp_is_told(wrong):
    with pytest.raises(ValueError, match="fix:|accepted:"):
        Ramp(0.0, 1.0, **wrong)
