"""Units: one meaning however it is written, and no two meanings for one spelling."""

from __future__ import annotations

import itertools

import pytest

from medssml.readers.units import same_unit, unit_key

ONE_MEANING = [
    [
        "\u00b5g/L",
        "\u03bcg/L",
        "ug/L",
        "mcg/l",
        " ug / L ",
        "ug.L-1",
        "\u03bcg\u00b7L\u207b\u00b9",
        "ng/mL",
        "ug per L",
    ],
    ["mg/L", "mg / l", "MG/L", "mg/liter"],
    ["mg/dL", "mg/dl", "MG/DL", "mg/100mL"],
    [
        *("10^9/L", "10*9/L", "10**9/L", "x10^9/L", "10\u2079/l", "\u00d7 10\u2079 / L", "10E9/L", "10(9)/L", "G/L"),
        *("K/uL", "10*3/uL", "10^3/\u00b5L", "Thousand/uL", "10*3{cells}/uL"),
    ],
    ["mm[Hg]", "mmHg", "mm Hg"],
    ["mL/min/{1.73_m2}", "mL/min/1.73m2", "ml/min/1.73 m\u00b2"],
    ["mmol/L", "mmol/l", "MMOL/L", "mmol L-1"],
    ["mIU/L", "m[IU]/L", "uIU/mL"],
    ["kg/m2", "kg/m^2", "kg/m\u00b2"],
    ["U/L", "u/l", "units/L"],
    ["mEq/L", "meq/l"],
]


def test_spellings_of_one_unit_are_one() -> None:
    for group in ONE_MEANING:
        assert len({unit_key(unit) for unit in group}) == 1, group


def test_units_of_two_meanings_are_two() -> None:
    for one, other in itertools.combinations(ONE_MEANING, 2):
        assert not same_unit(one[0], other[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [("mU/L", "MU/L"), ("pmol/L", "Pmol/L"), ("kU/L", "KU/L"), ("mg/L", "Mg/L"), ("mL", "ML"), ("mg/L", "mg/dL"), ("U/L", "IU/L"),
     ("mmol/L", "mEq/L"), ("score", "points"), ("g/L", "g"), ("10^9/L", "10^12/L"), ("mL/min", "mL/min/1.73m2")],
)  # fmt: skip
def test_a_prefix_a_case_or_a_volume_makes_another_unit(one: str, other: str) -> None:
    assert not same_unit(one, other)


@pytest.mark.parametrize(
    "text", ["", "/", "//", "^", "10", "1" * 5000, "m" * 5000, "(" * 100, "{", "\u00b5", "a/b/c/d", "x\u0000"]
)
def test_anything_has_a_key(text: str) -> None:
    assert same_unit(text, text) and isinstance(unit_key(text), str)
