"""`evaluate --align`: two sites of numbers in text files, one of which is shifted; what is written, said and shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medssml import cli
from medssml.reports.page import write_report
from medssml.verbs.evaluate import evaluate
from tests.verbs.test_evaluate_impact import MODALITIES, PLUGIN, Place, make_cohort, make_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The cohort of the verbs; every other test subject was examined at site B, where every number is larger by 4."""
    root = tmp_path_factory.mktemp("sites")
    (root / "number_plugin.py").write_text(PLUGIN)
    sys.path.insert(0, str(root))
    make_cohort(root)
    make_run(root / "run")
    (root / "truth.csv").unlink()
    table = pd.read_csv(root / "manifest.csv", dtype=str, keep_default_na=False)
    away = (table["split"] == "test") & (table["subject_id"].astype(int) % 2 == 0)
    for name in MODALITIES:
        for path in table.loc[away & (table[name] != ""), name]:
            (root / path).write_text(str(float((root / path).read_text()) + 4))
    table.assign(group_site=away.map({True: "B", False: "A"})).to_csv(root / "manifest.csv", index=False)
    yield Place(root, root / "run", root / "manifest.csv")
    sys.path.remove(str(root))


def run(place: Place, out: Path, **given: Any) -> dict[str, Any]:
    options = {"manifest": place.manifest, "plugins": ["number_plugin"], "cache": place.root / "cache", "bootstrap": 30}
    evaluate(checkpoint=str(place.run), out=out, **options, **given)
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


def test_aligned_figures_stand_apart_and_nothing_else_changes(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(place, tmp_path / "plain")
    assert "transductive" not in plain and not (tmp_path / "plain" / "predictions_aligned.csv").exists()
    capsys.readouterr()
    both = run(place, tmp_path / "both", align="covariance")
    said = capsys.readouterr().out
    apart = both.pop("transductive")
    assert both == plain
    for name in ("predictions.csv", "retrieval.json", "embedding_map.csv"):
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert apart["protocol"] == "transductive: used the unlabelled reported studies of each group of group_site"
    assert (apart["align"], apart["by"], apart["ungrouped"]) == ("covariance", "group_site", 0)
    assert apart["groups"]["A"]["in_training"] == 80 and apart["groups"]["B"]["in_training"] == 0
    shifts = {name: group["modalities"]["ct"]["shift"] for name, group in apart["groups"].items()}
    assert shifts["B"] > 2 > 0.5 > shifts["A"]
    other = apart["tasks"]["other"]
    assert other["method"] == "linear probe" and apart["tasks"]["sick"]["method"] == "head"
    assert other["subsets"]["eeg"]["inductive"]["auroc"] == plain["tasks"]["other"]["subsets"]["eeg"]["auroc"]
    assert other["subsets"]["eeg"]["inductive"]["balanced_accuracy"]["estimate"] < 0.85
    assert other["subsets"]["eeg"]["difference"]["balanced_accuracy"]["ci_low"] > 0
    assert other["subsets"]["eeg"]["transductive"]["auroc"]["estimate"] > 0.9
    assert "the mean and covariance of vectors moved to those of training (transductive: used the unlabelled" in said
    moved = pd.read_csv(tmp_path / "both" / "predictions_aligned.csv")
    kept = pd.read_csv(tmp_path / "both" / "predictions.csv")
    assert set(moved["method"]) == {"head, aligned", "linear probe, aligned"} and len(moved) == len(kept)
    assert set(moved["study_id"]) == set(kept["study_id"]) and set(moved["subject"]) == set(kept["subject"])
    # An evaluation without it leaves nothing of an earlier one behind.
    run(place, tmp_path / "both", task=["sick"], probes=False)
    assert not (tmp_path / "both" / "predictions_aligned.csv").exists()


def test_the_page_shows_it_in_a_section_of_its_own(place: Place, tmp_path: Path) -> None:
    run(place, tmp_path, align="centre", by="group_site", task=["sick"], probes=False)
    page = write_report(tmp_path).read_text()
    assert "Aligned sites (transductive)" in page and "so these figures stand apart" in page
    assert "The unlabelled reported studies of each value of group_site were used" in page
    # An evaluation that was not asked for it lacks nothing.
    run(place, tmp_path, task=["sick"], probes=False)
    assert "Aligned sites" not in write_report(tmp_path).read_text()


def test_subjects_have_too_few_studies_to_be_aligned_and_go_by_their_codes(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apart = run(place, tmp_path, align="centre", by="subject_id", task=["sick"], probes=False)["transductive"]
    assert "000" not in apart["groups"] and len(apart["groups"]) == 40
    change = apart["tasks"]["sick"]["as_observed"]["difference"]["auroc"]
    assert change["estimate"] == 0 and apart["tasks"]["sick"]["groups"] == {}
    assert "left as they are: 40 of 40 groups (fewer than 10 studies have them" in capsys.readouterr().out


def test_a_wrong_flag_is_one_line(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["evaluate", "--checkpoint", str(place.run), "--manifest", str(place.manifest), "--out", str(tmp_path)]
    assert cli.main([*given, "--plugin", "number_plugin", "--align", "coral"]) == 2
    assert "--align: expected one of 'centre', 'covariance'" in capsys.readouterr().err
    assert cli.main([*given, "--plugin", "number_plugin", "--by", "group_site"]) == 2
    assert "--by group_site names the groups that --align moves" in capsys.readouterr().err
