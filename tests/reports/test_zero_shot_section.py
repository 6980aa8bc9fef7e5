"""The section on zero-shot classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssml.reports.blocks import Fold, Heading, Table, Text
from medssml.reports.results import Results
from medssml.reports.zero_shot_section import zero_shot


def results(**evaluations: Any) -> Results:
    return Results(Path("run"), {"metrics.json": {name: {"zero_shot": found} for name, found in evaluations.items()}})


def measured(value: float, n: int) -> dict[str, Any]:
    return {"n": n, "auroc": {"estimate": value, "ci_low": value - 0.05, "ci_high": value + 0.05}}


FOUND = {
    "tasks": {
        "malignant": {
            "subsets": {"ct+report": measured(0.9, 20), "ct": measured(0.8, 40)},
            "prompts": {"no": ["No nodule.", "Clear lungs."], "yes": ["Nodule."]},
        },
        "effusion": {"subsets": {"ct": measured(0.7, 30)}},
    }
}


def test_each_set_of_modalities_has_its_figures_the_smaller_sets_first() -> None:
    section = zero_shot(results(pretrain=FOUND))
    assert section is not None
    table, fold = section.blocks
    assert isinstance(table, Table) and isinstance(fold, Fold)
    assert table.columns == ["sees", "studies", "malignant", "effusion"] and table.caption == "AUROC"
    assert table.rows == [
        ["CT", "30 to 40", "0.800 (0.750 to 0.850)", "0.700 (0.650 to 0.750)"],
        ["CT + report", "20", "0.900 (0.850 to 0.950)", "–"],
    ]
    (sentences,) = fold.blocks
    assert isinstance(sentences, Table)
    assert sentences.rows == [["malignant", "no", "No nodule. Clear lungs."], ["malignant", "yes", "Nodule."]]


def test_a_run_that_cannot_says_why() -> None:
    section = zero_shot(results(run={"tasks": {}, "reason": "no space is shared with reports"}))
    assert section is not None
    (text,) = section.blocks
    assert isinstance(text, Text) and "no space is shared with reports" in text.text


def test_several_evaluations_go_by_their_folders_and_none_is_no_section() -> None:
    section = zero_shot(results(one=FOUND, two=FOUND))
    assert section is not None
    assert [block.text for block in section.blocks if isinstance(block, Heading)] == ["one", "two"]
    assert zero_shot(Results(Path("run"), {"metrics.json": {"": {"tasks": {}}}})) is None
