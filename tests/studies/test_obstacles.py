"""The study of obstacles: what it is asked, its figures against loops, and a small grid that is cut and continued."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medssml.config import ConfigError, load_config
from medssml.evaluation.bayes import bayes_column
from medssml.obstacles import OBSTACLES
from medssml.runs.run_folder import RunFolderError
from medssml.runs.training_config import FinetuneConfig
from medssml.studies.obstacles import study_obstacles
from medssml.studies.obstacles_cells import Case, Design, cell_file, chosen_cases, chosen_recipes
from medssml.studies.obstacles_grid import Grid
from medssml.studies.obstacles_measures import Question
from medssml.studies.obstacles_results import chosen, gains, standing

TASKS = ("effusion", "malignant")
SUBSETS = ("ct", "xray", "ct+xray")


def design(out: Path) -> Design:
    return Design(out, out / "cache", 40, 0.0, 2, 1.0, Path("x"), TASKS, 50)


def test_obstacles_are_asked_by_name_with_or_without_a_severity() -> None:
    found = chosen_cases(["absent=0.5", "ct_dose"], (0.2, 1.0))
    assert [case.name for case in found] == ["absent_0.5", "ct_dose_0.2", "ct_dose_1"]
    every = {case.obstacle for case in chosen_cases([], (0.5,))}
    assert every == {kind.name for kind in OBSTACLES} - {"absent_against_training"}


@pytest.mark.parametrize(
    "asked, message",
    [("absnt", "did you mean 'absent'"), ("absent=much", "no number"), ("absent=0", "severity of absent"),
     ("absent=1.5", "severity of absent")],
)  # fmt: skip
def test_a_wrong_obstacle_is_refused(asked: str, message: str) -> None:
    with pytest.raises((KeyError, ValueError), match=message):
        chosen_cases([asked], (0.5,))


def test_whom_an_obstacle_befalls() -> None:
    at = {case.obstacle: case.at for case in chosen_cases([], (0.5,))}
    assert at["absent"] == at["mispaired"] == "training and test"
    assert at["labels_symmetric"] == at["class_scarce"] == "training"
    assert at["report_typos"] == "test" and Case().at == ""


def test_a_training_is_told_of_the_obstacle_and_of_no_damage() -> None:
    by_label, dose = chosen_cases(["absent_by_label=0.4", "ct_dose=0.4"], ())
    config = load_config(None, FinetuneConfig, by_label.override("malignant"))
    (node,) = config.data.obstacles
    assert node["class_path"].endswith("AbsentByLabel")
    expected = {"severity": 0.4, "seed": 0, "task": "malignant", "flipped": False}
    assert {name: node["init_args"][name] for name in expected} == expected
    assert dose.override("malignant") == ()
    assert by_label.reverse is not None and dose.reverse is None
    assert '"flipped": true' in by_label.reverse.override("malignant")[0]


def test_a_damage_is_taught_where_it_is_asked() -> None:
    (dose,) = chosen_cases(["ct_dose:taught=0.4@0.5"], ())
    assert (dose.name, dose.at, dose.taught) == ("ct_dose:taught@0.5_0.4", "training and test", True)
    config = load_config(None, FinetuneConfig, dose.override("malignant"))
    (node,) = config.data.obstacles
    assert node["class_path"].endswith("DamageAtSites") and node["init_args"]["share"] == 0.5
    assert node["init_args"]["obstacle"]["init_args"]["severity"] == 0.4


def test_several_obstacles_are_one_case() -> None:
    both, swept = chosen_cases(["absent:ct=0.5+labels_symmetric=0.3", "absent=0.5+ct_dose"], (0.4,))
    assert both.name == "absent:ct=0.5+labels_symmetric=0.3_1" and swept.name == "absent=0.5+ct_dose_0.4"
    assert [round(one.severity, 9) for one in both.built("x")] == [0.5, 0.3]
    assert [round(one.severity, 9) for one in swept.built("x")] == [0.2, 0.4], "levels are those at severity 1"
    config = load_config(None, FinetuneConfig, both.override("effusion"))
    assert [node["class_path"].rpartition(".")[2] for node in config.data.obstacles] == ["Absent", "LabelsSymmetric"]
    assert config.data.obstacles[0]["init_args"]["modalities"] == ["ct"]
    assert both.at == swept.at == "training and test" and not both.of_training
    assert len(load_config(None, FinetuneConfig, swept.override("effusion")).data.obstacles) == 1, (
        "the damage is not taught"
    )


def test_recipes_are_the_configs_that_build_on_plain_or_those_asked(tmp_path: Path) -> None:
    names = [recipe.name for recipe in chosen_recipes([], design(tmp_path))]
    assert names[0] == "plain" and {"default", "distillation", "imputation"} <= set(names) and "small" not in names
    page = (Path(__file__).parents[2] / "docs" / "obstacles.md").read_text("utf-8")
    assert [name for name in names if f"`{name}`" not in page] == [], "recipes that docs/obstacles.md does not name"
    own = tmp_path / "mine.yaml"
    own.write_text("base: finetune/plain\nmodality_dropout: 0.5\n")
    first, mine = chosen_recipes(["plain", str(own)], design(tmp_path))
    assert mine.name == "mine" and mine.config.modality_dropout == 0.5 and mine.digest != first.digest
    assert mine.config.trainer.max_steps == 2 and mine.config.trainer.max_epochs is None


def test_what_is_wrong_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="did you mean 'distillation'"):
        study_obstacles(out=out, recipe=["distilation"])
    with pytest.raises(ValueError, match="names small twice"):
        study_obstacles(out=out, recipe=["small", "small"])
    with pytest.raises(KeyError, match="did you mean 'effusion'"):
        study_obstacles(out=out, task=["effusoin"])
    with pytest.raises(ValueError, match="--labels"):
        study_obstacles(out=out, labels=0.0)
    assert not out.exists()


def cell(knows: float, on_val: float, seeds: int = 2, studies: int = 60) -> pd.DataFrame:
    """Answers of both tasks, by how much the models know."""
    truth, own, rows = np.random.default_rng(0), np.random.default_rng(int(10 * knows + 100 * on_val)), []
    for task in TASKS:
        for split, level in (("val", on_val), ("test", knows)):
            y = truth.integers(0, 2, studies)
            for seed in range(seeds):
                table = pd.DataFrame({"study_id": [f"{split}{i:02}" for i in range(studies)]})
                table = table.assign(subject=np.arange(studies) // 2, y=y.astype(float), left="ct")
                columns = ("same", "undamaged", "untaught", *SUBSETS)
                scores = {name: 1 / (1 + np.exp(-level * y - own.normal(size=studies))) for name in columns}
                rows.append(table.assign(split=split, task=task, seed=seed, **scores))
    return pd.concat(rows, ignore_index=True)


def truth_of(studies: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    columns = {bayes_column(task, subset): rng.random(studies) for task in TASKS for subset in SUBSETS}
    return pd.DataFrame(columns, index=[f"test{i:02}" for i in range(studies)])


def mean_auroc(table: pd.DataFrame, column: str, task: str = "effusion", split: str = "test") -> float:
    part = table.loc[(table["task"] == task) & (table["split"] == split)]
    return float(np.mean([roc_auc_score(p["y"], p[column]) for _, p in part.groupby("seed")]))


def test_the_figures_are_those_of_a_loop() -> None:
    taught, clean, truth = cell(1.0, 1.0), cell(2.0, 2.0), truth_of()
    question = Question(taught, "effusion", truth, 50)
    found = question.measured(Question(clean, "effusion", truth, 50))
    for name in ("same", "undamaged", "untaught"):
        assert found[name]["estimate"] == pytest.approx(mean_auroc(taught, name))
        assert found[name]["ci_low"] < found[name]["estimate"] < found[name]["ci_high"]
    assert found["cost"]["estimate"] == pytest.approx(mean_auroc(clean, "undamaged") - mean_auroc(taught, "same"))
    assert found["price"]["estimate"] == pytest.approx(mean_auroc(clean, "ct+xray") - mean_auroc(taught, "ct+xray"))
    test = taught.query("split == 'test' and task == 'effusion' and seed == 0").set_index("study_id")
    best = {s: roc_auc_score(test["y"], truth.loc[test.index, bayes_column("effusion", s)]) for s in SUBSETS}
    gap = {s: best[s] - mean_auroc(taught, s) for s in SUBSETS}
    assert found["gap"]["estimate"] == pytest.approx(np.mean(list(gap.values())))
    assert found["worst"] == {"subset": max(gap, key=lambda s: gap[s]), "gap": pytest.approx(max(gap.values()))}
    assert found["best"] == pytest.approx(best["ct"]), "what is left is the CT"
    assert found["validation"] == pytest.approx(mean_auroc(taught, "same", split="val"))
    assert 0 < found["ece"]["estimate"] < 1


def test_a_subset_of_a_few_positives_is_not_the_worst() -> None:
    """Four positive studies that are all answered wrongly would be a gap of some 0.5."""
    table, truth = cell(1.0, 1.0), truth_of()
    positive = table["y"].eq(1)
    kept = positive & table.groupby(["task", "seed", "split"])["y"].cumsum().le(4)
    table.loc[positive & ~kept, "ct"] = np.nan
    table.loc[kept, "ct"] = 0.0
    question = Question(table, "effusion", truth, 20)
    assert question.measured(question)["worst"]["subset"] != "ct"


def asked(cells: dict[str, pd.DataFrame]) -> dict[tuple[str, str, str], Question]:
    return {(t, "absent_0.5", name): Question(c, t, truth_of(), 50) for t in TASKS for name, c in cells.items()}


def test_validation_chooses_and_test_reports() -> None:
    questions = [(task, "absent_0.5") for task in TASKS]
    found = asked({"lucky": cell(3.0, 0.3), "chosen": cell(0.3, 3.0)})
    ranks = standing(found, ["lucky", "chosen"], questions, 50)
    assert list(ranks) == ["chosen", "lucky"] and chosen(found, ["lucky", "chosen"], questions) == "chosen"
    assert ranks["chosen"]["validation"] == 1.0 and ranks["chosen"]["same"]["estimate"] == 2.0
    assert ranks["lucky"]["undamaged"]["estimate"] == 1.0


def test_a_gain_is_paired_with_the_first_recipe() -> None:
    cells = {"first": cell(0.2, 1.0), "better": cell(3.0, 1.0)}
    questions = [(task, "absent_0.5") for task in TASKS]
    found = gains(asked(cells), list(cells), questions, 50)
    assert list(found) == ["better"]
    expected = np.mean([mean_auroc(cells["better"], "same", t) - mean_auroc(cells["first"], "same", t) for t in TASKS])
    assert found["better"]["estimate"] == pytest.approx(expected) and found["better"]["ci_low"] > 0
    same = gains(asked({"first": cells["first"], "same": cells["first"]}), ["first", "same"], questions, 50)["same"]
    assert same["estimate"] == same["ci_low"] == same["ci_high"] == 0.0, "the same resamples apply to both"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("obstacles")
    small = {"studies": 40, "steps": 2, "task": TASKS[:1], "bootstrap": 50, "threads": 1, "config": "smoke/simclr"}
    asked = {
        "recipe": ["small", "frozen"],
        "obstacle": ["labels_symmetric=0.4", "ct_dose=0.5", "table_values_lost=0.5"],
    }
    return {"out": place / "study", "cache": place / "cache", "seeds": 1, **small, **asked}


@pytest.fixture(scope="module")
def done(options: dict[str, Any]) -> Path:
    """The study, cut before its second recipe and then continued."""
    whole, cut = Grid.recipe, KeyboardInterrupt("cut")

    def cut_at_frozen(grid: Grid, recipe: Any, cases: Any) -> None:
        if recipe.name == "frozen":
            raise cut
        whole(grid, recipe, cases)

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(Grid, "recipe", cut_at_frozen)
        with pytest.raises(KeyboardInterrupt):
            study_obstacles(**options)
        patch.setattr(Grid, "recipe", whole)
        out = Path(options["out"])
        before = {file: file.stat().st_mtime_ns for file in out.glob("cells/*.json")}
        assert len(before) == 3 and not (out / "results.json").exists()
        study_obstacles(**options)
        assert {file: file.stat().st_mtime_ns for file in before} == before, "what is done is not done again"
    return out


@pytest.mark.slow
def test_the_grid_has_a_line_a_cell_and_a_page(done: Path) -> None:
    lines = [json.loads(file.read_text()) for file in sorted(done.glob("cells/*.json"))]
    assert len(lines) == 6 and not any("failed" in line for line in lines)
    assert {(line["recipe"], line["obstacle"]) for line in lines} == {
        (recipe, name) for recipe in ("small", "frozen") for name in ("", "labels_symmetric", "ct_dose")
    }
    results = json.loads((done / "results.json").read_text())
    assert set(results["recipes"]) == {"small", "frozen"} and results["against"] == "small" and not results["failed"]
    assert set(results["tasks"]["effusion"]) == {"undamaged", "labels_symmetric_0.4", "ct_dose_0.5"}
    cell = results["tasks"]["effusion"]["undamaged"]["small"]
    assert cell["gap"]["estimate"] and "worst" not in cell, "no subset of 40 studies has enough to be called the worst"
    page = (done / "results.html").read_text()
    assert "Protocol" in page and "labels symmetric" in page
    assert not list(done.glob("cells/*/checkpoints"))


@pytest.mark.slow
def test_a_damage_is_met_by_the_reference_and_a_fault_of_labels_by_validation_alone(done: Path) -> None:
    """The damage: nobody is taught with it. The labels: those of the test are true, and its studies as they were."""
    clean, dose, labels = (
        pd.read_csv(cell_file(done, "small", case, 0, "csv"))
        for case in ("undamaged", "ct_dose_0.5", "labels_symmetric_0.4")
    )
    test = clean["split"] == "test"
    assert (clean.loc[test, "same"] == clean.loc[test, "undamaged"]).all()
    assert (dose.loc[test, "undamaged"] == clean.loc[test, "undamaged"]).all()
    assert (dose.loc[test, "same"] == dose.loc[test, "untaught"]).all()
    assert (dose.loc[test, "same"] != dose.loc[test, "undamaged"]).any()
    assert (labels.loc[test, "y"] == clean.loc[test, "y"]).all() and (
        labels.loc[~test, "y"] != clean.loc[~test, "y"]
    ).any()
    assert (labels.loc[test, "untaught"] == clean.loc[test, "undamaged"]).all()
    assert (labels.loc[test, "same"] != clean.loc[test, "same"]).any(), "taught other labels"


@pytest.mark.slow
def test_fine_tunings_stand_below_their_pretraining_in_one_store(done: Path) -> None:
    with sqlite3.connect(done / "mlflow.db") as store:
        runs = dict(store.execute("select run_uuid, name from runs"))
        parents = dict(store.execute("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
        results = [key for (key,) in store.execute("select key from latest_metrics") if key.startswith("obstacles/")]
    (parent,) = [run for run, name in runs.items() if name == "seed0"]
    assert len(runs) == 5 and list(parents.values()) == [parent] * 4
    assert "obstacles/effusion/same" in results and "obstacles/ct_dose_0.5/effusion/same" in results


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"steps": 3}, {"studies": 50}, {"labels": 0.5}, {"missing": 0.1}])
def test_another_study_in_the_folder_is_refused(done: Path, options: dict[str, Any], other: dict[str, Any]) -> None:
    (name,) = other
    with pytest.raises(RunFolderError, match=f"{name}.* was .*, now"):
        study_obstacles(**options | other)
