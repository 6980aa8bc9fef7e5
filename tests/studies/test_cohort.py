"""The cohort study on simulated studies: its results, that it resumes, and that test labels reach no model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medssml.runs.run_folder import RunFolderError
from medssml.studies import cohort_choice, cohort_fits, cohort_results
from medssml.studies.cohort import study_cohort

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
MODALITIES = ("ct", "xray", "eeg", "report")
TASKS = ["malignant", "effusion"]
#: The test split has 12 studies; 8 of them keep their label of the first task, which is therefore cross-validated.
TEST, LABELLED, FEW = 12, 8, 10

pytestmark = pytest.mark.slow


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def with_splits(table: pd.DataFrame) -> pd.DataFrame:
    """Every study twice, under other names; the last ones are test; classes alternate, so that none is rare.

    The validation studies have three labels of each class of the second task, and two of one class of the first."""
    table = pd.concat([table, table], ignore_index=True)
    rows = np.arange(len(table))
    split = np.where(rows >= len(table) - TEST, "test", np.where(rows < 6, "val", "train"))
    names = {"subject_id": [f"p{row:02d}" for row in rows], "study_id": [f"s{row:02d}" for row in rows]}
    table = table.assign(split=split, **names)
    for task in TASKS:
        table[f"label_{task}"] = (rows % 2).astype(str)
    table.loc[[0, *table.index[-TEST:-LABELLED]], f"label_{TASKS[0]}"] = ""
    return table


@pytest.fixture(scope="module")
def manifests(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small cohort with labels of both classes everywhere, and the same files as a second hospital's studies."""
    place = tmp_path_factory.mktemp("cohorts")
    table = with_splits(read(cohort))
    table.to_csv(place / "first.csv", index=False)
    other = table.iloc[-TEST:].assign(label_malignant=["0", "1"] * (TEST // 2))
    for column in ("subject_id", "study_id"):
        other[column] = "other-" + other[column]
    other.to_csv(place / "second.csv", index=False)
    return place / "first.csv", place / "second.csv"


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is trained, encoded or fitted meanwhile."""
    from medssml.evaluation import encoded_studies
    from medssml.evaluation.classical import ClassicalBaseline
    from medssml.runs import training

    log: list[str] = []
    with monkeypatch.context() as patch:
        for owner, name in ((training, "train"), (encoded_studies, "encode_studies"), (ClassicalBaseline, "fit")):
            original = getattr(owner, name)

            def told(*args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
                log.append(_name)
                return _original(*args, **options)

            patch.setattr(owner, name, told)
        yield log


@pytest.fixture(scope="module")
def options(manifests: tuple[Path, Path], cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a fine-tuning with a fixed length: what chooses nothing of validation studies learns from them."""
    fixed = tmp_path_factory.mktemp("configs") / "fixed.yaml"
    fixed.write_text("base: smoke/finetune\ntrainer: {validate_every: 0}\n")
    return {
        "manifest": manifests[0],
        "test_manifest": manifests[1],
        "data_root": cohort.parent,
        "out": tmp_path_factory.mktemp("studies") / "study",
        "seeds": 1,
        "tasks": TASKS,
        "config": SMOKE / "pretrain.yaml",
        "finetune_config": fixed,
        "folds": 2,
        "cross_validate_below": FEW,
        "choice_folds": 2,
        "bootstrap": 50,
        "threads": 1,
    }


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The choice of the baselines' penalty has tests of its own and would be most of the time here; and three validation
    studies of each class are enough to choose, so that folds do for the first task alone."""
    from medssml.evaluation import classical

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "PENALTIES", (0.1,))
        patch.setattr(cohort_choice, "ENOUGH", 3)
        yield


@pytest.fixture(scope="module")
def done(options: dict[str, Any]) -> Path:
    study_cohort(**options)
    return Path(options["out"])


def test_results_have_every_method_and_subset_with_its_interval(done: Path, options: dict[str, Any]) -> None:
    results = json.loads((done / "results.json").read_text())
    names = ("classical", "probe", "finetune", cohort_choice.CHOSEN)
    methods = [name + part for name in names for part in ("", " [test manifest]")]
    assert list(results) == TASKS
    assert set(results["effusion"]) == set(methods)
    assert set(results["malignant"]) == {
        *methods,
        *(f"{n} (cross-validated)" for n in ("classical", "probe", "finetune")),
    }
    for task, found in results.items():
        for name, subsets in found.items():
            assert set(subsets) >= set(MODALITIES), (task, name)
            for subset, entry in subsets.items():
                assert set(subset.split("+")) <= set(MODALITIES)
                assert {"estimate", "ci_low", "ci_high", "n"} <= set(entry["auroc"])
                assert 0 <= entry["auroc"]["estimate"] <= 1 and 0 < entry["positives"] < entry["auroc"]["n"]
    whole = read(options["manifest"])
    seen = whole.loc[(whole["split"] == "test") & (whole["report"] != "")]
    assert results["effusion"]["finetune"]["report"]["auroc"]["n"] == len(seen)
    labelled = whole.loc[(whole["label_malignant"] != "") & (whole["report"] != "")]
    assert results["malignant"]["finetune (cross-validated)"]["report"]["auroc"]["n"] == len(labelled)
    assert f"{cohort_choice.CHOSEN}, from CT + X-ray + EEG + report: AUROC" in (done / "results.html").read_text()
    protocol = json.loads((done / "protocol.json").read_text())
    assert protocol["seeds"] == 1 and set(protocol["chosen"]) == set(TASKS)
    for task, picked in protocol["chosen"].items():
        assert picked in ("probe", "finetune") and results[task][cohort_choice.CHOSEN] == results[task][picked]
    assert protocol["chosen by"]["effusion"].startswith("validation: ")
    assert (
        protocol["chosen by"]["malignant"].startswith("2 folds: ") and "classical" in protocol["chosen by"]["malignant"]
    )


def test_by_folds_every_study_that_is_not_test_is_asked_once_by_a_fit_without_its_subject(
    done: Path, options: dict[str, Any]
) -> None:
    whole = read(options["manifest"])
    labelled = whole.loc[(whole["label_malignant"] != "") & (whole["split"] != "test")]
    tables = [read(path) for path in sorted((done.parent / "cache").glob("tables/*/malignant_*choice*of2.csv"))]
    assert len(tables) == 2
    for table in tables:
        assert set(table["study_id"]) == set(labelled["study_id"])
        asked = set(table.loc[table["split"] == "test", "subject_id"])
        assert asked and asked.isdisjoint(table.loc[table["split"] == "train", "subject_id"])
        assert set(table["split"]) == {"train", "test"}
    asked_once = pd.concat([table.loc[table["split"] == "test", "study_id"] for table in tables])
    assert sorted(asked_once) == sorted(labelled["study_id"])
    choice = json.loads((done / "choice.json").read_text())
    assert set(choice["malignant"]) == {"classical", "probe", "finetune"}
    assert set(choice["effusion"]) == {"probe", "finetune"}
    having = labelled.loc[labelled["xray"] != ""]
    assert {methods["xray"]["auroc"]["n"] for methods in choice["malignant"].values()} == {len(having)}
    paths = sorted((done / "seed0" / "answers").glob("finetune_malignant_*choice*of2.csv"))
    parts = [table.loc[table["subset"] == "xray"] for table in map(pd.read_csv, paths)]
    each = [roc_auc_score(part["y"], part["probability"]) for part in parts]
    assert choice["malignant"]["finetune"]["xray"]["auroc"]["estimate"] == pytest.approx(np.mean(each))


def test_run_again_it_computes_nothing_and_says_the_same(
    done: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (done / "results.json").read_bytes()
    weights = {path: path.stat().st_mtime_ns for path in done.rglob("model.safetensors")}
    started = time.process_time()
    with counted(monkeypatch) as log:
        study_cohort(**options)
    assert log == [] and len(weights) == 1 + 4 + 2
    assert time.process_time() - started < 40
    assert (done / "results.json").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in done.rglob("model.safetensors")} == weights


def test_another_study_in_the_folder_is_refused_and_changes_nothing(done: Path, options: dict[str, Any]) -> None:
    """The answers are there, and would be taken for those of the other config."""
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match=r"finetuning: .*was.*, now .*fix: another --out"):
        study_cohort(**options | {"finetune_config": SMOKE.parent / "finetune" / "frozen.yaml"})
    with pytest.raises(RunFolderError, match="folds: .*was 2, now 3"):
        study_cohort(**options | {"folds": 3})
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()} == before


def test_the_study_lies_beside_its_cache_and_tables(done: Path) -> None:
    assert {path.name for path in done.iterdir()} == {
        "seed0", "classical", "results.json", "choice.json", "protocol.json", "results.html", "medssml_study.json",
    }  # fmt: skip
    cache = done.parent / "cache"
    assert cache.stat().st_mode & 0o777 == 0o700 and list(cache.glob("tables/*/effusion.csv"))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"tasks": ["malignannt"]}, "no column label_malignannt; did you mean 'malignant'?"),
        ({"seeds": 0}, "--seeds"),
        ({"folds": 1}, "--folds"),
        ({"choice_folds": 1}, "--choice-folds"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"config": Path("none.yaml")}, "no such config file"),
        ({"finetune_config": SMOKE / "pretrain.yaml"}, "unknown key"),
        ({"manifest": Path("none.csv")}, "none.csv"),
    ],
)
def test_a_study_that_cannot_start_leaves_no_folder(
    wrong: dict[str, Any], error: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises((ValueError, KeyError, OSError), match=".*".join(map(re.escape, error.split("; ")))):
        study_cohort(**options | {"out": tmp_path / "out", "cache": tmp_path / "cache"} | wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_test_manifest_without_a_split_is_answered_as_a_whole(
    manifests: tuple[Path, Path], cohort: Path, tmp_path: Path
) -> None:
    second = read(manifests[1]).drop(columns="split")
    second.to_csv(tmp_path / "second.csv", index=False)
    study = cohort_fits.study_of(
        tmp_path / "study",
        tmp_path / "cache",
        manifests[0],
        test_manifest=tmp_path / "second.csv",
        data_root=cohort.parent,
    )
    table, origin = cohort_fits.merged_table(study)
    assert set(origin) == set(second["study_id"])
    assert set(table.loc[table["study_id"].isin(set(origin)), "split"]) == {"test"}
    assert set(read(manifests[0])["study_id"]) == set(table["study_id"]) - set(origin)


def test_labels_of_test_studies_change_no_answer(done: Path, options: dict[str, Any], tmp_path: Path) -> None:
    flipped = []
    for name in ("manifest", "test_manifest"):
        table = read(options[name])
        held = table["split"] == "test"
        for task in TASKS:
            column = f"label_{task}"
            table.loc[held, column] = table.loc[held, column].map({"0": "1", "1": "0", "": ""})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        flipped.append(tmp_path / f"{name}.csv")
    configs = {name: options[name] for name in ("config", "finetune_config", "data_root")}
    study = cohort_fits.study_of(
        tmp_path / "study", tmp_path / "cache", flipped[0], test_manifest=flipped[1], **configs
    )
    table, origin = cohort_fits.merged_table(study)
    (plan,) = cohort_fits.plans_of(study, table, "effusion", set(origin), folds=2, few=FEW)
    answers = cohort_fits.model_answers(study, plan, done / "seed0" / "pretrain", seed=0)
    answers["classical"] = cohort_fits.classical_answers(study, plan)
    for name, ours in answers.items():
        folder = done / "classical" if name == "classical" else done / "seed0" / "answers"
        theirs = pd.read_csv(
            folder / f"{'' if name == 'classical' else name + '_'}effusion.csv", dtype={"study_id": str}
        )
        keys = ["study_id", "subset"]
        both = ours.fillna({"subset": ""}).merge(theirs.fillna({"subset": ""}), on=keys, suffixes=("", "_before"))
        assert len(both) == len(ours) == len(theirs) > 0
        np.testing.assert_array_equal(both["probability"], both["probability_before"], err_msg=name)
        np.testing.assert_array_equal(both["y"], 1 - both["y_before"])


def test_every_method_is_set_beside_the_classical_baseline_of_the_same_studies() -> None:
    rng = np.random.default_rng(0)
    y = np.tile([0.0, 1.0], 30)

    def answered(shift: float, prefix: str = "s") -> pd.DataFrame:
        ids = [f"{prefix}{i}" for i in range(60)]
        head = {"study_id": ids, "subject": ids, "subset": "ct", "y": y, "seed": 0}
        return pd.DataFrame({**head, "probability": rng.normal(shift * y)})

    answers = {
        ("ill", "classical"): [answered(0.2), answered(0.2, "t")],
        ("ill", "finetune"): [answered(3.0), answered(3.0, "t")],
        ("ill", "finetune (cross-validated)"): [answered(3.0)],
    }
    found = cohort_results.tabulate(answers, {f"t{i}" for i in range(60)}, 50)["ill"]
    gain = found["finetune"]["ct"]["gain"]
    assert gain["against"] == "classical" and gain["n"] == 60 and gain["ci_low"] > 0
    difference = found["finetune"]["ct"]["auroc"]["estimate"] - found["classical"]["ct"]["auroc"]["estimate"]
    assert gain["estimate"] == pytest.approx(difference)
    assert found["finetune [test manifest]"]["ct"]["gain"]["against"] == "classical [test manifest]"
    assert "gain" not in found["classical"]["ct"] and "gain" not in found["finetune (cross-validated)"]["ct"]


def test_validation_studies_that_choose_nothing_are_learned_from_and_those_that_choose_are_not(
    done: Path, manifests: tuple[Path, Path], cohort: Path, tmp_path: Path
) -> None:
    """Folds choose for the first task; of the second, validation studies do."""
    tables = {path.stem: read(path) for path in (done.parent / "cache").glob("tables/*/*.csv")}
    assert "val" not in set(tables["malignant_with_validation"]["split"]) and "malignant" not in tables
    assert (tables["effusion"]["split"] == "val").sum() == 6
    whole = read(manifests[0]).set_index("study_id")["split"]
    learned = tables["malignant_with_validation"].query("split == 'train'")["study_id"]
    assert set(whole[learned]) == {"train", "val"}
    study = cohort_fits.study_of(tmp_path / "study", tmp_path / "cache", manifests[0], data_root=cohort.parent)
    assert study.fixed_length
    by = {"malignant": "folds", "effusion": "validation", "seizure": ""}
    assert cohort_choice.learned_whole(study, by) == {"malignant"}
    assert not cohort_choice.learned_whole(replace(study, finetune_config=SMOKE / "finetune.yaml"), by)
    table, _ = cohort_fits.merged_table(study)
    for plan in cohort_choice.choice_plans(study, table, "malignant", 2):
        held = read(plan.table).set_index("study_id")["split"]
        assert set(held[[name for name in held.index if whole[name] == "val"]]) == {"val"}


def test_a_table_without_a_test_study_is_answered_by_folds_alone(
    manifests: tuple[Path, Path], cohort: Path, tmp_path: Path
) -> None:
    read(manifests[0]).assign(split="train").to_csv(tmp_path / "learned.csv", index=False)
    study = cohort_fits.study_of(
        tmp_path / "study", tmp_path / "cache", tmp_path / "learned.csv", data_root=cohort.parent
    )
    table, _ = cohort_fits.merged_table(study)
    plans = list(cohort_fits.plans_of(study, table, "effusion", set(), folds=2, few=FEW))
    assert [plan.use for plan in plans] == ["folds", "folds"]


def says(separation: float, noise: int = 0, **columns: Any) -> pd.DataFrame:
    """Answers of one subset for 20 studies, further apart by class with more separation."""
    y = np.tile([0.0, 1.0], 10)
    names = [f"s{columns.get('cohort', 0)}-{i}" for i in range(len(y))]
    drawn = np.random.default_rng(noise).normal(size=len(y))
    head = {"study_id": names, "subject": names, "y": y, "probability": separation * y + drawn, "seed": 0}
    return pd.DataFrame(head).assign(**{"subset": "ct", **columns})


def test_what_is_better_on_studies_to_choose_by_is_chosen_whatever_the_baseline_says() -> None:
    found = cohort_choice.judged(
        {
            ("malignant", "classical"): [says(9.0)],
            ("malignant", "probe"): [says(3.0)],
            ("malignant", "finetune"): [says(0.5)],
            ("normal", "probe"): [says(0.1)],
            ("normal", "finetune"): [says(4.0)],
        },
        50,
    )
    assert cohort_choice.best(found) == {"malignant": "probe", "normal": "finetune"}


def test_a_way_that_answers_for_easy_studies_alone_gains_nothing_by_it() -> None:
    """The probe was fitted in one fold; there it is worse, and its AUROC is the higher one if both folds count."""
    easy, hard = (
        [says(apart, fold, cohort=fold) for fold, apart in enumerate(two)] for two in ((2.5, 0.2), (2.0, 0.2))
    )
    answers = {("ill", "probe"): hard[:1], ("ill", "finetune"): easy, ("ill", "classical"): easy}
    found = cohort_choice.judged(answers, 50)
    assert cohort_choice.best(found) == {"ill": "finetune"}
    assert {methods["ct"]["auroc"]["n"] for methods in found["ill"].values()} == {20}
    other = answers | {("ill", "probe"): [says(9.0, cohort=0, subset="xray")]}
    assert cohort_choice.best(cohort_choice.judged(other, 50)) == {}


def test_a_study_that_one_seed_lacks_is_left_out_of_the_choice() -> None:
    both = {("ill", way): [says(2.0), says(2.0).assign(seed=1)] for way in cohort_choice.WAYS}
    both["ill", "probe"][1] = both["ill", "probe"][1].iloc[2:]
    found = cohort_choice.judged(both, 50)["ill"]
    assert {methods["ct"]["auroc"]["n"] for methods in found.values()} == {18}


def test_models_of_different_folds_are_not_ranked_against_each_other() -> None:
    """A fit whose answers are all higher is as good as one whose answers are all lower."""
    apart = [says(3.0, fold, cohort=fold) for fold in range(2)]
    shifted = [table.assign(probability=table["probability"] + 50 * (1 - 2 * table["cohort"])) for table in apart]
    found = cohort_choice.judged({("ill", "probe"): apart, ("ill", "finetune"): shifted}, 50)["ill"]
    assert found["probe"]["ct"]["auroc"] == found["finetune"]["ct"]["auroc"]
    assert found["probe"]["ct"]["auroc"]["estimate"] > 0.9


def test_a_task_that_training_has_one_class_of_is_left_out_or_refused_before_anything_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    split, label = ["train"] * 4 + ["test"] * 4, {"label_x": list("01010101"), "label_y": list("00000101")}
    table = pd.DataFrame({"split": split, **label})
    assert cohort_fits.chosen_tasks(table, []) == ["x"]
    assert "label_y of one class" in "".join(capsys.readouterr())
    with pytest.raises(ValueError, match="label_y of one class at most; fix: leave it out of --tasks"):
        cohort_fits.chosen_tasks(table, ["x", "y"])
    with pytest.raises(ValueError, match="among its training studies"):
        cohort_fits.chosen_tasks(table.drop(columns="label_x"), [])


@pytest.mark.parametrize(
    ("val", "train", "folds", "expected"),
    [
        ("01" * 3, "01" * 20, 3, "validation"),  # three of each class, which are enough in these tests
        ("01" * 2, "01" * 20, 3, "folds"),
        ("01" * 2, "01" * 20, 0, ""),
        ("01" * 2, "01" * 5, 6, ""),  # fewer subjects of a class than folds
        ("01" * 2, "01" * 4, 3, ""),
        ("1" * 10, "01" * 20, 3, "folds"),
        ("1" * 10, "1" * 20, 3, ""),
    ],
)
def test_folds_choose_where_validation_studies_are_few(val: str, train: str, folds: int, expected: str) -> None:
    table = pd.DataFrame({"split": ["val"] * len(val) + ["train"] * len(train), "label_x": list(val + train)})
    names = [f"s{row}" for row in range(len(table))]
    table = table.assign(study_id=names, subject_id=names)
    assert cohort_choice.chosen_by(table, "x", folds) == expected
    one = table.assign(subject_id=np.where(table["split"] == "train", "one", table["subject_id"]))
    assert cohort_choice.chosen_by(one, "x", folds) == ("validation" if expected == "validation" else "")
