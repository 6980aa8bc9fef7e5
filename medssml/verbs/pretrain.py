"""medssml pretrain: a model learns from studies without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.data.datamodule import StudyDataModule
    from medssml.manifest.manifest import Manifest
    from medssml.obstacles import Damage
    from medssml.runs.run_folder import RunFolder
    from medssml.runs.training_config import A, Architecture, PretrainConfig
    from medssml.trainers.learner import Learner


def pretrain(
    *,
    config: Path | str = "default",
    manifest: Path | None = None,
    shards: str | None = None,
    out: Path | None = None,
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
    """Learns from the training studies of a manifest, without their labels, and writes a run folder.

    The same command run again continues where it stopped; a run that is done is left as it is. Studies with a file that
    cannot be used are listed in problems.csv and left out. Validation studies are looked at, never trained on.

    Args:
        config: model, transforms, objectives and settings: a file, or the name of a shipped one such as cohort or
            smoke/pretrain. By default our recipe, docs/methods/comparison.md, at sizes for whole chests; medssml plan fits them.
        manifest: the study table, CSV or Parquet.
        shards: in place of a manifest, where medssml prepare --shards wrote: a folder, or a URL such as s3://bucket/cohort.
        out: run folder (needed, but for --print-config and --print-slurm).
        overrides: any key of the config, as KEY.PATH=VALUE; may be given several times.
        seed: of weights, order, augmentation and masks.
        device: auto, cpu or cuda.
        devices: how many devices on each machine.
        num_nodes: how many machines.
        precision: auto, 32 or bf16-mixed.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plugins: a package of yours that the config may name classes from; may be given several times.
        fresh: start over, removing what an earlier run left in the folder.
        dry_run: a few steps on studies of every pattern: time, memory, and nothing written.
        print_config: the resolved config on stdout, with where each value comes from; nothing else is done.
        print_slurm: a SLURM script that runs this command, on stdout; nothing else is done.
        track: log to MLflow, in the run folder or where MLFLOW_TRACKING_URI says.

    Returns:
        the run folder; an exit code where the run was stopped (75, 130) or lost too many studies (4).

    Raises:
        medssml.config.ConfigError: a wrong key or value. medssml.manifest.table_text.ManifestError: a wrong table.
        RunFolderError: the folder holds another run.
    """
    from medssml.config import resolved_config
    from medssml.privacy import pseudonyms
    from medssml.runs import console, training
    from medssml.runs.cache_place import cache_place
    from medssml.runs.inputs import refuse_overlap
    from medssml.runs.obstructed import obstructed
    from medssml.runs.run_folder import RunFolder
    from medssml.runs.shown_config import shown
    from medssml.runs.source import source
    from medssml.runs.training_config import PretrainConfig, with_precision
    from medssml.schema import typed
    from medssml.shipped_configs import config_path
    from medssml.trainers.ranks import is_first

    told = trainer_overrides(seed=seed, device=device, devices=devices, num_nodes=num_nodes, precision=precision)
    resolved, origins = resolved_config(config_path(config, "pretrain"), PretrainConfig, [*overrides, *told], plugins)
    settings = typed(PretrainConfig, resolved)
    if print_config or print_slurm:
        return shown(settings, resolved, origins, slurm=print_slurm)
    if out is None:
        raise ValueError("missing --out; fix: a run folder, such as --out runs/pretrain")
    settings = with_precision(settings)
    ids = pseudonyms(settings.privacy.strict and not dry_run, out)
    folder = RunFolder(out, writes=is_first(settings.trainer))
    folder.tags = {"medssml.verb": "pretrain", "medssml.config": Path(config).stem}
    place = cache_place(cache, folder.path)
    if not dry_run:
        teacher = None if settings.teacher is None else settings.teacher.checkpoint
        refuse_overlap(folder.path, {**inputs(manifest, shards, data_root, place), "the teacher": teacher})
    table, prepared = source(
        manifest, shards, settings.shards, place,
        modalities=list(settings.transforms), ids=ids, data_root=data_root, allow_outside=allow_outside,
    )  # fmt: skip
    table, damages, _ = obstructed(table, settings.data.obstacles, plugins)
    if dry_run:
        return rehearsed(settings, table, prepared, plugins, damages)
    if folder.done and not fresh:
        folder.begin(settings.written(), table.sha256)
        console.say(f"{out} is done already; fix: --fresh starts over")
        console.tell({"run": str(folder.path), "status": "done before"})
        return folder.path
    # What can be refused is made first: only then does --fresh remove what an earlier run left.
    fitting, transforms, remarks = parts(settings, table, plugins)
    learner, left_out = _learner(fitting, settings, plugins)
    data = training.studies(table, transforms, settings, prepared, damages=damages)
    folder.begin(settings.written(), table.sha256, fresh=fresh)
    with folder.starting(), folder.logging():
        return _run(learner, data, [*remarks, *left_out], config=settings, folder=folder, track=track)


def inputs(
    manifest: Path | None, shards: str | None, data_root: Path | None, cache: Path | None
) -> dict[str, str | Path | None]:
    """Flag -> what a training reads from there."""
    home = None if manifest is None else Path(manifest).parent
    return {
        "--manifest": manifest,
        "the folder of --manifest": home,
        "--shards": shards,
        "--data-root": data_root,
        "--cache": cache,
    }


def _run(
    learner: Learner,
    data: StudyDataModule,
    remarks: Sequence[str],
    *,
    config: PretrainConfig,
    folder: RunFolder,
    track: bool,
) -> int | Path:
    from medssml.runs import modality_account, training

    read = modality_account.account(learner.model.modalities, trained=None, table=data.all_studies)
    modality_account.say(read)
    remarks = [*remarks, *read]
    folder.remember(remarks)
    training.prepare(data, folder)
    said = modality_account.sentences(remarks)
    card = {"Training": f"Pretrained without labels on {len(data.manifest.split('train'))} studies.{said}"}
    facts = {"remarks": said} if said else {}
    outcome = training.train(learner, data, folder, config, track=track, facts=facts, card=card)
    return training.conclude(outcome, data, folder)


def rehearsed(
    config: PretrainConfig, table: Manifest, prepared: Any, plugins: Sequence[str], damages: Sequence[Damage] = ()
) -> dict[str, Any]:
    """What a training would take; see `medssml.runs.rehearsal.rehearse`."""
    from medssml.runs import training
    from medssml.runs.rehearsal import rehearse

    fitting, transforms, _ = parts(config, table, plugins)
    data = training.studies(table, transforms, config, prepared, damages=damages)
    return rehearse(lambda _: _learner(fitting, config, plugins)[0], data, config.trainer)


def parts(config: A, table: Manifest, plugins: Sequence[str]) -> tuple[A, dict[str, Any], list[str]]:
    """The config for the modalities that training studies have, its transforms built, and what was left out, which is said."""
    from medssml.runs.modality_account import account, having, say
    from medssml.runs.training_config import for_modalities
    from medssml.transforms.road import built_road

    train = table.split("train")
    trained = having(train)
    remarks = account(list(config.transforms), trained=trained, then="left out of the model")
    fitting, left_out = for_modalities(config, [name for name in config.transforms if name in trained], plugins)
    remarks += left_out
    say(remarks)
    built = {name: built_road(name, part, plugins, f"transforms.{name}") for name, part in fitting.transforms.items()}
    return fitting, built, remarks


def built_model(config: PretrainConfig | Architecture, seed: int, plugins: Sequence[str]) -> Any:
    """The model of a config, its weights drawn from `seed`."""
    import torch

    from medssml.config import build
    from medssml.model import MultimodalModel

    torch.manual_seed(seed)
    return build(config.model, MultimodalModel, plugins=plugins, at="model")


def _learner(fitting: PretrainConfig, config: PretrainConfig, plugins: Sequence[str]) -> tuple[Learner, list[str]]:
    """The model of `fitting`, what `config` is for these studies, with what it learns, and a line for each objective that
    needs a part which was left out."""
    from medssml.config import ConfigError, LeftOut, build
    from medssml.model import MultimodalModel
    from medssml.objectives.base import Objective
    from medssml.runs.modality_account import say
    from medssml.trainers.learner import Learner

    model = built_model(fitting, config.seed, plugins)
    gone = set(config.transforms) - set(fitting.transforms)
    objectives, remarks = [], []
    for index, part in zip(_places(config.objectives, fitting.objectives), fitting.objectives, strict=True):
        try:
            objectives.append(build(part, Objective, plugins=plugins, at=f"objectives.{index}", model=model))
        except LeftOut as error:
            said = f"{part['class_path'].rpartition('.')[2]} is left out: it {error}"
            if not gone:
                raise ConfigError(f"key 'objectives.{index}': {said}; fix: another encoder, or leave it out") from error
            remarks.append(said)
    if not objectives:
        raise ValueError(
            f"nothing is left to learn: {'; '.join(remarks)}; fix: another config, or studies that have it"
        )
    say(remarks)
    given = None if config.teacher is None else MultimodalModel.load(config.teacher.checkpoint, plugins)
    return Learner(model, objectives, config.optim.without(gone), given=given, seed=config.seed), remarks


def _places(objectives: Sequence[Any], left: Sequence[Any]) -> list[int]:
    """Where the objectives that are left stand in the config, which messages name."""
    rest = iter(enumerate(objectives))
    return [next(place for place, node in rest if node["class_path"] == part["class_path"]) for part in left]


def trainer_overrides(*, seed: int | None, **trainer: Any) -> list[str]:
    """The flags that stand for keys of the config."""
    told = [f"trainer.{name}={value}" for name, value in trainer.items() if value is not None]
    return told if seed is None else [*told, f"seed={seed}"]
