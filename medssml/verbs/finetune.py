"""medssml finetune: a model learns tasks from labelled studies."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.data.datamodule import StudyDataModule
    from medssml.manifest.manifest import Manifest
    from medssml.model import MultimodalModel
    from medssml.obstacles import Damage
    from medssml.runs.run_folder import RunFolder
    from medssml.runs.training_config import Finetuning
    from medssml.trainers.learner import Learner
    from medssml.trainers.settings import TrainerSettings
    from medssml.yaml_lines import Lines


def finetune(
    *,
    checkpoint: str = "",
    manifest: Path | None = None,
    shards: str | None = None,
    task: Sequence[str] = (),
    out: Path | None = None,
    config: Path | str | None = None,
    architecture: Path | str | None = None,
    kind: Sequence[str] = (),
    classes: Sequence[str] = (),
    labels: float = 1.0,
    freeze: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    device: str | None = None,
    devices: int | None = None,
    num_nodes: int | None = None,
    precision: str | None = None,
    cache: Path | None = None,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plugins: Sequence[str] = (),
    fresh: bool = False,
    dry_run: bool = False,
    print_config: bool = False,
    print_slurm: bool = False,
    track: bool = True,
) -> int | Path | dict[str, Any]:
    """Learns one or several tasks from the labelled training studies and writes a run folder.

    Of the weights, those with the best mean AUROC on the validation studies are kept, or loss where none is defined.

    Args:
        checkpoint: run folder of a pretraining, or `none` to train from scratch (needed).
        manifest: the study table, CSV or Parquet.
        shards: in place of a manifest, the folder or URL that medssml prepare --shards wrote.
        task: a label column without `label_`, or `all` (needed); may be given several times.
        out: run folder (needed, but for --print-config and --print-slurm).
        config: settings: a file, or the name of a shipped one; `default` without it, `scratch` with --checkpoint none.
        architecture: for `none`, the pretraining config with model and transforms; --config by default.
        kind: TASK=binary, multiclass or regression, or regression:UNIT, where cells do not say it.
        classes: TASK=a,b,c: its classes in their order, of two the last is the positive one.
        labels: share of the labelled training subjects; a smaller one is a part of a larger.
        freeze: none, encoders, all_but_heads, or how many first blocks of every encoder.
        overrides: any key of the config, as KEY.PATH=VALUE; may be given several times.
        seed: of new weights, order, augmentation and the choice of labels.
        device: auto, cpu or cuda.
        devices: how many devices on each machine.
        num_nodes: how many machines.
        precision: auto, 32 or bf16-mixed.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plugins: a package of yours that classes may come from; may be given several times.
        fresh: start over, removing what an earlier run left in the folder.
        dry_run: a few steps on studies of every pattern: time, memory, and nothing written.
        print_config: the resolved config on stdout, with where each value comes from; nothing else is done.
        print_slurm: a SLURM script that runs this command, on stdout; nothing else is done.
        track: log to MLflow, in the run folder or where MLFLOW_TRACKING_URI says.

    Returns:
        the run folder; an exit code where the run was stopped (75, 130) or lost too many studies (4).

    Raises:
        medssml.config.ConfigError: a wrong key or value. medssml.manifest.table_text.ManifestError: a wrong table.
        RunFolderError: the folder holds another run. KeyError: no such task. ValueError: a task that training studies cannot
            teach: none is labelled, or all are of one class.
    """
    from dataclasses import replace

    from medssml.manifest.labels import declared_labels
    from medssml.privacy import pseudonyms
    from medssml.runs import console, training
    from medssml.runs.cache_place import cache_place
    from medssml.runs.inputs import refuse_overlap
    from medssml.runs.labels import label_account, say_account, warn_of_untrained
    from medssml.runs.mixed_batches import batches_of, say_others
    from medssml.runs.obstructed import obstructed
    from medssml.runs.run_folder import RunFolder
    from medssml.runs.shown_config import shown
    from medssml.runs.source import source
    from medssml.runs.training_config import with_precision
    from medssml.trainers.ranks import is_first
    from medssml.verbs.pretrain import inputs, trainer_overrides

    told = trainer_overrides(seed=seed, device=device, devices=devices, num_nodes=num_nodes, precision=precision)
    told += [] if freeze is None else [f"freeze={freeze}"]
    settings, resolved, origins = _read(checkpoint, config, architecture, [*overrides, *told], plugins)
    if print_config or print_slurm:
        return shown(settings, resolved, origins, slurm=print_slurm)
    missing = [flag for flag, given in (("--checkpoint", checkpoint), ("--task", task), ("--out", out)) if not given]
    if missing or out is None:
        raise ValueError(f"missing {', '.join(missing)}; fix: see medssml finetune --help")
    settings = with_precision(settings)
    ids = pseudonyms(settings.privacy.strict and not dry_run, out)
    folder = RunFolder(out, writes=is_first(settings.trainer))
    folder.tags = _tags(checkpoint, config or architecture)
    place = cache_place(cache, folder.path)
    if not dry_run:
        refuse_overlap(folder.path, {**_runs(checkpoint, settings), **inputs(manifest, shards, data_root, place)})
    table, prepared = source(
        manifest, shards, settings.shards, place,
        modalities=_modalities(checkpoint, settings), ids=ids, data_root=data_root, allow_outside=allow_outside,
        tasks=declared_labels(kind, classes),
    )  # fmt: skip
    table, damages, _ = obstructed(table, settings.data.obstacles, plugins)
    chosen, tasks = _studies_and_tasks(table, task, settings, labels)
    settings = replace(settings, tasks=tasks, labels=labels, start=_start(checkpoint), targets=[*kind, *classes])
    account = label_account(chosen, tasks)
    say_account(account)
    warn_of_untrained(account)
    if settings.unlabelled:
        say_others(chosen)
    if dry_run:
        return _rehearse(settings, chosen, prepared, checkpoint, plugins, damages)
    if folder.done and not fresh:
        folder.begin(settings.written(), table.sha256)
        console.say(f"{out} is done already; fix: --fresh starts over")
        console.tell({"run": str(folder.path), "status": "done before"})
        return folder.path
    # What can be refused is made first: only then does --fresh remove what an earlier run left.
    model, transforms, remarks = _model_and_transforms(settings, chosen, checkpoint, plugins)
    data = training.studies(chosen, transforms, batches_of(settings, chosen), prepared, tasks, damages)
    before = _trained_before(checkpoint, settings, table)
    folder.begin(settings.written(), table.sha256, fresh=fresh)
    with folder.starting(), folder.logging():
        folder.remember(remarks)
        folder.write_labels(account)
        return _run(model, data, remarks, config=settings, folder=folder, track=track, before=before, plugins=plugins)


def _tags(checkpoint: str, config: str | Path | None) -> dict[str, str]:
    from medssml.tracking import parent_tags

    own = {"medssml.verb": "finetune", "medssml.config": "default" if config is None else Path(config).stem}
    return own if checkpoint == "none" else own | parent_tags(checkpoint)


def _runs(checkpoint: str, config: Finetuning) -> dict[str, str | None]:
    """What the messages call each run that this one is made from -> its folder."""
    begun = None if checkpoint == "none" else checkpoint
    return {"--checkpoint": begun, "the teacher": None if config.teacher is None else config.teacher.checkpoint}


def _trained_before(checkpoint: str, config: Finetuning, table: Manifest) -> Collection[str]:
    """The subjects of the pretraining and of the teacher, whom the fine-tuned model has seen as well.

    Raises:
        ValueError: the teacher learned from validation or test subjects.
    """
    from medssml.runs.modality_account import Training
    from medssml.runs.transfer_studies import refuse_seen

    known = {name: set(Training.of(run).subjects) for name, run in _runs(checkpoint, config).items() if run is not None}
    if "the teacher" in known:
        refuse_seen(table, known["the teacher"], "the teacher")
    return set().union(*known.values())


def _modalities(checkpoint: str, config: Finetuning) -> list[str]:
    """What the model reads, and no other list: of the checkpoint, or of the architecture."""
    from medssml.checkpoint import model_folder, read_config

    if config.architecture is not None:
        return list(config.architecture.transforms)
    return list(read_config(model_folder(checkpoint))["modalities"])


def _read(
    checkpoint: str,
    config: Path | str | None,
    architecture: Path | str | None,
    overrides: Sequence[str],
    plugins: Sequence[str],
) -> tuple[Finetuning, dict[str, Any], Lines]:
    """The config of the fine-tuning, with the model and its transforms where it starts from scratch; the same as plain
    values, and where each of them was written."""
    from medssml.config import ConfigError, resolved_config
    from medssml.runs.training_config import Architecture, FinetuneConfig, Finetuning
    from medssml.schema import typed
    from medssml.shipped_configs import config_path

    own = architecture is not None or checkpoint != "none"
    unsaid = "scratch" if checkpoint == "none" else "default"
    settings_file = config_path(unsaid if config is None or not own else config, "finetune")
    if checkpoint != "none":
        if architecture is not None:
            raise ConfigError("--architecture is for --checkpoint none; a checkpoint brings its own; fix: leave it out")
        settings, origins = resolved_config(settings_file, FinetuneConfig, overrides, plugins)
        return typed(Finetuning, settings), settings, origins
    source = architecture or config
    if source is None:
        raise ConfigError("--checkpoint none has no model; fix: --architecture NAME, as of a pretraining")
    scratch, of_scratch = resolved_config(config_path(source, "pretrain"), Architecture, (), plugins)
    settings, origins = resolved_config(settings_file, FinetuneConfig, overrides, plugins)
    taken = {name: scratch[name] for name in ("model", "transforms")}
    origins.given.update({key: of_scratch.where(key) for key in of_scratch.line if key[:1] and key[0] in taken})
    return typed(Finetuning, {**settings, "architecture": taken}), {**taken, **settings}, origins


def _start(checkpoint: str) -> str:
    """What a run begins from, as its config.yaml says it: a hash of the weights, no place."""
    from medssml.runs.inference import weights_hash

    return "scratch" if checkpoint == "none" else weights_hash(checkpoint)


def _studies_and_tasks(
    table: Manifest, task: Sequence[str], settings: Finetuning, share: float
) -> tuple[Manifest, list[str]]:
    """The studies that are labelled, those that are not where the config asks for them, and the tasks that they can teach."""
    from medssml.runs.labels import chosen_tasks, label_account, labelled_studies, learnable, without_discarded
    from medssml.runs.mixed_batches import with_others

    seed = settings.seed
    asked = chosen_tasks(table, task)
    table = without_discarded(table, asked)
    chosen = labelled_studies(table, asked, share, seed=seed)
    every = list([task] if isinstance(task, str) else task) == ["all"]
    tasks = learnable(label_account(chosen, asked), every=every)
    chosen = chosen if tasks == asked else labelled_studies(table, tasks, share, seed=seed)
    return (with_others(table, chosen, tasks) if settings.unlabelled else chosen), tasks


def _model_and_transforms(
    config: Finetuning, table: Manifest, checkpoint: str, plugins: Sequence[str]
) -> tuple[MultimodalModel, dict[str, Any], list[str]]:
    """The model to begin with, its transforms, and what the model or the training studies have alone, which is said."""
    from medssml.model import MultimodalModel
    from medssml.predictor import load_transforms
    from medssml.runs.finetuning import loss_of, modulation_of
    from medssml.runs.fusion_exchange import exchange_fusion
    from medssml.runs.labels import task_records
    from medssml.runs.modality_account import account, having, say
    from medssml.trainers.freezing import freeze_parts
    from medssml.verbs.pretrain import built_model, parts

    remarks: list[str] = []
    if config.architecture is not None:
        fitting, transforms, remarks = parts(config.architecture, table, plugins)
        model = built_model(fitting, config.seed, plugins)
    else:
        model, transforms = MultimodalModel.load(checkpoint, plugins), load_transforms(checkpoint, plugins)
    if config.fusion is not None:
        remarks = [*remarks, exchange_fusion(model, config.fusion, config.seed, plugins)]
    # Refuses what this model cannot freeze; `train_only` freezes once heads are there.
    freeze_parts(model, config.freeze)
    loss, _ = loss_of(config, plugins), modulation_of(config, plugins)
    for name, record in task_records(table, config.tasks).items():
        loss.for_task(name, record)
    then = f"what is learned here ({', '.join(config.tasks)}) is not learned from it"
    read = account(model.modalities, trained=having(table.split("train")), table=table, then=then)
    say(read)
    return model, transforms, [*remarks, *read]


def _learner(
    model: Any, config: Finetuning, table: Manifest, transforms: Mapping[str, Any], plugins: Sequence[str]
) -> Learner:
    import torch

    from medssml.runs.finetuning import learner_of, study_weights, teacher_of
    from medssml.runs.labels import balanced_weights, task_records
    from medssml.trainers.heads import begin_heads

    torch.manual_seed(config.seed)
    records = task_records(table, config.tasks, evidence=config.evidence)
    for line in begin_heads(model, records, config.freeze):
        logging.getLogger(__name__).info("%s", line)
    weights = balanced_weights(table, config.tasks) if config.class_weights == "balanced" else None
    return learner_of(
        config, model, weights, study_weights=study_weights(config, table),
        given=teacher_of(config, transforms, plugins), plugins=plugins,
    )  # fmt: skip


def _run(
    model: MultimodalModel,
    data: StudyDataModule,
    remarks: Sequence[str],
    *,
    config: Finetuning,
    folder: RunFolder,
    track: bool,
    before: Collection[str],
    plugins: Sequence[str],
) -> int | Path:
    from medssml.runs import training
    from medssml.runs.calibration import calibration_of
    from medssml.runs.labels import facts, label_account
    from medssml.runs.modality_account import sentences

    training.prepare(data, folder, before)
    learner = _learner(model, config, data.manifest, data.transforms, plugins)
    if config.probe_first:
        _probe_first(learner, data, config)
    said = sentences(remarks)
    card = {"Training": card_text(config, data, model) + said}
    seen = {**facts(label_account(data.manifest, config.tasks)), **({"remarks": said} if said else {})}
    finish = calibration_of(model, data, config)
    outcome = training.train(learner, data, folder, config, track=track, facts=seen, card=card, finish=finish)
    return training.conclude(outcome, data, folder)


def _probe_first(learner: Learner, data: StudyDataModule, config: Finetuning) -> None:
    """Every rank fits the same heads from the same studies; a run that is continued takes its own weights afterwards."""
    from medssml.evaluation.encoded_studies import encode_studies
    from medssml.runs.finetuning import counted_labels
    from medssml.trainers.learner import evaluating
    from medssml.trainers.probe_first import fit_heads

    # A fusion that imputes has to know what it will fill in, or heads would begin for vectors that no study has.
    with evaluating(learner):
        learner.model.fit_descriptors(data.loader("train"))
        learner.model.fit_fusion(data.loader("train"))
    studies = encode_studies(learner.model, data.loader("train"))
    weights = counted_labels(config, data.manifest)
    for task, said in fit_heads(learner.model, config.tasks, studies, config.seed, weights).items():
        logging.getLogger(__name__).info("%s: %s", task, said)
    learner.train()


def card_text(config: Finetuning, data: StudyDataModule, model: Any) -> str:
    """What the model card says of this training."""
    from medssml.runs.mixed_batches import others

    weights = which_weights(config.trainer)
    begun = "from scratch" if config.start == "scratch" else f"from a pretrained model ({config.start})"
    train = data.manifest.split("train")
    beside = others(train)
    count = f"{len(train) - beside} labelled studies" + (
        f", and {beside} without a label beside them" if beside else ""
    )
    unread = [task for task in model.tasks if task not in config.tasks]
    adapters = "" if config.lora is None else f", adapters of rank {config.lora.rank}"
    calibrated = (
        " Answers are calibrated on validation studies, for each subset of modalities." if config.calibrate else ""
    )
    stay = f" The heads of {', '.join(unread)} are as they were, like all that they read." if unread else ""
    return (
        f"Trained {begun} for {', '.join(config.tasks)} on {count}; freeze: {config.freeze}{adapters}. "
        f"{weights[0].upper()}{weights[1:]}.{calibrated}{stay}"
    )


def which_weights(trainer: TrainerSettings) -> str:
    """Which of the weights that a training passes through are kept, in words."""
    kept = "the running mean of the weights" if trainer.ema is not None else "the weights"
    if trainer.validate_every == 0:
        return f"a fixed length of training, {kept} at its end"
    return f"{kept} at the best score on the validation studies"


def _rehearse(
    config: Finetuning,
    table: Manifest,
    prepared: Any,
    checkpoint: str,
    plugins: Sequence[str],
    damages: Sequence[Damage],
) -> dict[str, Any]:
    from medssml.runs import training
    from medssml.runs.mixed_batches import batches_of
    from medssml.runs.rehearsal import rehearse

    model, transforms, _ = _model_and_transforms(config, table, checkpoint, plugins)
    data = training.studies(table, transforms, batches_of(config, table), prepared, config.tasks, damages)
    return rehearse(lambda few: _learner(model, config, few.manifest, transforms, plugins), data, config.trainer)
