"""Remedies for labels as a user asks for them: the loss of a fine-tuning config, suspicious labels, weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from medssml.config import ConfigError
from medssml.manifest.refusal import ManifestError
from medssml.verbs.finetune import finetune

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
GCE = ["loss.class_path=GeneralisedCrossEntropy", "loss.init_args.q=1.0"]


def first_loss(cohort: Path, out: Path, cache: Path, *overrides: str) -> float:
    finetune(
        checkpoint="none", architecture=SMOKE / "pretrain.yaml", config=SMOKE / "finetune.yaml", manifest=cohort, out=out,
        task=["malignant"], cache=cache, track=False,
        overrides=["trainer.max_steps=1", "trainer.validate_every=0", *overrides],
    )  # fmt: skip
    rows = list(csv.DictReader((out / "history.csv").open()))
    return next(float(row["train/loss"]) for row in rows if row.get("train/loss"))


def test_the_loss_of_the_config_is_what_is_learned(cohort: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    entropy = first_loss(cohort, tmp_path / "plain", cache)
    error = first_loss(cohort, tmp_path / "gce", cache, *GCE)
    # A fresh head answers about 1/2: log 2, and the mean absolute error.
    assert entropy == pytest.approx(0.69, abs=0.08) and error == pytest.approx(0.5, abs=0.05)
    assert "GeneralisedCrossEntropy" in (tmp_path / "gce" / "config.yaml").read_text()


def test_a_loss_that_is_none_and_one_that_contradicts_smoothing_are_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Supervised.*is no StudyLoss|expected.*StudyLoss"):
        first_loss(cohort, tmp_path / "a", tmp_path, "loss.class_path=Supervised")
    with pytest.raises(ConfigError, match="GeneralisedCrossEntropi.*did you mean 'GeneralisedCrossEntropy'"):
        first_loss(cohort, tmp_path / "b", tmp_path, "loss.class_path=GeneralisedCrossEntropi")
    with pytest.raises((ConfigError, ValueError), match="label_smoothing is of the cross-entropy.*fix"):
        first_loss(cohort, tmp_path / "c", tmp_path, "label_smoothing=0.1", *GCE)
    with pytest.raises(ConfigError, match="q is 2.0; fix"):
        first_loss(cohort, tmp_path / "d", tmp_path, GCE[0], "loss.init_args.q=2.0")
    assert list(tmp_path.iterdir()) == [], "before anything is written"


# Suspicious labels, and weights.


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A cohort of 60 small studies with tables of which some labels are turned, its pretraining, its cache."""
    from medssml.verbs.phantom import phantom
    from medssml.verbs.pretrain import pretrain

    folder = tmp_path_factory.mktemp("suspects")
    phantom(out=folder / "cohort", studies=60, seed=0, preset="small", workers=1)
    manifest = folder / "cohort" / "manifest.csv"
    run = pretrain(
        config=SMOKE / "pretrain.yaml", manifest=manifest, out=folder / "run", cache=folder / "cache", track=False,
        overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    return manifest, Path(str(run)), folder / "cache"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_suspects_are_listed_and_the_table_with_weights_is_what_finetune_heeds(
    sixty: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medssml.verbs.suspects import suspects

    manifest, run, cache = sixty
    weighted = manifest.parent / "weighted.csv"
    out = suspects(
        checkpoint=str(run), manifest=manifest, out=tmp_path / "out", task=["effusion"], weights=weighted, cache=cache
    )
    listed, said = (
        rows_of(Path(str(out)) / "suspects.csv"),
        json.loads((tmp_path / "out" / "suspects.json").read_text()),
    )
    before, after = rows_of(manifest), rows_of(weighted)
    entry = said["tasks"]["effusion"]
    assert entry["suspects"] == len(listed) > 0 and said["protocol"]["splits"] == ["train", "val"]
    assert entry["labels"] == sum(r["label_effusion"] != "" and r["split"] != "test" for r in before)
    turned = {row["study_id"] for row in listed}
    for old, new in zip(before, after, strict=True):
        assert new == {**old, "weight_effusion": "0" if old["study_id"] in turned else "1"}
        if old["study_id"] in turned:
            (row,) = [row for row in listed if row["study_id"] == old["study_id"]]
            assert old["split"] != "test" and row["label"] == old["label_effusion"] != row["likeliest"]
            assert before[int(row["row"]) - 2] is old
    sure = [float(row["probability_of_label"]) for row in listed]
    assert sure == sorted(sure) and sure[-1] < 0.5

    capsys.readouterr()
    finetune(
        checkpoint=str(run), config=SMOKE / "finetune.yaml", manifest=weighted, out=tmp_path / "tuned", task=["effusion"],
        cache=cache, track=False, overrides=["trainer.max_steps=1"],
    )  # fmt: skip
    assert f"weight_effusion leaves out {len(listed)} of {entry['labels']} labels" in capsys.readouterr().out
    counted = json.loads((tmp_path / "tuned" / "labels.json").read_text())["tasks"]["effusion"]["splits"]
    assert counted["train"]["labels"] + counted["val"]["labels"] == entry["labels"] - len(listed)
    with pytest.raises(
        ValueError, match="was trained on the labels of effusion.*fix: --checkpoint with the pretraining"
    ):
        suspects(checkpoint=str(tmp_path / "tuned"), manifest=manifest, out=tmp_path / "again", cache=cache)


def test_labels_of_less_weight_pull_less_and_a_wrong_weight_is_refused_with_its_row(
    cohort: Path, tmp_path: Path
) -> None:
    from medssml.manifest.manifest import Manifest
    from medssml.runs.labels import label_weights, without_discarded

    rows = rows_of(cohort)
    for row in rows:
        row["weight_malignant"] = {"train": "0.25", "val": "0", "test": "0"}[row["split"]]
    rows[0]["weight_malignant"] = ""

    def written(cells: list[dict[str, str]]) -> Manifest:
        path = tmp_path / "table.csv"
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(cells[0]))
            writer.writeheader()
            writer.writerows(cells)
        return Manifest.read(path, cohort.parent)

    table = written(rows)
    train = table.split("train")
    expected = [1.0 if study == rows[0]["study_id"] else 0.25 for study in train.study_ids]
    assert label_weights(table, ["malignant", "effusion"]) == {"malignant": expected}
    left = without_discarded(table, ["malignant", "effusion"])
    gone = ~np.isfinite(left.targets["malignant"]) & np.isfinite(table.targets["malignant"])
    assert set(left.splits[gone]) == {"val"} and np.isnan(left.targets["malignant"][left.splits == "val"]).all()
    np.testing.assert_array_equal(left.targets["effusion"], table.targets["effusion"])

    rows[3]["weight_malignant"], rows[5]["weight_malignant"] = "-1", "half"
    bad = written(rows)
    for asked in (label_weights, without_discarded):
        train_only = [n for n in (3, 5) if asked is without_discarded or rows[n]["split"] == "train"]
        for n in train_only:
            with pytest.raises(ManifestError, match=rf"row {n + 2}, column 'weight_malignant'.*fix"):
                asked(bad, ["malignant"])


def test_a_modulation_of_the_config_changes_what_the_encoders_learn(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    manifest, run, cache = sixty
    weights = []
    for name, given in (
        ("plain", []),
        ("modulated", ["modulation.class_path=GradientModulation", "modulation.init_args.noise=false"]),
    ):
        finetune(
            checkpoint=str(run), config=SMOKE / "finetune.yaml", manifest=manifest, out=tmp_path / name, task=["effusion"],
            cache=cache, track=False, overrides=["trainer.max_steps=2", "trainer.validate_every=0", "optim.name=sgd", *given],
        )  # fmt: skip
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    moved = [name for name, value in weights[0].items() if not bool((value == weights[1][name]).all())]
    assert any(name.startswith("encoders.") for name in moved)


def test_co_teaching_takes_the_place_of_the_labels_and_nothing_is_passed_over(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, run, cache = sixty
    options = {
        "checkpoint": str(run), "config": SMOKE / "finetune.yaml", "manifest": manifest, "task": ["effusion"],
        "cache": cache, "track": False,
    }  # fmt: skip
    two = ["trainer.max_steps=1", "trainer.validate_every=0", "objectives=[{class_path: CoTeaching}]"]
    assert finetune(**options, out=tmp_path / "two", overrides=two) == tmp_path / "two"
    columns = set(rows_of(tmp_path / "two" / "history.csv")[0])
    assert "train/co_teaching/loss" in columns and not any(name.startswith("train/supervised") for name in columns)
    with pytest.raises(ValueError, match="CoTeaching takes the place of the labels, and loss would not count; fix"):
        finetune(**options, out=tmp_path / "both", overrides=[*two, *GCE])


def test_studies_whose_labels_are_hidden_are_learned_from_with_pseudo_labels(
    sixty: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medssml.config import load_config
    from medssml.runs.training_config import FinetuneConfig
    from medssml.shipped_configs import config_path

    shipped = load_config(config_path("pseudo_labels", "finetune"), FinetuneConfig)
    assert shipped.unlabelled and shipped.objectives[0]["class_path"].endswith("PseudoLabels")
    manifest, run, cache = sixty
    options = {"checkpoint": str(run), "manifest": manifest, "task": ["effusion"], "labels": 0.5, "cache": cache}
    told = finetune(
        **options, config=SMOKE / "finetune.yaml", out=tmp_path / "pseudo", track=False,
        overrides=[
            "trainer.max_steps=2", "trainer.validate_every=0", "unlabelled=true",
            "objectives=[{class_path: PseudoLabels, init_args: {threshold: 0.5, look: both}}]",
        ],
    )  # fmt: skip
    assert told == tmp_path / "pseudo"
    assert "training studies without a label take part" in capsys.readouterr().out
    counted = json.loads((tmp_path / "pseudo" / "labels.json").read_text())["tasks"]["effusion"]["splits"]["train"]
    seen = json.loads((tmp_path / "pseudo" / "presence.json").read_text())["patterns"]
    assert sum(row["train"] for row in seen) > counted["labels"] > 0
    row = next(r for r in rows_of(tmp_path / "pseudo" / "history.csv") if r.get("train/pseudo_labels/loss"))
    assert float(row["train/pseudo_labels/confident/effusion"]) == 1.0
    assert "without a label beside them" in (tmp_path / "pseudo" / "model" / "README.md").read_text()


def half_labelled(manifest: Path, name: str) -> Path:
    """A table of which every other training study, every validation and test study in four lacks its label of effusion."""
    table = manifest.parent / name
    rows = rows_of(manifest)
    for place, row in enumerate(rows):
        if place % (2 if row["split"] == "train" else 4) == 0:
            row["label_effusion"] = ""
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


def test_labels_that_spread_fill_training_studies_alone_with_how_sure_they_are(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from medssml.verbs.propagate import propagate

    manifest, run, cache = sixty
    given, filled = half_labelled(manifest, "half.csv"), manifest.parent / "filled.csv"
    # Of seizure every training study is labelled: nothing of it changes.
    options = {"checkpoint": str(run), "task": ["effusion", "seizure"], "cache": cache}
    assert propagate(**options, manifest=given, out=tmp_path / "out", table=filled) == tmp_path / "out"
    listed = rows_of(tmp_path / "out" / "propagated.csv")
    said = json.loads((tmp_path / "out" / "propagated.json").read_text())["tasks"]
    entry = said["effusion"]
    assert said["seizure"]["filled"] == {"0": 0, "1": 0} and 0 < said["seizure"]["held_out"]["auroc"] < 1
    before, after = rows_of(given), rows_of(filled)
    unknown = [row for row in before if row["split"] == "train" and row["label_effusion"] == ""]
    assert 0 < len(listed) == sum(entry["filled"].values()) == len(unknown) - entry["not_reached"]
    assert entry["labels"] == sum(row["split"] == "train" and row["label_effusion"] != "" for row in before)
    assert entry["held_out"]["labels"] == entry["labels"] and 0 <= entry["held_out"]["auroc"] <= 1
    told = {int(row["row"]): row for row in listed}
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        row = told.get(place + 2)
        mark = {"weight_effusion": "1", "propagated_effusion": ""}
        if row is not None:
            assert old["split"] == "train" and old["label_effusion"] == ""
            mark = {"label_effusion": row["label"], "propagated_effusion": "1"}
            assert float(new["weight_effusion"]) == float(row["certainty"]) <= 1
        assert new == {**old, "weight_effusion": new["weight_effusion"], **mark}
    sure = [float(row["certainty"]) for row in listed]
    assert sure == sorted(sure, reverse=True)

    # Of the table that it wrote it finds the same: its own labels are no labels; what is less sure is unknown again.
    again = manifest.parent / "again.csv"
    least = sorted(sure)[len(sure) // 2]
    propagate(**options, manifest=filled, out=tmp_path / "again", table=again, least=least)
    second = rows_of(tmp_path / "again" / "propagated.csv")
    assert second == [row for row in listed if float(row["certainty"]) >= least] and len(second) < len(listed)
    kept = {int(row["row"]) for row in second}
    for place, row in enumerate(rows_of(again)):
        expected = after[place] if place + 2 in kept or place + 2 not in told else {
            **after[place], "label_effusion": "", "weight_effusion": "1", "propagated_effusion": ""
        }  # fmt: skip
        assert row == expected


def test_the_table_with_spread_labels_is_learned_with_their_weights(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from medssml.manifest.manifest import Manifest
    from medssml.runs.labels import label_weights
    from medssml.verbs.propagate import propagate

    manifest, run, cache = sixty
    filled = manifest.parent / "to_learn.csv"
    propagate(
        checkpoint=str(run), manifest=half_labelled(manifest, "half.csv"), out=tmp_path / "out", task=["effusion"],
        table=filled, cache=cache,
    )  # fmt: skip
    table = Manifest.read(filled)
    (weights,) = label_weights(table, ["effusion"]).values()
    expected = [float(cell) for cell in table.split("train").table["weight_effusion"]]
    assert weights == expected and min(weights) < 1
    finetune(
        checkpoint=str(run), config=SMOKE / "finetune.yaml", manifest=filled, out=tmp_path / "tuned", task=["effusion"],
        cache=cache, track=False, overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    counted = json.loads((tmp_path / "tuned" / "labels.json").read_text())["tasks"]["effusion"]["splits"]["train"]
    known = [row for row in rows_of(filled) if row["split"] == "train" and row["label_effusion"] != ""]
    assert counted["labels"] == len(known) - sum(float(row["weight_effusion"]) == 0 for row in known)
    with pytest.raises(ValueError, match="was trained on the labels of effusion.*fix"):
        propagate(checkpoint=str(tmp_path / "tuned"), manifest=filled, out=tmp_path / "no", cache=cache)


def test_studies_to_label_next_lack_the_label_and_are_of_several_subjects(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from medssml.verbs.select import select

    manifest, run, cache = sixty
    given = half_labelled(manifest, "half.csv")
    rows = rows_of(given)
    options = {"checkpoint": str(run), "manifest": given, "task": ["effusion"], "cache": cache, "count": 6}
    found = {}
    for by in ("uncertain_and_diverse", "entropy", "margin", "diverse"):
        select(**options, out=tmp_path / by, by=by)  # type: ignore[arg-type]
        found[by] = rows_of(tmp_path / by / "select.csv")
        told = json.loads((tmp_path / by / "select.json").read_text())
        chosen = [rows[int(row["row"]) - 2] for row in found[by]]
        assert len(chosen) == 6 == told["chosen"] and all(row["reason"] for row in found[by])
        assert {(row["split"], row["label_effusion"]) for row in chosen} == {("train", "")}
        assert len({row["subject_id"] for row in chosen}) == 6
        assert [row["order"] for row in found[by]] == list("123456")
    entropies = [float(row["score"]) for row in found["entropy"]]
    assert entropies == sorted(entropies, reverse=True) and "entropy" in found["entropy"][0]["reason"]
    assert "margin" in found["margin"][0]["reason"]
    assert "from the nearest labelled or chosen study" in found["diverse"][0]["reason"]
    assert [r["row"] for r in found["entropy"]] == [r["row"] for r in found["margin"]], (
        "of two classes both order alike"
    )
    assert [r["row"] for r in found["diverse"]] != [r["row"] for r in found["entropy"]]


def test_a_model_that_learned_the_task_is_asked_itself_and_without_labels_only_what_is_diverse_is_left(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    import medssml
    from medssml.verbs.select import select

    manifest, run, cache = sixty
    given = half_labelled(manifest, "half.csv")
    finetune(
        checkpoint=str(run), config=SMOKE / "finetune.yaml", manifest=given, out=tmp_path / "tuned", task=["effusion"],
        cache=cache, track=False, overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    options = {"manifest": given, "task": ["effusion"], "cache": cache, "count": 5}
    listed = medssml.select(checkpoint=tmp_path / "tuned", out=tmp_path / "own", by="entropy", **options)
    said = json.loads((tmp_path / "own" / "select.json").read_text())
    assert said["answers"] == {"effusion": "answers of the model"} and len(listed) == 5
    medssml.predict(checkpoint=tmp_path / "tuned", manifest=given, out=tmp_path / "all.csv", cache=cache)
    answered = {row["study_id"]: float(row["probability"]) for row in rows_of(tmp_path / "all.csv")}
    p = np.array([answered[study] for study in listed["study_id"]])
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2)
    np.testing.assert_allclose(listed["score"], entropy, atol=2e-3)

    bare = manifest.parent / "bare.csv"
    with bare.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows_of(given)[0]))
        writer.writeheader()
        writer.writerows({**row, "label_effusion": "1" if row["split"] == "test" else ""} for row in rows_of(given))
    with pytest.raises(ValueError, match="nothing says which studies are uncertain .*fix: --by diverse"):
        select(checkpoint=str(run), out=tmp_path / "none", **{**options, "manifest": bare})
    assert len(medssml.select(checkpoint=run, out=tmp_path / "far", by="diverse", **{**options, "manifest": bare})) == 5


# A dominant modality.


def test_remedies_for_a_dominant_modality_are_named_in_the_config(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, run, cache = sixty
    options = {
        "checkpoint": str(run), "config": SMOKE / "finetune.yaml", "manifest": manifest, "task": ["effusion"],
        "cache": cache, "track": False,
    }  # fmt: skip
    length = ["trainer.max_steps=3", "trainer.validate_every=0", "data.batch_size=16"]
    adaptive = [*length, "modulation.class_path=AdaptiveGradientModulation", "modulation.init_args.alpha=0.5"]
    assert finetune(**options, out=tmp_path / "agm", overrides=adaptive) == tmp_path / "agm"
    assert "AdaptiveGradientModulation" in (tmp_path / "agm" / "config.yaml").read_text()
    blended = [*length, "objectives=[{class_path: GradientBlending, init_args: {every: 1}}]"]
    assert finetune(**options, out=tmp_path / "blended", overrides=blended) == tmp_path / "blended"
    last = rows_of(tmp_path / "blended" / "history.csv")[-1]
    weights = [float(v) for k, v in last.items() if k.startswith("train/gradient_blending/weight/") and v]
    assert len(weights) > 2 and 0 < sum(weights) <= 1.0001
    assert not any(name.startswith("train/supervised") for name in last)
    with pytest.raises(
        ValueError, match="GradientBlending takes the place of the labels, and modulation would not count"
    ):
        finetune(**options, out=tmp_path / "both", overrides=[*blended, *adaptive[3:]])


def test_a_run_of_one_modality_at_a_time_teaches_the_encoders_of_another(
    sixty: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    manifest, run, cache = sixty
    options = {
        "checkpoint": str(run), "config": SMOKE / "finetune.yaml", "manifest": manifest, "task": ["effusion"],
        "cache": cache, "track": False,
    }  # fmt: skip
    length = ["trainer.max_steps=1", "trainer.validate_every=0"]
    finetune(**options, out=tmp_path / "alone", overrides=[*length, "modality_dropout=0.99"])
    teach = [*length, "objectives=[{class_path: UnimodalTeachers}]"]
    taught = [*teach, f"teacher.checkpoint={tmp_path / 'alone'}"]
    assert finetune(**options, out=tmp_path / "taught", overrides=taught) == tmp_path / "taught"
    row = next(r for r in rows_of(tmp_path / "taught" / "history.csv") if r.get("train/unimodal_teachers/loss"))
    assert float(row["train/unimodal_teachers/loss"]) > 0

    with pytest.raises(ValueError, match="UnimodalTeachers asks another model; fix: teacher"):
        finetune(**options, out=tmp_path / "none", overrides=teach)
    with pytest.raises((ConfigError, ValueError), match="a teacher teaches nothing by labels alone; fix: objectives"):
        finetune(**options, out=tmp_path / "none", overrides=[*length, taught[-1]])
    # One that learned from a test subject would tell the student what it must not know.
    rows = rows_of(manifest)
    for row in rows:
        row["split"] = {"train": "test", "test": "train"}.get(row["split"], row["split"])
    turned = manifest.parent / "turned.csv"
    with turned.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ValueError, match="the teacher was trained on .* validation and test subjects"):
        finetune(**{**options, "manifest": turned}, out=tmp_path / "leak", overrides=taught)


def test_labels_that_tell_no_held_out_subject_apart_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    from medssml.verbs.propagate import _say

    def entry(auroc: float, filled: int = 3) -> dict[str, object]:
        held = {"auroc": auroc, "majority": 0.6, "by_certainty": [{"least": 0.0, "share": 1.0, "right": 0.5}]}
        return {"labels": 9, "filled": {"0": filled, "1": 0}, "not_reached": 0, "held_out": held}

    _say({"good": entry(0.8), "poor": entry(0.4), "odd": entry(float("nan")), "nothing": entry(0.4, filled=0)})
    warned = [line for line in capsys.readouterr().err.splitlines() if "fix" in line]
    assert len(warned) == 2
    assert "poor: labels of held-out subjects are told with an AUROC of 0.40" in warned[0] and "odd:" in warned[1]
