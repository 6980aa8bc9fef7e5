"""Studies without a label beside the labelled ones: who takes part, what is hidden, how batches are mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medssml.manifest.manifest import Manifest
from medssml.runs.mixed_batches import GROUP, LABELLED, OTHERS, batches_of, others, say_others, with_others
from medssml.runs.training_config import DataSettings, FinetuneConfig, Finetuning
from medssml.verbs.finetune import _studies_and_tasks, card_text

PSEUDO = {"class_path": "PseudoLabels", "init_args": {}}


def table(root: Path) -> Manifest:
    """Twelve training subjects of whom eight are labelled, and one of each kind in validation and test."""
    rows = [
        {"subject_id": f"s{n}", "study_id": f"train{n}", "split": "train", "label_finding": str(n % 2) if n < 8 else ""}
        for n in range(12)
    ]
    rows += [
        {"subject_id": f"{split}{label}", "study_id": f"{split} {label}", "split": split, "label_finding": label}
        for split in ("val", "test")
        for label in ("1", "")
    ]
    cells = [{**row, "ct": "a.nii", "label_other": "" if row["split"] == "train" else "1"} for row in rows]
    return Manifest.from_table(pd.DataFrame(cells), root, ["ct"], {"finding": "binary", "other": "binary"})


def test_labels_beyond_the_share_are_hidden_and_their_studies_take_part(tmp_path: Path) -> None:
    settings = Finetuning(unlabelled=True, objectives=[PSEUDO])
    chosen, tasks = _studies_and_tasks(table(tmp_path), ["finding"], settings, 0.5)
    assert tasks == ["finding"] and others(chosen) == 8
    groups = dict(zip(chosen.study_ids, chosen.table[GROUP], strict=True))
    assert set(groups) == {f"train{n}" for n in range(12)} | {"val 1", "test 1"}
    known = {study for study, y in zip(chosen.study_ids, chosen.targets["finding"], strict=True) if np.isfinite(y)}
    assert known == {study for study, group in groups.items() if group == LABELLED} and len(known) == 4 + 2
    assert all(groups[f"train{n}"] == OTHERS for n in range(8, 12))
    # The same labels as of a training without the others.
    alone, _ = _studies_and_tasks(table(tmp_path), ["finding"], Finetuning(), 0.5)
    assert set(alone.study_ids) == known


def test_a_batch_has_as_many_labels_as_before_and_as_many_others(tmp_path: Path) -> None:
    config = Finetuning(unlabelled=True, objectives=[PSEUDO], data=DataSettings(batch_size=4))
    whole, _ = _studies_and_tasks(table(tmp_path), ["finding"], config, 0.5)
    data = batches_of(config, whole).data
    assert (data.batch_size, data.balance, data.balance_power) == (8, GROUP, 0.0)
    full = whole.filter(whole.table[GROUP] == LABELLED)
    assert batches_of(config, full) is config


def test_no_study_without_a_label_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = table(tmp_path)
    labelled = whole.labelled("finding")
    say_others(with_others(labelled, labelled, ["finding"]))
    assert "every training study is labelled" in capsys.readouterr().err
    say_others(with_others(whole, labelled, ["finding"]))
    assert "4 training studies without a label take part" in capsys.readouterr().out


def test_labels_alone_and_two_ways_to_mix_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing by labels alone; fix: objectives"):
        FinetuneConfig(unlabelled=True)
    with pytest.raises(ValueError, match="data.balance: label_finding; fix"):
        FinetuneConfig(unlabelled=True, objectives=[PSEUDO], data=DataSettings(balance="label_finding"))


def test_the_card_tells_labelled_studies_from_others(tmp_path: Path) -> None:
    from types import SimpleNamespace

    labelled = table(tmp_path).labelled("finding")
    config = Finetuning(tasks=["finding"])
    model = SimpleNamespace(tasks={"finding": None})
    for studies, said in (
        (labelled, "on 8 labelled studies; freeze"),
        (
            with_others(table(tmp_path), labelled, ["finding"]),
            "on 8 labelled studies, and 4 without a label beside them;",
        ),
    ):
        assert said in card_text(config, SimpleNamespace(manifest=studies), model)  # type: ignore[arg-type]
