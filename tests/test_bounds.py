"""Bounds of numbers that a user gives: the key, the value and the way out, for each end."""

from __future__ import annotations

import pytest

from medssml.bounds import bounded


@pytest.mark.parametrize(
    ("value", "bounds", "fix"),
    [
        (-1, {"least": 0}, "0 or more"),
        (0, {"above": 0}, "above 0"),
        (1.5, {"least": 0, "most": 1}, "0 or more and at most 1"),
        (1, {"least": 0, "below": 1}, "0 or more and below 1"),
        (float("nan"), {"least": 0}, "0 or more"),
        (float("inf"), {"above": 0, "below": float("inf")}, "above 0 and below inf"),
    ],
)
def test_what_lies_outside_is_told_with_its_key_and_the_bounds(value: float, bounds: dict, fix: str) -> None:
    with pytest.raises(ValueError) as caught:
        bounded("optim.x", value, **bounds)
    assert str(caught.value) == f"optim.x is {value}; fix: {fix}"


def test_what_lies_inside_or_is_switched_off_passes() -> None:
    bounded("x", None, least=1)
    bounded("x", 0, least=0, below=1)
    bounded("x", 1, above=0, most=1)
