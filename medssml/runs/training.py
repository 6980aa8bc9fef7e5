"""What pretraining and fine-tuning have in common around the training itself: studies in, a run folder out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.data.datamodule import StudyDataModule
from medssml.data.shard_dataset import Shards
from medssml.files import write_json
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.obstacles.base import Damage
from medssml.runs import console
from medssml.runs.modality_account import remember_subjects
from medssml.runs.progress import training_bar
from medssml.runs.run_folder import RunFolder
from medssml.runs.training_config import Finetuning, Training
from medssml.tracking import MlflowTracker
from medssml.trainers.adapters import merge_adapters
from medssml.trainers.checkpoint import space_for
from medssml.trainers.learner import Learner
from medssml.trainers.loop import Outcome, fit

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


def studies(
    manifest: Manifest,
    transforms: Mapping[str, Any],
    config: Training,
    cache: Path | Shards | None,
    tasks: Sequence[str] | None = None,
    damages: Sequence[Damage] = (),
) -> StudyDataModule:
    """The data of a run, not prepared yet."""
    return StudyDataModule(
        manifest, transforms, seed=config.seed, cache_dir=cache, tasks=tasks, damages=damages, **config.data.loading
    )


def prepare(data: StudyDataModule, folder: RunFolder | None, before: Collection[str] = ()) -> None:
    """Prepares the studies, lists in problems.csv those that are left out, and says so; writes presence.json and, with
    `before`, the subjects that the model was trained on already, training_subjects.json.

    Raises:
        ValueError: no training study is left.
    """
    problems = data.prepare()
    if folder is not None:
        folder.write_problems([*problems, *data.studies.nothing])
        if folder.writes:
            write_json(folder.path / "presence.json", presence(data.manifest))
            remember_subjects(folder.path, data.manifest.split("train"), before)
        folder.remember(data.remarks)
    if problems:
        console.warn(
            f"{data.studies.quarantined} of {data.studies.asked} studies left out, as a file of theirs cannot be used: "
            f"problems.csv says which and why; training goes on without them"
        )
    if data.studies.nothing:
        console.warn(
            f"{len(data.studies.nothing)} of {data.studies.asked} studies have nothing that the model reads: left out"
        )
    # What a few studies taught, such as their vocabulary, says nothing of the training.
    for remark in data.remarks if folder is not None else ():
        console.warn(remark)
    counts = {split: len(data.manifest.split(split)) for split in SPLITS}
    console.say(
        f"studies: {counts['train']} to train on, {counts['val']} to validate, {counts['test']} kept for testing"
    )
    if counts["train"] == 0:
        raise ValueError("no study to train on; fix: the manifest's split column, or the files named in problems.csv")


def presence(manifest: Manifest) -> dict[str, Any]:
    """{"modalities": [...], "patterns": [{"pattern": "ct+xray", "train": n, "val": n, "test": n}, ...]}, most first."""
    coverage = manifest.coverage()
    order = sorted(coverage["all"], key=lambda pattern: (-coverage["all"][pattern], pattern))
    patterns = [{"pattern": name, **{split: coverage[split].get(name, 0) for split in SPLITS}} for name in order]
    return {"modalities": list(manifest.modalities), "patterns": patterns}


def train(
    learner: Learner,
    data: StudyDataModule,
    folder: RunFolder,
    config: Training,
    *,
    track: bool = True,
    facts: Mapping[str, Any] | None = None,
    card: Mapping[str, str] | None = None,
    finish: Callable[[], None] | None = None,
) -> Outcome:
    """Trains in the run folder, with validation and tracking, and writes model/ when it is done.

    Args:
        facts: for MLflow. card: for the model card.
        finish: called when the model has learned, before it is written; on the first rank alone.
    """
    data.views = learner.views
    loader = data.train_dataloader()
    val = data.loader("val") if len(data.manifest.split("val")) > 0 else None
    identity = {"training studies": str(loader.state_dict()["studies"])}
    learner.on_bad = lambda ids: folder.flag_studies(
        ids, "non_finite", "loss or gradient of a batch with this study was not finite", "look at its files"
    )
    tracker = _tracker(folder, config, data.manifest, facts) if track and folder.writes else None
    folder.started()
    if folder.writes:
        provenance.record(folder.path, "finetune" if isinstance(config, Finetuning) else "pretrain", data.seed)
    try:
        with training_bar() as bar:
            outcome = fit(
                learner, loader, folder.path, config.trainer, val=val, studies=data.loader("train"), identity=identity,
                tracker=tracker, watcher=bar,
            )  # fmt: skip
        if tracker is not None and outcome.status == "stopped":
            tracker.stopped()
    except BaseException:
        if tracker is not None:
            tracker.close("FAILED")
        raise
    finally:
        loader.close()
    if outcome.status == "done" and folder.writes:
        merge_adapters(learner.model)
        learner.model.requires_grad_(True)
        if finish is not None:
            finish()
        write_model(learner.model, folder, data.transforms, card or {})
    if tracker is not None:
        tracker.close()
    return outcome


def _tracker(folder: RunFolder, config: Training, manifest: Manifest, facts: Mapping[str, Any] | None) -> MlflowTracker:
    counts = {
        f"presence.{split}.{row['pattern'] or 'nothing'}": row[split]
        for row in presence(manifest)["patterns"]
        for split in SPLITS
    }
    told = {"manifest_sha256": manifest.sha256, **counts, **(facts or {})}
    tags = {"medssml.manifest_sha256": manifest.sha256, **folder.tags}
    return MlflowTracker(folder.path, config=config.written(), facts=told, tags=tags).__enter__()


def write_model(
    model: MultimodalModel, folder: RunFolder, transforms: Mapping[str, Any], card: Mapping[str, str]
) -> None:
    """Writes model/ beside and renames it: a run that has one is done.

    Raises:
        medssml.trainers.checkpoint.NoSpaceError: the disk is full; the same command goes on from the last checkpoint.
    """
    beside = folder.path / ".model.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    kept = {name: transforms[name] for name in model.modalities if name in transforms}
    try:
        with space_for(folder.model, model.state_dict(), folder.path / "checkpoints"):
            model.save(beside, transforms=kept, card=card)
        shutil.rmtree(folder.model, ignore_errors=True)
        beside.rename(folder.model)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def conclude(outcome: Outcome, data: StudyDataModule, folder: RunFolder) -> int | Path:
    """What a verb returns: the run folder, or the exit code of a run that was stopped or lost too many studies."""
    counts = {split: len(data.manifest.split(split)) for split in SPLITS}
    told = {"status": outcome.status, "steps": outcome.step, "seconds": outcome.seconds, "studies": counts}
    left_out = {
        "quarantined": data.studies.quarantined,
        "validation_score": outcome.score,
        "validation": outcome.metrics,
    }
    console.tell({"run": str(folder.path), **told, **left_out})
    if outcome.status == "stopped":
        console.say(f"stopped and saved at step {outcome.step}; the same command continues from there")
        return outcome.exit_code
    kept = "" if outcome.score is None else f", validation score {outcome.score:.3f}"
    console.say(f"trained {outcome.step} steps in {console.duration(outcome.seconds)}{kept}")
    if excess := data.excess:
        console.warn(f"{excess}; fix: mend the files named in problems.csv, or a larger data.quarantine_limit")
        return 4
    return folder.path
