"""The verbs that use a trained model, on a cohort of numbers in text files with a model that reads them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from medssml import cli
from medssml.evaluation.encoded_studies import subset_name, subsets
from medssml.privacy import pseudonyms
from medssml.runs import console
from medssml.verbs.embed import embed
from medssml.verbs.evaluate import evaluate
from medssml.verbs.impact import impact
from medssml.verbs.predict import predict

MODALITIES = ("ct", "xray", "eeg")
#: A package of a user's own: an encoder and a transform of files that hold one number.
PLUGIN = """
import numpy as np
import torch
from medssml.encoders.base import Encoder, as_encoded
from medssml.transforms.base import Transform


class NumberEncoder(Encoder):
    def __init__(self):
        super().__init__()
        self.dim = 2
        self.scale = torch.nn.Parameter(torch.ones(2))

    def forward(self, inputs, keep=None):
        return as_encoded(inputs[:, None] * self.scale)


class NumberTransform(Transform):
    def __init__(self):
        pass

    def settings(self):
        return {}

    def prepare(self, source):
        return {"number": np.array([float(source.read_text())], dtype=np.float32)}

    def __call__(self, prepared, seed=None):
        return torch.tensor(float(prepared["number"][0]))
"""


@dataclass(frozen=True)
class Place:
    """run: a model folder. manifest: its cohort. root: of both."""

    root: Path
    run: Path
    manifest: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("verbs")
    (root / "number_plugin.py").write_text(PLUGIN)
    sys.path.insert(0, str(root))
    make_cohort(root)
    make_run(root / "run")
    yield Place(root, root / "run", root / "manifest.csv")
    sys.path.remove(str(root))


def make_cohort(root: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 3))
    y = (rng.random(240) < 1 / (1 + np.exp(-2 * x[:, 0] - x[:, 1]))).astype(int)
    present = rng.random((240, 3)) > 0.25
    present[~present.any(axis=1), 0] = True
    rows = []
    for i in range(240):
        row = {"subject_id": f"{i // 2:03d}", "study_id": f"{i:04d}", "split": ("train", "val", "test")[(i // 2) % 3]}
        for j, name in enumerate(MODALITIES):
            row[name] = f"{name}_{i}.txt" if present[i, j] else ""
            if present[i, j]:
                (root / f"{name}_{i}.txt").write_text(str(x[i, j]))
        rows.append(row | {"label_sick": y[i], "label_other": int(x[i, 2] > 0), "group_sex": "FM"[(i // 2) % 2]})
    table = pd.DataFrame(rows)
    table.to_csv(root / "manifest.csv", index=False)
    truth = {f"bayes_sick__{subset_name(s, MODALITIES)}": np.full(240, y.mean()) for s in subsets(MODALITIES)}
    pd.DataFrame({"study_id": table["study_id"], **truth}).to_csv(root / "truth.csv", index=False)


def make_run(folder: Path) -> None:
    import number_plugin

    from medssml.fusion import ConcatFusion
    from medssml.model import MultimodalModel, Task
    from medssml.spaces import SharedSpace

    torch.manual_seed(0)
    encoders = {m: number_plugin.NumberEncoder() for m in MODALITIES}
    model = MultimodalModel(encoders, ConcatFusion(MODALITIES, 8), {"sick": Task()})
    model.keep({"space": SharedSpace(8, 4, MODALITIES)})
    transforms = {m: number_plugin.NumberTransform() for m in MODALITIES}
    model.save(folder / "model", transforms=transforms)


def common(place: Place, out: Path) -> dict:  # type: ignore[type-arg]
    return {"manifest": place.manifest, "out": out, "plugins": ["number_plugin"], "cache": place.root / "cache"}


def test_evaluate_writes_every_subset_probes_retrieval_and_the_map(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint=str(place.run), bootstrap=30, **common(place, tmp_path)) == tmp_path
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line}
    value = metrics["tasks"]["sick"]["as_observed"]["auroc"]["estimate"]
    assert f"sick   head          AUROC   {value:.3f} (" in said and "all that is there" in said
    assert "right among first 5" in said and "by a linear probe" in lines["other:"]
    row = next(line for line in said.splitlines() if line.startswith("other  linear probe"))
    probed = metrics["tasks"]["other"]["subsets"]
    most = max((name for name in probed if name), key=lambda name: probed[name]["n"])
    assert f"on {probed[most]['n']} studies, {probed[most]['positives']} positive" in lines["other:"]
    assert "AUROC" in row and row.split()[-1] == str(probed[most]["n"])
    assert f"{probed[most]['auroc']['estimate']:.3f}" in row
    made = json.loads((tmp_path / "provenance.json").read_text())["evaluate"]
    assert made["seed"] == 0 and made["command"] == "medssml.evaluate(...)"
    sick, other = metrics["tasks"]["sick"], metrics["tasks"]["other"]
    assert set(sick["subsets"]) == {subset_name(s, MODALITIES) for s in subsets(MODALITIES)}
    assert {"auroc", "auprc", "balanced_accuracy", "brier", "ece", "n"} <= set(sick["subsets"]["ct+xray"])
    assert {"estimate", "ci_low", "ci_high"} <= set(sick["subsets"]["ct"]["auroc"])
    assert sick["method"] == "head" and sick["threshold"]["from"] == "validation"
    assert sick["subsets"]["ct"]["bayes"]["auroc"]["estimate"] == 0.5
    assert sick["as_observed"]["calibration"] and sick["as_observed"]["n"] == 80
    assert other["method"] == "linear probe" and other["subsets"]["eeg"]["auroc"]["estimate"] > 0.95
    assert sick["probes"]["linear"]["fused"]["ct"]["auroc"]["estimate"] > 0.7
    assert sick["probes"]["knn"]["encoder"]["ct"]["auroc"]["estimate"] > 0.7
    assert metrics["retrieval"]["ct->xray"]["r@1"]["chance"] > 0
    assert metrics["protocol"]["splits"] == {"train": 80, "val": 80, "test": 80}
    predictions = pd.read_csv(
        tmp_path / "predictions.csv", dtype={"study_id": str, "subject": str}, keep_default_na=False
    )
    assert set(predictions["split"]) == {"test"} and set(predictions["method"]) == {"head", "linear probe"}
    # Simulated studies: their truth, which lies beside the manifest, goes by ids.
    assert "0004" in set(predictions["study_id"]) and set(predictions["task"]) == {"sick", "other"}
    assert "002" in set(predictions["subject"]) and metrics["protocol"]["privacy"] == {"strict": False}
    places = pd.read_csv(tmp_path / "embedding_map.csv", dtype={"study_id": str})
    assert len(places) == 80 and {"x", "y", "pattern", "label_sick"} <= set(places.columns)
    assert json.loads((tmp_path / "retrieval.json").read_text())["pairs"]["ct->xray"][0]["top"]


def test_evaluate_without_reports_in_its_space_has_no_zero_shot(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.yaml").write_text('sick: {"0": Well., "1": Ill.}')
    given = {**common(place, tmp_path), "zero_shot": str(tmp_path / "prompts.yaml"), "task": ["sick"]}
    evaluate(checkpoint=str(place.run), bootstrap=20, probes=False, **given)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "zero-shot" in line]
    assert "kept no space in which reports meet another modality; fix: evaluate the pretrained run" in said
    assert json.loads((tmp_path / "metrics.json").read_text())["zero_shot"]["tasks"] == {}
    with pytest.raises(ValueError, match="nowhere: no such file of prompts"):
        evaluate(checkpoint=str(place.run), **{**given, "zero_shot": "nowhere"})


def test_evaluate_without_probes_reads_no_training_study(place: Place, tmp_path: Path) -> None:
    # The same studies without their truth: nobody can tell that they are simulated.
    real = place.manifest.with_name("real") / "manifest.csv"
    real.parent.mkdir(exist_ok=True)
    real.write_bytes(place.manifest.read_bytes())
    options = {**common(place, tmp_path), "cache": None, "manifest": real, "data_root": place.manifest.parent}
    evaluate(checkpoint=str(place.run), bootstrap=20, probes=False, task=["sick"], **options)
    coded = pd.read_csv(tmp_path / "predictions.csv", dtype={"study_id": str, "subject": str}).astype(str)
    assert pseudonyms().study("0004") in set(coded["study_id"]) and pseudonyms().subject("002") in set(coded["subject"])
    assert not {"0004", "002"} & set(coded.stack())
    entry = json.loads((tmp_path / "metrics.json").read_text())["tasks"]
    assert set(entry) == {"sick"} and "probes" not in entry["sick"]
    assert evaluate(checkpoint=str(place.run), bootstrap=20, probes=False, task=["sick"], plain_ids=True, **options)
    predictions = pd.read_csv(tmp_path / "predictions.csv", dtype={"study_id": str})
    assert "0004" in set(predictions["study_id"])
    with pytest.raises(KeyError, match="did you mean 'sick'"):
        evaluate(checkpoint=str(place.run), task=["sik"], **common(place, tmp_path))
    with pytest.raises(ValueError, match="splits are train, val, test"):
        evaluate(checkpoint=str(place.run), split="tset", **common(place, tmp_path))


def test_impact_writes_the_contract_and_compares_with_the_truth(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(place.run), str(place.run)]
    assert impact(checkpoint=runs, task="sick", bootstrap=30, donors=3, **common(place, tmp_path)) == tmp_path
    result = json.loads((tmp_path / "impact.json").read_text())
    assert result["n_studies"] == 80 and result["n_models"] == 2 and 60 <= result["n_reference"] <= 80
    assert set(result["modalities"]) == set(MODALITIES) and "group_sex" in result["subgroups"]
    assert {pair["quantity"] for pair in result["truth"]["pairs"]} >= {"shapley", "shapley_abs"}
    rows = pd.read_csv(tmp_path / "impact.csv", dtype={"study_id": str})
    said = capsys.readouterr().out
    assert "share of the AUROC" in said and "mean size of Shapley" in said and "necessity" not in said
    value = result["performance"]["observed"]["estimate"]
    assert "sick: " in said and f"AUROC {value:.3f} (" in said and result["performance"]["positives"] > 0
    assert "Impact of each modality" in (tmp_path / "impact.html").read_text()
    total = rows.groupby("study_id").agg(phi=("shapley", "sum"), p=("prediction", "first"))
    np.testing.assert_allclose(total.p - total.phi, result["coalitions"][""], atol=1e-5)


def test_several_tasks_at_once_are_each_as_alone(place: Place, tmp_path: Path) -> None:
    """Studies are encoded once for all of them, and each task has its own labels and its own training studies."""
    from medssml.model import Task
    from medssml.predictor import load
    from medssml.results import Impact

    table = pd.read_csv(place.manifest, dtype=str, keep_default_na=False)
    table.loc[np.arange(240) % 4 == 1, "label_other"] = ""
    table.loc[np.arange(240) % 5 == 2, "label_sick"] = ""
    manifest = place.root / "two_tasks.csv"
    table.to_csv(manifest, index=False)
    run = tmp_path / "run"
    model, transforms = load(place.run, ["number_plugin"]).model, load(place.run, ["number_plugin"]).transforms
    torch.manual_seed(1)
    model.add_task("other", Task())
    model.save(run / "model", transforms=transforms)
    given = common(place, tmp_path / "both") | {
        "manifest": manifest,
        "checkpoint": str(run),
        "bootstrap": 20,
        "donors": 2,
    }
    assert impact(**given, task=["all"]) == tmp_path / "both"
    for task, folder in (("sick", tmp_path / "both"), ("other", tmp_path / "both" / "impact" / "other")):
        alone = tmp_path / task
        impact(**(given | {"out": alone}), task=task)
        for name in ("impact.json", "impact.csv"):
            assert (folder / name).read_text() == (alone / name).read_text()
        assert (folder / "impact.html").is_file()
        rows = pd.read_csv(alone / "impact.csv", dtype={"study_id": str})
        held = table[(table["split"] == "test") & (table[f"label_{task}"] != "")]
        assert set(rows["study_id"]) == set(held["study_id"])
    assert json.loads((tmp_path / "sick" / "impact.json").read_text())["n_reference"] == 64
    both = Impact(tmp_path / "both")
    assert both.of("sick") is both and both.of("other").result["task"] == "other"
    with pytest.raises(KeyError, match="no impact on 'sik'; fix: ask for it"):
        both.of("sik")


def test_compare_sets_runs_side_by_side(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, split in (("one", "test"), ("two", "test"), ("three", "val")):
        options = {**common(place, tmp_path / name / "evaluation"), "task": ["sick"], "split": split}
        evaluate(checkpoint=str(place.run), bootstrap=20, probes=False, **options)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert cli.main(["compare", "one", "two", "--bootstrap", "30"]) == 0
    said = capsys.readouterr().out
    assert "0.000 (0.000 to 0.000)" in said and "1 task of 2 runs compared" in said
    assert "no difference shown" in (tmp_path / "compare.html").read_text()
    assert cli.main(["compare", "one"]) == 2
    assert "two runs or more; fix: medssml compare RUN RUN" in capsys.readouterr().err
    assert cli.main(["compare", "one", "three"]) == 2
    assert "share no labelled test study" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["compare", "one", "empty"]) == 2
    assert "empty holds no predictions.csv; fix: medssml evaluate" in capsys.readouterr().err


def test_impact_says_what_is_missing(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing --task"):
        impact(checkpoint=[str(place.run)], **common(place, tmp_path))
    with pytest.raises(KeyError, match="no task 'sik'; did you mean 'sick'"):
        impact(checkpoint=[str(place.run)], task="sik", **common(place, tmp_path))
    with pytest.raises(ValueError, match="absent, marginal, joint"):
        impact(checkpoint=[str(place.run)], task="sick", baseline="zeros", **common(place, tmp_path))


def test_self_test_prints_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from medssml.counterfactual import oracles

    monkeypatch.setattr(oracles, "noise_coverage", lambda replicates: 0.95)
    assert impact(self_test=True) == 0
    assert "37 of 37 agree" in capsys.readouterr().out
    monkeypatch.setattr(oracles, "noise_coverage", lambda replicates: 0.5)
    assert impact(self_test=True) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_embed_and_predict_need_no_labels_and_take_any_subset(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(place.manifest, dtype=str, keep_default_na=False)
    bare = table[["subject_id", "study_id", "ct", "eeg"]]
    bare.to_csv(place.root / "bare.csv", index=False)
    options = {"checkpoint": str(place.run), "plugins": ["number_plugin"], "manifest": place.root / "bare.csv"}
    assert embed(out=tmp_path / "e.parquet", **options) == tmp_path / "e.parquet"  # type: ignore[arg-type]
    vectors = pd.read_parquet(tmp_path / "e.parquet")
    assert f"{len(vectors)} studies, 8 numbers each" in capsys.readouterr().out
    some = int(((bare.ct != "") | (bare.eeg != "")).sum())
    assert len(vectors) == some and {"study_id", "subject_id", "split", "subset", "e0", "e7"} <= set(vectors.columns)
    predict(out=tmp_path / "p.csv", subset="eeg", **options)  # type: ignore[arg-type]
    answers = pd.read_csv(tmp_path / "p.csv", dtype={"study_id": str})
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("sick "))
    assert row.split()[2] == f"{answers.probability.median():.3f}" and row.split()[-1] == str(len(answers))
    assert len(answers) == int((bare.eeg != "").sum()) and set(answers.subset) == {"eeg"}
    assert list(answers.columns) == ["study_id", "task", "subset", "probability"]
    with pytest.raises(KeyError, match="mri"):
        predict(out=tmp_path / "p.csv", subset="mri", **options)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="it has sick"):
        predict(out=tmp_path / "p.csv", task=["ill"], **options)  # type: ignore[arg-type]


def test_a_study_with_a_failing_file_is_left_out_and_listed(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(place.manifest, dtype=str, keep_default_na=False)
    rows = np.flatnonzero(table["ct"] != "")[:7]
    (place.root / "broken.txt").write_text("no number")
    table.loc[rows, "ct"] = "broken.txt"
    table.loc[rows[0], "ct"] = "gone.txt"
    table.to_csv(place.root / "bad.csv", index=False)
    options = {**common(place, tmp_path / "p.csv"), "manifest": place.root / "bad.csv"}
    code = predict(checkpoint=str(place.run), **options)  # type: ignore[arg-type]
    assert code == 4
    problems = pd.read_csv(tmp_path / "problems.csv", dtype=str)
    assert len(problems) == 7 and "7 of 240 studies left out" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "p.csv")) == 233


def test_studies_that_have_nothing_are_counted_said_and_listed(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(place.manifest, dtype=str, keep_default_na=False)
    table.loc[table.index % 40 == 0, list(MODALITIES)] = ""
    path = tmp_path / "manifest.csv"
    table.to_csv(path, index=False)
    given = {**common(place, tmp_path / "p.csv"), "manifest": path, "data_root": place.root, "plain_ids": True}
    predict(checkpoint=str(place.run), **given)
    assert "6 of 240 studies have nothing that this model reads: left out" in capsys.readouterr().err
    listed = pd.read_csv(tmp_path / "problems.csv", dtype=str)
    left = set(table.study_id) - set(pd.read_csv(tmp_path / "p.csv", dtype=str).study_id)
    assert set(listed.study_id) == left and len(left) == 6 and set(listed.code) == {"no_modality"}
    # A later call without any does not leave that list standing; nor are those hidden by --subset gone without a word.
    predict(checkpoint=str(place.run), **common(place, tmp_path / "p.csv"))
    assert pd.read_csv(tmp_path / "problems.csv").empty
    embed(checkpoint=str(place.run), **common(place, tmp_path / "e.parquet"), subset=MODALITIES[0])
    assert not (tmp_path / "problems_embed.csv").exists()
    hidden = 240 - len(pd.read_parquet(tmp_path / "e.parquet"))
    assert f"{hidden} of 240 studies have none of --subset {MODALITIES[0]}: left out" in capsys.readouterr().err


def test_impact_and_evaluate_say_what_training_lacked(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place.run, run)
    pattern = "+".join(MODALITIES[:2])
    presence = {"modalities": list(MODALITIES), "patterns": [{"pattern": pattern, "train": 9, "val": 0, "test": 0}]}
    (run / "presence.json").write_text(json.dumps(presence))
    (run / "config.yaml").write_text("modality_dropout: 0\nunimodal_weight: 0.0\n")
    impact(checkpoint=[str(run)], task="sick", bootstrap=20, sweep=False, **common(place, tmp_path / "i"))
    said = f"this model never saw a study without {MODALITIES[0]}, {MODALITIES[1]}"
    never = f"no training study has {MODALITIES[2]}, and "
    err = capsys.readouterr().err
    remarks = json.loads((tmp_path / "i" / "impact.json").read_text())["protocol"]["remarks"]
    for words in (said, never):
        assert words in err and any(words in remark for remark in remarks)
    evaluate(checkpoint=str(run), task=["sick"], bootstrap=20, probes=False, **common(place, tmp_path / "e"))
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    marked = {name for name, entry in metrics["tasks"]["sick"]["subsets"].items() if "never_trained" in entry}
    assert marked == {name for name in metrics["tasks"]["sick"]["subsets"] if MODALITIES[2] in name.split("+")}
    assert never in " ".join(metrics["protocol"]["remarks"])
    impact(
        checkpoint=[str(run)], task="sick", bootstrap=20, sweep=False, baseline="joint", **common(place, tmp_path / "j")
    )
    assert "never saw" not in (tmp_path / "j" / "impact.json").read_text()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    console.configure()


@pytest.mark.slow
def test_results_go_to_the_run_of_the_training_and_leave_no_run_active(place: Place, tmp_path: Path) -> None:
    import sqlite3

    import mlflow

    from medssml.tracking import MlflowTracker

    runs = [tmp_path / "first", tmp_path / "second"]
    for run in runs:
        shutil.copytree(place.run, run)
        with MlflowTracker(run, config={"seed": 1}) as tracker:
            tracker.metrics(1, {"loss": 1.0})
    first, second = runs
    given = {**common(place, tmp_path / "results"), "checkpoint": str(first)}
    evaluate(bootstrap=20, task=["sick"], **given)
    impact(task="sick", bootstrap=20, donors=2, sweep=False, **{**given, "checkpoint": [str(first), str(second)]})
    predict(**{**given, "out": tmp_path / "predictions.csv", "split": "val"})
    predict(**{**given, "out": tmp_path / "predictions.csv", "checkpoint": str(second), "track": False})

    assert mlflow.active_run() is None
    found = {}
    for run in runs:
        with sqlite3.connect(run / "mlflow.db") as database:
            rows = database.execute("select key, value from metrics").fetchall()
            tags = dict(database.execute("select key, value from tags").fetchall())
            assert database.execute("select name, status from runs").fetchall() == [(run.name, "FINISHED")]
            everything = "\n".join(database.iterdump())
        assert "'0004" not in everything and str(tmp_path) not in everything
        found[run.name] = (dict(rows), tags)
    metrics, tags = found["first"]
    written = json.loads((tmp_path / "results" / "metrics.json").read_text())["tasks"]["sick"]
    assert metrics["evaluate-test/sick/auroc"] == written["as_observed"]["auroc"]["estimate"]
    assert metrics["evaluate-test/sick/ct_xray/auroc/ci_low"] == written["subsets"]["ct+xray"]["auroc"]["ci_low"]
    assert metrics["predict-val/studies"] == 80 and metrics["loss"] == 1.0
    assert "evaluate-test/retrieval/ct_to_xray/r_1" in metrics
    assert tags["evaluate-test.labels.sick.test"].startswith("80 of 40 subjects; 0: ")
    assert len(tags["evaluate-test.manifest_sha256"]) == 64 and tags["impact-test.sick.studies"] == "80"
    kept = {path.parent.name + "/" + path.name for path in (first / "mlartifacts").rglob("*.json")}
    assert kept == {"evaluate-test/metrics.json", "sick/impact.json"}
    # The second run was asked for its impact alone.
    assert {name.split("/")[0] for name in found["second"][0]} == {"loss", "impact-test"}
    assert "impact-test/sick/ct/shapley/ci_high" in found["second"][0]
