"""The phantom study on a few studies: its results, the distance to Bayes, and that it resumes."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medssml.reports.comparison_page import write_study_page
from medssml.runs.run_folder import RunFolderError
from medssml.studies.phantom import study_phantom
from medssml.studies.phantom_results import losses, shown

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
METHODS = {"finetune", "scratch", "finetune, all labels", "bayes"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def options(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("studies") / "study"
    # The cohort of the first seed is there already; two fifths each are to train on and to test, so that both classes occur.
    place = out / "seed0" / "cohort"
    shutil.copytree(cohort.parent, place)
    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    subjects = {subject: place for place, subject in enumerate(dict.fromkeys(table["subject_id"]))}
    table["split"] = [
        ("train", "test", "train", "val", "test")[subjects[subject] % 5] for subject in table["subject_id"]
    ]
    table.to_csv(place / "manifest.csv", index=False)
    small = {"config": SMOKE / "pretrain.yaml", "finetune_config": SMOKE / "finetune.yaml", "bootstrap": 50}
    return {"out": out, "seeds": 1, "studies": len(table), "labels": 0.9, "threads": 1, **small}


@pytest.fixture(scope="module")
def done(options: dict[str, Any]) -> Path:
    study_phantom(**options)
    return Path(options["out"])


def test_every_task_has_its_methods_the_gain_and_the_gap_to_bayes(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    impact = results.pop("impact")
    assert set(results) == {"malignant", "effusion", "cardiomegaly", "seizure", "deterioration"} == set(impact["seed0"])
    for task, found in results.items():
        assert set(found["methods"]) == METHODS
        for name, subsets in found["methods"].items():
            assert {"as observed", "report"} <= set(subsets), (task, name)
            assert all({"estimate", "ci_low", "ci_high", "n"} <= set(entry["auroc"]) for entry in subsets.values())
        for label, first, second in (
            ("gain over scratch", "finetune", "scratch"),
            ("gap to bayes", "bayes", "finetune"),
            ("gap to bayes, all labels", "bayes", "finetune, all labels"),
        ):
            a, b = (found["methods"][method]["as observed"]["auroc"]["estimate"] for method in (first, second))
            assert found[label]["as observed"]["estimate"] == pytest.approx(a - b, abs=1e-6)
        assert "ct+xray+eeg+report" not in found["loss beyond bayes"]
    assert "as observed" in (done / "results.html").read_text()
    assert "90%" in json.loads((done / "protocol.json").read_text())["finetune, scratch"]


def test_run_again_it_trains_nothing(done: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from medssml.runs import training

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    before = (done / "results.json").read_bytes()
    monkeypatch.setattr(training, "train", refused)
    started = time.process_time()
    study_phantom(**options)
    assert time.process_time() - started < 30
    assert (done / "results.json").read_bytes() == before


@pytest.mark.parametrize("other", [{"labels": 0.5}, {"studies": 100}, {"missing": 0.1}])
def test_another_study_in_the_folder_is_refused(done: Path, options: dict[str, Any], other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(RunFolderError, match=f"{name}: .*was .*, now"):
        study_phantom(**options | other)


def test_the_page_begins_with_scratch_and_judges_what_was_learned(tmp_path: Path) -> None:
    def auroc(value: float) -> dict[str, Any]:
        interval = {"estimate": value, "ci_low": value - 0.01, "ci_high": value + 0.01, "n": 50}
        return {"ct": {"auroc": interval, "positives": 20, "seeds": [value]}}

    gain = {"estimate": 0.1, "ci_low": 0.05, "ci_high": 0.15, "n": 50}
    methods = {"finetune": auroc(0.8), "scratch": auroc(0.7), "bayes": auroc(0.9)}
    page = shown({"methods": methods, "gain over scratch": {"ct": gain}})
    assert list(page) == ["scratch", "finetune", "bayes"] and page["finetune"]["ct"]["gain"] == gain
    assert "gain" not in methods["finetune"]["ct"] and "gain" not in page["scratch"]["ct"]
    text = write_study_page(tmp_path / "page.html", {"ill": page}, {}).read_text()
    assert "finetune is highest" in text and "beside scratch" in text and "bayes is highest" not in text


def test_a_loss_is_told_apart_from_what_bayes_loses() -> None:
    """The model that answers as Bayes loses nothing beyond it; one that only the whole serves loses all it has."""
    rng = np.random.default_rng(0)
    y, cohort = rng.integers(0, 2, 200).astype(float), np.repeat([0, 1], 100)
    known = pd.DataFrame({"y": y, "subject": np.arange(200), "cohort": cohort})
    bayes = known.assign(**{"a": y + rng.normal(size=200), "a+b": y + 0.3 * rng.normal(size=200)})
    blind = bayes.assign(a=rng.normal(size=200))
    same = losses(bayes, bayes, 50)
    assert set(same) == {"a"} and same["a"]["estimate"] == same["a"]["ci_high"] == 0
    expected = np.mean(
        [roc_auc_score(y[p], bayes["a"][p]) - roc_auc_score(y[p], blind["a"][p]) for p in (cohort == 0, cohort == 1)]
    )
    assert losses(blind, bayes, 50)["a"]["estimate"] == pytest.approx(expected)
