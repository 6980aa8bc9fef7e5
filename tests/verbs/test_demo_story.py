"""The short demo from its first station to its page, and what it leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import socket
from pathlib import Path

import pytest

from medssml.reports import SECTIONS
from medssml.verbs import demo as module

#: Who and where: none of it may be in what is shared.
PERSON = "ada-lovelace"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the short demo, shorter still, below a folder with a person's name."""
    folder = tmp_path_factory.mktemp(PERSON) / "demo"
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(variable, PERSON)
        patch.setattr(socket, "gethostname", lambda: PERSON)
        tasks = ("malignant", "effusion")
        patch.setattr(module, "QUICK", dataclasses.replace(module.QUICK, studies=30, tasks=tasks, resamples=50))
        assert module.demo(out=folder, quick=True) == folder
    return folder


def test_the_page_has_every_section(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Not in this report" not in page
    for anchor, title, *_ in SECTIONS:
        assert f'id="{anchor}"' in page and title in page, anchor
    assert "Impact of each modality" in (run / "impact.html").read_text(encoding="utf-8")


def test_the_page_joins_the_run_in_mlflow(run: Path) -> None:
    (artifact,) = (run / "mlartifacts").rglob("report.html")
    assert artifact.read_bytes() == (run / "report.html").read_bytes()


def test_no_path_login_host_subject_or_study_is_in_what_is_shared(run: Path) -> None:
    with (run / "cohort" / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    forbidden = {PERSON, str(run.parent), "/tmp/", "cohort/"}
    forbidden |= {row[column] for row in rows for column in ("subject_id", "study_id", "ct", "report") if row[column]}
    forbidden |= {(run / "cohort" / row["report"]).read_text()[:60] for row in rows if row["report"]}
    shared = [
        *run.rglob("mlflow.db"),
        *(path for folder in run.rglob("mlartifacts") for path in folder.rglob("*") if path.is_file()),
        *(path for folder in run.rglob("model") for path in folder.rglob("*") if path.is_file()),
        *run.rglob("*.ckpt"),
        *run.rglob("config.yaml"),
        *run.rglob("log.txt"),
        run / "report.html",
        run / "impact.html",
    ]
    assert len([path for path in shared if path.name == "mlflow.db"]) == 2
    for path in shared:
        content = path.read_bytes()
        found = [word for word in forbidden if word.encode() in content]
        assert found == [], f"{path.relative_to(run)}: {found}"


def test_a_second_demo_does_nothing_again(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = ("malignant", "effusion")
    monkeypatch.setattr(module, "QUICK", dataclasses.replace(module.QUICK, studies=30, tasks=tasks, resamples=50))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != module.STATE}
    assert module.demo(out=run, quick=True) == run
    assert "everything was done before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
