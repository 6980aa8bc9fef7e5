"""Every kind of task through finetune, evaluate, predict, impact and the page, on studies of a few laboratory values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import r2_score

from medssml import cli

#: Task -> its target from a number that the values show, and the kind that it is.
KINDS = {
    "words": "binary",
    "one_two": "binary",
    "birads": "multiclass",
    "gaps": "multiclass",
    "brixia": "multiclass",
    "lvef": "regression",
    "tiny": "regression",
    "huge": "regression",
    "constant": "regression",
    "FEV1.0": "regression",
}


def targets(x: np.ndarray) -> dict[str, list[str]]:
    four = np.digitize(x, [-0.7, 0.0, 0.7])
    return {
        "words": ["ill" if v > 0 else "healthy" for v in x],
        "one_two": [str(1 + int(v > 0)) for v in x],
        "birads": [str(1 + k) for k in four],
        "gaps": [("0", "2", "7", "7")[k] for k in four],
        "brixia": [str(k) for k in np.clip(np.round(9 + 4 * x), 0, 18).astype(int)],
        "lvef": [f"{65 + 10 * v:.2f}" for v in x],
        "tiny": [repr(float(1e-6 * (1 + v / 10))) for v in x],
        "huge": [repr(float(1e9 + v)) for v in x],
        "constant": ["4.5"] * len(x),
        "FEV1.0": [f"{3 + v:.2f}" for v in x],
    }


CONFIG = {
    "model": {
        "class_path": "MultimodalModel",
        "init_args": {
            "encoders": {
                "table": {"class_path": "TableEncoder", "init_args": {"features": 2, "dim": 16, "depth": 1, "heads": 2}}
            },
            "fusion": {"class_path": "ConcatFusion", "init_args": {"modalities": ["table"], "dim": 16}},
        },
    },
    "transforms": {"table": {"class_path": "TableTransform", "init_args": {"features": {"crp": "mg/l", "ldh": "U/l"}}}},
    "objectives": [],
}
QUICK = [
    "trainer.precision='32'",
    "trainer.max_epochs=3",
    "data.batch_size=16",
    "data.prepare_workers=0",
    "privacy.strict=false",
]


def table_of(studies: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=studies)
    table = pd.DataFrame(
        {
            "subject_id": [f"p{i:02d}" for i in range(studies)],
            "study_id": [f"s{i:02d}" for i in range(studies)],
            "split": ["train"] * 50 + ["val"] * 15 + ["test"] * 25,
            "table_crp": [f"{50 + 20 * v:.3f}" for v in x],
            "table_ldh": [f"{v:.3f}" for v in rng.normal(200, 30, studies)],
        }
    )
    return table.assign(**{f"label_{name}": values for name, values in targets(x).items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kinds")
    table_of().to_csv(root / "manifest.csv", index=False)
    (root / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    arguments = [
        "--checkpoint",
        "none",
        "--architecture",
        str(root / "config.yaml"),
        "--device",
        "cpu",
        "--no-track",
    ]
    assert run(root, "finetune", *arguments, "--task", "all", "--kind", "lvef=regression:%", *settings()) == 0
    assert run(root, "evaluate", "--checkpoint", str(root / "run"), "--bootstrap", "20", "--plain-ids") == 0
    return root


def settings() -> list[str]:
    return [part for setting in QUICK for part in ("--set", setting)]


def run(root: Path, verb: str, *arguments: str, manifest: str = "manifest.csv", out: str = "run") -> int:
    return cli.main([verb, "--manifest", str(root / manifest), "--out", str(root / out), *arguments])


@pytest.mark.parametrize("task", KINDS)
def test_the_model_keeps_what_the_task_is(place: Path, task: str) -> None:
    record = json.loads((place / "run" / "model" / "config.json").read_text())["tasks"][task]
    train = table_of().query("split == 'train'")[f"label_{task}"]
    assert record["kind"] == KINDS[task]
    if record["kind"] == "regression":
        values = train.astype(float)
        assert record["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert record["sd"] == pytest.approx(values.std(ddof=0) if task != "constant" else 1.0, rel=1e-6)
        assert record["unit"] == ("%" if task == "lvef" else "")
    else:
        assert set(record["classes"]) == set(table_of()[f"label_{task}"])
        assert record["counts"]["train"] == {name: int((train == name).sum()) for name in record["classes"]}


@pytest.mark.parametrize("task", KINDS)
def test_answers_are_in_the_words_and_the_unit_of_the_table(place: Path, task: str) -> None:
    assert run(place, "predict", "--checkpoint", str(place / "run"), "--task", task, "--plain-ids", out="p.csv") == 0
    answers = pd.read_csv(place / "p.csv", dtype={"class": str})
    target = table_of()[f"label_{task}"]
    if KINDS[task] == "multiclass":
        assert set(answers["class"]) == set(target)
        np.testing.assert_allclose(answers.groupby("study_id")["probability"].sum(), 1, atol=1e-5)
    elif KINDS[task] == "binary":
        assert answers["probability"].between(0, 1).all()
    else:
        values = target.astype(float).to_numpy()
        assert (answers["probability"] - values.mean()).abs().max() <= 3 * max(values.std(), 1e-9)


@pytest.mark.parametrize("task", KINDS)
def test_metrics_are_there_and_a_short_regression_is_no_worse_than_the_training_mean(place: Path, task: str) -> None:
    entry = json.loads((place / "run" / "metrics.json").read_text())["tasks"][task]
    assert entry["labels"]["train"]["labels"] == 50
    observed = entry["as_observed"]
    if KINDS[task] != "regression":
        assert observed["auroc"]["estimate"] is not None and entry["classes"]
        return
    if task == "constant":
        assert observed["r2"]["estimate"] is None and observed["mae"]["estimate"] < 0.5
        return
    values, split = table_of()[f"label_{task}"].astype(float), table_of()["split"]
    test, mean = values[split == "test"], values[split == "train"].mean()
    assert observed["r2"]["estimate"] > r2_score(test, np.full(len(test), mean)) - 0.05


@pytest.mark.parametrize("task", ["one_two", "birads", "huge"])
def test_impact_and_the_page(place: Path, task: str) -> None:
    out = f"impact_{task}"
    options = ["--checkpoint", str(place / "run"), "--task", task, "--bootstrap", "20"]
    assert run(place, "impact", *options, out=out) == 0
    found = json.loads((place / out / "impact.json").read_text())
    assert found["kind"] == KINDS[task] and np.isfinite(found["modalities"]["table"]["shapley"]["estimate"])
    labels = pd.read_csv(place / out / "impact.csv", dtype=str)["label"].dropna()
    if task != "huge":  # classes go by what the table calls them, not by their place
        assert set(labels) == set(table_of().loc[table_of()["split"] == "test", f"label_{task}"])
    assert cli.main(["report", str(place / "run")]) == 0


def test_a_class_that_the_model_does_not_know(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of()
    table.loc[table.index[-1], "label_birads"] = "6"
    table.to_csv(place / "other.csv", index=False)
    model = ["--checkpoint", str(place / "run")]
    assert run(place, "evaluate", *model, "--bootstrap", "20", manifest="other.csv", out="e") == 3
    said = capsys.readouterr().err
    assert "row 91, column 'label_birads': '6' does not fit: the classes are 1, 2, 3, 4; fix: " in said
    assert run(place, "impact", *model, "--task", "birads", "--value", "label", manifest="other.csv", out="e") == 3
    capsys.readouterr()
    assert run(place, "predict", *model, "--task", "birads", manifest="other.csv", out="q.csv") == 0
    assert "row 91, label_birads: '6' does not fit" in capsys.readouterr().err


def test_a_task_that_training_cannot_teach_is_refused_by_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = table_of()
    table["label_late"] = np.where(table["split"] == "train", "", "1")
    table.to_csv(place / "late.csv", index=False)
    start = ["--checkpoint", "none", "--architecture", str(place / "config.yaml"), "--no-track", *settings()]
    assert run(place, "finetune", *start, "--task", "late,words", manifest="late.csv", out="late") != 0
    assert "task 'late': no training study has a label of it" in capsys.readouterr().err
    assert not (place / "late").exists()


def test_heads_of_an_earlier_fine_tuning_leave(place: Path) -> None:
    start = ["--checkpoint", str(place / "run"), "--config", "plain", "--no-track", *settings()]
    assert run(place, "finetune", *start, "--task", "words", out="second") == 0
    assert list(json.loads((place / "second" / "model" / "config.json").read_text())["tasks"]) == ["words"]
    log = (place / "second" / "log.txt").read_text()
    assert "the head of birads leaves the model" in log and "the head of words goes on" in log
    labels = json.loads((place / "second" / "labels.json").read_text())["tasks"]["words"]
    assert labels["splits"]["train"]["labels"] == 50 and labels["classes"] == ["healthy", "ill"]
