"""The page of a transfer says what was decided and why, draws both students, and needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.files import write_json, write_text
from medssml.reports import read_results, write_report
from medssml.reports.transfer_page import write_transfer_page
from medssml.reports.transfer_section import on_studies
from medssml.reports.transfer_verdict import judged
from medssml.reports.verdict import LEARNED, NOT_LEARNED, verdicts
from tests.reports.synthetic import transferred


def test_the_page_shows_both_students_of_every_seed(tmp_path: Path) -> None:
    page = write_transfer_page(tmp_path / "transfer.html", transferred(1.0)).read_text("utf-8")
    for said in ("CT to X-ray", "effusion", "alone, seed 2", "taught, all seeds", "0.93"):
        assert said in page, said
    assert "labelled 100" in page and "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(("better", "kept", "mark"), [(1.0, True, "better"), (-0.9, False, "worse")])
def test_the_verdict_is_that_of_the_gate_and_of_test_studies(better: float, kept: bool, mark: str) -> None:
    lines = {name: (which, said) for name, which, said in judged(transferred(better))}
    assert ("kept" if kept else "not kept") in lines
    assert ("student alone is kept" in lines.get("not kept", ("", ""))[1]) != kept
    assert lines["effusion"][0] == mark
    assert "no gain can be told: all 200 labelled studies are of one class" in lines["rare"][1]


@pytest.mark.parametrize(
    ("better", "mark", "kept"),
    [(1.0, LEARNED, "is kept"), (0.0, NOT_LEARNED, "not kept"), (-0.9, NOT_LEARNED, "not kept")],
)
def test_the_page_of_a_run_has_its_transfer_and_says_it_first(
    tmp_path: Path, better: float, mark: str, kept: str
) -> None:
    """Of the folder below the run its gain alone: its students' own training is no part of the run's story."""
    write_json(tmp_path / "transfer" / "transfer_gain.json", transferred(better))
    for folder in ("transfer", "transfer/fits"):
        write_text(tmp_path / folder / "history.csv", "step,epoch,loss\n1,0,0.5\n")
    found = read_results(tmp_path)
    assert set(found.files) == {"transfer_gain.json"}
    said = {verdict.name: verdict for verdict in verdicts(found)}
    verdict = said["effusion from X-ray, taught by CT"]
    assert verdict.mark == mark and kept in verdict.text and "0.930 is the best possible" in verdict.text
    page = write_report(tmp_path).read_text("utf-8")
    assert page.index("effusion from X-ray, taught by CT") < page.index('id="transfer"')
    assert "The student had 100 labelled studies" in page and "taught, all seeds" in page
    alone = read_results(tmp_path / "transfer")
    assert set(alone.files) == {"transfer_gain.json", "history.csv"}, "of its own folder it is all"


def test_one_pair_of_students_has_no_interval_over_seeds() -> None:
    entry = transferred(1.0)["tasks"]["effusion"]
    assert "also seeds" in on_studies(entry)
    assert "seeds" not in on_studies({**entry, "seeds": entry["seeds"][:1]})
