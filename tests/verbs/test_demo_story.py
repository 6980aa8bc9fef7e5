"""The short demo from its first station to its page, and what it leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shlex
import socket
from pathlib import Path

import pytest

from medssml import cli
from medssml.reports import SECTIONS
from medssml.reports.page import ON_REQUEST
from medssml.verbs import demo as module

#: Who and where: none of it may be in what is shared.
PERSON = "ada-lovelace"
SCALE = dataclasses.replace(module.QUICK, studies=30, tasks=("malignant", "effusion"), resamples=50)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the short demo, shorter still, below a folder with a person's name."""
    folder = tmp_path_factory.mktemp(PERSON) / "demo"
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(variable, PERSON)
        patch.setattr(socket, "gethostname", lambda: PERSON)
        patch.setattr(module, "QUICK", SCALE)
        assert module.demo(out=folder, quick=True) == folder
    return folder


def test_the_page_has_every_section(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Not in this report" not in page
    for anchor, title, *_ in SECTIONS:
        assert (f'id="{anchor}"' in page and title in page) == (anchor not in ON_REQUEST), anchor
    assert "Impact of each modality" in (run / "impact.html").read_text(encoding="utf-8")


def test_the_radiograph_is_taught_by_the_ct_alone(run: Path) -> None:
    found = json.loads((run / "transfer" / "transfer_gain.json").read_text(encoding="utf-8"))
    assert (found["student"], found["source"], list(found["tasks"])) == ("xray", ["ct"], [SCALE.taught[0]])


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
        run / "transfer" / "transfer.html",
        run / "transfer" / "transfer_gain.json",
    ]
    assert len([path for path in shared if path.name == "mlflow.db"]) == 3
    for path in shared:
        content = path.read_bytes()
        found = [word for word in forbidden if word.encode() in content]
        assert found == [], f"{path.relative_to(run)}: {found}"


def test_a_second_demo_does_nothing_again(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUICK", SCALE)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != module.STATE}
    assert module.demo(out=run, quick=True) == run
    said = capsys.readouterr().out
    assert "everything was done before" in said
    assert all(f"  {command}\n" in said for command in module.next_commands(run, SCALE))
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_page_begins_with_what_was_learned_and_what_not(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gain = json.loads((run / "gain.json").read_text(encoding="utf-8"))["tasks"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.index('<ul class="judged">') < page.index("<section")
    said = dict(re.findall(r'<li class="[^"]*"><b>(\w+)</b>(.*?)</li>', page))
    for task, found in gain.items():
        assert f"{found['bayes']:.3f} is the best possible" in said[task]
    assert "scratch)" not in page, "what it is compared with is no part of the page"


@pytest.mark.parametrize("number", range(3))
def test_the_next_commands_work_as_printed(run: Path, number: int) -> None:
    command = module.next_commands(run, SCALE)[number]
    assert cli.main(shlex.split(command)[1:]) == 0


def test_as_json_it_tells_the_verdicts_and_what_to_do_next(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "QUICK", SCALE)
    assert cli.main(["demo", "--out", str(run), "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verb"] == "demo" and found["page"] == str(run / "report.html")
    assert (
        found["verdicts"]
        and found["next"] == module.next_commands(run, SCALE)
        and set(found["seconds"]) >= {"pretrain"}
    )
