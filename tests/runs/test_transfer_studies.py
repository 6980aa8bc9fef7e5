"""Whose labels a student may see, who teaches and is taught, and which teacher is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medssml.manifest.manifest import Manifest
from medssml.runs.mixed_batches import GROUP, LABELLED, OTHERS
from medssml.runs.transfer_studies import refuse_seen, transfer_studies

#: study -> split, CT, radiograph, label.
ROWS = {
    "both and labelled": ("train", 1, 1, "1"),
    "both, its label not chosen": ("train", 1, 1, "0"),
    "both without label": ("train", 1, 1, ""),
    "radiograph, labelled": ("train", 0, 1, "0"),
    "radiograph, its label not chosen": ("train", 0, 1, "1"),
    "CT alone": ("train", 1, 0, "1"),
    "val": ("val", 0, 1, "1"),
    "val without label": ("val", 1, 1, ""),
    "test": ("test", 1, 1, "0"),
    "test of CT": ("test", 1, 0, "0"),
}
CHOSEN = {"both and labelled", "radiograph, labelled"}


def table(root: Path, *without: str) -> Manifest:
    rows = [
        {"subject_id": f"of {name}", "study_id": name, "split": split, "ct": ct * "a.nii", "xray": xray * "a.png"}
        | {"label_finding": label}
        for name, (split, ct, xray, label) in ROWS.items()
        if name not in without
    ]
    return Manifest.from_table(pd.DataFrame(rows), root, ["ct", "xray"], {"finding": "binary"})


def test_labels_that_were_not_chosen_are_hidden_and_their_studies_still_teach(tmp_path: Path) -> None:
    found = transfer_studies(table(tmp_path), "xray", ["ct"], ["finding"], CHOSEN)
    judged = {"val", "test"}
    assert set(found.alone.study_ids) == CHOSEN | judged
    taught = dict(zip(found.taught.study_ids, found.taught.table[GROUP], strict=True))
    unlabelled = {"both, its label not chosen", "both without label"}
    assert set(taught) == CHOSEN | unlabelled | judged
    assert {name for name, group in taught.items() if group == LABELLED} == CHOSEN | judged
    assert all(taught[name] == OTHERS for name in unlabelled)
    targets = dict(zip(found.taught.study_ids, found.taught.targets["finding"], strict=True))
    assert np.isnan([targets[name] for name in unlabelled]).all()
    assert targets["both and labelled"] == 1 and targets["val"] == 1 and targets["test"] == 0
    assert found.counts == {
        "labelled": 2, "seen by both": 3, "of them without a label": 2, "validation": 1, "test": 1
    }  # fmt: skip


def test_without_pairs_or_labels_there_is_nothing_to_learn(tmp_path: Path) -> None:
    alone = table(tmp_path, *[name for name in ROWS if name.startswith("both")])
    with pytest.raises(
        ValueError, match="no training study has both xray and ct: .*fix: .*--method prototypes or anchors"
    ):
        transfer_studies(alone, "xray", ["ct"], ["finding"], {"radiograph, labelled"})
    with pytest.raises(ValueError, match="no training study with xray is labelled; fix"):
        transfer_studies(table(tmp_path), "xray", ["ct"], ["finding"], {"CT alone"})


def test_a_transfer_that_needs_no_pair_has_the_labels_of_the_teachers_own_studies(tmp_path: Path) -> None:
    """Of the student's studies those alone whose label it may see: what is hidden from it is hidden from its teacher here."""
    alone = table(tmp_path, *[name for name in ROWS if name.startswith("both")])
    found = transfer_studies(alone, "xray", ["ct"], ["finding"], {"radiograph, labelled"}, paired=False)
    assert list(found.shown.study_ids) == ["CT alone"] and found.shown.targets["finding"].tolist() == [1]
    assert found.counts["seen by the teacher"] == 1
    assert found.counts["seen by both"] == 0 and found.counts["labelled and seen by the teacher"] == 1
    assert set(found.taught.study_ids) == {"radiograph, labelled", "val", "test"} == set(found.alone.study_ids)
    whole = transfer_studies(table(tmp_path), "xray", ["ct"], ["finding"], CHOSEN, paired=False)
    labels = dict(zip(whole.shown.study_ids, whole.shown.targets["finding"], strict=True))
    assert {name for name, label in labels.items() if np.isfinite(label)} == {"both and labelled", "CT alone"}
    assert set(labels) == {"both and labelled", "CT alone", "both, its label not chosen", "both without label"}
    assert whole.counts["labelled and seen by the teacher"] == 2 and whole.counts["seen by both"] == 3


def test_a_transfer_from_other_studies_learns_from_what_the_student_sees_alone(tmp_path: Path) -> None:
    found = transfer_studies(table(tmp_path), "xray", ["ct"], ["finding"], CHOSEN, paired=False, lone=True)
    groups = dict(zip(found.taught.study_ids, found.taught.table[GROUP], strict=True))
    lone = {"both, its label not chosen", "both without label", "radiograph, its label not chosen"}
    assert {name for name, group in groups.items() if group == OTHERS} == lone
    assert found.counts["seen by the student without a label"] == 3
    targets = dict(zip(found.taught.study_ids, found.taught.targets["finding"], strict=True))
    assert np.isnan([targets[name] for name in lone]).all()
    assert set(found.alone.study_ids) == CHOSEN | {"val", "test"}


def test_a_teacher_that_saw_who_judges_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse_seen(table(tmp_path), {"of both and labelled"}, "--teacher")
    assert capsys.readouterr().err == ""
    for held in ("of val", "of test of CT"):
        with pytest.raises(ValueError, match="--teacher was trained on 1 of the 4 validation and test subjects"):
            refuse_seen(table(tmp_path), {"of both and labelled", held}, "--teacher")
    refuse_seen(table(tmp_path), set(), "--teacher")
    assert "cannot be told" in capsys.readouterr().err
