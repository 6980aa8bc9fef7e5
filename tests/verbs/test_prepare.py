"""`medssml prepare`: every file once, what fails is listed, what is prepared is found by the verbs that follow."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from medssml import cli
from medssml.transforms.ct import CTField

CONFIG = Path(__file__).parents[2] / "configs" / "smoke" / "pretrain.yaml"


@pytest.fixture
def place(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with a copy of the cohort in it."""
    shutil.copytree(cohort.parent, tmp_path / "cohort")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict]:
    argv = ["prepare", "--config", str(CONFIG), "--manifest", "cohort/manifest.csv", "--json", *flags]
    capsys.readouterr()
    code = cli.main(argv)
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def cells() -> list[tuple[str, str, str]]:
    """(study, column, file) of every file of the cohort."""
    with open("cohort/manifest.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [(r["study_id"], m, r[m]) for r in rows for m in ("ct", "xray", "eeg", "report") if r.get(m)]


def entries(place: Path) -> dict[Path, int]:
    """Entries of the cache and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (place / "runs" / "cache").rglob("*.safetensors")}


def test_a_second_run_finds_it_done(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = len(cells())
    code, first = run(capsys, "--workers", "0")
    assert code == 0 and first["files"] == first["new"] == first["prepared"] == files and first["quarantined"] == 0
    assert (place / "runs" / "cache" / "problems.csv").read_text().count("\n") == 1
    made = entries(place)
    assert len(made) == files
    code, second = run(capsys)
    assert (code, second["new"], second["prepared"]) == (0, 0, files) and entries(place) == made


@pytest.mark.slow
def test_training_finds_it_done_and_a_trained_model_asks_for_the_same(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys)[0] == 0
    made = entries(place)
    training = ["--config", str(CONFIG), "--manifest", "cohort/manifest.csv", "--out", "runs/a"]
    assert cli.main(["pretrain", *training, "--set", "trainer.max_epochs=1", "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["prepare", "--checkpoint", "runs/a", "--manifest", "cohort/manifest.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 0
    assert len(made) == len(cells()) and entries(place) == made


def test_what_fails_is_listed_and_too_much_of_it_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = [(study, file) for study, column, file in cells() if column == "ct"]
    (place / "cohort" / scans[0][1]).unlink()
    whole = (place / "cohort" / scans[1][1]).read_bytes()
    (place / "cohort" / scans[1][1]).write_bytes(whole[: len(whole) // 2])
    code, result = run(capsys, "--workers", "0", "--problems", "lists/p.csv")
    assert (code, result["quarantined"]) == (0, 2)
    with open("lists/p.csv", newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    assert {(p["study_id"], p["file"]) for p in listed} == set(scans[:2])
    assert all(p["action"] == "quarantined" and p["problem"] and p["fix"] for p in listed)
    for _, file in scans[2:7]:
        (place / "cohort" / file).unlink()
    code, result = run(capsys, "--workers", "0")
    assert (code, result["quarantined"]) == (4, 7)


def test_a_signal_stops_it_and_the_same_command_continues(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    prepare = CTField.prepare

    def interrupted(self: CTField, source: Path, given: object = None) -> dict:
        made.append(source)
        if len(made) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return prepare(self, source)

    monkeypatch.setattr(CTField, "prepare", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    assert run(capsys, "--workers", "0")[0] == 75
    assert signal.getsignal(signal.SIGTERM) == before
    kept = len(list((place / "runs" / "cache").rglob("*.safetensors")))
    code, result = run(capsys, "--workers", "0")
    assert 0 < kept < len(cells()) and (code, result["new"]) == (0, len(cells()) - kept)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--manifest", "cohort/manifest.csv"], "give --config or --checkpoint"),
        (
            ["--manifest", "cohort/manifest.csv", "--config", str(CONFIG), "--checkpoint", "a"],
            "--config or --checkpoint",
        ),
        (["--manifest", "cohort/manifest.csv", "--config", str(CONFIG), "--workers", "-1"], "0 or more"),
        (["--manifest", "cohort/manifest.csv", "--config", str(CONFIG), "--engine", "dask"], "--engine"),
        (["--manifest", "none.csv", "--config", str(CONFIG)], "none.csv"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert cli.main(["prepare", *argv]) in (2, 3)
    said = capsys.readouterr().err
    assert words in said and "fix:" in said
    assert not (place / "runs").exists()
