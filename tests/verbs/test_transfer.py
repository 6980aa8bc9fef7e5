"""The verb transfer on a small simulated cohort: what it writes, what of a pair is the same, and what it refuses."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FEW = ["trainer.max_steps=2", "data.batch_size=4", "data.prepare_workers=0"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def teacher(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained model, which knows no task."""
    from medssml.verbs.pretrain import pretrain

    out = tmp_path_factory.mktemp("runs") / "teacher"
    steps = ["trainer.max_steps=1", "trainer.validate_every=0"]
    pretrain(
        config=ROOT / "configs/smoke/pretrain.yaml", manifest=cohort, out=out, cache=cache, overrides=steps, track=False
    )
    return out


def asked(teacher: Path, cohort: Path, cache: Path, out: Path, **others: Any) -> Any:
    from medssml.verbs.transfer import transfer

    given: dict[str, Any] = {
        "teacher": teacher, "student": "xray", "manifest": cohort, "task": ["effusion"], "out": out, "method": "features",
        "source": ["ct", "report"], "seeds": 2, "bootstrap": 20, "cache": cache, "overrides": FEW, "precision": "32",
        "track": False,
    }  # fmt: skip
    return transfer(**{**given, **others})


def test_a_transfer_writes_its_gain_a_page_and_a_student_that_may_be_used(
    teacher: Path, cohort: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    import medssml

    out = tmp_path / "run"
    # A rate of an encoder that the student does not have is left out with it.
    assert asked(teacher, cohort, cache, out, labels=0.7, overrides=[*FEW, "optim.scales={encoders.ct: 3.0}"]) == out
    said = capsys.readouterr().out
    assert "student alone, seed 0" in said and "student taught, seed 1" in said and "kept: the student" in said

    found = json.loads((out / "transfer_gain.json").read_text())
    assert (
        found["student"] == "xray"
        and found["source"] == ["ct", "report"]
        and found["kept"]["student"] in ("alone", "taught")
    )
    assert found["gate"]["kept"] is (found["kept"]["student"] == "taught")
    studies = found["protocol"]["studies"]
    rows = list(csv.DictReader(cohort.open()))
    train = [row for row in rows if row["split"] == "train" and row["xray"]]
    assert studies["seen by both"] == sum(1 for row in train if row["ct"] or row["report"])
    assert 0 < studies["labelled"] < len(train) and studies["of them without a label"] > 0
    assert (out / "transfer.html").exists() and str(cohort.parent) not in (out / "transfer_gain.json").read_text()

    # Both students of a pair began alike and learned otherwise; pairs did not.
    weights = {
        (seed, arm): load_file(out / "students" / f"seed{seed}-{arm}" / "model" / "model.safetensors")
        for seed in (0, 1)
        for arm in ("alone", "taught")
    }
    name = next(name for name in weights[0, "alone"] if name.startswith("encoders.xray") and "weight" in name)
    assert not (weights[0, "alone"][name] == weights[0, "taught"][name]).all()
    assert not (weights[0, "alone"][name] == weights[1, "alone"][name]).all()

    # The model reads the student's modality alone, and is that of the seed that was kept.
    model = medssml.load(out)
    assert model.modalities == ("xray",) and model.tasks == ("effusion",)
    kept = load_file(out / "model" / "model.safetensors")
    mine = weights[found["kept"]["seed"], found["kept"]["student"]]
    assert all((kept[key] == mine[key]).all() for key in mine)
    xray = next(row for row in rows if row["xray"])["xray"]
    assert 0 <= model.predict({"xray": cohort.parent / xray}, task="effusion")["effusion"] <= 1

    # The student that was taught has seen whom its teacher has seen.
    subjects = {
        arm: set(json.loads((out / "students" / f"seed0-{arm}" / "training_subjects.json").read_text())["subjects"])
        for arm in ("alone", "taught")
    }
    theirs = set(json.loads((teacher / "training_subjects.json").read_text())["subjects"])
    assert theirs <= subjects["taught"] and not theirs <= subjects["alone"]

    before = (out / "transfer_gain.json").stat().st_mtime_ns
    assert asked(teacher, cohort, cache, out, labels=0.7, overrides=[*FEW, "optim.scales={encoders.ct: 3.0}"]) == out
    assert "done already" in capsys.readouterr().out
    assert (out / "transfer_gain.json").stat().st_mtime_ns == before


def test_students_are_calibrated_where_the_config_says_so(
    teacher: Path, cohort: Path, cache: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "run"
    asked(teacher, cohort, cache, out, seeds=1, overrides=[*FEW, "calibrate=true", "probe_first=true"])
    for run in (out, *(folder for folder in (out / "students").iterdir() if folder.is_dir())):
        weights = load_file(run / "model" / "model.safetensors")
        assert float(weights["heads.effusion.calibration.shift"].abs().max()) > 0, run.name


def test_what_starts_over_is_what_stays(teacher: Path, cohort: Path, cache: Path, tmp_path: Path) -> None:
    """Nothing of the run that --fresh took the place of comes back when the command is run again."""
    out = tmp_path / "run"
    asked(teacher, cohort, cache, out, seeds=1)
    first = (out / "config.yaml").read_text()
    asked(teacher, cohort, cache, out, seeds=1, weight=3.0, fresh=True)
    asked(teacher, cohort, cache, out, seeds=1, weight=3.0)
    assert (out / "config.yaml").read_text() != first and not (out / ".before_fresh").exists()
    assert json.loads((out / "transfer_gain.json").read_text())["weight"] == 3.0 and (out / "model").exists()


@pytest.mark.slow
def test_students_stand_below_their_transfer_in_mlflow(
    teacher: Path, cohort: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "run"
    asked(teacher, cohort, cache, out, seeds=1, track=True)
    with sqlite3.connect(out / "mlflow.db") as store:
        runs = dict(store.execute("select name, run_uuid from runs"))
        status = {name for (name,) in store.execute("select status from runs")}
        parents = dict(store.execute("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
        metrics = {key for (key,) in store.execute("select key from latest_metrics where run_uuid = ?", (runs["run"],))}
        params = dict(store.execute("select key, value from params where run_uuid = ?", (runs["run"],)))
    assert set(runs) == {"run", "seed0-alone", "seed0-taught"} and status == {"FINISHED"}
    assert parents == {runs["seed0-alone"]: runs["run"], runs["seed0-taught"]: runs["run"]}
    assert "transfer/kept" in metrics and params["method"] == "features" and params["student"] == "xray"
    kept = out / "mlartifacts" / "medssml" / runs["run"] / "artifacts"
    assert (kept / "transfer_gain.json").exists() and (kept / "transfer.html").exists()
    assert not list(out.glob("students/*/mlflow.db")), "one store"


def test_students_begin_with_the_weights_of_a_pair(teacher: Path, cohort: Path, cache: Path, tmp_path: Path) -> None:
    """At a learning rate of nothing both students of a pair are one, and the gain is 0: nothing but learning tells them apart."""
    out = tmp_path / "run"
    still = [*FEW, "optim.lr=1e-30", "optim.weight_decay=0"]
    asked(teacher, cohort, cache, out, seeds=1, overrides=still)
    found = json.loads((out / "transfer_gain.json").read_text())
    (entry,) = found["tasks"].values()
    assert entry.get("reason") or entry["gain"]["estimate"] == pytest.approx(0.0, abs=1e-9)
    assert found["gate"]["kept"] is False and found["kept"]["student"] == "alone"


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"method": "logits"}, "the teacher does not know effusion, but no task; fix: .*features"),
        ({"method": "osmosis"}, "accepted: logits, privileged, features"),
        ({"source": ["mri"]}, "--source mri: the teacher reads ct, xray"),
        ({"source": ["xray"]}, "--source xray: .*is shown what the student is not"),
        ({"student": "mri"}, "--teacher teacher does not read mri"),
        ({"overrides": ["trainer.max_epochs=3"]}, "fix: trainer.max_steps"),
        ({"overrides": ["trainer.validate_every=1"]}, "validation studies decide on the transfer"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"task": ["gout"]}, "no column label_gout"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    teacher: Path, cohort: Path, cache: Path, tmp_path: Path, others: dict[str, Any], said: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=said):
        asked(teacher, cohort, cache, tmp_path / "run", **others)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_was_trained_on_test_subjects_is_refused(
    teacher: Path, cohort: Path, cache: Path, tmp_path: Path
) -> None:
    """The same subjects, split otherwise: who taught the teacher now judges the student."""
    rows = list(csv.DictReader(cohort.open()))
    other = {"train": "test", "test": "train", "val": "val"}
    turned = tmp_path / "turned.csv"
    with turned.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "split": other[row["split"]]} for row in rows)
    with pytest.raises(ValueError, match=r"--teacher was trained on \d+ of the \d+ validation and test subjects"):
        asked(teacher, turned, cache, tmp_path / "run", data_root=cohort.parent)


