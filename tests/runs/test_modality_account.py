"""What the model, its training and the reported studies have alone is said, and a table without a split is, too."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from medssml.manifest.manifest import Manifest
from medssml.runs.modality_account import Training, account, having, of_reported, remember_subjects
from medssml.runs.source import say_split


def studies(root: Path, **columns: list[str]) -> Manifest:
    count = len(next(iter(columns.values())))
    ids = {"subject_id": [f"s{i}" for i in range(count)], "study_id": [f"t{i}" for i in range(count)]}
    modalities = [name for name in columns if name in ("ct", "xray", "report")]
    return Manifest.from_table(pd.DataFrame({**ids, **columns}), root, modalities)


def test_each_side_that_lacks_a_modality_is_named(tmp_path: Path) -> None:
    reported = studies(tmp_path, ct=["a.nii", ""], xray=["", ""], ct_late=["b.nii.gz", "c.nii.gz"])
    assert having(reported) == {"ct": 1}
    said = account(
        ("ct", "xray", "eeg", "report"), trained={"xray", "eeg"}, reported=reported, table=reported, then="chance"
    )
    assert said[0] == "no training study has ct, and 1 reported studies have it: chance"
    assert said[1:4] == [
        "no reported study has xray, which the model reads",
        "no reported study has eeg, which the model reads",
        "no training study has report: chance",
    ]
    assert said[4].startswith("column ct_late holds 2 names of files") and len(said) == 5


def test_what_stands_in_cells_that_nothing_reads_is_named(tmp_path: Path) -> None:
    columns = {
        "ct": ["a.nii", "b.nii"],
        "report_text": ["No effusion.", ""],
        "table_crp": ["1", "2"],
        "age": ["60", "70"],
    }
    table = Manifest.from_table(
        pd.DataFrame({"subject_id": ["s0", "s1"], "study_id": ["t0", "t1"], **columns}), tmp_path, ["ct"]
    )
    said = account(("ct",), trained={"ct"}, table=table)
    assert [line.split(",")[0] for line in said] == ["1 studies have report_text", "2 studies have table_crp"]
    assert all("which the model does not read; fix:" in line for line in said)
    assert account(("ct", "report", "table"), trained={"ct", "report", "table"}, table=table) == []


def test_what_all_have_and_what_nobody_knows_is_not_said(tmp_path: Path) -> None:
    reported = studies(tmp_path, ct=["a.nii", ""], xray=["", "b.png"])
    assert account(("ct", "xray"), trained={"ct", "xray"}, reported=reported, table=reported) == []
    assert account(("ct", "xray"), trained=None, reported=reported) == []


def run_folder(root: Path, patterns: dict[str, int], config: str) -> Path:
    (root / "model").mkdir(parents=True)
    (root / "model" / "config.json").write_text("{}")
    rows = [{"pattern": name, "train": count, "val": 5, "test": 5} for name, count in patterns.items()]
    (root / "presence.json").write_text(json.dumps({"modalities": ["ct", "xray", "report"], "patterns": rows}))
    (root / "config.yaml").write_text(config)
    return root


@pytest.mark.parametrize(
    ("patterns", "dropout", "always"),
    [
        ({"ct+xray": 9, "ct+report": 0}, 0, ("ct", "xray")),
        ({"ct+xray": 9, "ct": 1}, 0, ("ct",)),
        ({"ct+xray": 9}, 0.25, ()),
        ({"ct": 9}, 0, ()),
        ({"ct": 9, "xray": 9}, 0, ()),
    ],
)
def test_a_run_folder_tells_what_was_never_absent(
    patterns: dict[str, int], dropout: float, always: tuple[str, ...], tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", patterns, f"modality_dropout: {dropout}\nunimodal_weight: 0.0\n")
    for checkpoint in (run, run / "model"):
        found = Training.of(checkpoint)
        assert found.never_absent == always
        assert found.trained == {name for pattern, count in patterns.items() if count for name in pattern.split("+")}


def test_of_a_copied_model_nothing_is_known(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", {"ct": 1}, "")
    (run / "presence.json").unlink()
    assert Training.of(run) == Training()


def test_a_split_that_was_made_is_said_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = studies(tmp_path, ct=["a.nii"] * 20)
    chosen = int((table.splits == "test").sum())
    run = run_folder(tmp_path / "run", {"xray": 3}, "")
    remarks, training = of_reported(run, ("ct",), table, "test")
    said = capsys.readouterr().err
    assert f"no split column: a hash of the subject takes {chosen} of 20 studies as test; fix: --split all" in said
    assert (
        remarks[0].startswith(f"no training study has ct, and {chosen} reported studies have it") and remarks[0] in said
    )
    assert training.trained == {"xray"}
    say_split(table, "all")
    say_split(studies(tmp_path, ct=["a.nii"], split=["test"]), "test")
    assert capsys.readouterr() == ("", "")
    say_split(table)
    assert f"{chosen} studies as test" in capsys.readouterr().out


def test_reported_subjects_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", {"ct": 3}, "{}")
    table = studies(tmp_path, ct=["a.nii", "b.nii", "c.nii", "d.nii"], split=["train", "train", "val", "test"])
    remember_subjects(run, table.split("train"), before=["s3"])
    assert Training.of(run).subjects == {"s0", "s1", "s3"}
    remarks, _ = of_reported(run, ("ct",), table, "test")
    assert remarks[-1].startswith("1 of 1 reported subjects were trained on: ")  # by the pretraining
    remarks, _ = of_reported(run, ("ct",), table, "all")
    assert remarks[-1].startswith("3 of 4 reported subjects were trained on: ") and "fix:" in remarks[-1]
    assert of_reported(run, ("ct",), table, "val")[0] == []
