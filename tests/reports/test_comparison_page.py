"""The page of a study says every number of results.json, and how it was made."""

from __future__ import annotations

from pathlib import Path

from medssml.reports.comparison_page import write_study_page


def test_every_number_and_the_protocol_are_on_the_page(tmp_path: Path) -> None:
    auroc = {"estimate": 0.9123, "ci_low": 0.87, "ci_high": 0.951, "n": 121}
    nothing = {"estimate": 0.75, "ci_low": None, "ci_high": None, "n": 8}
    gain = {"estimate": 0.162, "ci_low": 0.05, "ci_high": 0.3, "n": 121}
    results = {
        "malignant": {
            "classical": {"ct": {"auroc": nothing, "positives": 4, "seeds": [0.75]}},
            "finetune": {"ct": {"auroc": auroc, "positives": 33, "seeds": [0.9, 0.92], "gain": gain}},
        }
    }
    page = write_study_page(tmp_path / "results.html", results, {"interval": "95 %, 1000 resamples <of subjects>"})
    text = page.read_text()
    assert (
        "finetune is highest from CT: AUROC 0.912 (0.870 to 0.951) on 121 studies, 33 positive; +0.162 (0.050 to 0.300)"
        in text
    )
    assert text.index("finetune is highest") < text.index("<section"), "the verdict comes first"
    assert "(0.050 to 0.300) beside classical." in text
    for part in (
        "malignant",
        "finetune",
        "0.912",
        "0.870 to 0.951",
        "0.900 to 0.920",
        "121 studies, 33 positive",
        "0.750",
    ):
        assert part in text
    assert "&lt;of subjects&gt;" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_the_page_begins_with_what_was_chosen_and_not_with_what_is_best_on_test(tmp_path: Path) -> None:
    entry = {"auroc": {"estimate": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 50}, "positives": 20, "seeds": [0.8]}
    better = {**entry, "auroc": {"estimate": 0.85, "ci_low": 0.7, "ci_high": 0.9, "n": 50}}
    methods = {"probe": {"ct": entry}, "finetune": {"ct": better}, "chosen": {"ct": entry}}
    results = {"ill": methods, "well": {name: methods[name] for name in ("probe", "finetune")}}
    text = write_study_page(tmp_path / "r.html", results, {}, "chosen").read_text()
    assert "chosen, from CT: AUROC 0.800" in text and text.count("finetune is highest from CT") == 1


def test_the_bayes_predictor_is_what_is_possible_and_no_method(tmp_path: Path) -> None:
    entry = {"auroc": {"estimate": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 50}, "positives": 20, "seeds": [0.8]}
    best = {**entry, "auroc": {"estimate": 0.95, "ci_low": 0.9, "ci_high": 0.99, "n": 50}}
    text = write_study_page(
        tmp_path / "r.html", {"ill": {"scratch": {"ct": entry}, "bayes": {"ct": best}}}, {}
    ).read_text()
    assert "scratch is highest from CT" in text and "where 0.950 is the best possible" in text