def test_a_student_that_imagines_is_used_as_any_other(teacher: Path, cohort: Path, cache: Path, tmp_path: Path) -> None:
    """Both students of a pair have two branches, which read a radiograph and nothing else."""
    import medssml
    from medssml.encoders import HallucinatingEncoder
    from medssml.model import MultimodalModel

    out = tmp_path / "run"
    asked(teacher, cohort, cache, out, method="hallucination", seeds=1)
    for arm in ("alone", "taught"):
        encoder = MultimodalModel.load(out / "students" / f"seed0-{arm}").encoders["xray"]
        assert type(encoder) is HallucinatingEncoder and encoder.width == MultimodalModel.load(teacher).dim
    xray = next(row for row in csv.DictReader(cohort.open()) if row["xray"])["xray"]
    assert 0 <= medssml.load(out).predict({"xray": cohort.parent / xray}, task="effusion")["effusion"] <= 1


@pytest.fixture
def apart(cohort: Path, tmp_path: Path) -> Path:
    """The cohort, in which nobody has a radiograph and another modality."""
    rows = list(csv.DictReader(cohort.open()))
    found = tmp_path / "apart.csv"
    with found.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | ({"ct": "", "report": ""} if row["xray"] else {}) for row in rows)
    return found


def test_no_study_with_both_is_refused(teacher: Path, cohort: Path, apart: Path, cache: Path, tmp_path: Path) -> None:
    said = "no training study has both xray and ct or report.*--method prototypes or anchors"
    with pytest.raises(ValueError, match=said):
        asked(teacher, apart, cache, tmp_path / "run", data_root=cohort.parent)


