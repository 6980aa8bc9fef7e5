import pytest

from medssml.reports import words
from medssml.reports.results import Estimate, estimate, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.91234, "0.912"),
        (-0.5, "−0.500"),
        (1.0, "1.000"),
        (None, "–"),
        (1234.5, "1,234.5"),
        (0, "0.000"),
        (-0.0001, "0.000"),
    ],
)
def test_numbers(value, text):
    assert words.figure(value) == text


def test_intervals():
    assert words.interval(Estimate(0.9, 0.85, 0.95)) == "0.900 (0.850 to 0.950)"
    assert words.interval(Estimate(0.9)) == "0.900"
    assert words.interval(None) == "–"


def test_subsets():
    assert words.subset("ct+xray+report") == "CT + X-ray + report"
    assert words.subset("") == "nothing"
    assert words.subset("heart_sound") == "heart sound"


def test_estimates_of_result_files():
    assert estimate({"estimate": 0.5, "ci_low": None, "ci_high": None, "n": 3}) == Estimate(0.5)
    assert estimate({"estimate": None, "reason": "one class"}) is None
    assert number("nan") is None
    assert number({"estimate": 3}) == 3.0
    assert number("x") is None


def test_names_and_paths_are_left_out():
    hidden = ["ct/MEIER_1.nii.gz", "MEIER_1.nii.gz", "MEIER_1"]
    assert (
        words.without_names("ct/MEIER_1.nii.gz: gap 5.0 mm after slice 5", hidden) == "(file): gap 5.0 mm after slice 5"
    )
    assert words.without_names("cannot read /mnt/pacs/MEIER/2.dcm", []) == "cannot read (path)"
    assert words.without_names(r"cannot read C:\pacs\MEIER\2.dcm", []) == "cannot read (path)"
    assert words.without_names("spacing 0.7/0.7/5.0 mm, 3 of 4", []) == "spacing 0.7/0.7/5.0 mm, 3 of 4"


def test_configs_are_lines_without_paths():
    config = {
        "optim": {"lr": 0.001},
        "objectives": [{"class_path": "A", "init_args": {}}],
        "cache": "/data/x",
        "sizes": [1, 2],
    }
    assert words.flattened(config) == [
        ("optim.lr", "0.001"),
        ("objectives.0.class_path", "A"),
        ("cache", "(path)"),
        ("sizes", "[1, 2]"),
    ]
