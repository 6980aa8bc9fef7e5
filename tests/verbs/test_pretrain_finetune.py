"""The verbs pretrain and finetune on a small simulated cohort, and what they leave in the run folder."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "configs" / "smoke"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pretrained(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medssml.verbs.pretrain import pretrain

    out = tmp_path_factory.mktemp("runs") / "pretrain"
    assert pretrain(config=SMOKE / "pretrain.yaml", manifest=cohort, out=out, cache=cache, track=False) == out
    return out


def weights(run: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(run / "model" / "model.safetensors")


def test_the_run_folder_is_that_of_the_contract(pretrained: Path, cohort: Path) -> None:
    import hashlib

    names = {path.name for path in pretrained.iterdir()}
    assert {"config.yaml", "manifest.sha256", "checkpoints", "model", "history.csv", "problems.csv", "log.txt"} <= names
    assert (pretrained / "manifest.sha256").read_text().strip() == hashlib.sha256(cohort.read_bytes()).hexdigest()
    assert (pretrained / "checkpoints" / "last.ckpt").exists()
    assert {"config.json", "model.safetensors", "README.md", "tokenizer"} <= {
        p.name for p in (pretrained / "model").iterdir()
    }
    presence = json.loads((pretrained / "presence.json").read_text())
    assert presence["modalities"] == ["ct", "xray", "eeg", "report"]
    assert sum(row["train"] + row["val"] + row["test"] for row in presence["patterns"]) <= 24
    assert str(cohort.parent) not in "".join(p.read_text() for p in pretrained.rglob("*.json"))


def test_the_tokenizer_has_seen_training_reports_only(
    pretrained: Path, cohort: Path, cache: Path, tmp_path: Path
) -> None:
    from medssml.predictor import load_transforms
    from medssml.verbs.pretrain import pretrain

    # A word of a validation report, a hundred times over, changes nothing.
    folder = tmp_path / "cohort"
    shutil.copytree(cohort.parent, folder)
    rows = list(csv.DictReader((folder / "manifest.csv").open()))
    held = next(row for row in rows if row["split"] != "train" and row["report"])
    (folder / held["report"]).write_text("xylophone " * 100)
    run = pretrain(
        config=SMOKE / "pretrain.yaml", manifest=folder / "manifest.csv", out=tmp_path / "run", cache=cache, track=False,
        overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    ours = load_transforms(pretrained)["report"].steps[-1].vocabulary.tokenizer.get_vocab()
    assert load_transforms(run)["report"].steps[-1].vocabulary.tokenizer.get_vocab() == ours


def test_a_run_that_is_done_returns_at_once_and_another_config_is_refused(
    pretrained: Path, cohort: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medssml.runs.run_folder import RunFolderError
    from medssml.verbs.pretrain import pretrain

    before = (pretrained / "model" / "model.safetensors").stat().st_mtime_ns
    again = {"config": SMOKE / "pretrain.yaml", "manifest": cohort, "out": pretrained, "cache": cache, "track": False}
    assert pretrain(**again) == pretrained
    assert "done already" in capsys.readouterr().out
    assert (pretrained / "model" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(RunFolderError, match=r"optim.lr was 0.001, now 0.002; fix: .*--fresh"):
        pretrain(**again, overrides=["optim.lr=0.002"])


def test_a_truncated_file_is_left_out_and_said(cohort: Path, cache: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    from medssml.privacy import pseudonyms
    from medssml.verbs.pretrain import pretrain

    folder = tmp_path / "cohort"
    shutil.copytree(cohort.parent, folder)
    row = next(row for row in csv.DictReader((folder / "manifest.csv").open()) if row["ct"])
    whole = (folder / row["ct"]).read_bytes()
    (folder / row["ct"]).write_bytes(whole[: len(whole) // 3])
    out = pretrain(
        config=SMOKE / "pretrain.yaml", manifest=folder / "manifest.csv", out=tmp_path / "run", cache=cache, track=False,
        overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    (problem,) = csv.DictReader((Path(str(out)) / "problems.csv").open())
    code = pseudonyms().study(row["study_id"])
    assert (problem["study_id"], problem["column"], problem["action"]) == (code, "ct", "quarantined")
    said = capsys.readouterr().err
    assert "1 of 24 studies left out" in said
    # The smoke config reads 48 tokens, and a report of the simulated cohort has some 60.
    assert "report: " in said and "training reports are cut at 48 tokens" in said


def test_a_cohort_without_one_modality_gets_a_model_without_it(cohort: Path, cache: Path, tmp_path: Path) -> None:
    from medssml.predictor import load
    from medssml.verbs.pretrain import pretrain

    rows = list(csv.DictReader(cohort.open()))
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [name for name in rows[0] if name != "report"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    out = pretrain(
        config=SMOKE / "pretrain.yaml", manifest=path, data_root=cohort.parent, out=tmp_path / "run", cache=cache,
        track=False, overrides=["trainer.max_steps=1", "trainer.validate_every=0"],
    )  # fmt: skip
    assert load(str(out)).modalities == ("ct", "xray", "eeg")


def test_dry_run_tells_memory_and_time_and_writes_nothing(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medssml.verbs.pretrain import pretrain

    result = pretrain(config=SMOKE / "pretrain.yaml", manifest=cohort, out=tmp_path / "run", dry_run=True)
    assert isinstance(result, dict) and result["steps"] > 0 and result["parameters"] > 0
    assert result["seconds_per_step"] > 0 and result["device"] in ("cpu", "cuda") and result["peak_memory_gib"] > 0
    assert result["seconds"] == pytest.approx(result["seconds_per_step"] * result["steps"])
    said = capsys.readouterr().out
    assert f"memory: {result['peak_memory_gib']:.1f} GiB at most" in said and f"{result['steps']} steps, about" in said
    assert list(tmp_path.iterdir()) == []


def finetuned(cohort: Path, out: Path, cache: Path, checkpoint: str, **options: object) -> Path:
    from medssml.verbs.finetune import finetune

    defaults = {"task": ["malignant"], "config": SMOKE / "finetune.yaml", "track": False, "cache": cache}
    result = finetune(checkpoint=checkpoint, manifest=cohort, out=out, **{**defaults, **options})  # type: ignore[arg-type]
    assert result == out
    return out


def test_finetuning_starts_from_the_checkpoint_and_frozen_encoders_stay(
    pretrained: Path, cohort: Path, cache: Path, tmp_path: Path
) -> None:
    from medssml.predictor import load

    run = finetuned(cohort, tmp_path / "run", cache, str(pretrained), freeze="encoders", task=["malignant", "effusion"])
    before, after = weights(pretrained), weights(run)
    assert all(np.array_equal(value, after[name]) for name, value in before.items() if name.startswith("encoders."))
    assert any(not np.array_equal(value, after[name]) for name, value in before.items() if name.startswith("fusion."))
    assert load(run).tasks == ("malignant", "effusion")


def test_heads_begin_as_a_probe_when_asked(pretrained: Path, cohort: Path, cache: Path, tmp_path: Path) -> None:
    """At a learning rate of next to nothing the head that is kept is the one it began with."""
    heads = []
    for first in ("true", "false"):
        settings = {"freeze": "encoders", "overrides": ["optim.lr=1e-9", f"probe_first={first}"]}
        run = finetuned(cohort, tmp_path / first, cache, str(pretrained), task=["effusion"], **settings)
        heads.append(weights(run)["heads.effusion.linear.weight"])
        said = "effusion: its head begins as a linear probe" in (run / "log.txt").read_text("utf-8")
        assert said == (first == "true")
    assert np.abs(heads[0] - heads[1]).max() > 1e-3


def test_training_from_scratch_uses_the_architecture(
    cohort: Path, cache: Path, pretrained: Path, tmp_path: Path
) -> None:
    run = finetuned(cohort, tmp_path / "run", cache, "none", architecture=SMOKE / "pretrain.yaml", task=["all"])
    kept = "kept."  # of pretraining alone
    shapes = {name: value.shape for name, value in weights(pretrained).items() if not name.startswith(kept)}
    assert shapes.items() <= {name: value.shape for name, value in weights(run).items()}.items()


@pytest.mark.parametrize("below", ["", "model"])
def test_starting_over_never_removes_what_it_starts_from(
    below: str, pretrained: Path, cohort: Path, cache: Path, tmp_path: Path
) -> None:
    from medssml.runs.run_folder import RunFolderError

    again = tmp_path / "again"
    shutil.copytree(pretrained, again)
    with pytest.raises(RunFolderError, match="--checkpoint"):
        finetuned(cohort, again, cache, str(again / below), fresh=True)
    assert (again / "model" / "model.safetensors").exists() and (again / "checkpoints").exists()


def test_starting_over_removes_nothing_before_the_checks(
    pretrained: Path, cohort: Path, cache: Path, tmp_path: Path
) -> None:
    from medssml.checkpoint import CheckpointError

    run, damaged = tmp_path / "run", tmp_path / "damaged"
    shutil.copytree(pretrained, run)
    shutil.copytree(pretrained, damaged)
    (damaged / "model" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        finetuned(cohort, run, cache, str(damaged), fresh=True)
    assert (run / "model" / "model.safetensors").exists()
    with pytest.raises(CheckpointError):
        finetuned(cohort, tmp_path / "new", cache, str(damaged))
    assert not (tmp_path / "new").exists()


def test_a_modality_that_no_labelled_study_has_is_said_everywhere(
    pretrained: Path, cohort: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.DictReader(cohort.open()))
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "ct": row["ct"] if row["split"] == "test" else ""} for row in rows)
    run = finetuned(
        path, tmp_path / "run", cache, str(pretrained), data_root=cohort.parent, overrides=["trainer.max_steps=1"]
    )
    said = "no training study has ct: what is learned here (malignant) is not learned from it"
    assert said in capsys.readouterr().err
    assert said in (run / "log.txt").read_text("utf-8")
    assert said[1:] in (run / "model" / "README.md").read_text("utf-8")


def test_a_killed_verb_goes_on_to_the_same_bits(cohort: Path, cache: Path, pretrained: Path, tmp_path: Path) -> None:
    from medssml.data.loader import TrainLoader

    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    options = {"overrides": ["trainer.save_every_steps=1"], "task": ["all"]}
    whole = finetuned(cohort, tmp_path / "whole", cache, str(pretrained), **options)

    def killed() -> None:
        take = TrainLoader.take

        def dying(self: TrainLoader):  # type: ignore[no-untyped-def]
            if self.step == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return take(self)

        TrainLoader.take = dying  # type: ignore[method-assign]
        finetuned(cohort, tmp_path / "parts", cache, str(pretrained), **options)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "parts" / "model").exists()
    parts = finetuned(cohort, tmp_path / "parts", cache, str(pretrained), **options)
    ours, theirs = weights(whole), weights(parts)
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


def test_a_share_of_the_labels_is_nested_and_in_proportion() -> None:
    import pandas as pd

    from medssml.manifest.manifest import Manifest
    from medssml.runs.labels import balanced_weights, labelled_studies

    rows = 400
    table = pd.DataFrame(
        {
            "subject_id": [f"p{i // 2}" for i in range(rows)],
            "study_id": [f"s{i}" for i in range(rows)],
            "split": ["val" if i // 2 % 10 == 0 else "train" for i in range(rows)],
            "report_text": "x",
            "label_a": ["1" if i // 2 % 4 == 1 else "0" for i in range(rows)],
        }
    )
    manifest = Manifest.from_table(table, ".")
    kept = {share: labelled_studies(manifest, ["a"], share, seed=0) for share in (0.1, 0.3, 1.0)}
    subjects = {share: set(part.split("train").subject_ids) for share, part in kept.items()}
    assert subjects[0.1] < subjects[0.3] < subjects[1.0]
    assert len(subjects[0.1]) == 18 and all(len(part.split("val")) == 40 for part in kept.values())
    assert kept[0.1].split("train").targets["a"].mean() == pytest.approx(0.25, abs=0.06)
    assert set(labelled_studies(manifest, ["a"], 0.1, seed=1).subject_ids) != set(kept[0.1].subject_ids)
    with pytest.raises(ValueError, match="share above 0"):
        labelled_studies(manifest, ["a"], 0.0, seed=0)

    share = float(manifest.split("train").targets["a"].mean())
    assert balanced_weights(manifest, ["a"])["a"] == pytest.approx([0.5 / (1 - share), 0.5 / share])


def test_an_unknown_task_names_the_nearest(cohort: Path, tmp_path: Path) -> None:
    from medssml.verbs.finetune import finetune

    with pytest.raises(KeyError, match="did you mean 'malignant'"):
        finetune(
            checkpoint="none", architecture=SMOKE / "pretrain.yaml", manifest=cohort, task=["malignent"], out=tmp_path
        )


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_config_is_valid(path: Path) -> None:
    from medssml.config import load_config
    from medssml.runs.training_config import FinetuneConfig, PretrainConfig

    kind = path.parent.name if path.parent.name != "smoke" else path.stem
    schemas = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
    if kind not in schemas:
        pytest.skip("not a config of pretrain or finetune")
    resolved = load_config(path, schemas[kind])
    if kind == "pretrain":
        from medssml.verbs.pretrain import _learner

        assert _learner(resolved, resolved, ())[0].names
