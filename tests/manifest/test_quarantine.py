"""How many studies may be quarantined: one rule, of large tables and of small ones."""

from __future__ import annotations

from pathlib import Path

from medssml.manifest.problems import Problem, read_problems, write_problems
from medssml.manifest.quarantine import Allowance


def test_a_share_of_many_or_a_few_that_are_no_large_part() -> None:
    assert [Allowance().of(n) for n in (0, 3, 10, 25, 500, 1000)] == [0, 0, 2, 5, 5, 10]
    assert Allowance().excess(5, 25) is None
    assert Allowance().excess(2, 9) == "2 of 9 studies are quarantined, the limit is 1"
    assert Allowance().excess(0, 0) is None


def test_whoever_asks_for_a_larger_share_gets_it_of_small_tables_too() -> None:
    assert Allowance(share=0.5).of(10) == 5
    assert Allowance(share=0.0).of(1000) == 5 and Allowance(share=0.0, rows=0).of(1000) == 0


def test_a_list_of_problems_is_read_as_it_was_written(tmp_path: Path) -> None:
    listed = [
        Problem(3, "-s1", "ct", "a/b.nii", "unreadable", "no header, or half", "look at it"),
        Problem(0, "s2", "", "", "non_finite", "loss", "look"),
    ]
    assert read_problems(write_problems(listed, tmp_path / "problems.csv")) == listed
    assert read_problems(write_problems([], tmp_path / "problems.csv")) == []
