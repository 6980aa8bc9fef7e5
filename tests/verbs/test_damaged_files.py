"""A missing file, a truncated volume and a truncated recording: all named by `check` at once, and trained without."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from medssml import cli

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"


class Damage(NamedTuple):
    """What was done to which file of which study."""

    row: int
    study_id: str
    column: str
    file: str


@pytest.fixture
def damaged(cohort: Path, tmp_path: Path) -> tuple[Path, list[Damage]]:
    """A copy of the cohort in which three training studies have lost or truncated files."""
    folder = tmp_path / "cohort"
    shutil.copytree(cohort.parent, folder)
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = [(number, row) for number, row in enumerate(csv.DictReader(stream), start=2) if row["split"] == "train"]
    found: list[Damage] = []
    for column, cut in (("ct", None), ("ct", 0.5), ("eeg", 0.5)):
        number, row = next((n, r) for n, r in rows if r[column] and r["study_id"] not in {d.study_id for d in found})
        path = folder / row[column]
        whole = path.read_bytes()
        path.unlink() if cut is None else path.write_bytes(whole[: int(len(whole) * cut)])
        found.append(Damage(number, row["study_id"], column, row[column]))
    return folder / "manifest.csv", found


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_check_names_all_three_and_pretraining_goes_on_without_them(
    damaged: tuple[Path, list[Damage]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, damages = damaged
    assert cli.main(["check", str(manifest), "--problems", str(tmp_path / "problems.csv")]) == 0
    said = capsys.readouterr().out
    assert "24 rows: 21 accepted, 3 quarantined, 0 refused" in said
    problems = [p for p in listed(tmp_path / "problems.csv") if p["row"]]  # without a row: of the table as a whole
    assert {Damage(int(p["row"]), p["study_id"], p["column"], p["file"]) for p in problems} == set(damages)
    for problem in problems:
        assert problem["action"] == "quarantined" and problem["problem"] and problem["fix"]
        assert problem["file"] in said
    reasons = {problem["column"] + " " + problem["code"] for problem in problems}
    assert len(reasons) == 3, reasons

    run = tmp_path / "run"
    command = f"pretrain --config {SMOKE / 'pretrain.yaml'} --manifest {manifest} --out {run} --no-track"
    steps = ["--set", "trainer.max_steps=1", "--set", "trainer.validate_every=0"]
    assert cli.main([*command.split(), *steps]) == 0
    said = capsys.readouterr().err
    assert "3 of 24 studies left out" in said and "training goes on without them" in said
    kept = listed(run / "problems.csv")
    assert {(int(p["row"]), p["column"]) for p in kept} == {(damage.row, damage.column) for damage in damages}
    for problem, damage in zip(kept, sorted(damages), strict=True):
        assert re.fullmatch(r"s[0-9a-f]{16}", problem["study_id"]) and damage.study_id not in problem.values()
        assert re.fullmatch(r"f[0-9a-f]{16}\.(nii\.gz|edf)", problem["file"])
        assert not any(damage.file in value for value in problem.values())
    assert all(p["action"] == "quarantined" and p["fix"] for p in listed(run / "problems.csv"))
    assert (run / "model" / "model.safetensors").exists()