def test_classes_teach_where_no_study_has_both(
    teacher: Path, cohort: Path, apart: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked(teacher, apart, cache, out, data_root=cohort.parent, method="prototypes", seeds=1)
    found = json.loads((out / "transfer_gain.json").read_text())
    assert found["protocol"]["studies"]["seen by both"] == 0
    assert found["protocol"]["studies"]["labelled and seen by the teacher"] > 0
    assert found["protocol"]["pairs"].startswith("none was used")
    card = (out / "students" / "seed0-taught" / "model" / "README.md").read_text()
    assert "without a study that both see" in card

    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("effusion: {0: No pleural effusion., 1: [Large pleural effusion., Effusion on the left.]}\n")
    told = {"data_root": cohort.parent, "seeds": 1, "source": ["report"], "method": "anchors"}
    with pytest.raises(ValueError, match="--prompts are the sentences of --method anchors"):
        asked(teacher, apart, cache, tmp_path / "none", **told)
    asked(teacher, apart, cache, tmp_path / "named", prompts=str(prompts), **told)
    settings = (tmp_path / "named" / "config.yaml").read_text()
    assert "Large pleural effusion." in settings


@pytest.mark.parametrize("method", ["moments", "pseudo-pairs"])
def test_other_studies_teach_where_no_study_has_both(
    teacher: Path, cohort: Path, apart: Path, cache: Path, tmp_path: Path, method: str
) -> None:
    """Those of the teacher are encoded once for all seeds; what the student alone sees takes part without a label."""
    out = tmp_path / "run"
    asked(teacher, apart, cache, out, data_root=cohort.parent, method=method, labels=0.5)
    protocol = json.loads((out / "transfer_gain.json").read_text())["protocol"]
    studies, rows = protocol["studies"], list(csv.DictReader(apart.open()))
    train = [row for row in rows if row["split"] == "train"]
    assert studies["seen by both"] == 0 and protocol["pairs"].startswith("none was used")
    assert studies["seen by the teacher"] == sum(1 for row in train if row["ct"] or row["report"])
    lone = studies["seen by the student without a label"]
    assert lone > 0 and lone + studies["labelled"] == sum(1 for row in train if row["xray"])
    assert "obstacles" not in protocol


def test_training_studies_suffer_obstacles_and_test_studies_do_not(
    teacher: Path, cohort: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each student, and the teacher where it looks at studies of its own, has the damages of what it sees."""
    from medssml.data.datamodule import StudyDataModule
    from medssml.runs import training

    made: list[tuple[set[str], set[str]]] = []
    loaded: list[tuple[set[str], str | None]] = []
    whole, loader = training.studies, StudyDataModule.loader

    def told(table: Any, transforms: Any, config: Any, store: Any, tasks: Any = None, damages: Any = ()) -> Any:
        made.append((set(transforms), {damage.name for damage in damages}))
        return whole(table, transforms, config, store, tasks, damages)

    def noted(data: StudyDataModule, split: str | None, **others: Any) -> Any:
        loaded.append((set(data.transforms), split))
        return loader(data, split, **others)

    monkeypatch.setattr(training, "studies", told)
    monkeypatch.setattr(StudyDataModule, "loader", noted)
    nodes = [
        {"class_path": name, "init_args": {"severity": severity}}
        for name, severity in (("Absent", 1.0), ("XrayExposure", 0.5), ("CTDose", 0.5))
    ]
    suffering = [*FEW, f"data.obstacles={json.dumps(nodes)}"]
    with pytest.raises(ValueError, match="no training study has both xray and ct"):
        asked(teacher, cohort, cache, tmp_path / "none", overrides=suffering)
    out = tmp_path / "run"
    asked(teacher, cohort, cache, out, overrides=suffering, method="prototypes", seeds=1)
    assert made == [
        ({"xray", "ct", "report"}, {"xray_exposure", "ct_dose"}),
        ({"xray"}, {"xray_exposure"}),
        ({"ct", "report"}, {"ct_dose"}),
    ]
    # All splits at once are never damaged.
    assert ({"ct", "report"}, "train") in loaded and None not in {split for _, split in loaded}
    found = json.loads((out / "transfer_gain.json").read_text())["protocol"]
    named = [line.split(": ")[0] for line in found["obstacles"]]
    assert named == ["absent, severity 1", "xray_exposure, severity 0.5", "ct_dose, severity 0.5"]
    assert "ct_dose, severity 0.5" in (out / "transfer.html").read_text()
    rows = list(csv.DictReader(cohort.open()))
    test = [row for row in rows if row["split"] == "test" and row["xray"] and row["label_effusion"]]
    assert found["studies"]["seen by both"] == 0 and found["studies"]["test"] == len(test)
    elsewhere = [*FEW, "data.obstacles=[{class_path: EEGMains, init_args: {severity: 0.5}}]"]
    with pytest.raises(ValueError, match="data.obstacles"):
        asked(teacher, cohort, cache, tmp_path / "none", overrides=elsewhere)
    assert not (tmp_path / "none").exists()
