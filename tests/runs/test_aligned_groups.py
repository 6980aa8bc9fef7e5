"""What --align and --by ask for, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medssml.manifest.manifest import Manifest
from medssml.privacy import pseudonyms
from medssml.runs.aligned_groups import groups_of


def table(**columns: Any) -> Manifest:
    count = 6
    given = {
        "subject_id": [f"p{i}" for i in range(count)],
        "study_id": [f"s{i}" for i in range(count)],
        "split": ["train", "train", "val", "test", "test", "test"],
        "report_text": ["Clear lungs."] * count,
        "label_sick": [0, 1, 0, 1, 0, 1],
        "group_site": ["A", "A", "A", "B", "C", ""],
    }
    return Manifest.from_table(pd.DataFrame(given | columns), Path())


def test_the_column_is_the_one_that_is_named_or_says_where_studies_come_from() -> None:
    assert groups_of(table(), None, None, "test") is None
    found = groups_of(table(), "centre", None, "test")
    assert found is not None and (found.how, found.column) == ("centre", "group_site")
    assert found.of(table()).tolist() == ["A", "A", "A", "B", "C", ""]
    named = groups_of(table(ward=list("xxyyzz")), "covariance", "ward", "val")
    assert named is not None and (named.how, named.column) == ("covariance", "ward")


def test_subjects_go_by_what_they_are_called_in_results() -> None:
    coded = replace(table(), ids=pseudonyms())
    found = groups_of(coded, "centre", "subject_id", "test")
    assert found is not None and found.of(coded).tolist() == [pseudonyms().subject(f"p{i}") for i in range(6)]


@pytest.mark.parametrize(
    ("align", "by", "split", "columns", "error", "said"),
    [
        (
            None,
            "group_site",
            "test",
            {},
            ValueError,
            "--by group_site names the groups that --align moves; fix: --align centre",
        ),
        ("center", None, "test", {}, ValueError, "--align center is unknown; accepted: centre, covariance"),
        ("centre", None, "all", {}, ValueError, "fix: --split test or val, not all"),
        ("centre", None, "train", {}, ValueError, "fix: --split test or val, not train"),
        ("centre", "group_sit", "test", {}, KeyError, "no column 'group_sit'; did you mean 'group_site'"),
        ("centre", "label_sick", "test", {}, ValueError, "groups must be known without a label"),
        ("centre", "split", "test", {}, ValueError, "groups must be known without a label"),
        ("centre", None, "test", {"group_site": ["A"] * 6}, ValueError, "no column says where studies come from"),
        ("centre", "group_site", "test", {"split": ["test"] * 6}, ValueError, "no training study to align to"),
        (
            "centre",
            "group_site",
            "test",
            {"group_site": ["A"] * 3 + [""] * 3},
            ValueError,
            "is empty for every test study",
        ),
        ("centre", "group_site", "tset", {}, ValueError, "no split 'tset'"),
    ],
)
def test_what_cannot_be_done_is_refused(
    align: Any, by: str | None, split: str, columns: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        groups_of(table(**columns), align, by, split)
