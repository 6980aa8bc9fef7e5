"""What a target is: classes are the values that the table has, and what is said of a task goes before what cells look like."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medssml.manifest.labels import Label, declared_labels, parse_labels


def column(*cells: str) -> pd.DataFrame:
    return pd.DataFrame({"label_t": list(cells)}, index=range(2, len(cells) + 2), dtype=object)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1", "2", "3", "4"), Label("multiclass", classes=("1", "2", "3", "4"))),
        (("0", "5", "2.0", ""), Label("multiclass", classes=("0", "2", "5"))),
        (("1", "2"), Label("binary", classes=("1", "2"))),
        (("0", ""), Label("binary")),
        (("yes", "no"), Label("binary", classes=("no", "yes"))),
        (("mild", "severe", "none"), Label("multiclass", classes=("mild", "none", "severe"))),
        (("10", "9", "2"), Label("multiclass", classes=("2", "9", "10"))),
        (("1000000000.5", "1000000001"), Label("regression")),
        (("0.000001", "0.000002"), Label("regression")),
    ],
)
def test_what_the_cells_say(cells: tuple[str, ...], expected: Label) -> None:
    labels, problems = parse_labels(column(*cells), {})
    assert problems == [] and labels == {"t": expected}


def test_values_are_places_among_the_classes_and_come_back() -> None:
    label = Label("multiclass", classes=("1", "2", "4"))
    values = label.values(pd.Series(["4", "1.0", "", "3"]))
    np.testing.assert_array_equal(values, [2, 0, np.nan, np.nan])
    assert list(label.names(values)) == ["4", "1", None, None]


def test_a_class_that_is_not_known_is_refused_with_its_row() -> None:
    _, problems = parse_labels(column("0", "3", "2"), {"t": Label("multiclass", 3)})
    assert problems == [
        (3, "label_t", "'3' does not fit: the classes are 0, 1, 2; fix: empty the cell, or train with this class")
    ]


@pytest.mark.parametrize(
    ("cells", "row", "words"),
    [
        (("1", "2", "4A"), 4, "--classes t=a,b,c"),
        (("-1", "0", "1"), 2, "--kind t=regression"),
        (("Yes", "yes", "no"), 1, "capitals alone"),
        (("0,5", "1,5", "2,25"), 2, "no finite number"),
        (tuple(f"text {i}" for i in range(30)), 1, "30 different texts"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_way_to_say_it(cells: tuple[str, ...], row: int, words: str) -> None:
    _, problems = parse_labels(column(*cells), {})
    assert problems[0][0] == row and words in problems[0][2]


def test_a_label_column_without_a_name_is_refused() -> None:
    _, problems = parse_labels(column("0").rename(columns={"label_t": "label_"}), {})
    assert problems == [(1, "label_", "names no task; fix: rename it to label_ and the name of a task")]


def test_flags_say_what_cells_cannot() -> None:
    said = declared_labels(
        ["brixia=regression", "ef=regression:%", "g=multiclass"], ["u=-1,0,1", "lung=1,2,4A", "g=b,a"]
    )
    assert said == {
        "brixia": Label("regression"),
        "ef": Label("regression", unit="%"),
        "u": Label("multiclass", classes=("-1", "0", "1")),
        "lung": Label("multiclass", classes=("1", "2", "4A")),
        "g": Label("multiclass", classes=("b", "a")),
    }
    labels, problems = parse_labels(column("-1", "1"), {"t": said["u"]})
    assert problems == [] and labels["t"].n_classes == 3
    for kind, classes in ((["brixia"], []), (["b=number"], []), (["b=regression"], ["b=1,2"]), ([], ["b=1,1"])):
        with pytest.raises(ValueError, match="fix|not 'number'"):
            declared_labels(kind, classes)
