"""The comparison of methods on a few studies: its cells, ranks and gains, that it resumes, and who cannot run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medssml.config import ConfigError, load_config
from medssml.runs.run_folder import RunFolderError
from medssml.runs.training_config import PretrainConfig
from medssml.shipped_configs import config_path
from medssml.studies import methods_probes
from medssml.studies.methods import study_methods
from medssml.studies.methods_cells import Design, Method, cell_file, chosen_methods, ends, shipped_methods
from medssml.studies.methods_probes import Probed, Views, random_twin
from medssml.studies.methods_results import standing
from medssml.studies.ranks import mean_ranks
from tests.examples import batch_of, ten_studies, tiny_model
from tests.test_model import batch, described

TASKS = ("effusion", "malignant")
#: Learning rates of an encoder that the model does not have.
ODD = "base: smoke/simclr\noptim: {scales: {encoders.mri: 1.0}}\n"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("methods")
    (place / "odd.yaml").write_text(ODD)
    methods = ["smoke/simclr", "smoke/biot", str(place / "odd.yaml")]
    small = {"studies": 60, "steps": 2, "labels": (1.0,), "tasks": TASKS, "bootstrap": 50, "threads": 1}
    return {"out": place / "study", "cache": place / "cache", "methods": methods, "seeds": 1, **small}


@pytest.fixture(scope="module")
def done(options: dict[str, Any]) -> Path:
    study_methods(**options)
    return Path(options["out"])


def line(out: Path, method: str) -> dict[str, Any]:
    text = cell_file(out, method, 0, "json").read_text()
    assert text.count("\n") == 1, "one line"
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.slow
def test_a_cell_says_what_was_learned_and_what_it_took(done: Path) -> None:
    found = line(done, "smoke/simclr")
    assert found["learns_from"] == ["ct", "xray", "eeg", "report"] and not found["labels_seen"]
    assert len(found["loss"]) == 2 and list(found["terms"].values()) == [found["loss"]]
    assert found["seconds"] > 0 and found["processor_seconds"] > 0 and found["steps"] == 2
    assert list(found["probes"]) == ["1"] and set(found["probes"]["1"]) == set(TASKS)
    for entry in found["probes"]["1"].values():
        assert set(entry) == {"ct", "xray", "eeg", "report", "all"}


@pytest.mark.slow
def test_what_a_method_does_not_train_is_as_its_random_encoder(done: Path) -> None:
    assert line(done, "smoke/biot")["learns_from"] == ["eeg"]
    answers = pd.read_csv(cell_file(done, "smoke/biot", 0, "csv"))
    same = answers["subset"].isin(["ct", "xray", "report"])
    assert (answers.loc[same, "probability"] == answers.loc[same, "random"]).all()
    assert (
        answers.loc[answers["subset"] == "eeg", "probability"] != answers.loc[answers["subset"] == "eeg", "random"]
    ).any()
    assert line(done, "smoke/biot")["probes"]["1"]["effusion"]["ct"]["gain"] == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_the_gains_of_a_cell_are_those_of_its_answers(done: Path) -> None:
    answers = pd.read_csv(cell_file(done, "smoke/simclr", 0, "csv"))
    for task, subsets in line(done, "smoke/simclr")["probes"]["1"].items():
        for subset, found in subsets.items():
            for split, name in (("val", "validation"), ("test", "test")):
                chosen = (answers["task"] == task) & (answers["subset"] == subset) & (answers["split"] == split)
                part = answers.loc[chosen]
                assert found[name] == pytest.approx(roc_auc_score(part["y"], part["probability"]), abs=1e-4)
                assert found[f"random_{name}"] == pytest.approx(roc_auc_score(part["y"], part["random"]), abs=1e-4)
            estimate, low, high = found["gain"]
            assert estimate == pytest.approx(found["test"] - found["random_test"], abs=2e-4)
            assert low <= estimate <= high


@pytest.mark.slow
def test_one_that_cannot_run_says_why_and_the_others_go_on(done: Path) -> None:
    assert line(done, "odd")["failed"].startswith("optim.scales names encoders.mri, which no parameter begins with")
    results = json.loads((done / "results.json").read_text())
    assert set(results["failed"]) == {"odd"} and set(results["cells"]) == {"smoke/simclr", "smoke/biot"}
    assert set(results["labels"]["1"]["ranks"]) == {"smoke/simclr", "smoke/biot"}
    page = (done / "results.html").read_text()
    assert (
        "odd cannot run on these studies: optim.scales names encoders.mri" in page and "is best on validation" in page
    )
    assert "another seed may order the methods otherwise" in json.loads((done / "protocol.json").read_text())["seeds"]


@pytest.mark.slow
def test_run_again_it_measures_nothing_that_is_there(
    done: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    before = (done / "results.json").read_bytes()
    monkeypatch.setattr(Probed, "prepared", refused)
    study_methods(**options)
    assert (done / "results.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"steps": 3}, {"studies": 50}, {"labels": (0.5,)}, {"tasks": TASKS[:1]}])
def test_another_study_in_the_folder_is_refused(done: Path, options: dict[str, Any], other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(RunFolderError, match=f"{name}.* was .*, now"):
        study_methods(**options | other)


@pytest.mark.slow
def test_a_method_whose_config_has_changed_is_refused(done: Path, options: dict[str, Any]) -> None:
    config = Path(options["methods"][2])
    config.write_text(ODD.replace("1.0", "2.0"))
    try:
        with pytest.raises(RunFolderError, match="odd-seed0.json was measured with another config"):
            study_methods(**options)
    finally:
        config.write_text(ODD)


def test_a_wrong_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'simclr'"):
        study_methods(out=tmp_path / "out", methods=["simcrl"])
    with pytest.raises(ValueError, match="names small twice"):
        study_methods(out=tmp_path / "out", methods=["small", "small"])
    assert not (tmp_path / "out").exists()


def on(base: str, *methods: str) -> list[Method]:
    return chosen_methods(methods, Design(Path("cache"), None, None, 7, (1.0,), (), 50, base=base))


def test_another_base_takes_the_place_of_small_under_each_method() -> None:
    """Encoders, transforms and rates of the base; objective and fusion, and the keys that the method sets, of the method."""
    cohort, albef = load_config(config_path("cohort", "pretrain"), PretrainConfig), on("cohort", "albef")[0]
    own = load_config(config_path("albef", "pretrain"), PretrainConfig)
    assert albef.config.model["init_args"]["encoders"] == cohort.model["init_args"]["encoders"]
    assert (albef.config.transforms, albef.config.optim) == (cohort.transforms, cohort.optim)
    assert albef.config.objectives == own.objectives != cohort.objectives
    assert albef.config.model["init_args"]["fusion"] == own.model["init_args"]["fusion"]
    assert albef.config.trainer.max_steps == 7
    assert (
        on("cohort", "generation")[0].config.objectives
        == load_config(config_path("generation", "pretrain"), PretrainConfig).objectives
    )


def test_what_a_method_is_based_on_between_itself_and_the_base_is_kept() -> None:
    """flava builds on multi_mae, which sets a rate of one encoder, in a key with a dot, and patches for images."""
    (flava,) = on("phantom", "flava")
    phantom = load_config(config_path("phantom", "pretrain"), PretrainConfig)
    assert flava.config.model["init_args"]["encoders"]["ct"]["class_path"] == "ViT"
    assert flava.config.model["init_args"]["encoders"]["eeg"] == phantom.model["init_args"]["encoders"]["eeg"]
    assert flava.config.optim.scales == {**phantom.optim.scales, "encoders.ct": 1.0}


def test_a_method_that_does_not_build_on_small_is_taken_as_it_is() -> None:
    (found,) = on("cohort", "cohort_features")
    assert found.config.model == load_config(config_path("cohort_features", "pretrain"), PretrainConfig).model


def test_the_base_itself_stands_where_small_stood() -> None:
    names = [method.name for method in on("cohort")]
    assert names[0] == "cohort" and "small" not in names and set(names[1:]) == set(shipped_methods()[1:])
    assert [method.name for method in on("cohort", "small")] == ["cohort"]


def test_what_a_method_has_wrong_is_said_with_its_own_line(tmp_path: Path) -> None:
    (wrong := tmp_path / "wrong.yaml").write_text("base: pretrain/small\noptim: {learning_rate: 1.0}\n")
    with pytest.raises(ConfigError, match=r"wrong.yaml:2: .*learning_rate"):
        on("cohort", str(wrong))


def test_the_probe_of_a_cell_is_told_what_is_measured_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    readout = methods_probes.linear_readout
    monkeypatch.setattr(
        methods_probes, "linear_readout", lambda *a, **k: (told.append(k["block"]), readout(*a, **k))[1]
    )
    model, one = described(), replace(batch(), targets={"sick": torch.tensor([0.0, 1.0, 0.0, 1.0])})
    view = Views(model, dict.fromkeys(("train", "val", "test"), [one]), "cpu")
    for subset in ("report", "xray", "all"):
        methods_probes._scores(view, "sick", subset, set(one.study_id))
    assert told == [5, 0, 0]


def test_the_random_twin_measures_what_the_model_measures() -> None:
    model = described()
    twin = random_twin(model, 0)
    inputs = batch().inputs["report"]
    assert torch.equal(twin.descriptors["report"](inputs), model.descriptors["report"](inputs))
    assert twin.descriptors["report"](inputs).abs().max() > 0


@pytest.mark.slow
def test_where_no_method_can_run_there_is_an_error_and_its_reason(cohort: Path, tmp_path: Path) -> None:
    small = {"steps": 2, "labels": (1.0,), "tasks": ["effusion"], "bootstrap": 20, "threads": 1, "base": "smoke/simclr"}
    with pytest.raises(ValueError, match="no method can run on these studies; no study to train on"):
        study_methods(out=tmp_path / "out", methods=["byol"], manifest=cohort, data_root=tmp_path, **small)


@pytest.mark.slow
def test_own_studies_are_compared_in_the_place_of_simulated_ones(cohort: Path, tmp_path: Path) -> None:
    small = {"steps": 2, "labels": (1.0,), "tasks": ["effusion"], "bootstrap": 20, "threads": 1, "base": "smoke/simclr"}
    (tmp_path / "tables").mkdir()
    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    (manifest := tmp_path / "tables" / "mine.csv").write_text(table.to_csv(index=False))
    given = {"manifest": manifest, "data_root": cohort.parent}
    study_methods(out=tmp_path / "out", methods=["byol", "vicreg"], **given, **small)
    found = {name: line(tmp_path / "out", name) for name in ("byol", "vicreg")}
    assert not [entry["failed"] for entry in found.values() if "failed" in entry]
    answers = pd.read_csv(cell_file(tmp_path / "out", "byol", 0, "csv"))
    held = table.loc[(table["split"] == "test") & (table["label_effusion"] != "")]
    whole = answers.loc[(answers["split"] == "test") & (answers["subset"] == "all")]
    assert sorted(whole["y"]) == sorted(held["label_effusion"].astype(float))
    assert not (tmp_path / "out" / "cohort").exists()
    assert "mine.csv" in json.loads((tmp_path / "out" / "protocol.json").read_text())["cohort"]
    manifest.write_text(table.iloc[:-1].to_csv(index=False))
    with pytest.raises(RunFolderError, match="manifest.* was .*, now"):
        study_methods(out=tmp_path / "out", methods=["byol"], **given, **small)


def test_sizes_of_a_simulated_cohort_and_unknown_tasks_are_refused_beside_a_manifest(
    cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--studies is of simulated studies"):
        study_methods(out=tmp_path / "out", manifest=cohort, studies=50)
    with pytest.raises(KeyError, match="did you mean 'effusion'"):
        study_methods(out=tmp_path / "out", manifest=cohort, tasks=["effusionn"])
    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    table.assign(split="train").to_csv(tmp_path / "learned.csv", index=False)
    with pytest.raises(ValueError, match="learned.csv has no test study; fix: its column split"):
        study_methods(out=tmp_path / "out", manifest=tmp_path / "learned.csv", data_root=cohort.parent)
    assert not (tmp_path / "out").exists()


def test_the_methods_are_the_configs_that_build_on_small() -> None:
    found = shipped_methods()
    assert {"small", "simclr", "multi_mae", "flava"} <= set(found), "flava builds on multi_mae, which builds on small"
    assert not {"cohort", "laboratory", "phantom"} & set(found)


@pytest.mark.parametrize("rows, expected", [(20, [0.5, 18.5]), (5, [0, 4]), (1, [0, 0])])
def test_the_ends_of_a_loss_are_means_over_tenths(rows: int, expected: list[float]) -> None:
    assert ends([{"step": i, "loss": float(i)} for i in range(rows)] + [{"step": 99}], "loss") == expected


@pytest.fixture
def said() -> Callable[[str, float, float], pd.DataFrame]:
    """Answers of a method to two tasks with two seeds, by how much it knows on validation and on test studies."""
    rng = np.random.default_rng(0)
    truth = {(split, task): rng.integers(0, 2, 60) for split in ("val", "test") for task in TASKS}

    def make(name: str, on_val: float, on_test: float) -> pd.DataFrame:
        own, rows = np.random.default_rng(len(name)), []
        for (split, task), y in truth.items():
            for seed in (0, 1):
                knows = on_val if split == "val" else on_test
                table = pd.DataFrame(
                    {"study_id": [f"{split}{i}" for i in range(60)], "subject": np.arange(60) // 2, "y": y}
                )
                scores = {"probability": knows * y + own.normal(size=60), "random": own.normal(size=60)}
                rows.append(table.assign(task=task, split=split, subset="all", seed=seed, labels=1.0, **scores))
        return pd.concat(rows, ignore_index=True)

    return make


def test_ranks_are_those_of_a_loop_over_tasks_and_seeds(said: Callable[..., pd.DataFrame]) -> None:
    answers = {"good": said("good", 2.0, 2.0), "none": said("nothing", 0.0, 0.0), "some": said("something", 1.0, 1.0)}
    answers["same"] = answers["some"]
    test = {name: table.loc[table["split"] == "test"] for name, table in answers.items()}
    expected = dict.fromkeys(answers, 0.0)
    for task in TASKS:
        auc = {}
        for name, table in test.items():
            parts = [p for _, p in table.loc[table["task"] == task].groupby("seed")]
            auc[name] = np.mean([roc_auc_score(p["y"], p["probability"]) for p in parts])
        for name in answers:
            better = sum(auc[other] > auc[name] for other in answers)
            level = sum(auc[other] == auc[name] for other in answers)
            expected[name] += (better + (level + 1) / 2) / len(TASKS)
    assert [r.estimate for r in mean_ranks(test, TASKS)] == pytest.approx(list(expected.values()))
    found = mean_ranks(test, TASKS, 100)
    assert [r.estimate for r in found] == pytest.approx(list(expected.values()))
    assert all(
        r.ci_low is not None and r.ci_low <= expected[n] <= r.ci_high for r, n in zip(found, answers, strict=True)
    )
    assert expected["some"] == expected["same"], "equals share their rank"


def test_validation_chooses_and_test_reports(said: Callable[..., pd.DataFrame]) -> None:
    answers = {"lucky": said("lucky", 0.3, 3.0), "chosen": said("chosen", 3.0, 0.3)}
    found = standing(answers, 50)
    assert list(found["ranks"]) == ["chosen", "lucky"] and set(found["winners"].values()) == {"chosen"}
    assert found["ranks"]["chosen"]["validation"] == 1.0 and found["ranks"]["chosen"]["test"]["estimate"] == 2.0
    entry = found["tasks"][TASKS[0]]["lucky"]["all"]
    part = answers["lucky"].query(f"split == 'test' and task == '{TASKS[0]}'")
    mean = {
        c: np.mean([roc_auc_score(p["y"], p[c]) for _, p in part.groupby("seed")]) for c in ("probability", "random")
    }
    assert entry["auroc"]["estimate"] == pytest.approx(mean["probability"])
    assert entry["gain"]["estimate"] == pytest.approx(mean["probability"] - mean["random"])
    assert entry["gain"]["ci_low"] > 0


def test_a_random_model_gets_the_statistics_that_a_training_would_have_given_it() -> None:
    """Otherwise its fused embedding would be that of the modality of the largest features."""
    model = tiny_model().eval()
    assert all(int(layer.batches) == 0 for layer in model.standardise.values())
    batch = batch_of(ten_studies())
    Views(model, dict.fromkeys(("train", "val", "test"), [batch]), "cpu")
    raw = model.encode_raw(batch)
    for name, layer in model.standardise.items():
        assert not layer.training
        torch.testing.assert_close(layer.mean, raw[name].pooled.mean(0))


def test_an_unknown_task_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="the simulated cohort has no task 'effusoin'; did you mean 'effusion'"):
        study_methods(out=tmp_path / "study", tasks=["malignant", "effusoin"])
    assert list(tmp_path.iterdir()) == []
